"""Columns of tables in memory: ids as text, numbers with every digit, bytes in the order of this machine."""

import os
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from numbers import Integral, Number, Real

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoobook.arguments import ADDRESS, did_you_mean

_EXPONENT = r"[+-]?\d(\.\d+)?[eE]\+\d+"  # with the sign that programs write: 7e12 may be an id
_WRITTEN_AS_FLOAT = rf"[+-]?\d+\.0*|{_EXPONENT}"
_OF_EXCEL = r'^\s*="(.*)"\s*$', r"\1"
_NAN_AS_WHOLE = (-(2**63), -(2**31), -(2**15))  # what becomes of it as an int64, int32 or int16
_GAPS = ("nan", "NaN", "<NA>", "NaT")  # where a column with gaps was made text
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")  # 007 is a code


def a_frame(table: object, where: str = "the table") -> pd.DataFrame:
    """Refuse what is no DataFrame, or has two columns of one name; ``where`` is what to call it in the message."""
    if not isinstance(table, pd.DataFrame):
        given, how = type(table).__name__, "its method to_pandas makes one" if hasattr(table, "to_pandas") else ""
        if isinstance(table, (str, os.PathLike)):
            given, how = str(table), "zoobook.catalogs.read reads one"
        raise ValueError(f"{where} must be a pandas DataFrame, not {given}{how and f': {how}'}")
    refuse_twice(table.columns, where)
    return table


def refuse_twice(names: Iterable, where: str) -> None:
    """Refuse a table, called ``where`` in the message, with two columns of one name."""
    twice = pd.Series(list(names), dtype=object)
    if twice.duplicated().any():
        name = twice[twice.duplicated()].iloc[0]
        raise ValueError(f"{where} has several columns {name!r}: rename them, or drop all but one")


def in_memory(table: pd.DataFrame, where: str = "the table") -> pd.DataFrame:
    """The same table as pandas can work with it: of FITS, astropy gives bytes in another order, and text as bytes.

    A ``ValueError`` says what is no DataFrame.
    """
    a_frame(table, where)
    native = table.copy(deep=False)
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        made = _native(column)
        if made is not column:
            native.isetitem(place, made)
    return native


def _native(column: pd.Series) -> pd.Series:
    """A column as :func:`in_memory` gives it; the very same one where nothing is to be done."""
    if isinstance(column.dtype, np.dtype) and not column.dtype.isnative:
        values = column.to_numpy().astype(column.dtype.newbyteorder("="))
        return pd.Series(values, column.index, name=column.name)
    if column.dtype.kind not in "OS":
        return column
    try:
        present = column[column.notna()]
    except InvalidOperation:
        rows = [row for row, cell in enumerate(column) if isinstance(cell, Decimal) and cell.is_snan()]
        raise ValueError(f"`{column.name}` holds a signalling NaN in {len(rows)} rows (counted from 0): "
                         f"{listed(rows)}. Leave those cells empty.") from None  # fmt: skip
    if not len(present) or not isinstance(present.iloc[0], bytes):
        return column
    decoded = [_decoded(value, column.name) for value in column]
    return pd.Series(decoded, column.index, dtype=object, name=column.name)


def floats(column: pd.Series) -> np.ndarray:
    """A column of numbers, of any type, for calculations: float64 [N], NaN where there is no number.

    >>> floats(pd.Series([1, "x", None], dtype=object)).tolist()
    [1.0, nan, nan]
    """
    column = _native(column)
    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype):  # times and dates
        return np.full(len(column), np.nan)
    try:
        return _as_floats(column)
    except (OverflowError, np.ma.MaskError, TypeError):  # whole numbers beyond any float, what a mask hides, quantities
        known = (str, Real, Decimal, np.bool_)
        lost = [not isinstance(cell, known) or (isinstance(cell, int) and abs(cell) > 2**1000) for cell in column]
        return _as_floats(column.mask(lost))


def _as_floats(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.dtype == object:  # older versions of pandas leave quantities as they are
        raise TypeError
    if numbers.dtype.kind in "cmM":  # complex numbers, times and dates
        return np.full(len(column), np.nan)
    return numbers.to_numpy(float, na_value=np.nan)


def truths(column: pd.Series) -> np.ndarray:
    """Which cells of a column, bool [N], hold true or false, which :func:`floats` takes for 1 and 0."""
    if column.dtype.kind in "fiu":  # it holds nothing else, and may be long
        return np.zeros(len(column), bool)
    return np.array([isinstance(cell, (bool, np.bool_)) for cell in column.astype(object)], bool)


def numbers(table: pd.DataFrame, name: str, where: str = "the catalogue") -> np.ndarray:
    """A column of a table, as :func:`floats` gives it, in which a word, or true or false, is refused."""
    found, cells = floats(table[name]), table[name]
    lost = np.flatnonzero((np.isnan(found) & cells.notna().to_numpy(bool)) | truths(cells))
    if len(lost):
        degrees = ": astropy.coordinates.SkyCoord(ra, dec, unit=('hourangle', 'deg')).ra.deg makes degrees of hours"
        raise ValueError(
            f"{where}: `{name}` holds {cells.astype(object).iloc[lost[0]]!r}, where a number must stand, in "
            f"{len(lost)} rows (counted from 0): {listed(lost)}{degrees if name in ('ra', 'dec') else ''}"
        )
    return found


def flags(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of yes or no, bool [N]: truths, numbers above 0, or words; a gap is a no."""
    known = {"": 0, "t": 1, "true": 1, "yes": 1, "y": 1, "f": 0, "false": 0, "no": 0, "n": 0}
    cells = table[name].astype(object)
    told = [known.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell for cell in cells]
    found = floats(pd.Series(told, dtype=object))
    lost = np.flatnonzero(np.isnan(found) & table[name].notna().to_numpy(bool))
    if len(lost):
        raise ValueError(f"the table: `{name}` holds {table[name].iloc[lost[0]]!r}, where yes or no must stand, in "
                         f"{len(lost)} rows (counted from 0): {listed(lost)}")  # fmt: skip
    return found > 0


def unmasked(values: object) -> np.ndarray:
    """An array, in which what a masked one hides is missing; NumPy would give what lies under the mask."""
    return np.asarray(values.astype(object).filled(np.nan) if isinstance(values, np.ma.MaskedArray) else values)


def require(wanted: Iterable[str], there: pd.DataFrame | list[str], where: str, hint: str = "") -> None:
    """Refuse a table (of one on disk: its names), called ``where`` in the message, that lacks a wanted column."""
    if isinstance(wanted, str):
        raise ValueError(f"columns are named in a list, such as [{wanted!r}], not {wanted!r}")
    names = there if isinstance(there, list) else list(a_frame(there, where).columns)
    known = set(names)
    absent = next((name for name in wanted if name not in known), None)
    if absent is None:
        return
    if not hint and not isinstance(there, list) and absent in there.index.names:
        hint = "It is the index: reset_index() makes a column of it."
    hint = f" {hint}" if hint else did_you_mean(absent, names)
    raise ValueError(f"{where} has no column {absent!r}; there are: {listed(names)}{hint and f'.{hint}'}")


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
    if isinstance(values, (str, bytes, Number)) or isinstance(values, np.ndarray) and values.ndim == 0:
        values = [values[()] if isinstance(values, np.ndarray) else values]
    if values is None or isinstance(values, pd.DataFrame):
        raise ValueError(f"{where}: name one id or several, or give a column of ids, not {type(values).__name__}")
    values = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object, name=column)
    return id_array(values, where, column).to_numpy(zero_copy_only=False)


def id_array(values: pd.Series | pa.ChunkedArray | pa.Array, where: str, column: str) -> pa.Array:
    """Ids, text or whole numbers, as text without blanks around them; none may be empty.

    A float is refused, since it cannot hold 18 digits; ``="123"``, by which Excel is made to keep them, is 123.
    ``where`` and ``column`` name table and column in a message.
    """
    values = _native(values) if isinstance(values, pd.Series) else values
    try:
        ids = pa.array(values, from_pandas=True) if isinstance(values, pd.Series) else values
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if pa.types.is_dictionary(ids.type):
            ids = ids.dictionary_decode()
        types = pa.types
        if types.is_boolean(ids.type) or types.is_temporal(ids.type) or isinstance(ids.type, pa.BaseExtensionType):
            raise ValueError(f"{where}: `{column}` holds {ids.type}: an id is a text or a whole number")
        from_floats = pa.types.is_floating(ids.type) and ids.null_count < len(ids)
        if not from_floats:
            values = ids = pc.replace_substring_regex(ids.cast(pa.string()), *_OF_EXCEL)
            words = pc.if_else(pc.equal(ids, "nan"), None, ids)  # what pandas writes where floats have gaps
            every, some = (
                test(pc.match_substring_regex(words, f"^\\s*({pattern})\\s*$"), min_count=1).as_py()
                for test, pattern in ((pc.all, _WRITTEN_AS_FLOAT), (pc.any, _EXPONENT))
            )
            from_floats = every or some
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):  # of several types
        values = [_id_text(v, where, column) for v in (values.tolist() if hasattr(values, "tolist") else values)]
        from_floats = any(map(_is_float, values))
        texts = pa.array([None if pd.isna(v) else str(v) for v in values], pa.string())
        ids = pc.replace_substring_regex(texts, *_OF_EXCEL)
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
    require([column], catalog, where)
    ids = ids_of(catalog[column], where, column)
    refuse_repeated(ids, where, column)
    return ids


def refuse_repeated(ids: np.ndarray, where: str, column: str = "id_str", at: np.ndarray | None = None) -> None:
    """Refuse ids [N] of which several are the same; ``at`` says in which rows [N] of the table they stand."""
    repeated = pd.Series(ids).duplicated(keep=False).to_numpy()
    if repeated.any():
        rows: dict[str, list[int]] = {}
        for place in np.flatnonzero(repeated):
            rows.setdefault(ids[place], []).append(int(place if at is None else at[place]))
        shown = "; ".join(f"{name!r} in rows {listed(its_rows)}" for name, its_rows in list(rows.items())[:5])
        raise ValueError(
            f"{where}: {len(rows)} ids of `{column}` occur more than once, but each galaxy needs its own: {shown}"
            f"{' …' if len(rows) > 5 else ''} (rows count from 0). Drop the repeated rows."
        )


def keyed(table: pd.DataFrame, where: str = "the catalogue") -> pd.DataFrame:
    """The same table of galaxies :func:`in_memory`, with an ``id_str`` that has passed :func:`check_ids`."""
    return in_memory(table, where).assign(id_str=check_ids(table, where))


def labels_of(values: pd.Series, column: str, ratings: bool = False) -> pd.Series:
    """Labels, none of them missing, as booleans, numbers, or text without blanks: what the values are, whatever holds
    them. Text that is numbers throughout is numbers. Several kinds, or another one, are a ``ValueError``; so is a
    number such as -9.99 or 99 far from all others, or -1 where no other is negative, by which tables say that there is
    none. In ``ratings`` -1 may be a rating.

    >>> labels_of(pd.Series([" 0", "1.5"]), "z").tolist(), labels_of(pd.Series(["007", "1"]), "z").tolist()
    ([0.0, 1.5], ['007', '1'])
    """
    kinds = {"text": str, "true or false": (bool, np.bool_), "numbers": (Real, Decimal)}  # bool is a kind of Real too
    found: dict = {}
    values = _native(values).tolist()
    for value in values:
        kind = next((kind for kind, classes in kinds.items() if isinstance(value, classes)), type(value).__name__)
        found.setdefault(kind, value)
    if len(found) > 1 or not found.keys() <= kinds.keys():
        shown = " and ".join(f"{kind} (such as {value!r})" for kind, value in found.items())
        raise ValueError(f"column {column!r} holds {shown}; labels must be all text, all numbers, or all true or false")
    if "text" in found:
        values = [value.strip() for value in values]
        gaps = [value for value in values if value in ("", *_GAPS)]
        if gaps:
            raise ValueError(f"column {column!r} has {gaps[0]!r} in {len(gaps)} rows: it stands for a missing "
                             "value, so leave those galaxies out")  # fmt: skip
        odd = next((value for value in values if not _NUMBER.fullmatch(value)), None)
        if odd is not None:
            if all(_NUMBER.fullmatch(value.replace(",", ".").rstrip(" %")) for value in values):
                raise ValueError(f"column {column!r} holds {odd!r}: write numbers with a point and without a %")
            return pd.Series(values)
        values = pd.to_numeric(pd.Series(values)).tolist()
    elif "numbers" in found and any(abs(value) > 2**1000 for value in values):
        raise ValueError(f"column {column!r} holds a number beyond 1e300, which nothing can learn")
    elif "true or false" not in found and not all(isinstance(value, Integral) for value in values):
        values = list(map(float, values))
    _refuse_stand_in(values, column, ratings)
    return pd.Series(values)


def _refuse_stand_in(values: list, column: str, ratings: bool) -> None:
    """Refuse numbers of which the lowest is -9.99 … or NaN made whole, the highest 99 …, one is beyond 1e20, and others
    are far off.

    Also -1 below several numbers of which none is negative, and 9 beside 0 and 1.
    """
    for end, pattern, beyond in ((min, r"-9+(\.9+)?", "below"), (max, r"99+(\.9+)?", "above")):
        extreme = end(values, default=0)
        others = [value for value in values if value != extreme]
        if not extreme or not others:
            continue
        shown, ratio, different = f"{extreme:g}", end(others) / extreme, set(others)
        alone = len(different) > 1 and min(different) >= 0 and not ratings
        if (
            ((re.fullmatch(pattern, shown) or extreme in _NAN_AS_WHOLE) and ratio < 0.5)
            or (abs(extreme) >= 1e20 and abs(ratio) < 1e-6)
            or (extreme == -1 and alone) or (extreme == 9 and different == {0, 1})
        ):  # fmt: skip
            raise ValueError(
                f"column {column!r} has {shown} in {len(values) - len(others)} rows, and nothing else {beyond} "
                f"{end(others):g}: in tables that stands for a missing value. Leave those galaxies out (or, if it is "
                "meant as a number, add the same to all labels)"
            )


def file_locations(catalog: pd.DataFrame, where: str = "the catalogue", folder: str | os.PathLike = "") -> list[str]:
    """The paths in a catalogue's ``file_loc``, in which ``~`` is the home folder; relative ones count from ``folder``.

    ``where`` names the catalogue in a message; an empty path is refused.
    """
    require(["file_loc"], catalog, where, "The paths of the images stand there.")
    column = _native(catalog["file_loc"]).astype(object)
    files = column.where(column.notna(), "").astype(str).str.strip()
    addresses = np.flatnonzero(files.str.match(ADDRESS))
    if len(addresses):
        raise ValueError(f"{where}: `file_loc` holds addresses, such as {files.iloc[addresses[0]]!r} (row "
                         f"{addresses[0]}, counted from 0): fetch the images first, and give their paths")  # fmt: skip
    empty = np.flatnonzero(files == "")
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
    value = None if value is np.ma.masked else _decoded(value, column)
    known = isinstance(value, (str, Real, Decimal)) and not isinstance(value, bool)
    if not known and not (pd.api.types.is_scalar(value) and pd.isna(value)):
        raise ValueError(f"{where}: `{column}` holds {value!r}: an id is a text or a whole number")
    return value


def _is_float(value) -> bool:
    return isinstance(value, (float, np.floating)) and not pd.isna(value)


def _first_float(values) -> tuple[int, object]:
    """The first id that is a float, or was written as one, and its row."""
    for row, value in enumerate(values):
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        if _is_float(value) or (isinstance(value, str) and re.fullmatch(_WRITTEN_AS_FLOAT, value.strip())):
            return row, value
    raise AssertionError("one of the ids is a float")
