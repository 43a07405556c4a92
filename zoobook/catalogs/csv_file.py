"""Tables in CSV: every digit and every word stays, and only empty cells are missing."""

import contextlib
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from zoobook.catalogs.columns import refuse_twice

CSV_NAME = re.compile(r"\.csv(\.gz)?$", re.IGNORECASE)
TEXT_COLUMNS = ("id_str", "iauname", "dr8_id", "dr7objid", "dr8objid", "objid")  # never read as numbers
#: for ``pandas.read_csv``: decimal numbers as they were written. Before 3.1 pandas missed many by the last bit unless
#: asked not to; since then it warns if it is asked. Source: https://github.com/pandas-dev/pandas/pull/64432
EXACT = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
_NO_CSV = {  # what files begin with that were given the name of one
    rb"PAR1[^ -~]": "a parquet file: rename it to end in .parquet",
    rb"\x1f\x8b": "packed with gzip: rename it to end in .csv.gz",
    rb"PK\x03\x04": "a zip archive or a spreadsheet: save the table in it as CSV",
    rb"\s*<(!doctype|html|\?xml)": "a web page or XML, and no CSV: was the download refused?",
}
_NOT_A_NUMBER = r"\s*([+-]?(nan|NaN|NAN))?\s*"  # what programs write in a column of numbers
_TEXT = pd.Series(["a"]).dtype  # object, or since pandas 3 str


def csv_names(path: Path) -> list[str]:
    """The names of the columns, in order."""
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, na_values=[""])
    refuse_twice(first.iloc[0].dropna(), "it")  # pandas would give the second another name
    return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def read_csv(path: Path, columns: list[str] | None, text: tuple[str, ...]) -> pd.DataFrame:
    """All rows, since what a column holds is told by all of it; ``text`` are further columns that hold ids."""
    _check_rows(path)
    ids = {*TEXT_COLUMNS, *text}
    table = pd.read_csv(
        path, usecols=columns, dtype=dict.fromkeys(ids, "string"), dtype_backend="numpy_nullable",
        keep_default_na=False, na_values=[""], low_memory=False, **EXACT,
    )  # fmt: skip
    settled = {name: _settled(table[name], name not in ids) for name in table.columns}
    large = [name for name, column in settled.items() if column.dtype.kind == "f" and (column.abs() >= 2**53).any()]
    for name in large:  # whole numbers beside one with a point: a float would not keep their digits
        cells = pd.read_csv(path, usecols=[name], dtype="string", keep_default_na=False)[name]
        long = cells[cells.str.fullmatch(r"\s*[+-]?\d{16,}\s*").fillna(False)]
        lossy = any(int(cell) != int(float(cell)) for cell in long)
        if lossy and not cells.str.contains(r"[eE]|inf", case=False).any():  # else they are measured numbers
            settled[name] = _settled(cells, False)
    return pd.DataFrame(settled)


def _check_rows(path: Path) -> None:
    """Refuse a CSV with a row that is shorter or longer than its first, which pandas would fill or shift silently."""
    with open(path, "rb") as file:
        begin = file.read(200)
    for first, kind in _NO_CSV.items():
        if re.match(first, begin, re.IGNORECASE) and not (kind.startswith("packed") and path.suffix.lower() == ".gz"):
            raise ValueError(f"it is {kind}")
    names = csv_names(path)
    other = re.search("[;\t|]", names[0])
    commented = ValueError("it begins with #: remove the comments, and a # before the names of columns")
    if len(names) == 1 and names[0].startswith("#"):
        raise commented
    if len(names) == 1 and other:
        raise ValueError(f"its cells are parted by {other[0]!r}, not by commas: save it with commas")
    everything_as_bytes = {"include_columns": ["f0"], "column_types": {"f0": pa.binary()}}
    try:
        pieces = pa.csv.open_csv(
            path, pa.csv.ReadOptions(autogenerate_column_names=True, block_size=1 << 24, use_threads=False),
            pa.csv.ParseOptions(newlines_in_values=True), pa.csv.ConvertOptions(**everything_as_bytes),
        )  # fmt: skip
        for _ in pieces:
            pass
    except pa.ArrowInvalid as error:
        found = re.search(r"(Row #(\d+): )?Expected (\d+) columns, got (\d+)", str(error))
        if found and begin.lstrip().startswith(b"#"):
            raise commented from None
        if found:  # whatever else it does not like, pandas judges
            raise ValueError(
                f"row {found[2] or '?'} (counted from 1) has {found[4]} cells, where the first row has {found[3]}: was "
                "the file cut off, or a comma left out or added?"
            ) from None
    if path.suffix.lower() == ".csv" and path.stat().st_size:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() not in b"\r\n":
                warnings.warn(f"{path} does not end with a line break: if it was cut off, so may its last cell be",
                              stacklevel=2)  # fmt: skip


def _settled(column: pd.Series, may_be_numbers: bool) -> pd.Series:
    """A column of a CSV in pandas' usual types, but for whole numbers and booleans with gaps."""
    filled = column
    if isinstance(column.dtype, pd.StringDtype):
        column = filled = column.mask(column == "")  # pandas leaves them among numbers beyond int64
        if may_be_numbers:
            filled = column.mask(column.str.fullmatch(_NOT_A_NUMBER).fillna(False))
    gaps = column.isna()
    if filled.isna().all():
        return pd.Series(np.nan, column.index, name=column.name).astype(float if may_be_numbers else object)
    if isinstance(column.dtype, pd.StringDtype):
        if may_be_numbers and filled.isna().any():
            with contextlib.suppress(ValueError, OverflowError):  # words, among which is the word nan
                numbers = pd.to_numeric(filled, dtype_backend="numpy_nullable")
                return _settled(numbers if numbers.dtype.kind in "iuf" else filled.astype("UInt64"), True)
            if filled.dropna().str.lower().isin(["true", "false"]).all():
                return filled.str.lower().map({"true": True, "false": False}).astype("boolean")
        return column.astype(object).where(~gaps, np.nan).astype(_TEXT)
    if isinstance(column.dtype, pd.Float64Dtype):
        return pd.Series(column.to_numpy(float, na_value=np.nan), column.index, name=column.name)
    return column if gaps.any() else column.astype(column.dtype.numpy_dtype)
