"""Images: a survey's images in one memory-mapped file that both frameworks read.

The files are decoded once into an :class:`ImageStore`: an Arrow file with ``id_str`` and a fixed-shape tensor column
``image`` (uint8, [size, size, 3]). After that an image costs a memory read, not a decode.
"""
from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from zoobook import arguments
from zoobook.catalogs import check_ids, tables
from zoobook.files import atomic_write, ensure_writable_dir, fingerprint
from zoobook.images.decoding import MOST_BLANK, SMALLEST, BadImage, read_image
from zoobook.images.views import DECALS_FRAMING, check_radii

__all__ = ["BadImage", "ImageStore", "read_image"]

_VERSION = 2  # of the store's layout and of everything that decides a pixel
_BATCH = 512  # images decoded between two looks at the results: bounds the memory
_SHOWN = 5


class ImageStore:
    """The images of a catalogue in one memory-mapped file. Make one with :meth:`build` or :meth:`open`.

    Attributes:
        path: the file.
        ids: [N] ``str`` (dtype object), in row order.
        pixels: [N, size, size, 3] uint8, memory-mapped and read-only.
        size: side of the images in pixels.
        framing: side of the images in units of the galaxy's half-light radius R50.
    """

    def __init__(self, path: Path, ids: np.ndarray, pixels: np.ndarray, about: dict):
        self.path, self.ids, self.pixels, self._about = path, ids, pixels, about
        self.size = about["size"]
        self.framing = about.get("framing", DECALS_FRAMING)  # stores of earlier versions do not state it
        self._index: pd.Index | None = None

    @classmethod
    def build(
        cls,
        catalog: pd.DataFrame,
        path: str | os.PathLike,
        size: int,
        bad: str = "error",
        framing: float = DECALS_FRAMING,
        max_blank: float = MOST_BLANK,
    ) -> ImageStore:
        """Decode every image of a catalogue into a store, unless that has been done.

        Images are cut to their central square and resized to ``size`` (antialiased). Decoding is parallel and may be
        interrupted: run again, it goes on. The store is keyed by the ids, the files (path, length, time of change)
        and the size, so a second run only looks at the files, and changed files are decoded again. Needs room for the
        pixels twice, N × size² × 3 bytes each, while it finishes.

        Args:
            catalog: ``id_str`` and ``file_loc``.
            path: the store, such as ``images_64.arrow``; ``….quarantine.parquet`` beside it names the files left out.
            size: side of the stored images in pixels.
            bad: a bad file is an error (``"error"``; raised once all files have been tried, and naming them), or is
                left out and listed in :attr:`quarantine` (``"quarantine"``).
            framing: side of the images in units of the galaxy's half-light radius R50, which decides how large a model
                sees the galaxies; for data sets by name :func:`zoobook.datasets.framing` knows it. A stamp of GZ
                DECaLS has 17; a picture that the galaxy fills, about 6.
            max_blank: share of an image, from 0 to 1, that may be blank (NaN, or in rows or columns of one single
                value, as beyond the edge of a survey) before it counts as bad.

        Returns:
            ImageStore: the open store, rows in catalogue order.

        Raises:
            BadImage: files are bad; the good ones stay decoded for the next run.
            ValueError: the catalogue is empty or lacks a column, its ids are bad, or an argument is unknown.
            OSError: the folder cannot be written to, or the disk has too little room.
        """
        if bad not in ("error", "quarantine"):
            raise ValueError(f"bad must be 'error' or 'quarantine', not {bad!r}")
        size, max_blank = arguments.whole("size", size, SMALLEST), arguments.share("max_blank", max_blank)
        framing = check_radii("framing", framing)
        if "file_loc" not in catalog.columns:
            raise ValueError("the catalogue has no column `file_loc` with the paths of the images")
        if len(catalog) == 0:
            raise ValueError("the catalogue is empty, so there are no images to store")
        ids = check_ids(catalog)
        files = [os.path.abspath(arguments.path(file)) for file in catalog["file_loc"].astype(str)]
        path = arguments.path(path)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rowkeys = np.array(list(pool.map(lambda file: _rowkey(file, size, max_blank), files)), dtype=np.uint64)
            key = fingerprint(ids.tolist(), files, rowkeys, size, _VERSION)
            store = cls.finished(path, key)  # looked at without a lock: a finished store may be in a read-only folder
            if store is None or store.framing != framing:
                ensure_writable_dir(path.parent)
                with FileLock(path.with_name(f".{path.name}.lock")):
                    store = cls.finished(path, key)  # another process may just have made it
                    if store is None:
                        about = {"key": key, "size": size, "framing": framing}
                        store = cls._make(path, about, ids, files, rowkeys, bad, max_blank, pool)
                    elif store.framing != framing:  # the pixels stay
                        _write(path, store.ids, store.pixels, store.quarantine, store._about | {"framing": framing})
                        store = cls.open(path)
        if bad == "error" and len(store.quarantine):
            left_out = store.quarantine
            raise _bad_files(left_out["file_loc"].tolist(), left_out["cause"].tolist(), len(ids), path)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike) -> ImageStore:
        """Open a finished store; nothing is read until it is asked for.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image store, or not a whole one.
        """
        path = arguments.path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no image store at {path}; make one with ImageStore.build")
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            about = json.loads(reader.schema.metadata[b"zoobook"])
            batch = reader.get_batch(0)
            ids = batch.column("id_str").to_numpy(zero_copy_only=False)
            values = batch.column("image").storage.flatten()
            pixels = np.frombuffer(values.buffers()[1], np.uint8, len(values), values.offset)
            pixels = pixels.reshape(len(ids), about["size"], about["size"], 3)
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{path} is not an image store, or was cut short ({reason}). Delete it and build it again."
            ) from None
        return cls(path, ids, pixels, about)

    @property
    def quarantine(self) -> pd.DataFrame:
        """The files that were left out: ``id_str``, ``file_loc``, ``cause``."""
        if not self._about["left_out"]:
            return pd.DataFrame({name: pd.Series(dtype=object) for name in ("id_str", "file_loc", "cause")})
        return pd.read_parquet(_quarantine_file(self.path))

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Where galaxies are in the store.

        Args:
            ids: their ``id_str``; whole numbers count as their digits.

        Returns:
            ndarray: int64 rows of :attr:`pixels`, in the order asked for.

        Raises:
            ValueError: some are not in the store.
        """
        if self._index is None:
            self._index = pd.Index(self.ids, dtype=object)
        ids = tables.ids_of(ids)
        rows = self._index.get_indexer(ids).astype(np.int64)
        unknown = ids[rows < 0]
        if len(unknown):
            shown = ", ".join(map(repr, unknown[:_SHOWN])) + (" …" if len(unknown) > _SHOWN else "")
            raise ValueError(
                f"{len(unknown)} of {len(ids)} galaxies are not in the image store {self.path}: {shown}. It was built "
                "from another catalogue, or their images are in its quarantine."
            )
        return rows

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ImageStore({str(self.path)!r}, {len(self)} images of {self.size} × {self.size} pixels)"

    def __reduce__(self):
        return ImageStore.open, (str(self.path),)  # a worker process maps the file itself

    @classmethod
    def _make(cls, path, about, ids, files, rowkeys, bad, max_blank, pool) -> ImageStore:
        """Decode what is not decoded yet and write the store; called under its lock."""
        decoded = _Partial(path, len(ids), about["size"])
        causes = decoded.fill(files, rowkeys, max_blank, pool)
        rows, why = list(causes), list(causes.values())
        if causes and (bad == "error" or len(causes) == len(ids)):
            raise _bad_files([files[row] for row in rows], why, len(ids), path)
        left_out = pd.DataFrame({"id_str": ids[rows], "file_loc": [files[row] for row in rows], "cause": why})
        good = np.setdiff1d(np.arange(len(ids)), rows)
        _write(path, ids[good], decoded.compact(good), left_out, about)
        decoded.remove()
        return cls.open(path)

    @classmethod
    def write(
        cls, path: Path, ids: np.ndarray, pixels: np.ndarray, framing: float, key: str, left_out: pd.DataFrame
    ) -> ImageStore:
        """Write pixels that are in memory or mapped as a store.

        Args:
            path: the store.
            ids: [N] of ``str``.
            pixels: uint8 [N, size, size, 3].
            framing: see :meth:`build`.
            key: of what they were made of, see :meth:`finished`.
            left_out: what is missing: ``id_str``, ``file_loc``, ``cause``.
        """
        about = {"key": key, "size": pixels.shape[1], "framing": framing}
        _write(path, ids, np.ascontiguousarray(pixels), left_out, about)
        return cls.open(path)

    @classmethod
    def finished(cls, path: Path, key: str) -> ImageStore | None:
        """The store at this path, if it is whole and made of the same input.

        Args:
            path: the store.
            key: fingerprint of the input.
        """
        try:
            store = cls.open(path)
        except (FileNotFoundError, ValueError):
            return None
        return store if store._about["key"] == key else None


class _Partial:
    """A store in the making: raw pixels, and for each row the key of the file that was decoded into it.

    A row counts as done when its key is the key wanted, so a file mended since is decoded again and the others are not.
    """

    def __init__(self, path: Path, count: int, size: int):
        self.shape = (count, size, size, 3)
        self.row_bytes = size * size * 3
        self.pixels = path.with_name(f"{path.name}.part")
        self.keys = path.with_name(f"{path.name}.part.keys")
        if not self.pixels.exists() or not self.keys.exists() or self.keys.stat().st_size != 8 * (count + 1):
            self.remove()
        elif np.fromfile(self.keys, np.uint64, 1)[0] != size:
            self.remove()
        have = self.pixels.stat().st_size if self.pixels.exists() else 0
        need, free = 2 * count * self.row_bytes - have, shutil.disk_usage(path.parent).free
        if need > free:
            raise OSError(
                errno.ENOSPC,
                f"{count} images of {size} × {size} pixels need {need:,} bytes more in {path.parent}, which has "
                f"{free:,} free. Free some space, or choose another folder or a smaller size.",
            )
        if not self.keys.exists():
            self.pixels.touch()
            atomic_write(self.keys, np.array([size] + [0] * count, np.uint64).tobytes())

    def fill(
        self, files: list[str], rowkeys: np.ndarray, max_blank: float, pool: ThreadPoolExecutor
    ) -> dict[int, str]:
        """Decode what is not yet done; returns what is wrong with each bad row."""
        done = np.fromfile(self.keys, np.uint64)[1:] == rowkeys
        todo = np.flatnonzero(~done)
        size, causes = self.shape[1], {}
        with (
            open(self.pixels, "r+b", buffering=0) as pixels,
            open(self.keys, "r+b", buffering=0) as keys,
            tqdm(total=len(files), initial=int(done.sum()), desc="decoding images", unit=" images") as bar,
        ):
            for start in range(0, len(todo), _BATCH):
                batch = todo[start : start + _BATCH]
                tried = pool.map(lambda row: _try(files[row], size, max_blank), batch)
                for row, (image, cause) in zip(batch, tried, strict=True):
                    bar.update()
                    if image is None:
                        causes[int(row)] = cause
                        continue
                    self._put(pixels, int(row) * self.row_bytes, image.tobytes())
                    self._put(keys, 8 * (int(row) + 1), rowkeys[row].tobytes())  # after its pixels, never before
        return causes

    def compact(self, good: np.ndarray) -> np.ndarray:
        """The pixels of the good rows, moved up in place so that nothing lies between them."""
        moved = np.flatnonzero(good != np.arange(len(good)))
        if len(moved):
            first = int(moved[0])
            with open(self.keys, "r+b", buffering=0) as keys:  # if this is interrupted, they count as not done
                self._put(keys, 8 * (first + 1), bytes(8 * (self.shape[0] - first)))
            with open(self.pixels, "r+b", buffering=0) as pixels:
                for row in moved:
                    pixels.seek(int(good[row]) * self.row_bytes)
                    self._put(pixels, int(row) * self.row_bytes, pixels.read(self.row_bytes))
        return np.memmap(self.pixels, np.uint8, "r", shape=(len(good), *self.shape[1:]))

    def remove(self) -> None:
        """Delete both files."""
        self.pixels.unlink(missing_ok=True)
        self.keys.unlink(missing_ok=True)

    def _put(self, file: io.RawIOBase, where: int, data: bytes) -> None:
        try:
            file.seek(where)
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            need = 2 * self.shape[0] * self.row_bytes
            raise OSError(
                error.errno,
                f"writing {self.pixels} failed ({error.strerror}); the store needs {need:,} bytes in all while it is "
                "made. What is decoded is kept: free some space and run again.",
            ) from None


def _write(path: Path, ids: np.ndarray, pixels: np.ndarray, left_out: pd.DataFrame, about: dict) -> None:
    """Write the finished store: one record batch, so that its pixels are one block of the file."""
    if len(left_out):
        part = path.with_name(f"{path.name}.quarantine.{os.getpid()}.part")
        left_out.to_parquet(part, index=False)
        os.replace(part, _quarantine_file(path))
    else:
        _quarantine_file(path).unlink(missing_ok=True)
    tensor = pa.fixed_shape_tensor(pa.uint8(), pixels.shape[1:])
    flat = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
    images = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(pixels.shape[1:])))
    columns = [pa.array(ids, pa.string()), pa.ExtensionArray.from_storage(tensor, images)]
    about = {**about, "left_out": len(left_out)}
    schema = pa.schema([("id_str", pa.string()), ("image", tensor)], metadata={"zoobook": json.dumps(about)})
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        large = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2**31 bytes of pixels are quite usual
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema, options=large) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"writing {path} failed ({error}); it needs {pixels.nbytes:,} bytes. What is decoded is kept: free some "
            "space and run again.",
        ) from None


def _try(file: str, size: int, max_blank: float) -> tuple[np.ndarray | None, str]:
    try:
        return _resize(read_image(file, max_blank), size), ""
    except BadImage as error:
        return None, error.cause


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """The central square, resized with antialiasing (a triangle filter as wide as the new pixels)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)) if side != size else np.asarray(square)


def _rowkey(file: str, size: int, max_blank: float) -> int:
    try:
        stat = os.stat(file)
        state = (file, stat.st_size, stat.st_mtime_ns, size, max_blank, _VERSION)
    except OSError:
        state = (file, None, None, size, max_blank, _VERSION)
    return int.from_bytes(hashlib.blake2b(repr(state).encode(), digest_size=8).digest(), "little") | 1  # 0: not done


def _bad_files(files: list[str], causes: list[str], total: int, path: Path) -> BadImage:
    shown = "\n".join(f"  {file}: {cause}" for file, cause in list(zip(files, causes, strict=True))[:_SHOWN])
    more = f"\n  and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return BadImage(
        f"{len(files)} of {total} images cannot be used:\n{shown}{more}\nMend these files and run again (the others "
        f"are kept, not decoded again), or leave them out of {path.name} with bad='quarantine'."
    )


def _quarantine_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.quarantine.parquet")
