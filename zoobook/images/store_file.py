"""The file of an image store, while it is made: pixels are decoded into their final place, then an Arrow file is
completed around them. So there is one copy on disk, and whatever is interrupted goes on.
"""

import errno
import io
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from zoobook import arguments
from zoobook.files import atomic_write, check_room, explain_full_disk, replacing

PIXELS_AT = 4096  # where the pixels begin: behind any header, and at the beginning of a page of memory
_BATCH = 512  # images decoded between two looks at the results: bounds the memory


class UnfinishedStore:
    """Pixels in their place in ``….part``, and for each row, in ``….part.keys``, the key of the file decoded into it.

    A row counts as done when its key is the key wanted: a file replaced since is decoded again, and the others are not.
    It is an OSError where the disk has too little room for the finished store at ``path``, or fills up.
    """

    def __init__(self, path: Path, count: int, size: int):
        self.path, self.count, self.size, self.row_bytes = path, count, size, 3 * size**2
        self.part, self.keys = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.keys")
        if not self.part.exists() or not self.keys.exists() or self.keys.stat().st_size != 8 * count:
            self.part.unlink(missing_ok=True)
            self.keys.unlink(missing_ok=True)
        have = self.part.stat().st_size if self.part.exists() else 0
        what, instead = f"{count} images of {size} × {size} pixels need", "another folder or a smaller size"
        check_room(path.parent, PIXELS_AT + count * self.row_bytes - have, what, instead)
        if not self.keys.exists():
            self.part.touch()
            atomic_write(self.keys, bytes(8 * count))  # 0: not done

    def fill(
        self,
        rowkeys: np.ndarray,
        decode: Callable[[int], tuple[np.ndarray | None, str]],
        pool: ThreadPoolExecutor,
    ) -> dict[int, str]:
        """Decode what is not yet done, and say what is wrong with each bad row.

        What should be in a row is told by ``rowkeys``, uint64 [N], never 0. ``decode`` gives the image of a row, uint8
        [size, size, 3], or None and what is wrong with it.
        """
        keys = np.memmap(self.keys, np.uint64, "r+")
        keys[keys != rowkeys] = 0  # made of other files, or of another size
        todo, causes = np.flatnonzero(keys == 0), {}
        with (
            explain_full_disk(self.path.parent),
            open(self.part, "r+b", buffering=0) as file,
            tqdm(total=self.count, initial=self.count - len(todo), desc="decoding images", unit=" images") as bar,
        ):
            for start in range(0, len(todo), _BATCH):
                batch = todo[start : start + _BATCH]
                for row, (image, cause) in zip(batch, pool.map(decode, batch), strict=True):
                    bar.update()
                    if image is None:
                        causes[int(row)] = cause
                    else:
                        self._put(file, int(row), image.tobytes())
                        keys[row] = rowkeys[row]  # after its pixels, never before
        return causes

    def finish(self, ids: np.ndarray, left_out: pd.DataFrame, about: dict) -> None:
        """Make the store of the rows that are not left out; those are listed by row, see :func:`complete`."""
        good = np.setdiff1d(np.arange(self.count), left_out.index)
        moved = np.flatnonzero(good != np.arange(len(good)))
        with explain_full_disk(self.path.parent):
            if len(moved):
                np.memmap(self.keys, np.uint64, "r+")[moved[0] :] = 0  # if this is interrupted, they count as not done
                with open(self.part, "r+b", buffering=0) as file:
                    for row in moved:
                        file.seek(PIXELS_AT + int(good[row]) * self.row_bytes)
                        self._put(file, int(row), file.read(self.row_bytes))
            complete(self.part, self.path, ids[good], left_out, about)
        self.keys.unlink()

    def _put(self, file: io.RawIOBase, row: int, data: bytes) -> None:
        file.seek(PIXELS_AT + row * self.row_bytes)
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "No space left on device")


def complete(part: Path, path: Path, ids: np.ndarray, left_out: pd.DataFrame, about: dict) -> None:
    """Make of a file with pixels from ``PIXELS_AT`` on an Arrow file, and give it its name.

    The table of what was ``left_out`` goes beside it; ``about`` is what the store states: key, size and framing.
    """
    if len(left_out):
        with replacing(quarantine_file(path)) as table:
            left_out.to_parquet(table, index=False)
    else:
        quarantine_file(path).unlink(missing_ok=True)
    pixels = np.memmap(part, np.uint8, "r", PIXELS_AT, (len(ids), about["size"], about["size"], 3))
    text = json.dumps({**about, "left_out": len(left_out), "crc32": checksum(pixels, ids)})
    before, _ = _around(pixels, ids, text)
    before, after = _around(pixels, ids, text + " " * (PIXELS_AT - len(before)))
    assert len(before) == PIXELS_AT
    with open(part, "r+b") as file:
        file.write(before)
        file.seek(PIXELS_AT + pixels.size)
        file.write(after)
        file.truncate()
    del pixels  # Windows renames no file that is mapped
    os.replace(part, path)


def checksum(pixels: np.ndarray, ids: np.ndarray) -> int:
    """CRC-32 of a store's pixels and ids, by which damage on the disk is noticed."""
    total = zlib.crc32("\n".join(ids).encode())
    for start in range(0, len(pixels), _BATCH):
        total = zlib.crc32(pixels[start : start + _BATCH], total)
    return total


def store_path(path: str | os.PathLike) -> Path:
    """Where a store is, of which a link may only tell: a link stays one, and the other files lie beside the store."""
    return Path(os.path.realpath(arguments.path(path)))


def quarantine_file(path: Path) -> Path:
    """Where the table of the images is that a store leaves out."""
    return path.with_name(f"{path.name}.quarantine.parquet")


def _around(pixels: np.ndarray, ids: np.ndarray, about: str) -> tuple[bytes, bytes]:
    """What stands before and after the pixels in an Arrow file: one record batch, so that they are one block of it."""
    tensor = pa.fixed_shape_tensor(pa.uint8(), pixels.shape[1:])
    flat = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
    images = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(pixels.shape[1:])))
    columns = [pa.ExtensionArray.from_storage(tensor, images), pa.array(ids, pa.string())]
    schema = pa.schema([("image", tensor), ("id_str", pa.string())], metadata={"zoobook": about})
    sink = _AllBut(pixels)
    large = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2**31 bytes of pixels are quite usual
    with pa.ipc.new_file(sink, schema, options=large) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    before, after = (b"".join(pieces) for pieces in sink.pieces)
    return before, after


class _AllBut(io.RawIOBase):
    """Takes what Arrow writes, but for the pixels, which are on the disk already."""

    def __init__(self, pixels: np.ndarray):
        self.address, self.position = pixels.ctypes.data, 0
        self.pieces: tuple[list[bytes], list[bytes]] = [], []  # before the pixels, after them
        self.behind = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def write(self, data: bytes | pa.Buffer) -> int:
        if isinstance(data, pa.Buffer) and data.address == self.address:
            self.behind = True
        else:
            self.pieces[self.behind].append(bytes(data))
        self.position += len(data)
        return len(data)
