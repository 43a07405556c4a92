"""Catalogues: one row a galaxy, read from any common table, checked, split and labelled.

A catalogue is a pandas DataFrame with ``id_str`` (text, unique), usually ``file_loc`` (path of the image), and one
column of votes for each answer of a decision tree: whole numbers, 0 where nobody answered.
"""
from __future__ import annotations

import difflib
import hashlib
import os

import numpy as np
import pandas as pd

from zoobook import arguments, trees
from zoobook.catalogs import tables
from zoobook.catalogs.tables import listed
from zoobook.trees import DecisionTree

_ID_COLUMNS = ("id_str", "iauname")
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
        one counts from the folder of the table; in a DataFrame it stays relative); votes are int64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table; ids are missing, repeated or floating-point numbers; ``file_loc`` is empty
            somewhere; votes are absent or bad (see :func:`check_votes`).
    """
    if isinstance(source, pd.DataFrame):
        catalog, where, folder = tables.in_memory(source).reset_index(drop=True), "the table", ""
    else:
        path = arguments.path(source)
        catalog, where, folder = tables.read(path), str(path), path.parent
    column = next((name for name in _ID_COLUMNS if name in catalog.columns), None)
    if column is None:
        raise ValueError(
            f"{where} has neither `id_str` nor `iauname`, so its galaxies have no id. "
            f"Rename the column that names them; there are: {listed(catalog.columns)}."
        )
    ids = check_ids(catalog, where, column)
    catalog = catalog.drop(columns="id_str", errors="ignore")
    catalog.insert(0, "id_str", ids)
    if "file_loc" in catalog.columns:
        empty = catalog["file_loc"].isna() | (catalog["file_loc"].astype(str).str.strip() == "")
        if empty.any():
            raise ValueError(f"{where}: `file_loc` is empty for {_galaxies(ids, np.flatnonzero(empty))}")
        locations = catalog["file_loc"].astype(str)
        catalog["file_loc"] = [os.path.join(folder, os.path.expanduser(file)) for file in locations]
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
    ids = tables.id_column(catalog, column, where).to_numpy(zero_copy_only=False)
    repeated = pd.Series(ids).duplicated(keep=False).to_numpy()
    if repeated.any():
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(repeated):
            rows.setdefault(ids[row], []).append(int(row))
        shown = "; ".join(f"{name!r} in rows {listed(where_)}" for name, where_ in list(rows.items())[:_SHOWN])
        raise ValueError(
            f"{where}: {len(rows)} ids of `{column}` occur more than once, but each galaxy needs its own: {shown}"
            f"{' …' if len(rows) > _SHOWN else ''} (rows count from 0). Drop the repeated rows."
        )
    return ids


def keyed(table: pd.DataFrame, where: str = "the catalogue") -> pd.DataFrame:
    """A table of galaxies in memory, checked: each has one row, and an id as it is stored.

    Args:
        table: with ``id_str``; it is not changed.
        where: what to call it in a message.

    Returns:
        DataFrame: the same rows, ids as text, bytes in the order of this machine.

    Raises:
        ValueError: see :func:`check_ids`.
    """
    return tables.in_memory(table).assign(id_str=check_ids(table, where))


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
        hint = f"the closest column there is is {close[0]!r}" if close else f"there are: {listed(catalog.columns)}"
        raise ValueError(
            f"{len(absent)} of the {len(tree.label_columns)} vote columns of tree {tree.name!r} are missing: "
            f"{listed(absent)}. For {absent[0]!r}, {hint}."
        )
    votes = np.empty((len(catalog), len(tree.label_columns)), dtype=np.int64)
    problems, first, bad_cells = [], None, 0
    for number, column in enumerate(tree.label_columns):
        series, values = catalog[column], tables.floats(catalog[column])
        exact = series.to_numpy() if series.dtype.kind in "iu" and not series.isna().any() else values
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
    tree = trees.load("decals_dr5")
    ring = vote_fraction(catalog, tree, "rare-features_ring")
    if rule == "basic":
        label, keep = ring > 0, np.isfinite(ring)
    else:
        featured = vote_fraction(catalog, tree, "smooth-or-featured_featured-or-disk")
        face_on = vote_fraction(catalog, tree, "disk-edge-on_no")
        label = ring > 0.25
        keep = (label | (ring < 0.05)) & (featured > 0.25) & (face_on > 0.75)  # false where a fraction is NaN
    labelled = catalog[keep].assign(ring=label[keep].astype(np.int64))
    if balance:
        # another prefix than in `split`, or else the choice would follow the subsets
        order = shuffled(labelled, f"balance:{seed}")
        rings = labelled["ring"].to_numpy()[order] == 1
        each = min(rings.sum(), (~rings).sum())
        chosen = np.concatenate([order[rings][:each], order[~rings][:each]])
        labelled = labelled.iloc[np.sort(chosen)]
    return labelled


def shuffled(catalog: pd.DataFrame, seed: str) -> np.ndarray:
    """An order of the galaxies that depends on nothing but their ids and the seed.

    Args:
        catalog: a catalogue.
        seed: any text; another one gives another, independent order.

    Returns:
        ndarray: [N] positions of rows.
    """
    return np.argsort(_uniform(check_ids(catalog), f"{seed}:"), kind="stable")


def vote_fraction(catalog: pd.DataFrame, tree: DecisionTree, answer: str) -> np.ndarray:
    """Share of those asked who gave an answer: from counts, else from a published column of fractions.

    Args:
        catalog: a catalogue with the counts of all answers to the question, or of this one and the total, or with
            ``…_fraction`` (with or without the campaign's suffix).
        tree: the decision tree.
        answer: such as ``"bar_strong"``, without suffix; of a question outside the tree the total is needed.

    Returns:
        ndarray: [N] float64; NaN where nobody answered.

    Raises:
        ValueError: there are neither counts nor fractions.
    """
    question, _, name = answer.partition("_")
    count, total = f"{question}{tree.suffix}_{name}", tree.total_column(f"{question}{tree.suffix}")
    if count in catalog.columns:
        answers = [a.column for q in tree.questions if q.name == f"{question}{tree.suffix}" for a in q.answers]
        if total in catalog.columns:
            totals = tables.floats(catalog[total])
        elif answers and set(answers) <= set(catalog.columns):
            totals = np.nansum([tables.floats(catalog[column]) for column in answers], axis=0)
        else:
            raise ValueError(f"the column {total!r} is missing beside {count!r}, so shares cannot be told")
        return tables.floats(catalog[count]) / np.where(totals > 0, totals, np.nan)
    for published in (f"{count}_fraction", f"{answer}_fraction"):
        if published in catalog.columns:
            return tables.floats(catalog[published])
    raise ValueError(f"the catalogue has neither the column {count!r} (votes) nor {published!r}")


def _uniform(ids: np.ndarray, prefix: str) -> np.ndarray:
    """For each id a number in [0, 1) that depends on nothing but the id and the prefix."""
    hashes = (hashlib.blake2b(f"{prefix}{name}".encode(), digest_size=8).digest() for name in ids)
    # the upper 53 bits, which a float64 holds exactly, so that 1.0 is never reached
    return np.array([(int.from_bytes(h, "big") >> 11) / 2**53 for h in hashes], dtype=float)


def _galaxies(ids: np.ndarray, rows: np.ndarray) -> str:
    shown = ", ".join(f"{ids[row]!r} (row {row})" for row in rows[:_SHOWN])
    return f"{len(rows)} galaxies: {shown}{' …' if len(rows) > _SHOWN else ''} (rows count from 0)"
