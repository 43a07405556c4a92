"""Images: a survey's images in one memory-mapped file that both frameworks read.

The files are decoded once into an :class:`ImageStore`: an Arrow file with ``id_str`` and a fixed-shape tensor column
``image`` (uint8, [size, size, 3]). After that an image costs a memory read, not a decode.
"""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock
from PIL import Image

from zoobook import arguments
from zoobook.catalogs.columns import check_ids, file_locations, ids_of, listed
from zoobook.files import check_replaceable, ensure_writable_dir, fingerprint, state
from zoobook.images.checks import MOST_BLANK, SMALLEST, BadImage
from zoobook.images.decals import DECALS_FRAMING
from zoobook.images.decoding import read_image
from zoobook.images.store_file import UnfinishedStore, checksum, complete, quarantine_file, store_path
from zoobook.images.views import check_radii

_VERSION = 6  # of the store's layout and of everything that decides a pixel
_BEGINS = rb"ARROW1.*zoobook"  # a store, whole or cut short; other Arrow files do not have the second word
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
        self.framing, self._crc32 = about["framing"], about["crc32"]
        self._index: pd.Index | None = None
        self._checked = False

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
        interrupted: run again, it goes on. The store is keyed by the ids, the files (path, where a link leads, length,
        time of change) and the size, so a second run only looks at the files, and where they have changed, they are
        decoded again.

        Args:
            catalog: ``id_str`` and ``file_loc``.
            path: the store, such as ``images_64.arrow``; ``….quarantine.parquet`` beside it names the files left out.
            size: side of the stored images in pixels; each takes 3 size² bytes.
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
            OSError: the folder cannot be written to, or the disk has too little room.
        """
        bad = arguments.choice("bad", bad, ("error", "quarantine"))
        size, max_blank = arguments.whole("size", size, SMALLEST), arguments.share("max_blank", max_blank)
        framing = check_radii("framing", framing)
        files = [os.path.abspath(arguments.path(file)) for file in file_locations(catalog)]
        if len(catalog) == 0:
            raise ValueError("the catalogue is empty, so there are no images to store")
        ids = check_ids(catalog)
        path = store_path(path)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rowkeys = np.array(list(pool.map(lambda file: _rowkey(file, size, max_blank), files)), dtype=np.uint64)
            key = fingerprint(ids.tolist(), files, rowkeys, size, _VERSION)
            store = cls.finished(path, key)  # looked at without a lock: a finished store may be in a read-only folder
            if store is None or store.framing != framing:
                ensure_writable_dir(path.parent)
                with FileLock(path.with_name(f".{path.name}.lock")):
                    store = cls.finished(path, key)  # another process may just have made it
                    if store is None:
                        unfinished = UnfinishedStore(path, len(ids), size)
                        causes = unfinished.fill(rowkeys, lambda row: _decode(files[row], size, max_blank), pool)
                        rows = list(causes)
                        left_out = pd.DataFrame(
                            {"id_str": ids[rows], "file_loc": [files[r] for r in rows], "cause": list(causes.values())},
                            index=rows,
                        )
                        if rows and (bad == "error" or len(rows) == len(ids)):
                            raise _bad_files(left_out, len(ids), path)
                        unfinished.finish(ids, left_out, {"key": key, "size": size, "framing": framing})
                        store = cls.open(path)
                    elif store.framing != framing:  # the pixels stay
                        store = store._framed(framing)
        if bad == "error" and len(store.quarantine):
            raise _bad_files(store.quarantine, len(ids), path)
        return store

    @classmethod
    def finished(cls, path: Path, key: str) -> ImageStore | None:
        """The store at this path, if it is whole and made of the same input, whose fingerprint is the key.

        A file of another kind, in whose place no store may come, is a ``ValueError``.
        """
        check_replaceable(path, _BEGINS)
        try:
            store = cls.open(path)
        except (FileNotFoundError, ValueError):
            return None
        known = not store._about["left_out"] or quarantine_file(path).is_file()
        return store if store._about["key"] == key and known else None

    @classmethod
    def open(cls, path: str | os.PathLike) -> ImageStore:
        """Open a finished store; nothing is read until it is asked for."""
        path = store_path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no image store at {path}; make one with ImageStore.build")
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            about = json.loads(reader.schema.metadata[b"zoobook"])
            batch = reader.get_batch(0)
            batch.validate(full=True)  # else damaged offsets would end the process
            ids = batch.column("id_str").to_numpy(zero_copy_only=False)
            values = batch.column("image").storage.flatten()
            pixels = np.frombuffer(values.buffers()[1], np.uint8, len(values), values.offset)
            return cls(path, ids, pixels.reshape(len(ids), about["size"], about["size"], 3), about)
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            check_replaceable(path, _BEGINS, "is not an image store, such as ImageStore.build makes of a catalogue")
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the image store {path} was cut short or is damaged ({reason}): build it again") from None

    def check(self) -> None:
        """Read the whole store once, as training and prediction do before they begin."""
        if not self._checked and checksum(self.pixels, self.ids) != self._crc32:
            raise ValueError(f"the image store {self.path} is damaged: delete it and build it again")
        self._checked = True

    @property
    def quarantine(self) -> pd.DataFrame:
        """The files that were left out, with ``id_str``, ``file_loc``, ``cause``."""
        if not self._about["left_out"]:
            return pd.DataFrame({name: pd.Series(dtype=object) for name in ("id_str", "file_loc", "cause")})
        file = quarantine_file(self.path)
        if not file.is_file():
            raise FileNotFoundError(f"{file}, the table of what the image store beside it leaves out, is missing: "
                                    "bring it there, or build the store again")  # fmt: skip
        return pd.read_parquet(file)

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Where galaxies are in the store: int64 rows of ``pixels``, in the order of the ids asked for."""
        if self._index is None:
            self._index = pd.Index(self.ids, dtype=object)
        ids = ids_of(ids)
        rows = self._index.get_indexer(ids).astype(np.int64)
        unknown = ids[rows < 0]
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} of {len(ids)} galaxies are not in the image store {self.path}: "
                f"{listed(map(repr, unknown), _SHOWN)}. It was built from another catalogue, or their images are in "
                "its quarantine."
            )
        return rows

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ImageStore({str(self.path)!r}, {len(self)} images of {self.size} × {self.size} pixels)"

    def __reduce__(self):
        return ImageStore.open, (str(self.path),)  # a worker process maps the file itself

    def _framed(self, framing: float) -> ImageStore:
        """The same store, stating another framing."""
        part = self.path.with_name(f"{self.path.name}.part")
        os.replace(self.path, part)  # what is half-written must not be taken for a store
        complete(part, self.path, self.ids, self.quarantine, {**self._about, "framing": framing})
        return ImageStore.open(self.path)


def _decode(file: str, size: int, max_blank: float) -> tuple[np.ndarray | None, str]:
    """The central square of an image, resized with antialiasing; or None, and what is wrong with the file."""
    try:
        image = read_image(file, max_blank)
    except BadImage as error:
        return None, error.cause
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side == size:
        return square, ""
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)), ""


def _rowkey(file: str, size: int, max_blank: float) -> int:
    seen = state(file) if os.access(file, os.R_OK) else None  # what cannot be read now is tried again when it can
    made_of = (file, seen, size, max_blank, _VERSION)
    return int.from_bytes(hashlib.blake2b(repr(made_of).encode(), digest_size=8).digest(), "little") | 1  # 0: not done


def _bad_files(left_out: pd.DataFrame, total: int, path: Path) -> BadImage:
    shown = "\n".join(f"  {row.file_loc}: {row.cause}" for row in left_out.head(_SHOWN).itertuples())
    more = f"\n  and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return BadImage(
        f"{len(left_out)} of {total} images cannot be used:\n{shown}{more}\nCorrect these files and run again (the "
        f"others are kept, not decoded again), or leave them out of {path.name} with bad='quarantine'."
    )
