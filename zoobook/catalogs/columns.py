"""Columns of tables in memory: ids as text, numbers with every digit, bytes in the order of this machine."""
from __future__ import annotations

import os
import re
from collections.abc import Iterable
from numbers import Number

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_WRITTEN_AS_FLOAT = r"[+-]?\d+\.0*|[+-]?\d(\.\d+)?[eE]\+\d+"  # with the sign that programs write: 7e12 may be an id


def in_memory(table: pd.DataFrame) -> pd.DataFrame:
    """The same table as pandas can work with it: of FITS, astropy gives bytes in another order, and text as bytes."""
    foreign = [n for n, kind in enumerate(table.dtypes) if isinstance(kind, np.dtype) and not kind.isnative]
    encoded = [n for n, kind in enumerate(table.dtypes) if kind.kind == "O" and _is_encoded(table.iloc[:, n])]
    if not foreign and not encoded:
        return table
    columns = [table.iloc[:, n] for n in range(table.shape[1])]
    for n in foreign:
        values = columns[n].to_numpy()
        columns[n] = pd.Series(values.astype(values.dtype.newbyteorder("=")), table.index, name=columns[n].name)
    for n in encoded:
        decoded = [_decoded(value, columns[n].name) for value in columns[n]]
        columns[n] = pd.Series(decoded, table.index, dtype=object, name=columns[n].name)
    native = pd.concat(columns, axis=1)
    native.attrs = table.attrs
    return native


def _is_encoded(column: pd.Series) -> bool:
    present = column[column.notna()]
    return len(present) > 0 and isinstance(present.iloc[0], bytes)


def floats(column: pd.Series) -> np.ndarray:
    """A column of numbers, of any type, for calculations: float64 [N], NaN where there is no number.

    >>> floats(pd.Series([1, "x", None], dtype=object)).tolist()
    [1.0, nan, nan]
    """
    return pd.to_numeric(in_memory(column.to_frame()).iloc[:, 0], errors="coerce").to_numpy(float, na_value=np.nan)


def require(wanted: Iterable[str], names: Iterable[str], where: str) -> None:
    """Refuse a table, called ``where`` in the message, that has not all the wanted columns among its names."""
    names = list(names)
    absent = [name for name in wanted if name not in set(names)]
    if absent:
        raise ValueError(f"{where} has no column {absent[0]!r}; there are: {listed(names)}")


def listed(things: Iterable, most: int = 10) -> str:
    """The first few things in words, for a message.

    >>> listed(["a", "b", "c"], most=2)
    'a, b …'
    """
    things = [str(thing) for thing in things]
    return ", ".join(things[:most]) + (" …" if len(things) > most else "")


def ids_of(values: object, where: str = "the ids asked for", column: str = "id_str") -> np.ndarray:
    """One id, or several, as they are stored: [N] of ``str`` (dtype object), without blanks around them.

    >>> ids_of([587722981742084096, " J0942 "]).tolist()
    ['587722981742084096', 'J0942']
    """
    values = [values] if isinstance(values, (str, bytes, Number)) else values
    values = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    return id_array(values, where, column).to_numpy(zero_copy_only=False)


def id_array(values: pd.Series | pa.ChunkedArray | pa.Array, where: str, column: str) -> pa.Array:
    """Ids, text or whole numbers, as text without blanks around them; none may be empty.

    A float is refused, since it cannot hold 18 digits. ``where`` and ``column`` name table and column in a message.
    """
    if isinstance(values, pd.Series):
        values = in_memory(values.to_frame()).iloc[:, 0]
    try:
        ids = pa.array(values, from_pandas=True) if isinstance(values, pd.Series) else values
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        from_floats = pa.types.is_floating(ids.type) and ids.null_count < len(ids)
        if not from_floats:
            ids = ids.cast(pa.string())
            pattern = f"^\\s*({_WRITTEN_AS_FLOAT})\\s*$"
            from_floats = pc.all(pc.match_substring_regex(ids, pattern), min_count=1).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):  # of several types
        raw = [_id_text(v, where, column) for v in (values.tolist() if hasattr(values, "tolist") else values)]
        from_floats = any(map(_is_float, raw))
        ids = pa.array([None if pd.isna(v) else str(v) for v in raw], pa.string())
    if from_floats:
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


def check_ids(catalog: pd.DataFrame, where: str = "the catalogue", column: str = "id_str") -> np.ndarray:
    """The ids of a catalogue as text, [N] of ``str`` (dtype object); one that is missing or repeated is refused.

    Args:
        catalog: the table.
        where: what to call it in a message.
        column: which column holds the ids.
    """
    require([column], catalog.columns, where)
    ids = ids_of(catalog[column], where, column)
    repeated = pd.Series(ids).duplicated(keep=False).to_numpy()
    if repeated.any():
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(repeated):
            rows.setdefault(ids[row], []).append(int(row))
        shown = "; ".join(f"{name!r} in rows {listed(its_rows)}" for name, its_rows in list(rows.items())[:5])
        raise ValueError(
            f"{where}: {len(rows)} ids of `{column}` occur more than once, but each galaxy needs its own: {shown}"
            f"{' …' if len(rows) > 5 else ''} (rows count from 0). Drop the repeated rows."
        )
    return ids


def keyed(table: pd.DataFrame, where: str = "the catalogue") -> pd.DataFrame:
    """The same table of galaxies :func:`in_memory`, with an ``id_str`` that has passed :func:`check_ids`."""
    return in_memory(table).assign(id_str=check_ids(table, where))


def file_locations(catalog: pd.DataFrame, where: str = "the catalogue", folder: str | os.PathLike = "") -> list[str]:
    """The paths in a catalogue's ``file_loc``, in which ``~`` is the home folder; relative ones count from ``folder``.

    ``where`` names the catalogue in a message; an empty path is refused.
    """
    if "file_loc" not in catalog.columns:
        raise ValueError(f"{where} has no column `file_loc` with the paths of the images")
    column = in_memory(catalog[["file_loc"]])["file_loc"].astype(object)
    files = column.where(column.notna(), "").astype(str)
    empty = np.flatnonzero(files.str.strip() == "")
    if len(empty):
        names = catalog["id_str"] if "id_str" in catalog.columns else pd.Series("?", catalog.index)
        shown = listed((f"{str(names.iloc[row])!r} (row {row})" for row in empty), most=5)
        raise ValueError(f"{where}: `file_loc` is empty for {len(empty)} galaxies: {shown} (rows count from 0)")
    return [os.path.join(folder, os.path.expanduser(file)) for file in files]


def _decoded(value: object, column: str) -> object:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise ValueError(f"the column {column!r} holds {value!r}, which is no text") from None


def _id_text(value: object, where: str, column: str) -> object:
    """An id out of a column of several types, if it can be one."""
    value = _decoded(value, column)
    if not pd.api.types.is_scalar(value):
        raise ValueError(f"{where}: `{column}` holds {value!r}: an id is a text or a whole number")
    return value


def _is_float(value) -> bool:
    return isinstance(value, (float, np.floating)) and not pd.isna(value)


def _first_float(values) -> tuple[int, object]:
    """The first id that is a float, or was written as one, and its row."""
    for row, value in enumerate(values):
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str) and re.fullmatch(_WRITTEN_AS_FLOAT, text.strip()):
            return row, text
        if _is_float(value):
            return row, value
    raise AssertionError("one of the ids is a float")
