"""Tables in FITS and VOTable, read by astropy; with gaps where it has none."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoobook.catalogs.columns import refuse_twice
from zoobook.catalogs.units import to_degrees
from zoobook.files import unpacked

FITS_NAME = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
VOTABLE_NAME = re.compile(r"\.(vot|votable|xml)(\.gz)?$", re.IGNORECASE)


def read_fits_or_votable(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The first table of a file; positions among the ``columns`` that are asked for (all) are in degrees."""
    table, gaps = (_votable if VOTABLE_NAME.search(path.name) else _fits_table)(path)
    table.convert_bytestring_to_unicode()
    for name in [name for name in table.colnames if table[name].shape[1:] == (1,)]:
        table[name] = table[name][:, 0]
    for name in {"ra", "dec"}.intersection(table.colnames, table.colnames if columns is None else columns):
        unit = table[name].unit
        if unit is None or table[name].dtype.kind not in "iuf":
            continue
        table[name] = table[name].astype(float) * to_degrees(name, unit)  # whole minutes are no whole degrees
    scalars = [name for name in table.colnames if table[name].ndim == 1]
    frame = table[scalars].to_pandas() if scalars else pd.DataFrame(index=range(len(table)))
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


def _votable(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The table of a VOTable file, and where its booleans are missing."""
    from astropy.io import votable
    from astropy.utils.xml.iterparser import get_xml_iterator

    data = []  # where those of each table begin and end
    with get_xml_iterator(path) as elements:  # read as astropy reads it, which would follow such an address
        for begins, tag, attributes, place in elements:
            if begins and tag == "STREAM" and "href" in attributes:
                raise ValueError("its data are in another file or on the network; save it with the data in it")
            data += [place] if tag == "DATA" else []
    with warnings.catch_warnings(record=True) as caught, votable.exceptions.conf.set_temp("max_warnings", 100_000):
        warnings.filterwarnings("ignore", module="astropy.io.votable")
        for kind in (votable.exceptions.W46, votable.exceptions.W49):
            warnings.filterwarnings("always", category=kind)
        document = votable.parse(path, verify="warn")  # else it does not tell
    found = (re.search(r":(\d+):(\d+): (W46|W49)", str(one.message)) for one in caught)
    of_cells = {one[3]: one for one in found if one and data and data[0] <= (int(one[1]), int(one[2])) <= data[1]}
    if "W46" in of_cells:
        raise ValueError(f"a text in line {of_cells['W46'][1]} is longer than its FIELD allows, and would be cut: "
                         'write arraysize="*" there')  # fmt: skip
    if "W49" in of_cells:
        warnings.warn(f"{path} has empty cells among whole numbers, which VOTable before 1.3 cannot have: they are "
                      "read as 0", stacklevel=2)  # fmt: skip
    tables = list(document.iter_tables())
    status = {info.value: info.content for info in document.iter_info() if info.name == "QUERY_STATUS"}
    if "ERROR" in status:
        why = status["ERROR"] or "of which it tells no more"
        raise ValueError(f"it is no answer, but the error of a service: {why}")
    if "OVERFLOW" in status:
        warnings.warn(f"{path} is the cut-off answer of a service (OVERFLOW), so it lacks rows: ask it for more of "
                      "them, with MAXREC or TOP", stacklevel=2)  # fmt: skip
    if not tables:
        raise ValueError("it has no table")
    if len(tables) > 1:
        warnings.warn(f"{path} has {len(tables)} tables: the first is read", stacklevel=2)
    refuse_twice([field.name for field in tables[0].fields if field.name], "it")
    table = tables[0].to_table(use_names_over_ids=True)
    truths = [name for name in table.colnames if table[name].dtype.kind == "b" and table[name].ndim == 1]
    return table, {name: table[name].mask for name in truths if hasattr(table[name], "mask")}


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
                blank[column.name] = raw == b""
                if column.null is not None:
                    blank[column.name] |= raw == str(column.null).strip().encode()
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


def _lists(column: Any) -> list:
    """A column of arrays as a list of them, in the byte order of this machine."""
    column = _filled(column)
    foreign = column.dtype.kind in "iufc" and not column.dtype.isnative
    return list(column.astype(column.dtype.newbyteorder("=")) if foreign else column)


def _filled(values: Any) -> Any:
    """An array, with NaN where it has gaps, None beside whole numbers too long for that; anything else as it is."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if np.ma.is_masked(values) and values.dtype.kind in "iub":
        long = values.dtype.kind != "b" and max(values.max(), -values.min()) > 2**53
        values = values.astype(object if long else float)
    return values.filled(np.nan if values.dtype.kind in "fc" else None)
