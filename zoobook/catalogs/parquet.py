"""Tables in parquet, in one file or in a folder of several, as zoobook, pandas or astropy write them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoobook.catalogs.columns import refuse_twice, require
from zoobook.catalogs.shards import footers
from zoobook.catalogs.table_errors import named
from zoobook.catalogs.units import to_degrees

_NULLABLE = {getattr(pa, kind.lower())(): getattr(pd, f"{kind}Dtype")()
             for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")}
_NULLABLE[pa.bool_()] = pd.BooleanDtype()
# Text as polars writes it, of which Arrow takes no rows; older versions do not know it.
_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()} if hasattr(pa, "string_view") else {}
_VALUES = 1 << 22  # of a parquet file decoded at a time: 32 MB of float64


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
        types = {name: schema.field(name).type for name in column_names(schema, file.name)}
        types = {name: _PLAIN.get(kind, kind) for name, kind in types.items()}
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
            alike |= name in ("ra", "dec") and _is_number(known) and _is_number(kind)
        except pa.ArrowException:
            alike = False
        if not alike:
            first = self._files[0].name
            said = f"the column {name!r} is {kind} in {file.name}, but {known} in {first}: write both alike"
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
                        part = _plain(file.read_row_group(number, columns=block, use_threads=False)).take(wanted)
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
                    meant = _in_degrees(with_gaps(_plain(piece).replace_schema_metadata(noted))).select(columns)
                    yield pa.concat_tables([schema.empty_table(), meant], promote_options="permissive")


def _plain(table: pa.Table) -> pa.Table:
    kinds = [(field.name, _PLAIN.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(kinds, table.schema.metadata)) if _PLAIN.keys() & set(table.schema.types) else table


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def frame(table: Parquet, columns: list[str] | None, rows: np.ndarray | None) -> pd.DataFrame:
    """Some columns and rows as pandas holds them, whole numbers and booleans with gaps as its nullable types."""
    columns = list(table.types) if columns is None else columns
    if rows is None:
        return _to_pandas(table.read(columns))
    return _to_pandas(table.take(columns, rows), self_destruct=True)


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


def column_names(schema: pa.Schema, where: str) -> list[str]:
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
        values, hidden = table.column(name), table.column(mask)
        if not pa.types.is_boolean(hidden.type):  # lists
            rows = zip(values.to_pylist(), hidden.to_pylist(), strict=True)
            cells = [[None if gone else cell for cell, gone in zip(*row, strict=True)] for row in rows]
            gapped = pa.array(cells, values.type)
        else:
            gapped = pc.if_else(hidden, pa.scalar(None, values.type), values)
        table = table.set_column(table.column_names.index(name), name, gapped)
    return table


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
        factor = to_degrees(name, Unit(units.get(name) or "", parse_strict="silent"))
        if factor != 1:
            table = table.set_column(place, name, pc.multiply(column.cast(pa.float64()), factor))
    return table
