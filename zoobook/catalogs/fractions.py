"""Shares of the volunteers who gave an answer, from the counts of a catalogue or from its published fractions."""

import numpy as np
import pandas as pd

from zoobook.catalogs.columns import a_frame, listed, numbers
from zoobook.catalogs.reading import check_votes
from zoobook.trees import DecisionTree, check


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
        ndarray: [N] float64; NaN where nobody answered, or a count is missing.
    """
    check(tree)
    question, name = parted(tree, answer)
    count, known = f"{question}{tree.suffix}_{name}", _answers(tree, question)
    if known and count not in known:
        names = ", ".join(column[len(question + tree.suffix) + 1 :] for column in known)
        raise ValueError(f"the question {question!r} has no answer {name!r}; its answers are {names}")
    names = (count, f"{count}_fraction", f"{answer}_fraction")
    found = next((name for name in names if name in a_frame(catalog, "the catalogue")), None)
    if found is None:
        raise ValueError(f"the catalogue has neither the column {count!r} (votes) nor {names[-1]!r}")
    shares = _counts(catalog, count) if found == count else numbers(catalog, found)
    if found == count:
        total = total_votes(catalog, tree, question)
        with np.errstate(divide="ignore"):  # answers without a total are refused below
            shares = shares / np.where((total > 0) | (shares > 0), total, np.nan)
    bad = np.flatnonzero((shares < 0) | (shares > 1.001))
    if len(bad):
        raise ValueError(f"the share of {answer!r} would be {shares[bad[0]]:g} in row {bad[0]} (counted from 0), and "
                         f"no share in {len(bad)} rows: {found!r} holds something else")  # fmt: skip
    return shares


def total_votes(catalog: pd.DataFrame, tree: DecisionTree, question: str) -> np.ndarray:
    """How many volunteers answered a question: [N] float64; NaN where some of the counts are missing.

    Args:
        catalog: a catalogue with the total, or with the counts of all answers.
        tree: its decision tree.
        question: such as ``"bar"``; of one outside the tree the total is needed.
    """
    check(tree)
    question = str(question).removesuffix(tree.suffix)
    total, answers = tree.total_column(f"{question}{tree.suffix}"), _answers(tree, question)
    if total in a_frame(catalog, "the catalogue"):
        return _counts(catalog, total)
    absent = [column for column in answers if column not in catalog.columns]
    if absent or not answers:
        raise ValueError(
            f"the catalogue has no votes on {question!r}: the columns {', '.join(map(repr, [total, *absent[:1]]))} are "
            "missing. Predictions have none; cut on `asked_fraction` instead."
        )
    votes = np.stack([_counts(catalog, column) for column in answers])
    missing = np.isnan(votes)
    return np.where(missing.any(0) & ~missing.all(0), np.nan, np.nansum(votes, axis=0))


def parted(tree: DecisionTree, answer: str) -> tuple[str, str]:
    """Question, without suffix, and name of an answer such as ``"bar_strong"``: both may have a ``_``.

    A question that the tree does not have ends at the first one.
    """
    if not isinstance(answer, str):
        raise ValueError(f"an answer is named by text, such as 'bar_strong', not {answer!r}")
    for column, (question, name) in tree.short_names.items():
        if answer in (column, f"{question}_{name}"):
            return question, name
    names = [name for question in tree.questions for name in (question.name, question.name.removesuffix(tree.suffix))]
    question = max((n for n in names if answer.startswith(f"{n}_")), key=len, default=answer.partition("_")[0])
    return question.removesuffix(tree.suffix), answer[len(question) + 1 :]


def _counts(catalog: pd.DataFrame, column: str) -> np.ndarray:
    """A column of votes [N], none of them infinite."""
    counts = numbers(catalog, column)
    bad = np.flatnonzero(np.isinf(counts))
    if len(bad):
        raise ValueError(f"the catalogue: votes must be finite, but {column!r} is infinite in {len(bad)} rows (counted "
                         f"from 0): {listed(bad)}")  # fmt: skip
    return counts


def _answers(tree: DecisionTree, question: str) -> list[str]:
    """The columns of the answers to a question; none if the tree does not have it."""
    return [answer.column for q in tree.questions if q.name == f"{question}{tree.suffix}" for answer in q.answers]
