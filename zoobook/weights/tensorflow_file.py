"""Reads TensorFlow checkpoints with NumPy alone.

A checkpoint is an index and one or more files of raw numbers. The index is a sorted string table in LevelDB's format
(its ``doc/table_format.md``); each of its values is a small protocol buffer that says where a tensor lies
(``BundleEntryProto`` in TensorFlow's ``tensor_bundle.proto``).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_SHARDS = 1000  # no checkpoint of one model has more
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 10: "?", 19: "<f2"}  # numbers of TensorFlow's DataType
_BYTES = np.arange(256)  # what each byte does to a checksum
for _ in range(8):
    _BYTES = np.where(_BYTES & 1, _BYTES >> 1 ^ 0x82F63B78, _BYTES >> 1)
_BYTES = _BYTES.tolist()  # of which Python reads single numbers faster


def read(prefix: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by key; texts, such as the graph of the program, are left out.

    Its files are ``{prefix}.index`` and ``{prefix}.data-00000-of-00001`` …; it is a ``ValueError`` where they are not
    whole or not of this kind.
    """
    index = Path(f"{prefix}.index")
    try:
        entries = dict(_table(index.read_bytes()))
        shards = _fields(entries.pop(b"")).get(1, [1])[0]
        if not 0 < shards <= _SHARDS:
            raise KeyError(f"it speaks of {shards} data files")
        files = [Path(f"{prefix}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"the checkpoint {prefix} is not whole: {', '.join(missing[:4])} is not beside its index")
        data = [np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8) for file in files]
        tensors = {key.decode(): _tensor(key.decode(), _fields(entry), data, files) for key, entry in entries.items()}
    except (KeyError, IndexError, TypeError, AttributeError, struct.error, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"{index} is not a whole index of a TensorFlow checkpoint ({error!r})") from None
    return {key: array for key, array in tensors.items() if array is not None}


def _tensor(key: str, entry: dict, data: list[np.ndarray], files: list[Path]) -> np.ndarray | None:
    dtype = _DTYPES.get(entry.get(1, [0])[0])
    if dtype is None:
        return None
    shape = [_fields(axis).get(1, [0])[0] for axis in _fields(entry.get(2, [b""])[0]).get(2, [])]
    start, size = entry.get(4, [0])[0], entry.get(5, [0])[0]
    number = entry.get(3, [0])[0]
    shard, file = data[number], files[number]
    if start + size > len(shard) or size != np.dtype(dtype).itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{file}: the data of {key} are cut short; fetch this file again")
    content = shard[start : start + size].tobytes()
    if 6 in entry and entry[6][0] != _masked(checksum(content)):
        raise ValueError(f"{file}: the data of {key} are damaged (their checksum is wrong); fetch this file again")
    return np.frombuffer(content, dtype).reshape(shape)


def checksum(content: bytes) -> int:
    """CRC-32C (Castagnoli), which TensorFlow keeps of each tensor."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _BYTES[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _masked(value: int) -> int:
    """A checksum as TensorFlow stores it."""
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted string table."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise KeyError("the mark at its end is missing")
    _, at = _place(content, len(content) - _FOOTER)  # of a block that does not matter here
    place, _ = _place(content, at)
    for _, value in _block(content, *place):
        yield from _block(content, *_place(value, 0)[0])


def _place(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    start, at = _varint(content, at)
    size, at = _varint(content, at)
    return (start, size), at


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; each key gives only what differs from the end of the one before."""
    if content[start + size] != 0:
        raise KeyError("it is compressed")
    block = content[start : start + size]
    end, at, key = len(block) - 4 * (struct.unpack("<I", block[-4:])[0] + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + added]
        yield key, block[at + added : at + added + length]
        at += added + length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _fields(message: bytes) -> dict[int, list]:
    """The fields of a protocol buffer by number; each may occur several times."""
    found: dict[int, list] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = int.from_bytes(message[at : at + width], "little"), at + width
        else:
            raise KeyError(f"a field of the unknown kind {wire}")
        found.setdefault(number, []).append(value)
    return found
