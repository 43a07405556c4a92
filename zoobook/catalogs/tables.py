"""Tables on disk (CSV, parquet, FITS, VOTable): the one door through which they come in.

Whole numbers keep every digit and booleans stay booleans, also beside a gap (then as pandas' ``Int64`` and
``boolean``); a word stays a word, and of a CSV only empty cells are missing; ids are text.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from zoobook import arguments
from zoobook.catalogs import parquet
from zoobook.catalogs.columns import id_array, refuse_twice, require
from zoobook.catalogs.csv_file import CSV_NAME, csv_names, read_csv
from zoobook.catalogs.fits_votable import FITS_NAME, VOTABLE_NAME, read_fits_or_votable
from zoobook.catalogs.shards import PARQUET_NAME, footers
from zoobook.catalogs.table_errors import named


def column_names(path: str | os.PathLike) -> list[str]:
    """Names of the columns of a table, in order; :func:`read` says which tables there are."""
    return _guarded(arguments.path(path), _names)


def read(
    path: str | os.PathLike,
    columns: list[str] | None = None,
    rows: np.ndarray | None = None,
    text: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Read a table, or some of its columns and rows; of parquet only what is asked for is held in memory.

    Columns that are known to hold ids (``id_str``, ``iauname``, ``dr8_id``, ``dr7objid`` …) are read from CSV as text.

    Args:
        path: a ``.csv``, ``.csv.gz``, ``.parquet``, FITS or VOTable file, or a folder that ``predict`` or
            ``represent`` wrote.
        columns: which columns; all by default.
        rows: positions of the rows to keep, ascending; all by default.
        text: further columns that hold ids.

    Returns:
        DataFrame: the columns, numbered from 0.
    """
    path = arguments.path(path)
    if columns is not None:
        columns = columns if isinstance(columns, str) else arguments.names("columns", columns)
        require(columns, column_names(path), str(path))
        refuse_twice(columns, "`columns`")
    if rows is not None:
        rows = np.atleast_1d(rows)
        rows = rows.astype(int) if rows.dtype.kind in "iu" or not rows.size else rows
        if rows.dtype.kind != "i" or rows.ndim != 1 or (rows < 0).any() or (np.diff(rows) < 0).any():
            raise ValueError("rows must be whole numbers from 0, ascending: positions of the rows to keep")
    return _guarded(path, _read, columns, rows, text)


def id_column(table: pd.DataFrame | str | os.PathLike, column: str, where: str) -> pa.Array:
    """The ids in one column of a table in memory or on disk (called ``where`` in messages); see ``id_array``."""
    require([column], table if isinstance(table, pd.DataFrame) else column_names(table), where)
    if isinstance(table, pd.DataFrame):
        return id_array(table[column], where, column)
    path = arguments.path(table)
    if is_parquet(path):
        return id_array(_guarded(path, lambda path: parquet.Parquet(path).read([column]).column(0)), where, column)
    return id_array(read(path, [column], text=(column,))[column], where, column)


def _guarded(path: Path, function: Callable, *options):
    """What a reader gives, or a plain word on why it cannot."""
    if not path.exists():
        raise FileNotFoundError(f"there is no table at {path}")
    if path.is_file() and is_parquet(path) and not PARQUET_NAME.search(path.name):
        with open(path, "rb") as file:
            if file.read(4) != b"PAR1":
                raise ValueError(f"{path} is not a kind of table that can be read: use .csv, .csv.gz, .parquet, .fits "
                                 "or .vot")  # fmt: skip
    with named(path):
        return function(path, *options)


def is_parquet(path: Path) -> bool:
    """Whether a table is, or will be, in parquet: a folder, or a file that is not named as another kind."""
    return path.is_dir() or not any(name.search(path.name) for name in (CSV_NAME, FITS_NAME, VOTABLE_NAME))


def _names(path: Path) -> list[str]:
    if is_parquet(path):
        file, schema, _ = next(footers(path))
        return parquet.column_names(schema, file.name)
    if CSV_NAME.search(path.name):
        return csv_names(path)
    return list(read_fits_or_votable(path, []).columns)


def _read(path: Path, columns: list[str] | None, rows: np.ndarray | None, text: tuple[str, ...]) -> pd.DataFrame:
    if is_parquet(path):
        table = parquet.Parquet(path)
        _check_reach(rows, table.rows)
        return parquet.frame(table, columns, rows)
    if CSV_NAME.search(path.name):
        table = read_csv(path, columns, text)
    else:
        table = read_fits_or_votable(path, columns)
    table = table if columns is None else table[columns]
    _check_reach(rows, len(table))
    return table if rows is None else table.iloc[rows].reset_index(drop=True)


def _check_reach(rows: np.ndarray | None, total: int) -> None:
    if rows is not None and len(rows) and rows[-1] >= total:
        raise ValueError(f"row {rows[-1]} (counted from 0) is asked for, and it has {total}")


