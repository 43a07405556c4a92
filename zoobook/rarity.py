"""From scores to a sample: how pure and how complete it is at the true rarity of what is sought.

A validation sample seldom is as rich in, say, rings as the sky: rings are collected for it, or everything else is
thinned out. Which share of the rings passes a threshold (the completeness) and which share of the others does (the
false-positive rate) do not depend on how many there are of each; purity does, and follows from both by Bayes' theorem
(label shift: Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21). Both shares are binomial, so their
uncertainties are Beta distributions (Jeffreys' prior: Brown, Cai & DasGupta 2001, Statistical Science 16, 101; in
astronomy Cameron 2011, PASA 28, 128), from which draws are taken and put together.

What must hold is that each class, by itself, looks in the validation sample as it does in the survey.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from zoobook import arguments
from zoobook.evaluation import of_two_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWS = 2000
_STEPS = 200  # thresholds of a curve


def sample(
    labels: np.ndarray, scores: np.ndarray, rarity: float | tuple[int, int], *, threshold: float | None = None,
    purity: float | None = None, survey: int | None = None, level: float = 0.95, seed: int = 0,
) -> pd.Series:  # fmt: skip
    """What the sample above a threshold is like; or above the lowest threshold that reaches a wanted purity.

    A threshold for a wanted purity is chosen with the galaxies that it is then judged by, which in principle flatters
    it; in simulations with a few hundred galaxies of each class the intervals still hold the truth 95 times in 100.

    Args:
        labels: [N] of 0 and 1: the validation galaxies, 1 for what is sought.
        scores: [N], larger for what is sought.
        rarity: its share of all galaxies of the survey; or how many were found among how many looked at at random,
            ``(found, looked_at)``, whose uncertainty then counts too.
        threshold: take galaxies with this score or a higher one.
        purity: instead of a threshold, how pure the sample is to be, between 0 and 1.
        survey: galaxies in the survey; ``number`` is then how many of them are taken, else their share.
        level: probability within the intervals.
        seed: makes the draws repeatable.

    Returns:
        Series: ``threshold`` and, each with ``…_low`` and ``…_high``, ``completeness``, ``purity``, ``number``; where
        no threshold is so pure, a ValueError names the purest sample.

    >>> found = sample([1] * 90 + [0] * 910, [2] * 80 + [0] * 10 + [2] * 5 + [0] * 905, 0.02, threshold=1)
    >>> [round(float(found[name]), 2) for name in ("completeness", "purity", "purity_low", "purity_high")]
    [0.89, 0.76, 0.61, 0.9]
    """
    if (threshold is None) == (purity is None):
        raise ValueError("give either `threshold` or `purity`, and not both")
    options = {"survey": survey, "level": level, "seed": seed}
    if threshold is not None:
        at = arguments.real("threshold", threshold, np.isfinite, "a number")
        return _curve(labels, scores, rarity, np.array([at]), **options).iloc[0]
    purity = arguments.real("purity", purity, lambda share: 0 < share < 1, "between 0 and 1")
    table = curve(labels, scores, rarity, **options)
    pure = table[table["purity"] >= purity]
    if pure.empty:
        best = table.loc[table["purity"].idxmax()]
        raise ValueError(
            f"no threshold gives a purity of {purity:g}: the purest sample has {best['purity']:.2g} "
            f"({best['purity_low']:.2g} to {best['purity_high']:.2g}). Ask for less, or validate with more galaxies of "
            "the common kind: so few cannot show that a false positive is rarer."
        )
    return pure.iloc[-1]


def curve(
    labels: np.ndarray, scores: np.ndarray, rarity: float | tuple[int, int], *, survey: int | None = None,
    level: float = 0.95, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Completeness, purity and number of the samples above many thresholds.

    Args:
        labels, scores, rarity, survey, level, seed: see :func:`sample`.

    Returns:
        DataFrame: a row for each threshold, from the highest; columns as in :func:`sample`. Values are medians.
    """
    return _curve(labels, scores, rarity, None, survey=survey, level=level, seed=seed)


def checks_needed(purity: float, within: float = 0.05, level: float = 0.95, number: int | None = None) -> int:
    """How many galaxies of a sample, drawn at random, to look at so as to know its purity.

    Args:
        purity: about what it is expected to be; 0.5 is the worst case.
        within: half the width of the interval that is wanted.
        level: probability within the interval (of Wilson's; see Brown, Cai & DasGupta 2001).
        number: galaxies in the sample; a small one needs fewer (Cochran 1977, Sampling Techniques, section 4.4).

    Returns:
        int: galaxies to look at.

    >>> checks_needed(0.9), checks_needed(0.5), checks_needed(0.9, number=200)
    (141, 381, 83)
    """
    purity = arguments.share("purity", purity)
    within = arguments.real("within", within, lambda width: 0 < width < 0.5, "between 0 and 0.5")
    z2 = stats.norm.ppf((1 + _level(level)) / 2) ** 2
    # Wilson's half width is z sqrt(n p q + z² / 4) / (n + z²): a quadratic equation for n.
    spread = purity * (1 - purity)
    half = z2 * (spread / within**2 - 2) / 2
    looks = half + np.sqrt(half**2 + z2**2 * (1 / (4 * within**2) - 1))
    if number is not None:
        looks = looks / (1 + (looks - 1) / arguments.whole("number", number))
    return int(np.ceil(looks))


def plot(
    labels: np.ndarray, scores: np.ndarray, rarity: float | tuple[int, int], chosen: pd.Series | None = None
) -> Figure:
    """Purity against completeness at the survey's rarity, with its interval, and at that of the labelled sample.

    Args:
        labels, scores, rarity: see :func:`sample`.
        chosen: a sample to mark.

    Returns:
        matplotlib.figure.Figure: the figure; a line marks the rarity: the purity of galaxies drawn at random.
    """
    from matplotlib import pyplot as plt

    from zoobook.plots import COLOURS

    table = curve(labels, scores, rarity)
    given = np.asarray(rarity, float)
    share = float(given[0] / given[1] if given.ndim else given)
    labels, scores = of_two_classes(labels, scores, "purity")
    here = float(np.mean(labels))
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    axis.plot(*curve(labels, scores, here)[["completeness", "purity"]].to_numpy().T, "--", color=COLOURS[6],
              label=f"in the labelled sample (one in {_one_in(here)})")  # fmt: skip
    axis.plot(table["completeness"], table["purity"], color=COLOURS[0],
              label=f"in the survey (one in {_one_in(share)})")  # fmt: skip
    axis.fill_between(table["completeness"], table["purity_low"], table["purity_high"], color=COLOURS[0], alpha=0.2)
    axis.axhline(share, color=COLOURS[1], linewidth=1, label="drawn at random: the rarity")
    if chosen is not None:
        wanted = [name + end for name in ("completeness", "purity") for end in ("", "_low", "_high")]
        if not isinstance(chosen, pd.Series) or not {"threshold", *wanted} <= set(chosen.index):
            raise ValueError(f"chosen must be one sample, as rarity.sample gives it, not {type(chosen).__name__}")
        spans = [[[chosen[name] - chosen[f"{name}_low"]], [chosen[f"{name}_high"] - chosen[name]]]
                 for name in ("completeness", "purity")]  # fmt: skip
        place = chosen["completeness"], chosen["purity"]
        axis.errorbar(*place, xerr=spans[0], yerr=spans[1], fmt="o", color="black", capsize=3)
        axis.plot([], [], "o", color="black", label=f"the chosen sample, scores from {chosen['threshold']:.3g}")
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="completeness", ylabel="purity")
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return figure


def _one_in(share: float) -> str:
    return f"{1 / share:,.0f}" if share < 0.1 else f"{1 / share:.2g}"


def _curve(labels, scores, rarity, thresholds: np.ndarray | None, survey, level, seed) -> pd.DataFrame:
    labels, scores = of_two_classes(labels, scores, "purity")
    if thresholds is None:
        distinct = np.unique(scores)[::-1]
        places = np.linspace(0, len(distinct) - 1, min(len(distinct), _STEPS)).round().astype(int)
        thresholds = distinct[np.unique(places)]
    rng, level = np.random.default_rng(arguments.seed(seed)), _level(level)
    prior = _rarity(rarity, rng)
    passing = {}
    for kind in (1, 0):
        ordered = np.sort(scores[labels == kind])
        above = len(ordered) - np.searchsorted(ordered, thresholds)
        # A beta distribution at each threshold, drawn as one Dirichlet for all, so that no curve runs backwards.
        shapes = np.diff(above, prepend=-0.5, append=len(ordered) + 0.5)
        weights = rng.standard_gamma(shapes[:, None], (len(shapes), _DRAWS)).cumsum(axis=0)
        passing[kind] = weights[:-1] / weights[-1]
    taken = prior * passing[1] + (1 - prior) * passing[0]
    draws = {"completeness": passing[1], "purity": prior * passing[1] / taken, "number": taken}
    if survey is not None:
        draws["number"] = rng.binomial(arguments.whole("survey", survey, 1, 2**62), taken)
    table = {"threshold": thresholds}
    for name, values in draws.items():
        middle = np.quantile(values, [0.5, (1 - level) / 2, (1 + level) / 2], axis=1)
        table |= dict(zip((name, f"{name}_low", f"{name}_high"), middle, strict=True))
    return pd.DataFrame(table)


def _rarity(rarity: float | tuple[int, int], rng: np.random.Generator) -> float | np.ndarray:
    """The share of what is sought: exact, or [draws] of it from a count."""
    if np.ndim(rarity) == 0:
        return arguments.real("rarity", rarity, lambda share: 0 < share < 1, "between 0 and 1, or (found, looked_at)")
    rarity = list(rarity)
    if len(rarity) != 2:
        raise ValueError(f"rarity must be a share, or two numbers, (found, looked_at), not {rarity!r}")
    looked_at = arguments.whole("looked_at in rarity", rarity[1])
    found = arguments.whole("found in rarity", rarity[0], 1, looked_at)
    return rng.beta(found + 0.5, looked_at - found + 0.5, _DRAWS)


def _level(level: float) -> float:
    return arguments.real("level", level, lambda share: 0 < share < 1, "between 0 and 1")
