"""Catalogues: one row a galaxy, read from any common table, checked, split, cross-matched and labelled.

A catalogue is a pandas DataFrame with ``id_str`` (text, unique), usually ``file_loc`` (path of the image), and one
column of votes for each answer of a decision tree: whole numbers, 0 where nobody answered.
"""
from __future__ import annotations

import difflib
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from zoobook import trees
from zoobook.trees import DecisionTree

FITS_NAME = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
_ID_COLUMNS = ("id_str", "iauname")
_WRITTEN_AS_FLOAT = re.compile(r"[+-]?\d+\.0*|[+-]?\d(\.\d+)?[eE][+-]?\d+")
_SHOWN = 5  # examples in a message


def read(source: str | os.PathLike | pd.DataFrame, tree: DecisionTree | None = None) -> pd.DataFrame:
    """Read a table of galaxies as a catalogue, and check it.

    The id is the column ``id_str``, or ``iauname`` where there is none. Ids are read as text, so that the 18 digits of
    a Galaxy Zoo 2 id stay exact.

    Args:
        source: a file (``.csv``, ``.csv.gz``, ``.parquet``, a FITS table) or a DataFrame, which is not changed.
        tree: check that the votes of this tree are there and are whole numbers.

    Returns:
        DataFrame: all columns, with ``id_str`` first; ``file_loc``, where there is one, is an absolute path (a relative
        one counts from the folder of the table; in a DataFrame it is left as it is); votes are int64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table; ids are missing, repeated or floating-point numbers; ``file_loc`` is empty
            somewhere; votes are absent or bad (see :func:`check_votes`).
    """
    if isinstance(source, pd.DataFrame):
        catalog, where, folder = source.reset_index(drop=True), "the table", None
    else:
        path = Path(source).expanduser().absolute()
        catalog, where, folder = _read_file(path), str(path), path.parent
    column = next((name for name in _ID_COLUMNS if name in catalog.columns), None)
    if column is None:
        raise ValueError(
            f"{where} has neither `id_str` nor `iauname`, so its galaxies have no id. "
            f"Rename the column that names them; there are: {_list(catalog.columns)}."
        )
    ids = check_ids(catalog, where, column)
    catalog = catalog.drop(columns="id_str", errors="ignore")
    catalog.insert(0, "id_str", ids)
    if "file_loc" in catalog.columns:
        empty = catalog["file_loc"].isna() | (catalog["file_loc"].astype(str).str.strip() == "")
        if empty.any():
            raise ValueError(f"{where}: `file_loc` is empty for {_galaxies(ids, np.flatnonzero(empty))}")
        locations = catalog["file_loc"].astype(str)
        catalog["file_loc"] = locations if folder is None else [os.path.join(folder, file) for file in locations]
    if tree is not None:
        try:
            votes = check_votes(catalog, tree)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        catalog[tree.label_columns] = votes
    return catalog


def check_ids(catalog: pd.DataFrame, where: str = "the catalogue", column: str = "id_str") -> np.ndarray:
    """The ids of a catalogue as text, each of them once.

    Args:
        catalog: the table.
        where: what to call it in a message.
        column: which column holds the ids.

    Returns:
        ndarray: [N] of ``str`` (dtype object).

    Raises:
        ValueError: the column is absent; ids are missing, repeated, or floating-point numbers.
    """
    ids = _as_text(catalog, where, column)
    repeated = pd.Series(ids).duplicated(keep=False).to_numpy()
    if repeated.any():
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(repeated):
            rows.setdefault(ids[row], []).append(int(row))
        shown = "; ".join(f"{name!r} in rows {_list(where_)}" for name, where_ in list(rows.items())[:_SHOWN])
        raise ValueError(
            f"{where}: {len(rows)} ids of `{column}` occur more than once, but each galaxy needs its own: {shown}"
            f"{' …' if len(rows) > _SHOWN else ''} (rows count from 0). Drop the repeated rows."
        )
    return ids


def check_votes(catalog: pd.DataFrame, tree: DecisionTree) -> np.ndarray:
    """The votes of a catalogue as one array, if every one of them is a whole number, 0 or more.

    Args:
        catalog: one row a galaxy, with a column of counts for each answer of the tree.
        tree: the decision tree.

    Returns:
        ndarray: [N, A] int64 votes, in the order of ``tree.label_columns``.

    Raises:
        ValueError: a column is missing, or votes are missing (NaN), negative, fractional or not numbers; names the
            first galaxy and column and counts the bad cells by column.
    """
    absent = [column for column in tree.label_columns if column not in catalog.columns]
    if absent:
        close = difflib.get_close_matches(absent[0], [str(c) for c in catalog.columns], n=1)
        hint = f"the closest column there is is {close[0]!r}" if close else f"there are: {_list(catalog.columns)}"
        raise ValueError(
            f"{len(absent)} of the {len(tree.label_columns)} vote columns of tree {tree.name!r} are missing: "
            f"{_list(absent)}. For {absent[0]!r}, {hint}."
        )
    votes = np.empty((len(catalog), len(tree.label_columns)), dtype=np.int64)
    problems, first, bad_cells = [], None, 0
    for number, column in enumerate(tree.label_columns):
        series = catalog[column]
        if series.dtype.kind in "iu":
            exact, values = series.to_numpy(), series.to_numpy(dtype=float)
        else:
            exact = values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        missing = series.isna().to_numpy()
        kinds = {
            "missing (NaN)": missing,
            "not a number": np.isnan(values) & ~missing,
            "infinite": np.isinf(values),
            "negative": np.isfinite(values) & (values < 0),
            "fractional": np.isfinite(values) & (values >= 0) & (values != np.floor(values)),
        }
        bad = np.logical_or.reduce(list(kinds.values()))
        if bad.any():
            bad_cells += int(bad.sum())
            problems.append(f"  {column}: " + ", ".join(f"{m.sum()} {kind}" for kind, m in kinds.items() if m.any()))
            row = int(np.argmax(bad))
            if first is None or row < first[0]:
                first = (row, column, series.iloc[row])
        else:
            votes[:, number] = exact
    if first is not None:
        row, column, value = first
        name = next((catalog[c].iloc[row] for c in _ID_COLUMNS if c in catalog.columns), "?")
        more = [f"  and {len(problems) - 10} more columns"] if len(problems) > 10 else []
        raise ValueError(
            f"{bad_cells} bad votes; each must be a whole number, 0 or more (0 where nobody answered). "
            f"First: galaxy {str(name)!r} (row {row}, counted from 0), column {column!r}: {value}. By column:\n"
            + "\n".join(problems[:10] + more)
        )
    return votes


def add_fractions(catalog: pd.DataFrame, tree: DecisionTree) -> pd.DataFrame:
    """Add how many volunteers answered each question, and what share of them gave each answer.

    Args:
        catalog: a catalogue with the votes of the tree.
        tree: the decision tree.

    Returns:
        DataFrame: a copy with ``{question}_total-votes`` (int64) and ``{label column}_fraction`` (float64, NaN where
        nobody answered).

    Raises:
        ValueError: votes are absent or bad (see :func:`check_votes`).
    """
    votes = check_votes(catalog, tree)
    added: dict[str, np.ndarray] = {}
    for question, (start, stop) in zip(tree.questions, tree.index_groups, strict=True):
        total = votes[:, start:stop].sum(axis=1)
        added[tree.total_column(question.name)] = total
        for column, count in zip(tree.label_columns[start:stop], votes[:, start:stop].T, strict=True):
            added[f"{column}_fraction"] = count / np.where(total > 0, total, np.nan)
    return pd.concat([catalog.drop(columns=list(added), errors="ignore"), pd.DataFrame(added, catalog.index)], axis=1)


def split(
    catalog: pd.DataFrame, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> pd.DataFrame:
    """Divide galaxies between training, validation and test, each by its own id.

    The subset of a galaxy follows from a hash of its id and the seed, so it is the same in any row order, in any part
    of the catalogue, on any machine, and it stays as the catalogue grows. So the shares are as given only on average.

    Args:
        catalog: a catalogue.
        fractions: shares of train, val and test; they add up to 1.
        seed: another seed gives another, independent division.

    Returns:
        DataFrame: a copy with the column ``subset``: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: the fractions are not three shares of one whole, or the ids are bad.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be three shares (train, val, test), 0 or more, that add up to 1: {fractions}")
    uniform = _uniform(check_ids(catalog), f"{seed}:")
    subset = np.searchsorted(np.cumsum(shares)[:2], uniform, side="right")
    return catalog.assign(subset=np.array(["train", "val", "test"], dtype=object)[subset])


def ring_labels(catalog: pd.DataFrame, rule: str = "basic", balance: bool = False, seed: int = 0) -> pd.DataFrame:
    """Label ring galaxies by one of the two rules of Walmsley et al. (2022).

    ``"basic"``: 1 if any volunteer said ring, else 0. ``"advanced"``: 1 if the ring vote fraction is above 0.25, 0 if
    it is below 0.05, and galaxies between are dropped; only galaxies that are featured (fraction above 0.25) and not
    edge-on (above 0.75) are kept. Galaxies whom nobody was asked about are dropped by both.

    Args:
        catalog: a catalogue with ``rare-features-dr5_ring`` and ``rare-features-dr5_total-votes``; the advanced rule
            also needs the votes of ``smooth-or-featured-dr5`` and ``disk-edge-on-dr5``. Instead of votes, published
            ``…_fraction`` columns, with or without ``-dr5``, serve as well.
        rule: ``"basic"`` or ``"advanced"``.
        balance: keep as many non-rings as rings (or rings as non-rings), chosen by a hash of id and seed.
        seed: seed of that choice.

    Returns:
        DataFrame: the rows kept, in their order, with the column ``ring`` (int64, 0 or 1).

    Raises:
        ValueError: the rule is unknown, or columns are missing.
    """
    if rule not in ("basic", "advanced"):
        raise ValueError(f"there is no ring rule {rule!r}; the rules are 'basic' and 'advanced'")
    ring = _fraction(catalog, "rare-features", "ring")
    if rule == "basic":
        label, keep = ring > 0, np.isfinite(ring)
    else:
        featured = _fraction(catalog, "smooth-or-featured", "featured-or-disk")
        face_on = _fraction(catalog, "disk-edge-on", "no")
        label = ring > 0.25
        keep = (label | (ring < 0.05)) & (featured > 0.25) & (face_on > 0.75)  # false where a fraction is NaN
    labelled = catalog[keep].assign(ring=label[keep].astype(np.int64))
    if balance:
        # another prefix than in `split`, or else the choice would follow the subsets
        order = np.argsort(_uniform(check_ids(labelled), f"balance:{seed}:"), kind="stable")
        rings = labelled["ring"].to_numpy()[order] == 1
        each = min(rings.sum(), (~rings).sum())
        chosen = np.concatenate([order[rings][:each], order[~rings][:each]])
        labelled = labelled.iloc[np.sort(chosen)]
    return labelled


def crossmatch(left: pd.DataFrame, right: pd.DataFrame, on: str = "id_str") -> pd.DataFrame:
    """Join two tables on an id, keeping the galaxies that both have.

    Where an id is repeated, its first row counts. How it went is in ``.attrs["report"]``.

    Args:
        left: a table.
        right: a table; those of its columns that ``left`` has too get the ending ``_right``.
        on: the id column, in both; compared as text.

    Returns:
        DataFrame: matched rows in the order of ``left``. ``.attrs["report"]``: how many rows ``matched``, are
        ``left_only``, ``right_only``, ``left_repeated``, ``right_repeated``.

    Raises:
        ValueError: the column is missing, or holds floating-point numbers.
    """
    parts, repeated = [], []
    for frame, name in ((left, "the left table"), (right, "the right table")):
        frame = frame.assign(**{on: _as_text(frame, name, on)})
        again = frame[on].duplicated()
        repeated.append(int(again.sum()))
        parts.append(frame[~again])
    joined = parts[0].merge(parts[1], on=on, how="inner", suffixes=("", "_right"))
    joined.attrs["report"] = {
        "matched": len(joined),
        "left_only": len(parts[0]) - len(joined),
        "right_only": len(parts[1]) - len(joined),
        "left_repeated": repeated[0],
        "right_repeated": repeated[1],
    }
    return joined


def crossmatch_sky(left: pd.DataFrame, right: pd.DataFrame, radius_arcsec: float = 1.0) -> pd.DataFrame:
    """Join two tables on position: each galaxy with its nearest counterpart within a radius.

    Where several rows of ``left`` have the same nearest counterpart, the closest of them gets it.

    Args:
        left: a table with ``ra`` and ``dec`` (degrees, ICRS).
        right: a table with ``ra`` and ``dec``; those of its columns that ``left`` has too get the ending ``_right``.
        radius_arcsec: the largest separation, in arcseconds.

    Returns:
        DataFrame: matched rows in the order of ``left``, with ``separation_arcsec``. ``.attrs["report"]``: how many
        rows ``matched``, are ``left_only``, ``right_only``, and how many of ``left`` were ``contested`` (gave way).

    Raises:
        ValueError: positions are missing or no positions on the sky, or the radius is not positive.
    """
    if not radius_arcsec > 0:
        raise ValueError(f"radius_arcsec must be positive, not {radius_arcsec}")
    import astropy.units as u

    sky_left, sky_right = _positions(left, "the left table"), _positions(right, "the right table")
    if len(left) and len(right):
        nearest, separation, _ = sky_left.match_to_catalog_sky(sky_right)
        separation = separation.to_value(u.arcsec)
    else:
        nearest, separation = np.zeros(0, int), np.zeros(0)
    rows = np.flatnonzero(separation <= radius_arcsec)
    by_distance = rows[np.argsort(separation[rows], kind="stable")]
    first = np.unique(nearest[by_distance], return_index=True)[1]
    chosen = np.sort(by_distance[first])
    other = right.iloc[nearest[chosen]].reset_index(drop=True)
    other = other.rename(columns={name: f"{name}_right" for name in other.columns if name in left.columns})
    joined = pd.concat([left.iloc[chosen].reset_index(drop=True), other], axis=1)
    joined["separation_arcsec"] = separation[chosen]
    joined.attrs["report"] = {
        "matched": len(chosen),
        "left_only": len(left) - len(chosen),
        "right_only": len(right) - len(chosen),
        "contested": len(rows) - len(chosen),
    }
    return joined


def _read_file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"there is no table at {path}")
    try:
        if re.search(r"\.csv(\.gz)?$", path.name, re.IGNORECASE):
            return pd.read_csv(path, dtype=dict.fromkeys(_ID_COLUMNS, str), low_memory=False)
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        if FITS_NAME.search(path.name):
            return _read_fits(path)
    except Exception as error:  # every reader has its own errors; to the reader of the message they mean the same
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} could not be read as a table: {reason[0] if reason else type(error).__name__}"
        ) from None
    raise ValueError(f"{path} is not a kind of table that can be read: use .csv, .csv.gz, .parquet or .fits")


def _read_fits(path: Path) -> pd.DataFrame:
    from astropy.table import Table

    table = Table.read(path, hdu=1)
    table.convert_bytestring_to_unicode()
    scalars = [name for name in table.colnames if table[name].ndim == 1]  # pandas has no array columns
    return table[scalars].to_pandas()


def _as_text(catalog: pd.DataFrame, where: str, column: str) -> np.ndarray:
    """Ids as text; a float is refused, since it cannot hold 18 digits."""
    if column not in catalog.columns:
        raise ValueError(f"{where} has no column `{column}`; there are: {_list(catalog.columns)}")
    series = catalog[column]
    values = series.to_numpy(dtype=object)
    missing = series.isna().to_numpy()
    numbers = pd.api.types.is_float_dtype(series.dtype) and not missing.all()
    if not numbers and series.dtype.kind not in "iu":
        values = np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)
        numbers = any(
            isinstance(v, (float, np.floating)) or (isinstance(v, str) and _WRITTEN_AS_FLOAT.fullmatch(v.strip()))
            for v in values[~missing]
        )
    if numbers:
        row = np.flatnonzero(~missing)[0]
        raise ValueError(
            f"{where}: the ids in `{column}` are floating-point numbers (such as {values[row]!r} in row {row}). A "
            "float keeps about 16 digits, so longer ids have already lost their last ones. Go back to the original "
            f"table and read or save that column as text, for instance pandas.read_csv(…, dtype={{{column!r}: str}})."
        )
    ids = np.array(["" if gone else str(value).strip() for value, gone in zip(values, missing, strict=True)], object)
    empty = np.flatnonzero(ids == "")
    if len(empty):
        raise ValueError(
            f"{where}: `{column}` is empty in {len(empty)} rows (counted from 0): {_list(empty)}. Fill in an id."
        )
    return ids


def _uniform(ids: np.ndarray, prefix: str) -> np.ndarray:
    """For each id a number in [0, 1) that depends on nothing but the id and the prefix."""
    hashes = (hashlib.blake2b(f"{prefix}{name}".encode(), digest_size=8).digest() for name in ids)
    # the upper 53 bits, which a float64 holds exactly, so that 1.0 is never reached
    return np.array([(int.from_bytes(h, "big") >> 11) / 2**53 for h in hashes], dtype=float)


def _fraction(catalog: pd.DataFrame, question: str, answer: str) -> np.ndarray:
    """Vote fraction of one answer: from counts, else from a published column; NaN where nobody answered."""
    count, total = f"{question}-dr5_{answer}", DecisionTree.total_column(f"{question}-dr5")
    if count in catalog.columns:
        if total in catalog.columns:
            totals = catalog[total].to_numpy(dtype=float)
        elif question != "rare-features":
            answers = trees.load("decals_dr5").question(question).answers
            totals = catalog[[a.column for a in answers]].sum(axis=1).to_numpy(dtype=float)
        else:
            raise ValueError(f"ring labels need the column {total!r} beside {count!r}")
        return catalog[count].to_numpy(dtype=float) / np.where(totals > 0, totals, np.nan)
    for published in (f"{count}_fraction", f"{question}_{answer}_fraction"):
        if published in catalog.columns:
            return catalog[published].to_numpy(dtype=float)
    raise ValueError(f"ring labels need the column {count!r} (votes) or {published!r}; the catalogue has neither")


def _positions(frame: pd.DataFrame, where: str):
    from astropy.coordinates import SkyCoord

    degrees = {}
    for name, low, high in (("ra", -360.0, 360.0), ("dec", -90.0, 90.0)):
        if name not in frame.columns:
            raise ValueError(f"{where} has no column `{name}` (degrees); there are: {_list(frame.columns)}")
        degrees[name] = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        bad = np.flatnonzero(~((degrees[name] >= low) & (degrees[name] <= high)))
        if len(bad):
            raise ValueError(
                f"{where}: `{name}` is missing or not within {low:g} … {high:g} degrees in {len(bad)} rows (counted "
                f"from 0): {_list(bad)}. Drop or mend those rows."
            )
    return SkyCoord(degrees["ra"], degrees["dec"], unit="deg")


def _galaxies(ids: np.ndarray, rows: np.ndarray) -> str:
    shown = ", ".join(f"{ids[row]!r} (row {row})" for row in rows[:_SHOWN])
    return f"{len(rows)} galaxies: {shown}{' …' if len(rows) > _SHOWN else ''} (rows count from 0)"


def _list(things) -> str:
    things = [str(thing) for thing in things]
    return ", ".join(things[: 2 * _SHOWN]) + (" …" if len(things) > 2 * _SHOWN else "")
