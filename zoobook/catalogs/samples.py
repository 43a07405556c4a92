"""Shares of the volunteers who gave an answer, and the samples that papers cut out of catalogues by them.

Every function takes a catalogue with the votes of a tree, or with its published fractions (where there are no votes,
as in predictions), and that tree. Answers and questions are named without the campaign's suffix: ``"bar_strong"``,
``"bar"``. A ``ValueError`` says what the tree or the catalogue does not have.
"""

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs.columns import a_frame, floats, in_memory, require
from zoobook.catalogs.reading import check_votes
from zoobook.trees import DecisionTree, check

# Galaxy Zoo DECaLS debiased galaxies within these limits alone (Walmsley et al. 2022, MNRAS 509, 3966)
DEBIASED_REDSHIFT = (0.02, 0.15)
DEBIASED_MAGNITUDE = (-23.0, -21.5)
DEBIASED_VOTES = 30


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
    question, _, name = answer.partition("_")
    question = question.removesuffix(tree.suffix)
    count, known = f"{question}{tree.suffix}_{name}", _answers(tree, question)
    if known and count not in known:
        names = ", ".join(column.partition("_")[2] for column in known)
        raise ValueError(f"the question {question!r} has no answer {name!r}; its answers are {names}")
    names = (count, f"{count}_fraction", f"{answer}_fraction")
    found = next((name for name in names if name in a_frame(catalog, "the catalogue")), None)
    if found is None:
        raise ValueError(f"the catalogue has neither the column {count!r} (votes) nor {names[-1]!r}")
    shares = floats(catalog[found])
    if found == count:
        total = total_votes(catalog, tree, question)
        shares = shares / np.where(total > 0, total, np.nan)
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
    question = question.removesuffix(tree.suffix)
    total, answers = tree.total_column(f"{question}{tree.suffix}"), _answers(tree, question)
    if total in a_frame(catalog, "the catalogue"):
        return floats(catalog[total])
    absent = [column for column in answers if column not in catalog.columns]
    if absent or not answers:
        raise ValueError(
            f"the catalogue has no votes on {question!r}: the columns {', '.join(map(repr, [total, *absent[:1]]))} are "
            "missing. Predictions have none; cut on `asked_fraction` instead."
        )
    votes = np.stack([floats(catalog[column]) for column in answers])
    missing = np.isnan(votes)
    return np.where(missing.any(0) & ~missing.all(0), np.nan, np.nansum(votes, axis=0))


fraction = vote_fraction


def select(
    catalog: pd.DataFrame,
    tree: DecisionTree,
    fractions: dict[str, float] | None = None,
    votes: dict[str, int] | None = None,
) -> pd.DataFrame:
    """Galaxies of which enough volunteers said certain things.

    Face-on spirals whose bars can be trusted are, for example, those with
    ``fractions={"disk-edge-on_no": 0.75, "has-spiral-arms_yes": 0.5}, votes={"bar": 20}``.

    Args:
        fractions: for answers, the share of those asked that must be exceeded. Where nobody was asked it is not.
        votes: for questions, how many must have answered, at least.

    Returns:
        DataFrame: the rows that pass every cut, in their order; :func:`cuts` says how many each cut left.
    """
    check(tree)
    catalog = in_memory(catalog, "the catalogue")
    keep, left = np.ones(len(catalog), bool), [("all", len(catalog))]
    for question, fewest in (votes or {}).items():
        tree.question(question)  # refuses one that the tree does not have
        fewest = arguments.whole(f"the votes on {question}", fewest, 0)
        keep &= total_votes(catalog, tree, question) >= fewest
        left.append((f"at least {fewest} votes on {question}", int(keep.sum())))
    for answer, share in (fractions or {}).items():
        share = arguments.share(f"the fraction of {answer}", share)
        keep &= fraction(catalog, tree, answer) > share  # false where undefined
        left.append((f"{answer} above {share:g}", int(keep.sum())))
    chosen = catalog[keep]
    chosen.attrs = {**catalog.attrs, "cuts": left}
    return chosen


def cuts(selected: pd.DataFrame) -> pd.DataFrame:
    """How many galaxies each cut of :func:`select` left: ``galaxies`` by ``cut``, in the order of the cuts."""
    if "cuts" not in selected.attrs:
        raise ValueError("this table has no list of cuts: it comes from something else than `select`")
    return pd.DataFrame(selected.attrs["cuts"], columns=["cut", "galaxies"]).set_index("cut")


def joint_fraction(catalog: pd.DataFrame, tree: DecisionTree, answer: str) -> np.ndarray:
    """Share of all volunteers who were asked a question and gave an answer, such as ``"bar_strong"``.

    Fractions are multiplied down the tree: a strong bar of 0.9 among the one tenth who saw a disk means 0.09.

    Returns:
        ndarray: [N] float64; 0 where nobody came so far; NaN where a fraction on the way is missing.
    """
    asked = asked_fraction(catalog, tree, answer.partition("_")[0])
    return np.where(asked == 0, 0.0, asked * fraction(catalog, tree, answer))


def asked_fraction(catalog: pd.DataFrame, tree: DecisionTree, question: str) -> np.ndarray:
    """Share of all volunteers who reach a question, such as ``"bar"``: [N] float64, 1 for one that everybody is asked.

    Above 0.5 the answers to it are about that galaxy.
    """
    check(tree)
    parents = [column.replace(f"{tree.suffix}_", "_", 1) for column in tree.question(question).asked_after]
    if not parents:
        return np.ones(len(catalog))
    return np.sum([joint_fraction(catalog, tree, parent) for parent in parents], axis=0)


def classes(
    catalog: pd.DataFrame, tree: DecisionTree, question: str, above: float = 0.5, votes: int = 0
) -> pd.Series:
    """One class a galaxy, for those who need one: the answer that most volunteers gave, if they were enough.

    Args:
        question: such as ``"smooth-or-featured"``.
        above: the share of those asked that the answer must exceed.
        votes: how many must have answered, at least; 0 needs no votes, so that fractions do.

    Returns:
        Series: the answer's name, named after the question; missing where the crowd was undecided or too small.
    """
    check(tree)
    above, votes = arguments.share("above", above), arguments.whole("votes", votes, 0)
    names = [answer.name for answer in tree.question(question).answers]
    short = tree.question(question).name.removesuffix(tree.suffix)
    shares = np.nan_to_num(np.stack([fraction(catalog, tree, f"{short}_{name}") for name in names], axis=1))
    decided = shares.max(axis=1) > above
    if votes:
        decided &= total_votes(catalog, tree, short) >= votes
    label = np.where(decided, np.array(names, dtype=object)[shares.argmax(axis=1)], None)
    return pd.Series(label, index=catalog.index, name=short, dtype=object)


def debiased(catalog: pd.DataFrame, tree: DecisionTree) -> pd.DataFrame:
    """The published estimates of what the fractions would be nearby, where their authors say that they hold.

    That is between redshifts of 0.02 and 0.15 and absolute magnitudes in r of -23 and -21.5, for galaxies with at
    least 30 votes on the first question. They are uncertain for single galaxies: use them for whole samples, and train
    on the votes.

    Args:
        catalog: ``gz_decals_volunteers_5`` or ``gz_decals_volunteers_1_and_2``.

    Returns:
        DataFrame: a column of fractions for each answer, named as its votes; NaN where the estimates do not hold.
    """
    check(tree)
    columns = [f"{column}_debiased" for column in tree.label_columns]
    require(("redshift", "elpetro_absmag_r", *columns), catalog, "the catalogue",
            "Only the volunteers' tables of Galaxy Zoo DECaLS have what tells where their debiased fractions hold.")
    first = tree.questions[tree.walking_order[0]].name.removesuffix(tree.suffix)
    catalog = in_memory(catalog)
    holds = (
        pd.Series(floats(catalog["redshift"]), catalog.index).between(*DEBIASED_REDSHIFT, inclusive="neither")
        & pd.Series(floats(catalog["elpetro_absmag_r"])).between(*DEBIASED_MAGNITUDE, inclusive="neither").to_numpy()
        & (total_votes(catalog, tree, first) >= DEBIASED_VOTES)
    )
    return catalog[columns].where(holds).rename(columns=lambda name: name.removesuffix("_debiased"))


def _answers(tree: DecisionTree, question: str) -> list[str]:
    """The columns of the answers to a question; none if the tree does not have it."""
    return [answer.column for q in tree.questions if q.name == f"{question}{tree.suffix}" for answer in q.answers]
