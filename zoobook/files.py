"""Files and folders that zoobook writes: whole or absent, and a plain word where they cannot be written."""

import contextlib
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from zoobook import arguments

_PIECES = 2048  # of a megabyte


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name under which to write a file that is never seen half-written: then it gets its own, or goes."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file", str(path))
    path = Path(os.path.realpath(path))  # a link stays one
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed, and nobody else's files."""
    for left_over in folder.glob("*.part"):
        found = re.search(r"\.(\d+)-\d+\.part$", left_over.name)
        if found and int(found[1]) != os.getpid():  # this process may be writing another one just now
            left_over.unlink(missing_ok=True)


def state(file: str | os.PathLike) -> tuple[str, int, int]:
    """By what one tells that a file is another now, as rsync does: where links lead, its size and its age [ns]."""
    seen = os.stat(file)
    return os.path.realpath(file), seen.st_size, seen.st_mtime_ns


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a small file so that it is never seen half-written; text is encoded as UTF-8."""
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def ensure_writable_dir(path: str | os.PathLike) -> Path:
    """Make a folder to write to, with its parents, and give back its absolute path."""
    path = arguments.path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # without a name, so that nobody takes it for a left-over
            pass
    except OSError as error:
        remedy = " or free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise type(error)(
            f"cannot write to the folder {path}: {error.strerror or error}. Choose another folder{remedy}."
        ) from None
    return path


def check_replaceable(
    path: Path, begins: bytes, problem: str = "is there already, and is something else than what would be written in "
    "its place: choose another name"
) -> None:  # fmt: skip
    """Refuse, before work begins, to write over a folder, or a file that ``begins`` in another way (a catalogue)."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if not re.match(begins, file.read(4096), re.DOTALL):
                raise ValueError(f"{path} {problem}")


class NoRoom(OSError):
    """A disk is full; the message says which, and what to do."""


def check_room(
    folder: Path, need: int, what: str, instead: str = "another folder (`root=`, or $ZOOBOOK_HOME)"
) -> None:
    """Check, before anything is written, that a disk has ``need`` bytes; ``what`` is such as "the images need"."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise NoRoom(
            errno.ENOSPC,
            f"{what} {need:,} bytes more in {folder}, which has {free:,} free. Free some space, or choose {instead}.",
        )


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Where long work writes to a folder: a disk that fills up is said plainly, with what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NoRoom) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        remedy = "let it be written to" if error.errno == errno.EROFS else "free some space"
        raise NoRoom(
            error.errno, f"cannot write to the folder {folder}: {os.strerror(error.errno)}. What is finished is kept: "
            f"{remedy}, and run again to go on."
        ) from None  # fmt: skip


@contextlib.contextmanager
def unpacked(file: BinaryIO) -> Iterator[BinaryIO | gzip.GzipFile]:
    """A file, without its gzip packing if it has one; then read to its end at last, where its checksum is."""
    begin = file.read(2)
    file.seek(0)
    if begin != b"\x1f\x8b":
        yield file
        return
    with gzip.open(file) as inside:
        yield inside
    file.seek(0)
    with gzip.open(file) as inside:  # again, since who reads FITS goes to and fro in it, and closes it
        for _ in range(_PIECES):
            if not inside.read(1 << 20):
                return
    raise ValueError("what is packed in it goes on for gigabytes")


def fingerprint(*parts: Any) -> str:
    """A short, stable digest (16 hexadecimal digits): equal content gives equal text on any machine.

    Args:
        *parts: NumPy arrays, DataFrames, or anything that JSON can hold.

    >>> fingerprint({"epochs": 3}, [1, 2]) == fingerprint({"epochs": np.int64(3)}, [1, 2])
    True
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, pd.DataFrame):
            digest.update(part.to_csv(index=False).encode())
        elif isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=arguments.plain).encode())
        digest.update(b"\0")
    return digest.hexdigest()
