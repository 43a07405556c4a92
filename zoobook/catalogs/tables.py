"""Tables on disk (CSV, parquet, FITS, VOTable): the one door through which they come in.

Whole numbers keep every digit and booleans stay booleans, also beside a gap (then as pandas' ``Int64`` and
``boolean``); a word stays a word, and of a CSV only empty cells are missing; ids are text.
"""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from zoobook import arguments
from zoobook.catalogs.columns import floats, id_array, ids_of, in_memory, listed, refuse_twice, require
from zoobook.catalogs.shards import PARQUET_NAME, footers
from zoobook.files import unpacked

__all__ = ["column_names", "floats", "id_array", "id_column", "ids_of", "in_memory", "listed", "read"]

FITS_NAME = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
TEXT_COLUMNS = ("id_str", "iauname", "dr8_id", "dr7objid", "dr8objid", "objid")  # never read as numbers from a CSV
_CSV_NAME = re.compile(r"\.csv(\.gz)?$", re.IGNORECASE)
_VOTABLE_NAME = re.compile(r"\.(vot|votable|xml)(\.gz)?$", re.IGNORECASE)
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
_NULLABLE = {getattr(pa, kind.lower())(): getattr(pd, f"{kind}Dtype")()
             for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")}
_NULLABLE[pa.bool_()] = pd.BooleanDtype()
_TEXT = pd.Series(["a"]).dtype  # object, or since pandas 3 str
_VALUES = 1 << 22  # of a parquet file decoded at a time: 32 MB of float64


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
        return id_array(_guarded(path, lambda path: Parquet(path).read([column]).column(0)), where, column)
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


class TableError(ValueError):
    """A table that cannot be read; the message says which, and why."""


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Where a table is read: every reader has its own errors; to the reader of the message they mean the same."""
    try:
        yield
    except TableError:
        raise
    except UnicodeDecodeError:
        raise TableError(f"{path} could not be read as a table: it is no text in UTF-8; save it as such") from None
    except Exception as error:
        reason = str(error).strip().splitlines()
        if found := re.search(r"EOF inside string starting at row (\d+)", str(error)):  # which pandas counts from 0
            reason = [f"row {int(found[1]) + 1} (counted from 1) has a quotation mark that is never closed"]
        raise TableError(
            f"{path} could not be read as a table: {reason[0] if reason else type(error).__name__}"
        ) from None


def is_parquet(path: Path) -> bool:
    """Whether a table is, or will be, in parquet: a folder, or a file that is not named as another kind."""
    return path.is_dir() or not any(name.search(path.name) for name in (_CSV_NAME, FITS_NAME, _VOTABLE_NAME))


def _names(path: Path) -> list[str]:
    if is_parquet(path):
        file, schema, _ = next(footers(path))
        return _parquet_names(schema, file.name)
    if _CSV_NAME.search(path.name):
        return _csv_names(path)
    return list(_read_astropy(path).columns)


def _csv_names(path: Path) -> list[str]:
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, na_values=[""])
    refuse_twice(first.iloc[0].dropna(), "it")  # pandas would give the second another name
    return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def _parquet_names(schema: pa.Schema, where: str) -> list[str]:
    """All but the columns in which pandas keeps a nameless row index, and astropy where others have gaps."""
    refuse_twice(schema.names, where)
    gaps = set(_mask_columns(schema).values())
    return [name for name in schema.names if not re.fullmatch(r"__index_level_\d+__", name) and name not in gaps]


def _mask_columns(schema: pa.Schema) -> dict[str, str]:
    """Where astropy has written a parquet file: by column, the one that says where it has gaps."""
    names = set(schema.names) if b"table_meta_yaml" in (schema.metadata or {}) else set()
    return {name: f"{name}.mask" for name in names if f"{name}.mask" in names}


def with_gaps(table: pa.Table) -> pa.Table:
    """A table that astropy has written, with missing values where it says that they are missing."""
    for name, mask in _mask_columns(table.schema).items():
        values = table.column(name)
        gapped = pc.if_else(table.column(mask), pa.scalar(None, values.type), values)
        table = table.set_column(table.column_names.index(name), name, gapped)
    return table


def _read(path: Path, columns: list[str] | None, rows: np.ndarray | None, text: tuple[str, ...]) -> pd.DataFrame:
    if is_parquet(path):
        return _read_parquet(path, columns, rows)
    if _CSV_NAME.search(path.name):
        _check_rows(path)
        table = _read_csv(path, columns, {*TEXT_COLUMNS, *text})
    else:
        table = _read_astropy(path)
    table = table if columns is None else table[columns]
    if rows is None:
        return table
    _check_reach(rows, len(table))
    return table.iloc[rows].reset_index(drop=True)


def _check_reach(rows: np.ndarray, total: int) -> None:
    if len(rows) and rows[-1] >= total:
        raise ValueError(f"row {rows[-1]} (counted from 0) is asked for, and it has {total}")


def _read_csv(path: Path, columns: list[str] | None, text: set[str]) -> pd.DataFrame:
    """All rows, since what a column holds is told by all of it."""
    table = pd.read_csv(
        path, usecols=columns, dtype=dict.fromkeys(text, "string"), dtype_backend="numpy_nullable",
        keep_default_na=False, na_values=[""], low_memory=False, **EXACT,
    )  # fmt: skip
    settled = {name: _settled(table[name], name not in text) for name in table.columns}
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
    names = _csv_names(path)
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


class Parquet:
    """A table in parquet, in one file or several, each column of one type: what astropy masks in a file is missing, and
    positions are in degrees, whatever unit a file notes.

    Args:
        path: the file or folder.

    Attributes:
        types: by column, its Arrow type.
        rows: how many there are.
    """

    def __init__(self, path: Path):
        self.types: dict[str, pa.DataType] = {}
        self.rows, self._path = 0, path
        self._files: list[Path] = []
        self._unlike: dict[str, str] = {}  # by column, how its files differ
        with named(path):
            last = None
            for file, schema, rows in footers(path):
                if last is None or not schema.equals(last, check_metadata=True):  # most are, and to compare takes long
                    self._compare(file, schema, rows)
                last = schema if rows else last
                self._files.append(file)
                self.rows += rows

    def _compare(self, file: Path, schema: pa.Schema, rows: int) -> None:
        types = {name: schema.field(name).type for name in _parquet_names(schema, file.name)}
        if b"table_meta_yaml" in (schema.metadata or {}):  # by which a position may have another unit than degrees
            types |= {name: pa.float64() for name in ("ra", "dec") if name in types and _is_number(types[name])}
        if self._files:
            require(self.types, list(types), file.name)
            require(types, list(self.types), f"{self._files[0].name}, unlike {file.name},")
        if not self.rows:  # a file without rows may say anything of its columns
            self.types = {name: types[name] for name in self.types or types}
        for name in self.types if rows else ():
            self._unite(name, types[name], file)

    def _unite(self, name: str, kind: pa.DataType, file: Path) -> None:
        known = self.types[name]
        if kind == known:
            return
        try:
            schemas = [pa.schema([(name, one)]) for one in (known, kind)]
            self.types[name] = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
            alike = pa.types.is_floating(known) == pa.types.is_floating(kind) or pa.null() in (known, kind)
        except pa.ArrowException:
            alike = False
        if not alike:
            said = f"the column {name!r} is {kind} in {file.name}, but {known} in {self._files[0].name}"
            self._unlike.setdefault(name, said)

    def schema(self, columns: list[str]) -> pa.Schema:
        """Some columns and their types; one that is something else in another file is refused."""
        with named(self._path):
            for name in columns:
                if name in self._unlike:
                    raise ValueError(self._unlike[name])
        return pa.schema([(name, self.types[name]) for name in columns])

    def read(self, columns: list[str]) -> pa.Table:
        """All rows."""
        return self._united(columns, lambda file, names: [file.read(names)])

    def take(self, columns: list[str], rows: np.ndarray) -> pa.Table:
        """Some rows, ascending, counted from 0; a row group without any of them is not read."""
        start = 0

        def cut(file: pq.ParquetFile, names: list[str]) -> Iterator[pa.Table]:
            nonlocal start
            for number in range(file.num_row_groups):
                length = file.metadata.row_group(number).num_rows
                first, last = np.searchsorted(rows, [start, start + length])
                if last > first:
                    wanted = pa.array(rows[first:last] - start)
                    # A row group may be the whole file: of it, so many columns at a time as hold few values.
                    width = max(1, _VALUES // length)
                    taken = {}
                    for block in (names[i : i + width] for i in range(0, len(names), width)):
                        part = file.read_row_group(number, columns=block, use_threads=False).take(wanted)
                        taken |= {name: part.column(name) for name in block}
                    yield pa.table(taken)
                start += length

        return self._united(columns, cut, pre_buffer=False)

    def batches(self, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """So many rows at a time; pyarrow.dataset would read on while the last ones are worked on, and fill memory."""
        return self._pieces(columns, lambda file, names: (
            pa.Table.from_batches([batch]) for batch in file.iter_batches(rows, columns=names)
        ), memory_map=True)  # fmt: skip

    def _united(self, columns: list[str], cut: Callable, **options) -> pa.Table:
        return pa.concat_tables([self.schema(columns).empty_table(), *self._pieces(columns, cut, **options)])

    def _pieces(self, columns: list[str], cut: Callable, **options) -> Iterator[pa.Table]:
        """What ``cut`` makes of every file and the names of what to read in it."""
        schema = self.schema(columns)
        for path in self._files:
            with named(path):
                file = pq.ParquetFile(path, page_checksum_verification=True, **options)
                masks, noted = _mask_columns(file.schema_arrow), file.schema_arrow.metadata
                names = [*columns, *(masks[name] for name in columns if name in masks)]
                for piece in cut(file, names) if file.metadata.num_rows else ():
                    meant = _in_degrees(with_gaps(piece.replace_schema_metadata(noted))).select(columns)
                    yield pa.concat_tables([schema.empty_table(), meant], promote_options="permissive")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _read_parquet(path: Path, columns: list[str] | None, rows: np.ndarray | None) -> pd.DataFrame:
    table = Parquet(path)
    columns = list(table.types) if columns is None else columns
    if rows is None:
        return _to_pandas(table.read(columns))
    _check_reach(rows, table.rows)
    return _to_pandas(table.take(columns, rows), self_destruct=True)


def _in_degrees(table: pa.Table) -> pa.Table:
    """A table of a parquet file, with positions in degrees where astropy has noted another unit."""
    noted = (table.schema.metadata or {}).get(b"table_meta_yaml")
    names = {"ra", "dec"} & set(table.column_names)
    if noted is None or not names:
        return table
    from astropy.table.meta import get_header_from_yaml
    from astropy.units import Unit

    noted_columns = get_header_from_yaml(noted.decode().split("\n"))["datatype"]
    units = {column["name"]: column.get("unit") for column in noted_columns}
    for name in names:
        column, place = table.column(name), table.column_names.index(name)
        if not _is_number(column.type):
            continue
        factor = _degrees(name, Unit(units.get(name) or "", parse_strict="silent"))
        if factor != 1:
            table = table.set_column(place, name, pc.multiply(column.cast(pa.float64()), factor))
    return table


def _to_pandas(table: pa.Table, **options) -> pd.DataFrame:
    gaps = {name: table.column(name) for name in table.column_names
            if table.column(name).null_count and table.schema.field(name).type in _NULLABLE}
    names, rest = table.column_names, table.drop_columns(list(gaps))
    del table
    frame = rest.to_pandas(ignore_metadata=True, integer_object_nulls=True, **options)
    if not gaps:
        return frame
    gaps = {name: column.to_pandas(types_mapper=_NULLABLE.get) for name, column in gaps.items()}
    return pd.concat([frame, pd.DataFrame(gaps)], axis=1)[names]


def _votable(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The table of a VOTable file, and where its booleans are missing."""
    from astropy.io import votable
    from astropy.utils.xml.iterparser import get_xml_iterator

    with get_xml_iterator(path) as elements:  # read as astropy reads it, which would follow such an address
        if any(begins and tag == "STREAM" and "href" in told for begins, tag, told, _ in elements):
            raise ValueError("its data are in another file or on the network; save it with the data in it")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="astropy.io.votable")
        warnings.filterwarnings("error", category=votable.exceptions.W46)
        try:
            document = votable.parse(path, verify="warn")  # else it does not tell
        except votable.exceptions.W46 as error:
            raise ValueError(f"a text is longer than its FIELD allows, and would be cut ({error}): "
                             'write arraysize="*" there') from None  # fmt: skip
    tables = list(document.iter_tables())
    told = {info.value: info.content for info in document.iter_info() if info.name == "QUERY_STATUS"}
    if "ERROR" in told:
        raise ValueError(f"it is no answer, but the error of a service: {told['ERROR'] or 'of which it tells no more'}")
    if "OVERFLOW" in told:
        warnings.warn(f"{path} is the cut-off answer of a service (OVERFLOW), so it lacks rows: ask it for more of "
                      "them, with MAXREC or TOP", stacklevel=2)  # fmt: skip
    if not tables:
        raise ValueError("it has no table")
    if len(tables) > 1:
        warnings.warn(f"{path} has {len(tables)} tables: the first is read", stacklevel=2)
    refuse_twice([field.name for field in tables[0].fields if field.name], "it")
    table = tables[0].to_table(use_names_over_ids=True)
    return table, {name: table[name].mask for name in table.colnames
                   if table[name].dtype.kind == "b" and hasattr(table[name], "mask")}  # fmt: skip


def _fits_table(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The table of a FITS file, and where its booleans are missing."""
    from astropy.io import fits
    from astropy.table import MaskedColumn, Table

    with open(path, "rb") as file, unpacked(file) as whole, fits.open(whole) as hdus, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*contains NULL.*")
        numbers = [n for n, hdu in enumerate(hdus)
                   if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(hdu, fits.CompImageHDU)]
        if not numbers:
            raise ValueError("it has no table")
        hdu = hdus[numbers[0]]
        if len(numbers) > 1:
            warnings.warn(f"{path} has {len(numbers)} tables: the first is read, that of extension {numbers[0]}",
                          stacklevel=2)  # fmt: skip
        refuse_twice([name.strip() for name in hdu.columns.names], "it")
        hdu.header.remove("COMMENT", ignore_missing=True, remove_all=True)  # by which astropy makes objects of columns
        binary, blank, lists = isinstance(hdu, fits.BinTableHDU), {}, {}
        for column in hdu.columns:  # astropy stumbles over gaps in ASCII, which are texts, and in lists of any length
            if not binary:
                raw = np.char.strip(np.rec.recarray.field(hdu.data, column.name))
                blank[column.name] = (raw == b"") | (raw == str(column.null).strip().encode())
                hdu.data[column.name]  # astropy reads it, for which it needs to know of gaps, and keeps it
                column.null = None
            elif re.match("1?[PQ]", str(column.format)):
                lists[column.name], column.null = column.null, None
        table = Table.read(hdu)
        for name, gap in blank.items():
            table[name] = MaskedColumn(table[name], mask=gap)
        for name, null in lists.items():
            for row, cell in enumerate(table[name]):  # astropy gives text as letters
                if cell.dtype.kind == "U":
                    table[name][row] = "".join(cell)
                elif null is not None:
                    table[name][row] = _filled(np.ma.masked_equal(cell, null))
        # A logical of FITS is T, F or a zero byte, which is a gap, but which astropy gives as false.
        logical = [column.name for column in hdu.columns if binary and column.format in ("L", "1L")]
        for column in hdu.columns:  # a gap is one before it is scaled, which astropy forgets
            if binary and column.null is not None and table[column.name].dtype.kind == "f":
                table[column.name][np.rec.recarray.field(hdu.data, column.name) == column.null] = np.nan
        return table, {name: np.rec.recarray.field(hdu.data, name) == 0 for name in logical}


def _degrees(name: str, unit: Any) -> float:
    """By what to multiply ``ra`` or ``dec``: pandas knows no units, and all that asks for positions wants degrees."""
    from astropy.units import Unit

    text = str(unit).strip("- ")  # some write --- for none
    one = text.lower().removesuffix("s")
    if name == "ra" and one in ("h", "hr", "hour", "hourangle"):
        return 15.0
    for known in (unit, Unit(text.lower(), parse_strict="silent"), Unit(one, parse_strict="silent")):
        if known.physical_type == "angle":
            return known.to("deg")
    if text:
        raise ValueError(f"`{name}` is in {text!r}, which is no known unit of angles: change that to 'deg', if degrees "
                         "they are")  # fmt: skip
    return 1.0


def _read_astropy(path: Path) -> pd.DataFrame:
    table, gaps = (_votable if _VOTABLE_NAME.search(path.name) else _fits_table)(path)
    table.convert_bytestring_to_unicode()
    for name in [name for name in table.colnames if table[name].shape[1:] == (1,)]:
        table[name] = table[name][:, 0]
    for name in {"ra", "dec"} & set(table.colnames):
        unit = table[name].unit
        if unit is None or table[name].dtype.kind not in "iuf":
            continue
        table[name] = table[name].astype(float) * _degrees(name, unit)  # whole minutes are no whole degrees
    scalars = [name for name in table.colnames if table[name].ndim == 1]
    frame = table[scalars].to_pandas()
    for name in scalars:
        values, gap = table[name], getattr(table[name], "mask", np.False_)
        if values.dtype.kind in "iu" and np.any(gap):  # of which older versions of astropy make floats
            whole = np.asarray(values.data.data, values.dtype.newbyteorder("="))
            frame[name] = pd.arrays.IntegerArray(whole, np.broadcast_to(gap, whole.shape).copy())
    objects = [name for name in scalars if table[name].dtype.kind == "O"]  # text of a VOTable, or arrays
    texts = [name for name in objects if frame[name].dropna().map(lambda value: isinstance(value, str)).all()]
    for name in [*texts, *(name for name in scalars if table[name].dtype.kind == "U")]:
        frame[name] = frame[name].str.rstrip()
        frame[name] = frame[name].mask(frame[name] == "")  # FITS has no other sign for a text that is missing
    frame = frame.assign(**{name: frame[name].astype("boolean").mask(gap) for name, gap in gaps.items() if gap.any()})
    for name in set(objects).difference(texts):
        frame[name] = [_filled(cell) for cell in frame[name]]
    return frame.assign(**{name: _lists(table[name]) for name in table.colnames if name not in scalars})[table.colnames]


def _lists(column: Any) -> list:
    """A column of arrays as a list of them, in the byte order of this machine."""
    column = _filled(column)
    foreign = column.dtype.kind in "iufc" and not column.dtype.isnative
    return list(column.astype(column.dtype.newbyteorder("=")) if foreign else column)


def _filled(values: Any) -> Any:
    """An array, with NaN where it has gaps; anything else as it is."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    values = values.astype(float) if np.ma.is_masked(values) and values.dtype.kind in "iub" else values
    return values.filled(np.nan if values.dtype.kind in "fc" else None)
