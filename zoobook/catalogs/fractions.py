"""Shares of the volunteers who gave an answer, from the counts of a catalogue or from its published fractions."""
from __future__ import annotations

import numpy as np
import pandas as pd

from zoobook.catalogs.columns import floats
from zoobook.catalogs.reading import check_votes
from zoobook.trees import DecisionTree


def add_fractions(catalog: pd.DataFrame, tree: DecisionTree) -> pd.DataFrame:
    """Add how many volunteers answered each question, and what share of them gave each answer.

    Args:
        catalog: a catalogue with the votes of the tree.
        tree: the decision tree.

    Returns:
        DataFrame: a copy with ``{question}_total-votes`` (int64) and ``{label column}_fraction`` (float64, NaN where
        nobody answered).

    Raises:
        ValueError: votes are absent or bad (see :func:`~zoobook.catalogs.check_votes`).
    """
    votes = check_votes(catalog, tree)
    added: dict[str, np.ndarray] = {}
    for question, (start, stop) in zip(tree.questions, tree.index_groups, strict=True):
        total = votes[:, start:stop].sum(axis=1)
        added[tree.total_column(question.name)] = total
        for column, count in zip(tree.label_columns[start:stop], votes[:, start:stop].T, strict=True):
            added[f"{column}_fraction"] = count / np.where(total > 0, total, np.nan)
    return pd.concat([catalog.drop(columns=list(added), errors="ignore"), pd.DataFrame(added, catalog.index)], axis=1)


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
    count = f"{question}{tree.suffix}_{name}"
    if count in catalog.columns:
        totals = answers_counted(catalog, tree, f"{question}{tree.suffix}")
        if totals is None:
            total = tree.total_column(f"{question}{tree.suffix}")
            raise ValueError(f"the column {total!r} is missing beside {count!r}, so shares cannot be told")
        return floats(catalog[count]) / np.where(totals > 0, totals, np.nan)
    for published in (f"{count}_fraction", f"{answer}_fraction"):
        if published in catalog.columns:
            return floats(catalog[published])
    raise ValueError(f"the catalogue has neither the column {count!r} (votes) nor {published!r}")


def answers_counted(catalog: pd.DataFrame, tree: DecisionTree, question: str) -> np.ndarray | None:
    """How many volunteers answered a question, [N]; None if the catalogue does not tell.

    Args:
        catalog: a catalogue.
        tree: its decision tree.
        question: with the campaign's suffix; it may be outside the tree.
    """
    total = tree.total_column(question)
    if total in catalog.columns:
        return floats(catalog[total])
    answers = [answer.column for known in tree.questions if known.name == question for answer in known.answers]
    if not answers or not set(answers) <= set(catalog.columns):
        return None
    return np.nansum([floats(catalog[column]) for column in answers], axis=0)
