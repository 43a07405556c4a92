"""How good are predictions? Scores per question, and how much of what could be known was learned."""

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from scipy.stats import betabinom, rankdata

from zoobook import arguments
from zoobook import votes as _votes
from zoobook.catalogs import check_votes, keyed
from zoobook.catalogs.columns import floats, listed, numbers, unmasked
from zoobook.trees import DecisionTree

LEVELS = (0.5, 0.8, 0.9, 0.95)
_PROBABILITIES = 1 << 23  # of numbers of votes, in memory at a time


def evaluate(
    predictions: pd.DataFrame, catalog: pd.DataFrame, tree: DecisionTree, baseline: np.ndarray | None = None
) -> pd.DataFrame:
    """Compare predicted concentrations with the votes, question by question.

    *Information captured* says how far the model has come from knowing nothing to knowing all that can be known:
    (NLL of the best constant - NLL of the model) / (NLL of the best constant - NLL of the oracle). The oracle knows the
    concentrations from which a simulated galaxy's votes were drawn, so 1 cannot be passed but by luck. Its standard
    error comes from resampling the galaxies. Both are NaN where galaxies are so few that the constant beats the oracle.

    Args:
        predictions: a table made by ``predict``: ``id_str`` and ``{answer}_concentration``.
        catalog: votes for (at least) the same galaxies; with ``{answer}_oracle`` columns, the oracle is known.
        tree: the decision tree.
        baseline: [A] concentrations of the best constant; default: fitted to the votes of ``catalog``'s galaxies
            that are in ``predictions``.

    Returns:
        DataFrame: one row a question, and a last row ``all``: ``galaxies`` (with at least one vote), ``accuracy`` and
        ``f1`` (macro) of the most voted answer where at least half of all volunteers were asked, ``fraction_mae``
        (mean absolute error of vote fractions, galaxies weighted alike), ``nll``, ``nll_constant``, ``nll_oracle``
        (nats per galaxy), ``information_captured``, ``information_captured_error``, ``coverage_50`` … ``coverage_95``
        (share of vote counts within the central intervals that the model predicts for them).

    Raises:
        ValueError: a galaxy or a column is missing, a galaxy has several rows, or votes are not whole numbers.
    """
    from sklearn.metrics import accuracy_score, f1_score

    predictions, catalog = of_same_galaxies(predictions, catalog)
    votes = check_votes(catalog, tree, needed=True)
    concentrations = _votes.predicted_concentrations(predictions, tree)
    if baseline is None:
        baseline = _votes.fit_constant(votes, tree)
    baseline = _votes.checked(np.reshape(unmasked(baseline), (1, -1)), tree, "concentrations", "the baseline")
    nll = {"": _mixture_nll(concentrations, votes, tree)}
    nll["_constant"] = _votes.nll(np.repeat(baseline, len(votes), axis=0), votes, tree)
    oracle_columns = [f"{column}_oracle" for column in tree.label_columns]
    if set(oracle_columns) <= set(catalog):
        oracle = np.stack([numbers(catalog, column) for column in oracle_columns], axis=1)
        oracle = _votes.checked(oracle, tree, "concentrations", "the columns …_oracle of the catalogue")
        nll["_oracle"] = _votes.nll(oracle, votes, tree)
    fractions = np.mean([_votes.expected_fractions(one, tree) for one in np.moveaxis(concentrations, 2, 0)], axis=0)
    totals = np.stack([votes[:, start:stop].sum(1) for start, stop in tree.index_groups], axis=1)

    rows = []
    for q, (question, (start, stop)) in enumerate(zip(tree.questions, tree.index_groups, strict=True)):
        total = totals[:, q]
        asked = total > 0
        relevant = asked & (total >= 0.5 * totals.max(1))
        row: dict = {"question": question.name, "galaxies": int(asked.sum())}
        if relevant.any():
            truth, guess = votes[relevant, start:stop].argmax(1), fractions[relevant, start:stop].argmax(1)
            row["accuracy"] = accuracy_score(truth, guess)
            row["f1"] = f1_score(truth, guess, average="macro", labels=np.unique(truth), zero_division=0)
        if asked.any():
            observed = votes[asked, start:stop] / total[asked, None]
            row["fraction_mae"] = np.abs(observed - fractions[asked, start:stop]).mean()
            row |= _information({name: values[asked, q] for name, values in nll.items()})
            row |= _coverage(concentrations[asked, start:stop], votes[asked, start:stop])
        rows.append(row)
    whole = {"question": "all", "galaxies": len(votes)} | _information({n: v.sum(1) for n, v in nll.items()})
    return pd.DataFrame([*rows, whole]).set_index("question")


def of_same_galaxies(predictions: pd.DataFrame, catalog: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions, and the rows of a catalogue for the same galaxies in the same order, if each has one of each."""
    predictions, catalog = keyed(predictions, "the table of predictions"), keyed(catalog)
    if predictions.empty:
        raise ValueError("the predictions have no rows, so there is nothing to compare")
    missing = predictions["id_str"][~predictions["id_str"].isin(catalog["id_str"])]
    if len(missing):
        example = missing.iloc[0]
        raise ValueError(f"the catalogue has no votes for {len(missing)} predicted galaxies, such as {example!r}")
    return predictions, catalog.set_index("id_str", drop=False).loc[predictions["id_str"]]


def radial_profiles(pixels: np.ndarray, bins: int = 16) -> np.ndarray:
    """Simple features of an image: mean and scatter of brightness in rings around its centre, and its colour there.

    A baseline that any network should beat.

    Args:
        pixels: uint8 [N, H, W, 3].
        bins: number of rings, out to the edge of the frame.

    Returns:
        ndarray: float32 [N, 4 * bins]: brightness (0 to 1), its scatter along the ring, and the two colours (first
        minus second, second minus third channel).

    Raises:
        ValueError: the images have too few pixels for so many rings.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise ValueError("pixels must be bytes, uint8 [N, H, W, 3], as those of an image store")
    n, height, width, _ = pixels.shape
    bins = arguments.whole("bins", bins)
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - (height - 1) / 2) / height, (x - (width - 1) / 2) / width) * 2
    ring = np.minimum((radius * bins).astype(int), bins)  # the corners are left out
    if len(np.unique(ring)) <= bins:
        raise ValueError(f"images of {height} by {width} pixels are too small for {bins} rings: take fewer `bins`")
    features = np.empty((n, 4, bins), np.float32)
    for b in range(bins):
        inside = pixels[:, ring == b].astype(np.float32) / 255
        grey = inside.mean(2)
        features[:, 0, b], features[:, 1, b] = grey.mean(1), grey.std(1)
        features[:, 2, b] = (inside[..., 0] - inside[..., 1]).mean(1)
        features[:, 3, b] = (inside[..., 1] - inside[..., 2]).mean(1)
    return features.reshape(n, 4 * bins)


def roc_auc(labels: np.ndarray, scores: np.ndarray, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Area under the ROC curve, with an interval from resampling the galaxies (bootstrap).

    Args:
        labels: [N] of 0 and 1.
        scores: [N], larger for the positive class.
        resamples: how many bootstrap samples.
        seed: makes the interval repeatable.

    Returns:
        dict: ``auc``, and ``low`` and ``high``: the central 95 % interval.

    Raises:
        ValueError: only one class is present, or a score is not finite.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])["auc"]
    0.75
    """
    labels, scores = of_two_classes(labels, scores, "an AUC")
    rng = np.random.default_rng(arguments.seed(seed))
    resamples = arguments.whole("resamples", resamples)
    samples = []
    while len(samples) < resamples:
        drawn = rng.integers(0, len(labels), len(labels))
        if 0 < labels[drawn].sum() < len(labels):
            samples.append(_auc(labels[drawn], scores[drawn]))
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"auc": float(_auc(labels, scores)), "low": float(low), "high": float(high)}


def of_two_classes(labels: np.ndarray, scores: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] of 0 and 1 and scores [N] as arrays, if ``what`` (for the message) can be judged by them.

    A ValueError where they have different lengths, only one class is present, or a score is not finite.
    """
    labels, scores = unmasked(labels), unmasked(scores)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be two lists of the same length")
    scores = floats(pd.Series(scores))
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite numbers")
    known = floats(pd.Series(labels))
    labels = known if np.isfinite(known).all() else labels  # also of text
    present = set(pd.Series(labels, dtype=object).unique().tolist())
    if present != {0, 1}:
        found = listed(sorted(map(repr, present))) or "none"
        raise ValueError(f"{what} needs galaxies of both classes, 0 and 1; here: {found}")
    return (labels == 1).astype(int), scores


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The same as scikit-learn's, from ranks (Mann & Whitney 1947), without the checks that take most of its time."""
    ones = labels == 1
    count = ones.sum()
    return (rankdata(scores)[ones].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))


def _mixture_nll(concentrations: np.ndarray, votes: np.ndarray, tree: DecisionTree) -> np.ndarray:
    """NLL [N, Q] of concentrations [N, A, P]: the passes are equally likely members of a mixture."""
    each = np.stack([_votes.nll(one, votes, tree) for one in np.moveaxis(concentrations, 2, 0)])
    return -(logsumexp(-each, axis=0) - np.log(len(each))) + 0.0  # no negative zeros


def _information(nll: dict[str, np.ndarray], resamples: int = 200) -> dict[str, float]:
    row = {f"nll{name}": values.mean() for name, values in nll.items()}
    if "_oracle" in nll:
        drawn = np.random.default_rng(0).integers(0, len(nll[""]), (resamples, len(nll[""])))
        gained, possible = nll["_constant"] - nll[""], nll["_constant"] - nll["_oracle"]
        if possible.sum() <= 0:  # by chance, among few galaxies: then there is nothing to capture
            return row | {"information_captured": np.nan, "information_captured_error": np.nan}
        row["information_captured"] = gained.sum() / possible.sum()
        each = possible[drawn].sum(1)
        usual = each > 0
        scatter = np.std(gained[drawn].sum(1)[usual] / each[usual]) if usual.mean() > 0.95 else np.nan
        row["information_captured_error"] = scatter
    return row


def _coverage(concentrations: np.ndarray, votes: np.ndarray) -> dict[str, float]:
    """Share of the vote counts within the predicted central intervals.

    A count that straddles the end of an interval is counted in part (the expectation of the randomised probability
    integral transform, Czado et al. 2009, Biometrics 65, 1254): so the coverage of a perfect model is exactly nominal.
    """
    below, upto = _count_distribution(concentrations, votes)
    row = {}
    for level in LEVELS:
        low, high = (1 - level) / 2, (1 + level) / 2
        inside = np.clip(np.minimum(upto, high) - np.maximum(below, low), 0, None)
        row[f"coverage_{100 * level:.0f}"] = (inside / np.maximum(upto - below, 1e-300)).mean()
    return row


def _count_distribution(concentrations: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted probability of fewer votes, and of at most as many votes, for each answer: [n, a] each."""
    if len(votes) * votes.sum(1).max() > _PROBABILITIES and len(votes) > 1:
        halves = zip(np.array_split(concentrations, 2), np.array_split(votes, 2), strict=True)
        return tuple(map(np.concatenate, zip(*(_count_distribution(*half) for half in halves), strict=True)))
    below, upto = np.zeros(votes.shape), np.zeros(votes.shape)
    total, counts = votes.sum(1)[:, None], np.arange(votes.sum(1).max() + 1)
    for alpha in np.moveaxis(concentrations, 2, 0):
        others = alpha.sum(1, keepdims=True) - alpha
        for answer in range(votes.shape[1]):  # one answer at a time keeps memory flat
            probability = betabinom.pmf(counts, total, alpha[:, [answer]], others[:, [answer]])
            fewer = np.cumsum(np.hstack([np.zeros_like(total), probability]), axis=1)  # than 0, 1, 2 … votes
            below[:, answer] += np.take_along_axis(fewer, votes[:, [answer]], 1)[:, 0]
            upto[:, answer] += np.take_along_axis(fewer, votes[:, [answer]] + 1, 1)[:, 0]
    return below / concentrations.shape[2], upto / concentrations.shape[2]
