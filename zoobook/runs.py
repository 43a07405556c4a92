"""What a run leaves on disk, so that it can be interrupted at any moment and go on without loss.

A training run owns a folder (:class:`RunFolder`); a long table is written as parquet shards (:class:`ShardedTable`).
Every file appears under its own name only when it is whole.
"""
from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.architectures import whole_spec
from zoobook.augment import DECALS_FRAMING, FIELD_OF_VIEW

UNSTATED = {"field_of_view": FIELD_OF_VIEW, "framing": DECALS_FRAMING, "photometric": False}  # in earlier versions


@dataclass(frozen=True)
class Result:
    """What training gives back.

    Attributes:
        model: the model with the weights of its best epoch, ready to predict.
        history: one row an epoch: ``epoch``, ``train_loss``, ``val_loss`` (nats per galaxy, or the loss of the task),
            ``learning_rate``, ``seconds``.
        checkpoint: the weight file of the best epoch, in zoobook's neutral format.
    """

    model: Any
    history: pd.DataFrame
    checkpoint: Path


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a small file so that it is never seen half-written.

    Args:
        path: where to.
        data: its content; text is encoded as UTF-8.
    """
    part = path.with_name(path.name + f".{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(part, path)


def own_folder(path: str | Path) -> Path:
    """Make a folder to write to, or say plainly why that cannot be.

    Args:
        path: the folder; its parents are made too.

    Returns:
        Path: the folder, absolute.

    Raises:
        OSError: it cannot be made or written to.
    """
    path = arguments.path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / ".writable", b"")
        (path / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(
            f"cannot write to the folder {path}: {error.strerror or error}. Choose another folder, or free some space."
        ) from None
    return path


def fingerprint(*parts: Any) -> str:
    """A short, stable digest of arrays, tables, lists and settings: equal content gives equal text on any machine.

    Args:
        *parts: NumPy arrays, DataFrames, or anything that JSON can hold.

    Returns:
        str: 16 hexadecimal digits.
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


class RunFolder:
    """The folder of one training run: its settings, its history, and whether it is finished.

    Args:
        out_dir: the folder.
        settings: everything that decides the outcome, as JSON can hold it.
        resume: go on with the run that the folder holds; ``False`` starts it again from the beginning.

    Raises:
        ValueError: the folder holds a run with other settings.
        OSError: the folder cannot be written to.
    """

    def __init__(self, out_dir: str | Path, settings: dict, resume: bool = True):
        self.path = own_folder(out_dir)
        self.settings = json.loads(json.dumps(settings, default=arguments.plain))
        self._record = self.path / "run.json"
        if not resume:
            (self.path / "history.csv").unlink(missing_ok=True)
        if resume and self._record.exists():
            earlier = UNSTATED | json.loads(self._record.read_text())["settings"]
            if "spec" in earlier:
                earlier["spec"] = whole_spec(earlier["spec"])
            other = [
                f"{key} was {earlier.get(key)!r}, now {self.settings.get(key)!r}"
                for key in sorted(earlier.keys() | self.settings.keys())
                if earlier.get(key) != (UNSTATED | self.settings).get(key)
            ]
            if other:
                raise ValueError(
                    f"{self.path} holds a run with other settings ({'; '.join(other)}). "
                    "Choose another out_dir, or pass resume=False to start this one afresh."
                )
        else:
            self._write(finished=False)

    @property
    def resuming(self) -> bool:
        """Whether at least one epoch is already done."""
        return (self.path / "history.csv").exists()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.resuming and json.loads(self._record.read_text())["finished"]

    def finish(self) -> None:
        """Note that the run came to its end: from now on it is only read. Of several processes, one may say so."""
        for left_over in self.path.glob("*.part"):  # of a process that was killed
            left_over.unlink(missing_ok=True)
        self._write(finished=True)

    @property
    def history(self) -> pd.DataFrame:
        """The epochs so far, one row each."""
        file = self.path / "history.csv"
        return pd.read_csv(file, engine="python") if file.exists() else pd.DataFrame()  # exact floats

    def log(self, **row: float) -> None:
        """Add an epoch to the history; a repeated epoch replaces its earlier row.

        Args:
            **row: must hold ``epoch``.
        """
        history = self.history
        if len(history):
            history = history[history["epoch"] < row["epoch"]]
        history = pd.concat([history, pd.DataFrame([row])], ignore_index=True) if len(history) else pd.DataFrame([row])
        write_whole(self.path / "history.csv", history.to_csv(index=False))

    def _write(self, finished: bool) -> None:
        write_whole(self._record, json.dumps({"settings": self.settings, "finished": finished}, indent=1))


class ShardedTable:
    """A table written as a folder of parquet files, each whole or absent, that a rerun completes.

    Args:
        folder: where the shards go, as ``00000.parquet`` and so on.
        rows: rows of the finished table.
        made_of: what decides the content (model, images, options), as JSON can hold it.
        shard_rows: rows of a shard.

    Raises:
        ValueError: the folder holds a table made of something else.
        OSError: the folder cannot be written to.
    """

    MANIFEST = "_manifest.json"  # readers of parquet folders pass over names that begin with an underscore

    def __init__(self, folder: str | Path, rows: int, made_of: dict, shard_rows: int = 4096):
        self.folder = own_folder(folder)
        self._manifest = self.folder / self.MANIFEST
        plan = json.loads(json.dumps(
            {"rows": rows, "shard_rows": shard_rows, "made_of": made_of}, default=arguments.plain
        ))  # fmt: skip
        if self._manifest.exists():
            earlier = json.loads(self._manifest.read_text())["plan"]
            if earlier | {"made_of": UNSTATED | earlier["made_of"]} != plan | {"made_of": UNSTATED | plan["made_of"]}:
                raise ValueError(
                    f"{self.folder} already holds a table made by another model, of other images or with other "
                    f"options ({earlier['made_of']}, now {plan['made_of']}). Choose another folder, or delete it."
                )
        else:
            write_whole(self._manifest, json.dumps({"plan": plan, "complete": False}))
        self._plan = plan
        self._bounds = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]

    def missing(self) -> list[tuple[int, int, int]]:
        """The shards still to be made: number, first row, row after the last."""
        return [(n, *bounds) for n, bounds in enumerate(self._bounds) if not self._file(n).exists()]

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Write one shard, under a temporary name first.

        Args:
            number: which shard.
            frame: its rows.
        """
        start, stop = self._bounds[number]
        if len(frame) != stop - start:
            raise ValueError(f"shard {number} of {self.folder} must have {stop - start} rows, not {len(frame)}")
        part = self._file(number).with_suffix(f".{os.getpid()}.part")
        frame.to_parquet(part, index=False, use_dictionary=False)  # numbers that hardly repeat
        os.replace(part, self._file(number))

    def finish(self) -> Path:
        """Declare the table complete.

        Returns:
            Path: the folder.

        Raises:
            ValueError: shards are missing.
        """
        missing = self.missing()
        if missing:
            raise ValueError(f"{self.folder} lacks {len(missing)} of {len(self._bounds)} shards; run again")
        for left_over in self.folder.glob("*.part"):
            left_over.unlink(missing_ok=True)
        write_whole(self._manifest, json.dumps({"plan": self._plan, "complete": True}))
        return self.folder

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.parquet"


def table_files(path: str | Path) -> list[Path]:
    """The parquet files of a table: one file, or the shards of a complete folder.

    Args:
        path: a parquet file, or a folder of them.

    Returns:
        list[Path]: the files, in row order.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: the folder is an unfinished :class:`ShardedTable`.
    """
    path = arguments.path(path)
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"no parquet table at {path}")
    manifest = path / ShardedTable.MANIFEST
    if manifest.exists() and not json.loads(manifest.read_text())["complete"]:
        raise ValueError(f"the table in {path} is not finished: run again what writes it, and it will be completed")
    return files
