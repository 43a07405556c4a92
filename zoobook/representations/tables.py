"""Reading a table of features in pieces."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoobook import arguments
from zoobook.catalogs import tables
from zoobook.catalogs.columns import id_array, listed, refuse_repeated
from zoobook.catalogs.parquet import Parquet
from zoobook.catalogs.shards import table_files

PIECE = 1 << 23  # numbers read at a time: 32 MB of float32
_LARGEST = 1e15  # of a feature: squares of larger ones would leave the range of float32
_FEATURE = re.compile(r"feat_(\d+)(?:_pred|_pca)?|feat_pca_(\d+)")


class FeatureTable:
    """A table of features on disk.

    Attributes:
        path: the file or folder.
        files: the parquet files, in the order of their rows.
        columns: names of the feature columns, in numeric order.
        id_column: ``"id_str"`` or ``"iauname"``.
    """

    def __init__(self, path: str | Path):
        self.files, self.path = table_files(path), arguments.path(path)
        if not tables.is_parquet(self.path):
            raise ValueError(f"{path} is not a table of features in parquet, as represent and compress write it")
        self._table = Parquet(self.path)
        names = list(self._table.types)
        numbered = [(int(m[1] or m[2]), name) for name in names if (m := _FEATURE.fullmatch(name))]
        self.columns = [name for _, name in sorted(numbered)]
        if not self.columns:
            raise ValueError(f"{path} has no feature columns (feat_0, feat_1, …), only {', '.join(names[:8])} …")
        for name in self.columns:
            kind = self._table.types[name]
            if not any(test(kind) for test in (pa.types.is_floating, pa.types.is_integer)):
                raise ValueError(f"{path}: the feature {name!r} must be one column of numbers, not {kind}")
        if len({number for number, _ in numbered}) < len(numbered):
            raise ValueError(f"{path} has two sets of features, {listed(self.columns)}: leave only one in it")
        self.id_column = next((name for name in ("id_str", "iauname") if name in names), None)
        if self.id_column is None:
            raise ValueError(f"{path} has neither an id_str nor an iauname column to tell the galaxies apart")
        if not len(self):
            raise ValueError(f"{path} has no rows, so there are no galaxies to look at")
        self._table.schema([self.id_column, *self.columns])
        self._as_ids(next(self._table.batches([self.id_column], 1024)).column(0))  # floats are refused before any work

    def __len__(self) -> int:
        return self._table.rows

    def __repr__(self) -> str:
        return f"FeatureTable({str(self.path)!r}, {len(self)} galaxies, {len(self.columns)} features)"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the table in pieces.

        Yields:
            tuple: ids [n] and features, float32 [n, F].

        Raises:
            ValueError: a feature is missing or not a finite number; so do all that read features.
        """
        for ids, features in self._read([self.id_column, *self.columns]):
            yield self._as_ids(ids).to_numpy(zero_copy_only=False), features

    def features(self) -> Iterator[np.ndarray]:
        """Read the features in pieces, float32 [n, F], without the ids."""
        for _, features in self._read(self.columns):
            yield features

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the whole table into memory: ids [N] and features, float32 [N, F]."""
        ids, features = zip(*self.batches(), strict=True)
        return np.concatenate(ids), np.concatenate(features)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The features, float32 [n, F], of the galaxies in some rows (int64 [n], from 0), in their order."""
        return _as_matrix(self._take(rows, self.columns))

    def ids_at(self, rows: np.ndarray) -> np.ndarray:
        """The ids [n] of the galaxies in some rows (int64 [n], from 0), in their order."""
        return self._as_ids(self._take(rows, [self.id_column])[0]).to_numpy(zero_copy_only=False)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Features of galaxies drawn at random, each at most once; the whole table where it has no more than that.

        Args:
            n: how many galaxies.
            seed: decides which.

        Returns:
            ndarray: float32 [n, F], in the order of the table.
        """
        rows = np.arange(len(self))
        if n < len(self):
            rows = np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False))
        drawn, first = [], 0
        for features in self.features():
            here = (rows >= first) & (rows < first + len(features))
            drawn.append(features[rows[here] - first])
            first += len(features)
        return np.concatenate(drawn)

    def rows_of(self, ids: np.ndarray | list[str]) -> np.ndarray:
        """Where galaxies are in the table.

        Args:
            ids: of the galaxies, as ``zoobook.catalogs.columns.ids_of`` gives them, each once.

        Returns:
            ndarray: int64, the row of each.

        Raises:
            ValueError: a galaxy is not in the table, or is there more than once.
        """
        wanted, places, rows, first = pa.array(ids, pa.string()), [], [], 0
        for batch in self._table.batches([self.id_column], 1 << 18):
            place = pc.index_in(self._as_ids(batch.column(0)), value_set=wanted)
            rows.append(np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False)) + first)
            places.append(place.drop_null().to_numpy().astype(np.int64))
            first += len(batch)
        found, rows = np.concatenate(places), np.concatenate(rows)
        absent = np.setdiff1d(np.arange(len(ids)), found)
        if len(absent):
            others = f" ({len(absent)} are missing)" if len(absent) > 1 else ""
            raise ValueError(f"{self.path} has no galaxy {ids[absent[0]]!r}{others}")
        refuse_repeated(np.asarray(ids, object)[found], str(self.path), self.id_column, rows)
        return rows[np.argsort(found)]

    def _as_ids(self, column: pa.ChunkedArray) -> pa.Array:
        return id_array(column, str(self.path), self.id_column)

    def _read(self, columns: list[str]) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
        """Pieces of the table: their first column, and their features."""
        first = 0
        for batch in self._table.batches(columns, max(1, PIECE // len(self.columns))):
            features = _as_matrix(batch.columns[-len(self.columns) :])
            if not -_LARGEST < features.min() <= features.max() < _LARGEST:  # without a copy of them all
                bad = ~(np.abs(features) < _LARGEST)
                row, column = np.argwhere(bad)[0]
                raise ValueError(
                    f"{self.path}: galaxy {self.ids_at(np.array([first + row]))[0]!r} has no finite number in column "
                    f"{self.columns[column]!r}, or one above {_LARGEST:g} ({int(bad.any(1).sum())} such galaxies in "
                    "this piece)"
                )
            yield batch.column(0), features
            first += len(batch)

    def _take(self, rows: np.ndarray, columns: list[str]) -> list[pa.ChunkedArray]:
        """Columns of some rows, in the order asked for."""
        order = np.argsort(rows, kind="stable")
        taken = self._table.take(columns, np.asarray(rows)[order])
        return taken.take(pa.array(np.argsort(order, kind="stable"))).columns


def open(path: str | Path) -> FeatureTable:  # noqa: A001 - reads as representations.open(path)
    """Open a table of features without reading it.

    Args:
        path: a parquet file, or a folder written by ``represent``.

    Returns:
        FeatureTable: the table.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: it is unfinished, or has no features or ids.
    """
    return FeatureTable(path)


def crossmatch(path: str | Path, catalog: pd.DataFrame, on: str | None = None) -> pd.DataFrame:
    """Join features with a catalogue by galaxy id.

    Only the features of galaxies in the catalogue are held in memory.

    Args:
        path: a table of features.
        catalog: a catalogue with the same ids.
        on: the id column; default: the table's own.

    Returns:
        DataFrame: the galaxies that both have; ``.attrs["report"]`` counts what was left out.

    Raises:
        ValueError: the catalogue has no such column, or a feature is missing or no finite number.
    """
    from zoobook.catalogs.crossmatch import by_id

    table = FeatureTable(path)
    joined = by_id(catalog, table.path, (on or table.id_column, table.id_column), table.columns)
    bad = ~np.isfinite(joined.iloc[:, -len(table.columns) :].to_numpy(float)).all(1)
    if bad.any():
        raise ValueError(f"{path} has no finite features for {int(bad.sum())} galaxies that both have")
    return joined


def blocks(features: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Cut features [n, F] into blocks of so many rows; the last one may have fewer."""
    return (features[start : start + rows] for start in range(0, len(features), rows))


def _as_matrix(columns: list[pa.ChunkedArray]) -> np.ndarray:
    """[n, F] float32, each feature contiguous in memory, as parquet has it; what is missing becomes NaN."""
    features = np.empty((len(columns), len(columns[0])), np.float32)
    for row, column in zip(features, columns, strict=True):
        row[:] = column.to_numpy()
    return features.T
