"""Reading a table of features in pieces."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoobook import arguments
from zoobook.catalogs import tables
from zoobook.catalogs.shards import table_files

PIECE = 1 << 23  # numbers read at a time: 32 MB of float32
KEPT = 1 << 24  # numbers of a table small enough to be kept once it is read: 64 MB
_FIRST = 1024  # ids looked at when a table is opened
_FEATURE = re.compile(r"feat_(\d+)(?:_pred|_pca)?|feat_pca_(\d+)")


class FeatureTable:
    """A table of features on disk.

    Attributes:
        path: the file or folder.
        columns: names of the feature columns, in numeric order.
        id_column: ``"id_str"`` or ``"iauname"``.
    """

    def __init__(self, path: str | Path):
        self._files, self.path = table_files(path), arguments.path(path)
        names = [_names(file) for file in self._files]
        others = [file for file, its in zip(self._files, names, strict=True) if its != names[0]]
        if others:
            raise ValueError(f"{others[0]} has other columns than {self._files[0]}: they are not parts of one table")
        names = names[0]
        numbered = [(int(m[1] or m[2]), name) for name in names if (m := _FEATURE.fullmatch(name))]
        self.columns = [name for _, name in sorted(numbered)]
        if not self.columns:
            raise ValueError(f"{path} has no feature columns (feat_0, feat_1, …), only {', '.join(names[:8])} …")
        self.id_column = next((name for name in ("id_str", "iauname") if name in names), None)
        if self.id_column is None:
            raise ValueError(f"{path} has neither an id_str nor an iauname column to tell the galaxies apart")
        self._rows = sum(pq.read_metadata(file).num_rows for file in self._files)
        if not self._rows:
            raise ValueError(f"{path} has no rows, so there are no galaxies to look at")
        self._as_ids(next(self._read([self.id_column], _FIRST)).column(0))  # floats are refused before any work
        self._kept: tuple[pa.ChunkedArray, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"FeatureTable({str(self.path)!r}, {len(self)} galaxies, {len(self.columns)} features)"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the table in pieces.

        Yields:
            tuple: ids [n] and features, float32 [n, F].

        Raises:
            ValueError: a feature is missing or not a finite number.
        """
        for batch, features in self._pieces([self.id_column]):
            yield self._as_ids(batch.column(self.id_column)).to_numpy(zero_copy_only=False), features

    def features(self) -> Iterator[np.ndarray]:
        """Read the features in pieces, without the ids.

        Yields:
            ndarray: float32 [n, F].

        Raises:
            ValueError: a feature is missing or not a finite number.
        """
        if self._small():
            yield from self._kept[1]
        else:
            yield from (features for _, features in self._pieces([]))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the whole table into memory.

        Returns:
            tuple: ids [N] and features, float32 [N, F].
        """
        ids, features = zip(*self.batches(), strict=True)
        return np.concatenate(ids), np.concatenate(features)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Read the features of some galaxies.

        Args:
            rows: int64 [n], which, from 0.

        Returns:
            ndarray: float32 [n, F], in the order asked for.
        """
        if self._small():
            return _gather(rows, ((len(piece), piece.__getitem__) for piece in self._kept[1]))
        return _gather(rows, self._row_groups(self.columns, lambda table: _as_matrix(table.columns)))

    def ids_at(self, rows: np.ndarray) -> np.ndarray:
        """Read the ids of some galaxies.

        Args:
            rows: int64 [n], which, from 0.

        Returns:
            ndarray: ids [n], in the order asked for.
        """
        if self._small():
            return self._kept[0].take(pa.array(rows)).to_numpy(zero_copy_only=False)

        def texts(table: pa.Table) -> np.ndarray:
            return self._as_ids(table.column(0)).to_numpy(zero_copy_only=False)

        return _gather(rows, self._row_groups([self.id_column], texts))

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
            here = slice(*np.searchsorted(rows, [first, first + len(features)]))
            drawn.append(features[rows[here] - first])
            first += len(features)
        return np.concatenate(drawn)

    def rows_of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where galaxies are in the table.

        Args:
            ids: of the galaxies, as :func:`zoobook.catalogs.tables.ids_of` gives them.

        Returns:
            tuple: int64 [m] places in ``ids`` and int64 [m] rows of the table, one pair for each row that has
                one of the ids.
        """
        wanted, places, rows, first = pa.array(ids, pa.string()), [], [], 0
        if self._small():
            columns = self._kept[0].chunks
        else:
            columns = (self._as_ids(batch.column(0)) for batch in self._read([self.id_column], 1 << 18))
        for column in columns:
            place = pc.index_in(column, value_set=wanted)
            found = place.is_valid().to_numpy(zero_copy_only=False).nonzero()[0]
            places.append(place.drop_null().to_numpy().astype(np.int64))
            rows.append(found + first)
            first += len(column)
        return np.concatenate(places), np.concatenate(rows)

    def _small(self) -> bool:
        """Whether the table is kept in memory, being small: then it need not be read again and again."""
        if self._kept is None and len(self) * len(self.columns) <= KEPT:
            pieces = list(self._pieces([self.id_column]))
            ids = pa.chunked_array([self._as_ids(batch.column(0)) for batch, _ in pieces], pa.string())
            self._kept = ids, [features for _, features in pieces]
        return self._kept is not None

    def _as_ids(self, column) -> pa.Array:
        return tables.id_array(column, str(self.path), self.id_column)

    def _row_groups(self, columns: list[str], convert) -> Iterator[tuple[int, Callable[[np.ndarray], np.ndarray]]]:
        """For each row group its length, and a function that reads some rows of it."""
        for file in map(pq.ParquetFile, self._files):
            for group in range(file.num_row_groups):

                def read(here, file=file, group=group):
                    return convert(file.read_row_group(group, columns=columns).take(pa.array(here)))

                yield file.metadata.row_group(group).num_rows, read

    def _pieces(self, others: list[str]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Pieces of the table with its features and other columns, and the features as a matrix."""
        for batch in self._read([*others, *self.columns], max(1, PIECE // len(self.columns))):
            features = _as_matrix(batch.columns[len(others) :])
            if not np.isfinite(features).all():
                raise self._not_finite()
            yield batch, features

    def _read(self, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        for file in self._files:
            yield from pq.ParquetFile(file, memory_map=True).iter_batches(rows, columns=columns)

    def _not_finite(self) -> ValueError:
        """The complaint about the first galaxy with a feature that is not a finite number."""
        for file in self._files:
            for batch in pq.ParquetFile(file).iter_batches(columns=[self.id_column, *self.columns]):
                bad = ~np.isfinite(_as_matrix(batch.columns[1:]))
                if bad.any():
                    row, column = np.argwhere(bad)[0]
                    return ValueError(
                        f"{file}: galaxy {self._as_ids(batch.column(0))[row].as_py()!r} has no finite number in column "
                        f"{self.columns[column]!r} ({int(bad.any(1).sum())} such galaxies in this piece)"
                    )
        return ValueError(f"{self.path} changed while it was read")


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
        ValueError: the catalogue has no such column.
    """
    from zoobook.catalogs.crossmatch import by_id

    table = FeatureTable(path)
    on = on or table.id_column
    if on in catalog.columns:
        wanted = set(tables.ids_of(catalog[on], "the catalogue", on))
        found = [(ids[keep], features[keep]) for ids, features in table.batches()
                 if (keep := np.fromiter((galaxy in wanted for galaxy in ids), bool, len(ids))).any()]
    else:
        found = []  # crossmatch says what is wrong
    ids = np.concatenate([ids for ids, _ in found]) if found else np.empty(0, dtype=object)
    features = np.concatenate([features for _, features in found]) if found else np.empty((0, len(table.columns)))
    frame = pd.concat([pd.DataFrame({on: ids}, dtype=object), pd.DataFrame(features, columns=table.columns)], axis=1)
    joined = by_id(catalog, frame, on=on)
    joined.attrs["report"]["right_only"] += len(table) - len(frame)
    return joined


def _names(file: Path) -> list[str]:
    try:
        return pq.read_schema(file).names
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file} is not a table of features in parquet, as represent and compress write it "
            f"({str(error).splitlines()[0]})"
        ) from None


def _gather(rows: np.ndarray, parts: Iterator[tuple[int, Callable[[np.ndarray], np.ndarray]]]) -> np.ndarray:
    """Some rows of a table that is in parts; a part without any of them is not read."""
    order = np.argsort(rows, kind="stable")
    wanted, first, found = np.asarray(rows)[order], 0, []
    for length, read in parts:
        here = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + length)] - first
        if len(here):
            found.append(read(here))
        first += length
    return np.concatenate(found)[np.argsort(order, kind="stable")]


def _as_matrix(columns) -> np.ndarray:
    """[n, F] float32, each feature contiguous in memory, as parquet has it; what is missing becomes NaN."""
    features = np.empty((len(columns), len(columns[0])), np.float32)
    for row, column in zip(features, columns, strict=True):
        row[:] = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return features.T
