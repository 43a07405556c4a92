"""Votes as draws from a Dirichlet-multinomial distribution: likelihood, expectation, intervals, sampling.

The volunteers who answer a question about one galaxy are modelled as in Walmsley et al. 2020 (MNRAS 491, 1554) and
2022 (MNRAS 509, 3966): the chance of each answer is itself uncertain, Dirichlet-distributed with one concentration
per answer, and the votes are a multinomial draw from it. Arrays have one row a galaxy, [N], and one column an answer,
[A], in the order of ``tree.label_columns``; results per question, [Q], are in the order of ``tree.questions``. The
``tree`` is always the decision tree that the volunteers walked.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import betaincinv, digamma, gammaln

from zoobook import arguments
from zoobook.catalogs.columns import floats, ids_of, require, unmasked
from zoobook.trees import DecisionTree, check

LOWEST, HIGHEST = 1.0, 101.0  # of Zoobot's concentrations, 1 + 100 sigmoid(x); other models may have a lower lowest


def nll(concentrations: np.ndarray, votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """Negative log-likelihood of the votes on each question, under the Dirichlet-multinomial distribution.

    Args:
        concentrations: [N, A] Dirichlet concentrations, above 0.
        votes: [N, A] vote counts.

    Returns:
        ndarray: float64 [N, Q], in nats, with the multinomial coefficient; exactly 0 where nobody voted.
    """
    concentrations, votes = checked(concentrations, tree, "concentrations"), checked(votes, tree, "votes")
    if len(concentrations) != len(votes):
        raise ValueError(f"there are concentrations of {len(concentrations)} galaxies, but votes on {len(votes)}")
    starts = [start for start, _ in tree.index_groups]
    total_votes = np.add.reduceat(votes, starts, axis=1)
    total_concentration = np.add.reduceat(concentrations, starts, axis=1)
    per_answer = gammaln(votes + concentrations) - gammaln(concentrations) - gammaln(votes + 1)
    log_likelihood = (
        np.add.reduceat(per_answer, starts, axis=1)
        + gammaln(total_votes + 1)
        + gammaln(total_concentration)
        - gammaln(total_votes + total_concentration)
    )
    return np.where(total_votes > 0, -log_likelihood, 0.0)


def expected_fractions(concentrations: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """Expected share of each answer among those who are asked its question.

    Args:
        concentrations: [N, A] Dirichlet concentrations.

    Returns:
        ndarray: float64 [N, A]; the shares of one question add up to 1.

    >>> pair = DecisionTree.from_dict({"name": "pair", "questions": [{"name": "ring", "answers": ["yes", "no"]}]})
    >>> expected_fractions([[3, 9]], pair)
    array([[0.25, 0.75]])
    """
    concentrations = checked(concentrations, tree, "concentrations")
    return concentrations / _of_question(concentrations, tree)


def proportion_asked(fractions: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """Joint probability that a volunteer is asked each question.

    It is the product of the shares of the answers on the way to the question, added up over the ways.

    Args:
        fractions: [N, A] shares of the answers, such as those of :func:`expected_fractions`.

    Returns:
        ndarray: float64 [N, Q], 1 for questions that everybody is asked.
    """
    fractions = checked(fractions, tree, "fractions")
    asked = np.ones((len(fractions), len(tree.questions)))
    for i in tree.walking_order:
        ways = tree.parents[i]
        if ways:
            asked[:, i] = sum(asked[:, question] * fractions[:, answer] for question, answer in ways)
    return asked


def interval(concentrations: np.ndarray, tree: DecisionTree, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Central interval that holds the true share of each answer, which is Beta-distributed, with a given probability.

    Args:
        concentrations: [N, A] Dirichlet concentrations.
        level: probability within the interval, between 0 and 1.

    Returns:
        tuple: lower and upper ends, float64 [N, A] each.
    """
    level = arguments.real("level", level, lambda level: 0 < level < 1, "between 0 and 1")
    concentrations = checked(concentrations, tree, "concentrations")
    others = _of_question(concentrations, tree) - concentrations
    tail = (1 - level) / 2
    return betaincinv(concentrations, others, tail), betaincinv(concentrations, others, 1 - tail)


def sample(
    concentrations: np.ndarray, volunteers: int | np.ndarray, tree: DecisionTree, rng: np.random.Generator
) -> np.ndarray:
    """Let simulated volunteers walk the tree.

    The number who answer a later question is the number who gave an answer that leads to it.

    Args:
        concentrations: [N, A] Dirichlet concentrations.
        volunteers: how many look at each galaxy: one number, or [N].
        rng: source of randomness.

    Returns:
        ndarray: int64 [N, A] vote counts.
    """
    concentrations = checked(concentrations, tree, "concentrations")
    try:
        rng = np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise ValueError(f"rng must be a generator of NumPy, or a seed, not {rng!r:.60}") from None
    votes = np.zeros(concentrations.shape, np.int64)
    everybody = floats(pd.Series(np.ravel(volunteers)))
    whole = np.all((everybody >= 0) & (everybody < 2**31) & (everybody % 1 == 0))
    if not whole or len(everybody) not in (1, len(votes)):
        raise ValueError(f"volunteers must be whole numbers, 0 or more, one or for each galaxy, not {volunteers!r:.60}")
    everybody = np.broadcast_to(everybody.astype(np.int64), len(votes))
    for i in tree.walking_order:
        start, stop = tree.index_groups[i]
        ways = tree.parents[i]
        asked = votes[:, [answer for _, answer in ways]].sum(1) if ways else everybody
        gamma = np.maximum(rng.standard_gamma(concentrations[:, start:stop]), 1e-300)  # not all of them 0
        votes[:, start:stop] = rng.multinomial(asked, gamma / gamma.sum(1, keepdims=True))
    return votes


def fit_constant(votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """The one set of concentrations that describes all galaxies best: what a model could say without looking.

    Found by maximum likelihood within the range of Zoobot's output, whatever that of a model is, so that all models are
    measured from the same place.

    Args:
        votes: [N, A] vote counts.

    Returns:
        ndarray: float64 [A] concentrations, between 1 and 101. For a question that nobody was asked: all 2.
    """
    from scipy.optimize import minimize

    votes = checked(votes, tree, "votes")
    best = np.full(len(tree.label_columns), 2.0)
    for start, stop in tree.index_groups:
        rows, counts = np.unique(votes[:, start:stop], axis=0, return_counts=True)
        asked = rows.sum(1) > 0
        if not asked.any():
            continue
        rows, weights, totals = rows[asked], counts[asked] / counts[asked].sum(), rows[asked].sum(1)

        def loss_and_gradient(log_alpha, rows=rows, weights=weights, totals=totals):
            alpha = np.exp(log_alpha)
            total = alpha.sum()
            log_likelihood = (gammaln(rows + alpha) - gammaln(alpha)).sum(1) + gammaln(total) - gammaln(totals + total)
            slope = digamma(rows + alpha) - digamma(alpha) + (digamma(total) - digamma(totals + total))[:, None]
            return -(weights @ log_likelihood), -(weights @ slope) * alpha

        bounds = [(np.log(LOWEST), np.log(HIGHEST))] * (stop - start)
        first = np.log(np.full(stop - start, 2.0))
        found = minimize(loss_and_gradient, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12})
        best[start:stop] = np.clip(np.exp(found.x), LOWEST, HIGHEST)
    return best


def prediction_table(ids: Iterable[str], concentrations: np.ndarray, tree: DecisionTree) -> pd.DataFrame:
    """Predictions as the published catalogues have them.

    Args:
        ids: [N] galaxy ids.
        concentrations: [N, A] or, over several forward passes, [N, A, P].

    Returns:
        DataFrame: ``id_str``; for each answer ``{answer}_concentration`` (a list of P numbers) and
        ``{answer}_fraction`` (the expected share, averaged over the passes); for each question
        ``{question}_proportion_volunteers_asked``.
    """
    ids, passes = ids_of(ids), np.moveaxis(concentrations, 2, 0) if np.ndim(concentrations) == 3 else [concentrations]
    if not len(passes):
        raise ValueError("there are concentrations of no pass at all")
    concentrations = np.stack([checked(one, tree, "concentrations") for one in passes], axis=2).astype(np.float32)
    if len(ids) != len(concentrations):
        raise ValueError(f"there are {len(ids)} ids, but concentrations of {len(concentrations)} galaxies")
    by_pass = [expected_fractions(one, tree) for one in np.moveaxis(concentrations, -1, 0)]
    fractions = np.mean(by_pass, axis=0)
    asked = np.mean([proportion_asked(f, tree) for f in by_pass], axis=0)
    columns: dict = {"id_str": ids}
    for a, column in enumerate(tree.label_columns):
        columns[f"{column}_concentration"] = list(concentrations[:, a])
        columns[f"{column}_fraction"] = fractions[:, a].astype(np.float32)
    for q, question in enumerate(tree.questions):
        columns[f"{question.name}_proportion_volunteers_asked"] = asked[:, q].astype(np.float32)
    return pd.DataFrame(columns)


def predicted_concentrations(predictions: pd.DataFrame, tree: DecisionTree) -> np.ndarray:
    """The concentrations in a table made by :func:`prediction_table`, as an array, float64 [N, A, P]."""
    check(tree)
    columns = [f"{column}_concentration" for column in tree.label_columns]
    require(columns, predictions, "the table of predictions", f"Were they made for tree {tree.name!r}?")
    if predictions.empty:
        raise ValueError("the predictions have no rows, so there is nothing to compare")
    found = [_several(predictions[column]) for column in columns]
    for column, values in zip(columns, found, strict=True):
        if values.shape != found[0].shape:
            raise ValueError(f"{column!r} holds {values.shape[1]} numbers for each galaxy, {columns[0]!r} "
                             f"{found[0].shape[1]}: they are not of one table")  # fmt: skip
    return np.stack(found, axis=1)


def _several(column: pd.Series) -> np.ndarray:
    """A column of lists, float64 [N, P]; a CSV has them as text, such as ``[1.5 2.5]`` or ``[1.5, 2.5]``."""
    try:
        found = np.stack([_numbers_in(cell) for cell in column])
        if found.ndim != 2 or not found.shape[1]:
            raise ValueError
        return found
    except (ValueError, TypeError):
        raise ValueError(
            f"the column {column.name!r} does not hold equally many numbers for each galaxy. A CSV keeps no lists: "
            "write predictions with to_parquet and read them with read_parquet, or give predict a folder as `out`."
        ) from None


def _numbers_in(cell: object) -> np.ndarray:
    """One number, or a list of them, or the same as text; true and false are none."""
    if isinstance(cell, str):
        return np.asarray(cell.strip("[] ").replace(",", " ").split(), float)
    numbers = unmasked(cell) if isinstance(cell, np.ndarray) else np.asarray(cell, object)
    if numbers.dtype.kind in "Ob" and any(isinstance(value, (bool, np.bool_)) for value in numbers.flat):
        raise ValueError
    return np.atleast_1d(numbers).astype(float)


def _of_question(values: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """The sum over the answers to its question, for each answer, [N, A]."""
    starts, stops = np.transpose(tree.index_groups)
    return np.repeat(np.add.reduceat(values, starts, axis=1), stops - starts, axis=1)


def checked(values: np.ndarray, tree: DecisionTree, what: str, where: str = "") -> np.ndarray:
    """Concentrations, votes or fractions (``what`` they are) as float64 [N, A], if they can be those of a tree.

    ``where`` they are from, for the message.
    """
    called = f"{where}: {what}" if where else what
    check(tree)
    try:
        values = unmasked(values)
        if values.dtype.kind == "b":
            raise TypeError
        values = values.astype(float)
    except (TypeError, ValueError):  # text, lists of different lengths, pandas' sign for a gap
        raise ValueError(f"{called} must be numbers throughout, equally many for each galaxy") from None
    if values.ndim != 2 or values.shape[1] != len(tree.label_columns):
        raise ValueError(
            f"{called} must have the shape [galaxies, {len(tree.label_columns)}] for tree {tree.name!r}, "
            f"one column an answer, not {list(values.shape)}"
        )
    accepted, meaning = {
        "concentrations": (values > 0, "above 0"),
        "votes": ((values >= 0) & (values == np.floor(values)), "whole, 0 or more"),
        "fractions": ((values >= 0) & (values < 1.001), "from 0 to 1"),
    }[what]
    bad = ~(np.isfinite(values) & accepted)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{called}: {values[row, column]} in row {row}, column {tree.label_columns[column]!r} "
            f"({int(bad.sum())} such values); they must be finite and {meaning}"
        )
    return values
