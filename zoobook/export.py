"""A catalogue to give to others: FITS, VOTable or parquet with units, descriptions, and where the numbers come from."""

import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

import zoobook
from zoobook import arguments
from zoobook.catalogs import keyed
from zoobook.catalogs.columns import floats, listed, refuse_twice, require
from zoobook.files import ensure_writable_dir, replacing

_KNOWN = (  # names of columns, their units, and what they are
    (r"id_str", "", "name of the galaxy"),
    (r"ra", "deg", "right ascension"),
    (r"dec", "deg", "declination"),
    (r"(r50|r90|petro\w*)_arcsec", "arcsec", "radius"),
    (r"redshift", "", "redshift"),
    (r"(.+)_probability", "", r"predicted probability of \1"),
    (r"(.+)_deviation", "", r"standard deviation of \1 between forward passes"),
    (r"(.+)_concentration(_\d+)?", "", r"predicted Dirichlet concentration of \1"),
    (r"(.+)_fraction", "", r"share of the volunteers asked who answer \1"),
    (r"(.+)_proportion_volunteers_asked", "", r"share of the volunteers who are asked \1"),
    (r"anomaly_score", "", "how unusual: 0.5 ordinary, towards 1 unusual (isolation forest)"),
)
_WIDER = {"int8": "int16", "uint16": "int32", "uint32": "int64", "float16": "float32"}  # FITS or VOTable lacks these
_FORMATS = {".fits": "fits", ".vot": "votable", ".xml": "votable", ".parquet": "parquet"}
_FITS_COLUMNS = 999  # their number has three digits in the names of the header
_FITS_NAME = 60  # letters, which leave room for a value in the 80 of a line of the header
_FITS_KEYWORD = re.compile(  # those with z are of compressed images
    r"(?!hierarch |(end|comment|history|checksum|datasum|zhecksum|zdatasum|znaxis\d*|z(tile|name|val)\d+"
    r"|z(image|table|simple|tension|extend|blocked|bitpix|cmptype|maskcmp|quantiz|dither0|blank|scale|zero|[pg]count))$)"
    r"[\w-]([\w -]*[\w-])?", re.ASCII | re.IGNORECASE,
)  # fmt: skip
_NOT_IN_XML = r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # https://www.w3.org/TR/xml/#charsets


def write(
    table: pd.DataFrame, path: str | os.PathLike, *, units: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None, weights: str | os.PathLike | None = None, **provenance: str,
) -> Path:  # fmt: skip
    """Write a catalogue whose columns say what they are, and which says where it comes from.

    Args:
        table: ``id_str`` and columns of numbers, truths or text; lists of numbers become a column for each place.
        path: ``….fits``, ``….vot`` (or ``.xml``) or ``….parquet``; it is written whole or not at all.
        units: by column, as the VO writes them (``"deg"``, ``"arcsec"``, ``"mag"``); the usual columns have theirs.
        descriptions: by column, likewise.
        weights: the model that the predictions come from: its file, the folder of its training, or the name of one
            that comes with zoobook. Its SHA-256 goes into the file.
        **provenance: anything else worth remembering, such as ``survey="DECaLS DR5"``.

    Returns:
        Path: the file. astropy reads it with ``Table.read``: provenance is in ``meta``, of a VOTable in the ``INFO``
        elements of its table; what cannot be a keyword of FITS is in its ``HISTORY``. In parquet, a column ``n.mask``
        tells astropy where ``n`` has gaps, which are empty for every other reader. Whole numbers beyond 2**53 beside a
        gap come to astropy exactly from FITS and VOTable only: of parquet it makes floats.

    Raises:
        ValueError: the ending of the name, a unit, or a column named is unknown, ids are bad, there are no galaxies, or
            the format cannot hold a column.
    """
    from astropy.units import Unit

    path, table = arguments.path(path), keyed(table, "the table")
    if table.empty:
        raise ValueError("the table has no galaxies, so there is nothing to write")
    format_of(path, table.shape[1])
    require([*(units or {}), *(descriptions or {})], table, "the table")
    plain = _plain(table)
    kind = format_of(path, plain.shape[1])  # again, since lists become columns
    made = _astropy_table(plain)
    for name in made.colnames:
        unit, description = _about(name)
        unit = (units or {}).get(name, unit)
        try:
            made[name].unit = Unit(unit) if unit else None
            if isinstance(unit, Real):
                raise ValueError
        except (ValueError, TypeError):
            raise ValueError(f"{unit!r} is no unit that astropy knows (column {name!r}); write it like 'deg'") from None
        if kind != "parquet" and hasattr(made[name], "mask") and made[name].dtype.kind in "iu":
            made[name].fill_value = _for_gaps(name, made[name])
        made[name].description = _in_one_line((descriptions or {}).get(name, description) or "") or None
    made.meta = {"ZOOBOOK": zoobook.__version__, **_of_weights(weights)}
    made.meta |= {name: _in_one_line(value) for name, value in provenance.items()}
    ensure_writable_dir(path.parent)
    with replacing(path) as part:
        try:
            _WRITERS[kind](made, part)
        except (TypeError, AssertionError, NotImplementedError) as error:  # of names and types that a format has not
            raise ValueError(f"{path.name} cannot hold this table: {error}. Rename or drop what it names.") from None
    return path


def format_of(path: Path, columns: int) -> str:
    """The format that the ending of a file stands for; refused if it is unknown, or cannot hold so many columns."""
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name}: the name must end in one of {listed(_FORMATS)}")
    if kind == "fits" and columns > _FITS_COLUMNS:
        raise ValueError(f"{path.name}: FITS holds {_FITS_COLUMNS} columns at most, and there are {columns:,}: "
                         "write a .parquet or .vot file")  # fmt: skip
    return kind


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Columns as astropy takes them: text without gaps, numbers with theirs."""
    refuse_twice(map(str, table), "the table")  # 0 and "0" become one name
    columns: dict[str, pd.Series] = {}
    for name, column in table.items():
        if isinstance(column.dtype, pd.ArrowDtype):
            column = _out_of_arrow(column)
        column = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
        column = column.sparse.to_dense() if isinstance(column.dtype, pd.SparseDtype) else column
        if column.dtype == object:  # what a column is follows from its values
            if all(isinstance(value, Decimal) for value in column.dropna()):
                column = pd.Series(floats(column), column.index)
            elif not all(map(pd.api.types.is_scalar, column)):
                parts = _parted(name, column)
                twice = parts.keys() & set(map(str, table))
                if twice:
                    raise ValueError(f"the lists of {name!r} become columns, of which the table has {min(twice)!r} "
                                     "already: rename one of them")  # fmt: skip
                columns |= parts
                continue
            elif pd.api.types.infer_dtype(column, skipna=True) == "integer":
                column = _whole(name, column)
            else:
                column = column.convert_dtypes()
        if not pd.api.types.is_numeric_dtype(column):
            column = column.astype(object).where(column.notna(), "").astype(str).astype(object)
        columns[str(name)] = column
    return pd.DataFrame({name: _held(name, column) for name, column in columns.items()})


def _out_of_arrow(column: pd.Series) -> pd.Series:
    """A column that pandas keeps in Arrow, in the types of NumPy and pandas."""
    kind = column.dtype.numpy_dtype
    if kind.kind == "f":
        return pd.Series(column.to_numpy(kind, na_value=np.nan), column.index)
    return column.astype(_with_gaps(kind.name) if kind.kind in "iub" else object)


def _with_gaps(kind: str) -> str:
    """What pandas calls a type of NumPy where it may have gaps: ``UInt8`` for ``uint8``."""
    return "boolean" if kind == "bool" else kind.title().replace("i", "I")


def _whole(name: object, column: pd.Series) -> pd.Series:
    """Whole numbers of Python with every digit; ``convert_dtypes`` would take them through floats beside a gap."""
    low, high = int(column.dropna().min()), int(column.dropna().max())
    for kind in (np.iinfo(np.int64), np.iinfo(np.uint64)):
        if kind.min <= low and high <= kind.max:
            return column.astype(_with_gaps(kind.dtype.name))
    raise ValueError(f"the column {name!r} holds whole numbers from {low} to {high}, which no type of 64 bits holds: "
                     "make it text")  # fmt: skip


def _held(name: str, column: pd.Series) -> pd.Series:
    """A column in a type that the formats have."""
    if column.dtype.kind == "f" and column.dtype.itemsize > 8:
        raise ValueError(f"the column {name!r} holds {column.dtype}, which the formats lack: make it float64")
    kind = str(column.dtype).lower()
    wider = "int64" if kind == "uint64" and not (column >= 2**63).any() else _WIDER.get(kind, kind)
    if wider == kind:
        return column
    return column.astype(wider if isinstance(column.dtype, np.dtype) else _with_gaps(wider))


def _parted(name: object, column: pd.Series) -> dict[str, pd.Series]:
    """Lists of numbers, such as the answers of several passes, as a column for each place in them."""
    if len({np.shape(value) for value in column}) == 1:
        values = np.ma.stack(list(column))
        if values.ndim == 2 and values.size and values.dtype.kind in "iufb":
            values = values.astype(float).filled(np.nan) if np.ma.is_masked(values) else values.data
            return {f"{name}_{place}": pd.Series(values[:, place], column.index) for place in range(values.shape[1])}
    raise ValueError(f"the column {name!r} holds neither numbers, truths, text nor equally long lists of numbers: "
                     "drop it")  # fmt: skip


def _astropy_table(table: pd.DataFrame):
    """The same in astropy, which before its version 7 does not know truths with gaps."""
    from astropy.table import MaskedColumn, Table

    gaps = {name: column.isna().to_numpy() for name, column in table.items() if column.dtype.kind == "b"}
    made = Table.from_pandas(table.assign(**{name: table[name].fillna(False).astype(bool) for name in gaps}))
    for name, mask in gaps.items():
        if mask.any():
            made[name] = MaskedColumn(made[name], mask=mask)
    return made


def _for_gaps(name: str, column) -> int:
    """The lowest number of its type that a column does not hold, to stand for its gaps: astropy's 999999 may occur."""
    limits, present = np.iinfo(column.dtype), np.unique(column.compressed()).tolist()
    free = next(value for value, held in zip(itertools.count(limits.min), [*present, None]) if value != held)
    if free > limits.max:
        raise ValueError(f"the column {name!r} holds every number of {column.dtype}, so none can stand for its gaps: "
                         "make it a wider type")  # fmt: skip
    return free


def _in_one_line(text: object) -> str:
    return " ".join(str(text).split())  # FITS has no line breaks


def _about(name: str) -> tuple[str, str]:
    """Unit and description of a usual column."""
    for pattern, unit, description in _KNOWN:
        found = re.fullmatch(pattern, name)
        if found:
            return unit, found.expand(description)
    return "", ""


def _of_weights(weights: str | os.PathLike | None) -> dict[str, str]:
    if weights is None:
        return {}
    from zoobook.weights import inspect
    from zoobook.weights.names import find_shipped

    about = inspect(weights)  # says what is wrong with it
    file = arguments.path(weights)
    file = file / "best.safetensors" if file.is_dir() else file if file.is_file() else find_shipped(os.fspath(weights))
    return {"WEIGHTS": Path(weights).name, "ARCHITEC": about["spec"]["architecture"],
            "SHA256": hashlib.sha256(file.read_bytes()).hexdigest()}  # fmt: skip


def _texts(made) -> Iterator[tuple[str, str]]:
    """All text of a table, each with where it stands."""
    for name, value in made.meta.items():
        yield from ((f"provenance {name!r}", text) for text in (name, value))
    for name in made.colnames:
        yield f"the name of the column {name!r}", name
        yield f"the description of the column {name!r}", made[name].description or ""
        if made[name].dtype.kind in "OU":
            for galaxy, text in zip(made["id_str"].tolist(), made[name].tolist(), strict=True):
                yield f"the column {name!r} of galaxy {galaxy!r}", text


def _refuse_strange(made, characters: str, why: str, endings: str) -> None:
    """Refuse text with characters that a format cannot hold."""
    for where, text in _texts(made):
        if re.search(characters, text):
            raise ValueError(f"{why}; {where} has {text!r}: change it, or write a {endings} file")


def _write_fits(made, path: Path) -> None:
    from astropy.io import fits

    _refuse_strange(made, r"[^\x01-\x7f]", "FITS holds ASCII text only", ".vot or .parquet")
    if too_long := [name for name in made.meta if len(name) > _FITS_NAME]:
        raise ValueError(f"FITS holds names of provenance of {_FITS_NAME} letters at most: shorten {too_long[0]!r}")
    provenance = made.meta
    made.meta = {name.upper(): value for name, value in provenance.items() if _FITS_KEYWORD.fullmatch(name)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Keyword name", fits.verify.VerifyWarning)  # long names become HIERARCH cards
        warnings.filterwarnings("ignore", "Meta-data keyword")  # of which FITS has its own, so it goes into the history
        made.write(path, format="fits")
        warnings.filterwarnings("ignore", message=".*contains NULL.*")
        with fits.open(path, mode="update") as hdus:
            for number, name in enumerate(made.colnames, 1):
                if made[name].dtype.kind == "b" and hasattr(made[name], "mask"):  # astropy would write truths for gaps
                    np.rec.recarray.field(hdus[1].data, name)[made[name].mask] = 0
                if made[name].description:  # astropy's own note on them only astropy reads
                    hdus[1].header[f"TCOMM{number}"] = made[name].description
            for name, value in provenance.items():
                if not _FITS_KEYWORD.fullmatch(name) or hdus[1].header.get(name) != value:
                    hdus[1].header.add_history(f"{name} = {value}")


def _write_votable(made, path: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    _refuse_strange(made, _NOT_IN_XML, "VOTable holds no control characters", ".parquet")
    document = from_table(made)
    document.get_first_table().infos.extend(Info(name=name, value=value) for name, value in made.meta.items())
    document.to_xml(str(path))


def _write_parquet(made, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from astropy.table import MaskedColumn

    from zoobook.catalogs.parquet import with_gaps

    for name in made.colnames:
        if made[name].dtype.kind == "U" and (made[name] == "").any():  # a gap, as in the other formats
            made[name] = MaskedColumn(made[name], mask=made[name] == "")
    for name in [name for name in made.colnames if f"{name}.mask" in made.colnames]:
        if made[f"{name}.mask"].tolist() != made[[name]].to_pandas()[name].isna().tolist():
            raise ValueError(f"in parquet '{name}.mask' is where astropy says which values of {name!r} are missing: "
                             "rename that column")  # fmt: skip
        del made[f"{name}.mask"]  # as read back by pandas; astropy writes it anew
    made.write(path, format="parquet")
    # astropy notes gaps in columns of their own, which others do not know; pandas has to be told of whole numbers
    table, of_pandas = with_gaps(pq.read_table(path)), pa.Schema.from_pandas(made.to_pandas()).metadata
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | of_pandas), path)


_WRITERS = {"fits": _write_fits, "votable": _write_votable, "parquet": _write_parquet}
