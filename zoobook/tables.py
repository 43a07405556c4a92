"""Tables on disk (CSV, parquet, FITS): which columns they have, reading some of them, some of the rows; ids as text."""
from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FITS_NAME = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
TEXT_COLUMNS = ("id_str", "iauname", "dr8_id", "dr7objid", "dr8objid", "objid")  # never read as numbers from a CSV
_CSV_NAME = re.compile(r"\.csv(\.gz)?$", re.IGNORECASE)
_PARQUET_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_WRITTEN_AS_FLOAT = r"[+-]?\d+\.0*|[+-]?\d(\.\d+)?[eE][+-]?\d+"
_CHUNK = 8192  # rows of a CSV read at a time
_VALUES = 1 << 22  # of a parquet file decoded at a time: 32 MB of float64
_SHOWN = 10  # examples in a message


def column_names(path: str | os.PathLike) -> list[str]:
    """Names of the columns of a table, without reading it.

    Args:
        path: a ``.csv``, ``.csv.gz``, ``.parquet`` or FITS table.

    Returns:
        list of str: the names, in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table.
    """
    return _guarded(Path(path), _names)


def read(
    path: str | os.PathLike, columns: list[str] | None = None, rows: np.ndarray | None = None
) -> pd.DataFrame:
    """Read a table, or some of its columns and rows; of parquet and CSV only what is asked for is held in memory.

    Columns that are known to hold ids (``id_str``, ``iauname``, ``dr8_id``, ``dr7objid`` …) are read from CSV as text.

    Args:
        path: a ``.csv``, ``.csv.gz``, ``.parquet`` or FITS table.
        columns: which columns; all by default.
        rows: positions of the rows to keep, ascending; all by default.

    Returns:
        DataFrame: the columns, numbered from 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table, or a column is missing.
    """
    path = Path(path)
    if columns is not None:
        known = set(column_names(path))
        absent = [name for name in columns if name not in known]
        if absent:
            raise ValueError(f"{path} has no column {absent[0]!r}; there are: {listed(sorted(known))}")
    return _guarded(path, _read, columns, rows)


def id_array(values: pd.Series | pa.ChunkedArray, where: str, column: str) -> pa.Array:
    """Ids as text without blanks around them; a float is refused, since it cannot hold 18 digits.

    Args:
        values: the ids, as text or whole numbers.
        where: what to call the table in a message.
        column: what to call the column in a message.

    Returns:
        pyarrow.Array: of strings, none of them empty.

    Raises:
        ValueError: ids are floating-point numbers, or missing.
    """
    try:
        ids = pa.array(values, from_pandas=True) if isinstance(values, pd.Series) else values
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        written = pa.types.is_floating(ids.type) and ids.null_count < len(ids)
        if not written:
            ids = ids.cast(pa.string())
            written = pc.any(pc.match_substring_regex(ids, f"^\\s*({_WRITTEN_AS_FLOAT})\\s*$")).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types
        raw = [v.decode() if isinstance(v, bytes) else v for v in values]
        written = any(isinstance(v, (float, np.floating)) and not pd.isna(v) for v in raw)
        ids = pa.array([None if pd.isna(v) else str(v) for v in raw], pa.string())
    if written:
        row, shown = _first_float(values)
        raise ValueError(
            f"{where}: the ids in `{column}` are floating-point numbers (such as {shown!r} in row {row}). A "
            "float keeps about 16 digits, so longer ids have already lost their last ones. Go back to the original "
            f"table and read or save that column as text, for instance pandas.read_csv(…, dtype={{{column!r}: str}})."
        )
    ids = pc.utf8_trim_whitespace(pc.fill_null(ids, ""))
    empty = np.flatnonzero(pc.equal(ids, "").to_numpy(zero_copy_only=False))
    if len(empty):
        raise ValueError(
            f"{where}: `{column}` is empty in {len(empty)} rows (counted from 0): {listed(empty)}. Fill in an id."
        )
    return ids


def id_column(table: pd.DataFrame | str | os.PathLike, column: str, where: str) -> pa.Array:
    """The ids in one column of a table in memory or on disk, of which nothing else is read.

    Args:
        table: a DataFrame, or a file.
        column: which column.
        where: what to call the table in a message.

    Returns:
        pyarrow.Array: see :func:`id_array`.

    Raises:
        ValueError: the column is missing, or see :func:`id_array`.
    """
    names = table.columns if isinstance(table, pd.DataFrame) else column_names(table)
    if column not in names:
        raise ValueError(f"{where} has no column `{column}`; there are: {listed(names)}")
    if isinstance(table, pd.DataFrame):
        return id_array(table[column], where, column)
    if _PARQUET_NAME.search(Path(table).name):
        values = _guarded(Path(table), lambda path: pq.read_table(path, columns=[column]).column(column))
        return id_array(values, where, column)
    return id_array(read(table, [column])[column], where, column)


def listed(things) -> str:
    """The first few things in words, for a message.

    Args:
        things: what to list.
    """
    things = [str(thing) for thing in things]
    return ", ".join(things[:_SHOWN]) + (" …" if len(things) > _SHOWN else "")


def _guarded(path: Path, function, *arguments):
    if not path.is_file():
        raise FileNotFoundError(f"there is no table at {path}")
    if not any(name.search(path.name) for name in (_CSV_NAME, _PARQUET_NAME, FITS_NAME)):
        raise ValueError(f"{path} is not a kind of table that can be read: use .csv, .csv.gz, .parquet or .fits")
    try:
        return function(path, *arguments)
    except Exception as error:  # every reader has its own errors; to the reader of the message they mean the same
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} could not be read as a table: {reason[0] if reason else type(error).__name__}"
        ) from None


def _names(path: Path) -> list[str]:
    if _CSV_NAME.search(path.name):
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    if _PARQUET_NAME.search(path.name):
        return _parquet_names(path)
    return list(_read_fits(path).columns)


def _parquet_names(path: Path) -> list[str]:
    """All but the columns that pandas makes of a nameless row index, which says nothing about the galaxies."""
    return [name for name in pq.read_schema(path).names if not re.fullmatch(r"__index_level_\d+__", name)]


def _read(path: Path, columns: list[str] | None, rows: np.ndarray | None) -> pd.DataFrame:
    if _CSV_NAME.search(path.name):
        dtype = dict.fromkeys(TEXT_COLUMNS, str)
        if rows is None:
            table = pd.read_csv(path, dtype=dtype, usecols=columns, low_memory=False)
        else:
            pieces = pd.read_csv(path, dtype=dtype, usecols=columns, chunksize=_CHUNK)
            table = pd.concat([piece[np.isin(piece.index, rows)] for piece in pieces])
    elif _PARQUET_NAME.search(path.name):
        return _read_parquet(path, columns, rows)
    else:
        table = _read_fits(path)
        table = table if rows is None else table.iloc[rows]
    table = table if columns is None else table[columns]
    return table.reset_index(drop=True)


def _read_parquet(path: Path, columns: list[str] | None, rows: np.ndarray | None) -> pd.DataFrame:
    columns = _parquet_names(path) if columns is None else columns
    if rows is None:
        return pq.read_table(path, columns=columns).to_pandas(ignore_metadata=True)
    file = pq.ParquetFile(path, pre_buffer=False)
    groups, start = [file.schema_arrow.empty_table().select(columns)], 0
    for number in range(file.num_row_groups):
        length = file.metadata.row_group(number).num_rows
        first, last = np.searchsorted(rows, [start, start + length])
        if last > first:
            wanted = pa.array(rows[first:last] - start)
            # A row group may be the whole file: of it, so many columns at a time as hold few values.
            width = max(1, _VALUES // length)
            blocks = [columns[i : i + width] for i in range(0, len(columns), width)]
            taken = {}
            for block in blocks:
                part = file.read_row_group(number, columns=block, use_threads=False).take(wanted)
                taken |= {name: part.column(name) for name in block}
            groups.append(pa.table(taken))
        start += length
    table = pa.concat_tables(groups[1:] or groups)
    return table.to_pandas(ignore_metadata=True, self_destruct=True)


def _read_fits(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    table = Table.read(path, hdu=1)
    table.convert_bytestring_to_unicode()
    scalars = [name for name in table.colnames if table[name].ndim == 1]  # pandas has no array columns
    return table[scalars].to_pandas()


def _first_float(values) -> tuple[int, object]:
    """The first id that is a float, or was written as one, and its row."""
    for row, value in enumerate(values):
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str) and re.fullmatch(_WRITTEN_AS_FLOAT, text.strip()):
            return row, text
        if isinstance(value, (float, np.floating)) and not pd.isna(value):
            return row, value
    raise AssertionError("one of the ids is a float")
