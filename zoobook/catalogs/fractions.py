"""Shares of the volunteers who gave an answer, from the counts of a catalogue or from its published fractions."""
from __future__ import annotations

import numpy as np
import pandas as pd

from zoobook.catalogs.columns import floats
from zoobook.catalogs.reading import check_votes
from zoobook.trees import DecisionTree


def add_fractions(catalog: pd.DataFrame, tree: DecisionTree) -> pd.DataFrame:
    """Add how many volunteers answered each question of the tree, and what share of them gave each answer.

    Returns:
        DataFrame: a copy with ``{question}_total-votes`` (int64) and ``{label column}_fraction`` (float64, NaN where
        nobody answered).
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
        catalog: a catalogue with counts, or with ``…_fraction`` (with or without the campaign's suffix).
        tree: its decision tree.
        answer: such as ``"bar_strong"``, without suffix; of a question outside the tree the total is needed.

    Returns:
        ndarray: [N] float64; NaN where nobody answered.
    """
    question, _, name = answer.partition("_")
    question = question.removesuffix(tree.suffix)
    count, known = f"{question}{tree.suffix}_{name}", _answers(tree, question)
    if known and count not in known:
        names = ", ".join(column.partition("_")[2] for column in known)
        raise ValueError(f"the question {question!r} has no answer {name!r}; its answers are {names}")
    if count in catalog.columns:
        total = total_votes(catalog, tree, question)
        return floats(catalog[count]) / np.where(total > 0, total, np.nan)
    for published in (f"{count}_fraction", f"{answer}_fraction"):
        if published in catalog.columns:
            return floats(catalog[published])
    raise ValueError(f"the catalogue has neither the column {count!r} (votes) nor {published!r}")


def total_votes(catalog: pd.DataFrame, tree: DecisionTree, question: str) -> np.ndarray:
    """How many volunteers answered a question: [N] float64.

    Args:
        catalog: a catalogue with the total, or with the counts of all answers.
        tree: its decision tree.
        question: such as ``"bar"``; of one outside the tree the total is needed.
    """
    question = question.removesuffix(tree.suffix)
    total, answers = tree.total_column(f"{question}{tree.suffix}"), _answers(tree, question)
    if total in catalog.columns:
        return floats(catalog[total])
    absent = [column for column in answers if column not in catalog.columns]
    if absent or not answers:
        raise ValueError(
            f"the catalogue has no votes on {question!r}: the columns {', '.join(map(repr, [total, *absent[:1]]))} are "
            "missing. Predictions have none; cut on `asked_fraction` instead."
        )
    return np.nansum([floats(catalog[column]) for column in answers], axis=0)


def _answers(tree: DecisionTree, question: str) -> list[str]:
    """The columns of the answers to a question; none if the tree does not have it."""
    return [answer.column for q in tree.questions if q.name == f"{question}{tree.suffix}" for answer in q.answers]
