"""Long tables as folders of parquet shards, written so that an interrupted run loses nothing and a rerun completes it.

Every shard appears under its own name only when it is whole.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoobook import arguments
from zoobook.files import atomic_write, clear_parts, ensure_writable_dir, replacing

PARQUET_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)


class ShardedTable:
    """A table written as a folder of parquet files, each whole or absent, that a rerun completes.

    Args:
        folder: where the shards go, as ``00000.parquet`` and so on.
        rows: rows of the finished table.
        config: what decides the content (model, images, options), as JSON can hold it.
        shard_rows: rows of a shard.

    Raises:
        ValueError: the folder holds a table made of something else.
    """

    MANIFEST = "_manifest.json"  # readers of parquet folders pass over names that begin with an underscore

    def __init__(self, folder: str | Path, rows: int, config: dict, shard_rows: int = 4096):
        self.folder = ensure_writable_dir(folder)
        self._manifest = self.folder / self.MANIFEST
        plan = {"rows": rows, "shard_rows": shard_rows, "made_of": config}
        self._plan = json.loads(json.dumps(plan, default=arguments.plain))
        begun = {file.name for file in _parquet(self.folder)}  # without any, there is nothing to complete or to keep
        if begun and self._manifest.exists():
            earlier = _read_manifest(self._manifest)["plan"]
            if earlier != self._plan:
                raise ValueError(
                    f"{self.folder} already holds a table made by another model, of other images or with other "
                    f"options ({earlier['made_of']}, now {self._plan['made_of']}). Choose another folder."
                )
        elif begun:
            raise ValueError(f"{self.folder} holds parquet files of something else, which would be taken for parts of "
                             "the table: choose an empty folder")  # fmt: skip
        else:
            atomic_write(self._manifest, json.dumps({"plan": self._plan, "complete": False}))
        self._bounds = _bounds(rows, shard_rows)
        _refuse_others(self.folder, begun, len(self._bounds))
        for n, (start, stop) in enumerate(self._bounds):
            if self._file(n).is_file() and _rows_of(self._file(n)) != stop - start:  # damaged: it is made again
                self._file(n).unlink()

    def missing(self) -> list[tuple[int, int, int]]:
        """The shards still to be made: number, first row, row after the last."""
        return [(n, *bounds) for n, bounds in enumerate(self._bounds) if not self._file(n).exists()]

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Write the rows of one shard, under a temporary name first."""
        start, stop = self._bounds[number]
        if len(frame) != stop - start:
            raise ValueError(f"shard {number} of {self.folder} must have {stop - start} rows, not {len(frame)}")
        if _read_manifest(self._manifest)["plan"] != self._plan:
            raise ValueError(f"another process began another table in {self.folder}: run again, in another folder")
        with replacing(self._file(number)) as part:
            # Numbers hardly repeat, so no dictionary; the checksums tell readers of damage on the disk.
            frame.to_parquet(part, index=False, use_dictionary=False, write_page_checksum=True)

    def finish(self) -> Path:
        """Declare the table complete, and give back its folder; a ValueError where shards are missing."""
        missing = self.missing()
        if missing:
            raise ValueError(f"{self.folder} lacks {len(missing)} of {len(self._bounds)} shards; run again")
        clear_parts(self.folder)
        atomic_write(self._manifest, json.dumps({"plan": self._plan, "complete": True}))
        return self.folder

    def _file(self, number: int) -> Path:
        return self.folder / _shard_name(number)


def _bounds(rows: int, shard_rows: int) -> list[tuple[int, int]]:
    """First row and row after the last of every shard."""
    return [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]


def _shard_name(number: int) -> str:
    return f"{number:05d}.parquet"


def _refuse_others(folder: Path, there: set[str], shards: int) -> None:
    """Refuse a folder with parquet files that are not among so many shards."""
    if others := there - set(map(_shard_name, range(shards))):
        raise ValueError(f"{min(others)} is no part of the table in {folder}: move it out of the folder")


def _rows_of(file: Path) -> int | None:
    """Rows of a parquet file; None where it is damaged."""
    try:
        return pq.read_metadata(file).num_rows
    except pa.ArrowInvalid:
        return None


def _parquet(folder: Path) -> list[Path]:
    """The files of a folder that are parquet, by the names that a single file may have."""
    named = (file for file in folder.glob("*") if PARQUET_NAME.search(file.name))
    return sorted(file for file in named if file.name[0] != ".")  # macOS leaves ._00000.parquet


def _read_manifest(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
        plan = dict(found["plan"], made_of=dict(found["plan"]["made_of"]))
        if not all(isinstance(plan[name], int) and plan[name] > 0 for name in ("rows", "shard_rows")):
            raise ValueError
        return {"plan": plan, "complete": found["complete"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is damaged, or not of zoobook: make the table again, in another folder") from None


def table_files(path: str | Path) -> list[Path]:
    """The parquet files of a table, in row order: one file, or the shards of a complete folder."""
    return [file for file, _ in _files_and_rows(arguments.path(path))]


def footers(path: str | Path) -> Iterator[tuple[Path, pa.Schema, int]]:
    """The :func:`table_files`, with columns and number of rows of each; other rows than were planned are refused."""
    for file, planned in _files_and_rows(arguments.path(path)):
        try:
            schema, rows = pq.read_schema(file), pq.read_metadata(file).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file.name}: {error}") from None
        if planned not in (None, rows):
            raise ValueError(f"{file.name} has {rows} rows instead of {planned}: run again what writes the table, and "
                             "that file will be made anew")  # fmt: skip
        yield file, schema, rows


def _files_and_rows(path: Path) -> list[tuple[Path, int | None]]:
    """The :func:`table_files`, and how many rows each was planned to have; None where there is no plan."""
    files = [path] if path.is_file() else _parquet(path)
    if not files:
        raise FileNotFoundError(f"no parquet table at {path}")
    manifest = path / ShardedTable.MANIFEST
    if not manifest.exists():
        return [(file, None) for file in files]
    found = _read_manifest(manifest)
    if not found["complete"]:
        raise ValueError(f"the table in {path} is not finished: run again what writes it, and it will be completed")
    bounds, there = _bounds(found["plan"]["rows"], found["plan"]["shard_rows"]), {file.name for file in files}
    if lost := [name for name in map(_shard_name, range(len(bounds))) if name not in there]:
        raise ValueError(f"the table in {path} lacks {len(lost)} of its {len(bounds)} files, such as {lost[0]}: run "
                         "again what writes it, and it will be completed")  # fmt: skip
    _refuse_others(path, there, len(bounds))
    return [(path / _shard_name(n), stop - start) for n, (start, stop) in enumerate(bounds)]
