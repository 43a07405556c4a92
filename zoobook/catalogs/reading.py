"""Reading a table of galaxies as a catalogue, and checking its ids, files and votes."""

import os

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs import tables
from zoobook.catalogs.columns import check_ids, file_locations, floats, in_memory, listed, require, truths
from zoobook.trees import DecisionTree, check

_ID_COLUMNS = ("id_str", "iauname")
_MOST_VOTES = 1_000_000  # a larger number stands for something else


def read(source: str | os.PathLike | pd.DataFrame, tree: DecisionTree | None = None) -> pd.DataFrame:
    """Read a table of galaxies as a catalogue, and check it.

    The id is the column ``id_str``, or ``iauname`` where there is none. Ids are read as text, so that the 18 digits of
    a Galaxy Zoo 2 id stay exact.

    Args:
        source: a file (``.csv``, ``.csv.gz``, ``.parquet``, FITS, VOTable) or a DataFrame, which is not changed.
        tree: check that the votes of this tree are there and are whole numbers.

    Returns:
        DataFrame: all columns, with ``id_str`` first; ``file_loc``, where there is one, is an absolute path (a relative
        one counts from the folder of the table; in a DataFrame it stays relative); votes are int64.

    Raises:
        ValueError: it is not a table; ids are missing, repeated or floating-point numbers; ``file_loc`` is empty
            somewhere; votes are absent or bad (see :func:`check_votes`).
    """
    if not isinstance(source, (str, os.PathLike)):
        catalog, where, folder = in_memory(source).reset_index(drop=True), "the table", ""
    else:
        path = arguments.path(source)
        catalog, where, folder = tables.read(path), str(path), path.parent
    column = next((name for name in _ID_COLUMNS if name in catalog.columns), None)
    if column is None:
        if isinstance(source, pd.DataFrame):
            require([name for name in _ID_COLUMNS if name in source.index.names], source, where)
        raise ValueError(
            f"{where} has neither `id_str` nor `iauname`, so its galaxies have no id. "
            f"Rename the column that names them; there are: {listed(catalog.columns)}."
        )
    ids = check_ids(catalog, where, column)
    catalog = catalog.drop(columns="id_str", errors="ignore")
    catalog.insert(0, "id_str", ids)
    if "file_loc" in catalog.columns:
        catalog["file_loc"] = file_locations(catalog, where, folder)
    if tree is not None:
        try:
            catalog[tree.label_columns] = check_votes(catalog, tree)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return catalog


def check_votes(catalog: pd.DataFrame, tree: DecisionTree, needed: bool = False) -> np.ndarray:
    """The votes of a catalogue as one array, if every one of them is a whole number, 0 or more.

    Args:
        catalog: one row a galaxy, with a column of counts for each answer of the tree.
        tree: the decision tree.
        needed: refuse galaxies on none of which anybody voted.

    Returns:
        ndarray: [N, A] int64 votes, in the order of ``tree.label_columns``.

    Raises:
        ValueError: a column is missing, or votes are missing (NaN), negative, fractional or not numbers.
    """
    check(tree)
    columns = tree.label_columns
    require(columns, catalog, f"of the tree {tree.name!r}, the catalogue")
    votes = (catalog[column] for column in columns)
    values = np.stack([np.where(truths(column), np.nan, floats(column)) for column in votes], axis=1)
    bad = ~(np.isfinite(values) & (values >= 0) & (values == np.floor(values)) & (values <= _MOST_VOTES))
    if bad.any():
        row, first = np.argwhere(bad)[0]
        name = next((catalog[c].iloc[row] for c in _ID_COLUMNS if c in catalog.columns), "?")
        cell = catalog[columns[first]].iloc[row]
        faulty = [f"{column} ({count})" for column, count in zip(columns, bad.sum(axis=0), strict=True) if count]
        raise ValueError(
            f"{bad.sum()} bad votes; each must be a whole number from 0 to {_MOST_VOTES:,} (0 where nobody answered). "
            f"First: galaxy {str(name)!r} (row {row}, counted from 0), column {columns[first]!r}: {cell}. There are "
            f"bad ones in {listed(faulty)}."
        )
    if needed and not values.any():
        raise ValueError(f"nobody voted on any of these {len(values)} galaxies")
    return values.astype(np.int64)
