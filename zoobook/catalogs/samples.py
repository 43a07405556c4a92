"""The samples that papers cut out of catalogues: by vote fractions, by votes, by class, by debiased fractions.

Every function takes a catalogue with the votes of a tree, or with its published fractions (where there are no votes,
as in predictions), and that tree. Answers and questions are named without the campaign's suffix: ``"bar_strong"``,
``"bar"``. A ``ValueError`` says what the tree or the catalogue does not have.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs.columns import a_frame, in_memory, numbers, require
from zoobook.catalogs.fractions import parted, total_votes
from zoobook.catalogs.fractions import vote_fraction as fraction
from zoobook.trees import DecisionTree, check

__all__ = [
    "asked_fraction", "classes", "cuts", "debiased", "fraction", "joint_fraction", "select", "total_votes",
]  # fmt: skip

# Galaxy Zoo DECaLS debiased galaxies within these limits alone (Walmsley et al. 2022, MNRAS 509, 3966)
DEBIASED_REDSHIFT = (0.02, 0.15)
DEBIASED_MAGNITUDE = (-23.0, -21.5)
DEBIASED_VOTES = 30


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
    for what, wanted in {"fractions": fractions, "votes": votes}.items():
        if not isinstance(wanted, Mapping | None):
            raise ValueError(f"{what} must be a dictionary, such as {{'bar_strong': 0.5}}, not {wanted!r:.60}")
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
    check(tree)
    asked = asked_fraction(catalog, tree, parted(tree, answer)[0])
    return np.where(asked == 0, 0.0, asked * fraction(catalog, tree, answer))


def asked_fraction(catalog: pd.DataFrame, tree: DecisionTree, question: str) -> np.ndarray:
    """Share of all volunteers who reach a question, such as ``"bar"``: [N] float64, 1 for one that everybody is asked.

    Above 0.5 the answers to it are about that galaxy.
    """
    check(tree)
    parents = tree.question(question).asked_after
    if not parents:
        return np.ones(len(a_frame(catalog, "the catalogue")))
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
        pd.Series(numbers(catalog, "redshift"), catalog.index).between(*DEBIASED_REDSHIFT, inclusive="neither")
        & pd.Series(numbers(catalog, "elpetro_absmag_r")).between(*DEBIASED_MAGNITUDE, inclusive="neither").to_numpy()
        & (total_votes(catalog, tree, first) >= DEBIASED_VOTES)
    )
    return catalog[columns].where(holds).rename(columns=lambda name: name.removesuffix("_debiased"))
