"""Asking for labels where they teach most: learn from a few, ask about others, label them, learn again.

::

    scores = representations.classify("features.parquet", dict(zip(known["id_str"], known["ring"])), "ring")
    batch = representations.ask("features.parquet", scores, 25)      # galaxies to label next
    label.Labeler(store, "rings.jsonl", "ring", order="most_interesting", scores=batch)

Begin with some galaxies drawn at random, until there is one of each answer. Stop when :func:`settled` says so. What was
asked for is no fair sample of the sky: measure purity and completeness on galaxies drawn at random
(:mod:`zoobook.rarity`).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import entr

from zoobook import arguments, votes
from zoobook.catalogs import keyed
from zoobook.catalogs.columns import floats, labels_of, listed, require
from zoobook.representations.sorting import _for_each_galaxy, _ranked, by_id
from zoobook.representations.tables import FeatureTable
from zoobook.trees import DecisionTree, check

STRENGTHS = 10.0 ** np.arange(-3, 2)  # how freely the logistic regression may choose its weights
LEARNERS = ("logistic", "process")
CROWD = 5  # a batch is chosen among so many times as many galaxies
KAPPA, ROUNDS = 0.9, 3  # what is called settled: so much agreement of so many rounds, each with the next


def classify(
    path: str | Path, labels: Mapping[str, object], column: str = "label", learner: str = "logistic", seed: int = 0
) -> pd.DataFrame:
    """What the labels of a few galaxies say of all others, and how unsure that is.

    Args:
        path: a table of features, best a compressed one.
        labels: by id, the answers so far: 0 and 1, or any text or whole numbers.
        column: name of the question.
        learner: ``"logistic"``: logistic regression, its strength by cross-validation; ``"process"``: a Gaussian
            process, which can follow crooked borders and is slow beyond a thousand labels.
        seed: makes the fit repeatable.

    Returns:
        DataFrame: of all galaxies without a label ``id_str``, the probabilities, in columns named as ``predict`` names
        them (``{column}_probability``; of other answers than 0 and 1 ``{column}_{answer}_probability``), and
        ``acquisition``, their entropy [nat], by which it is sorted.

    Raises:
        ValueError: there are not two different answers, or a galaxy is not in the table.
    """
    table, (known, values), seed = FeatureTable(path), by_id(labels, "labels"), arguments.seed(seed)
    if values.isna().any():
        raise ValueError(f"the label of {known[values.isna()][0]!r} is missing: leave such galaxies out")
    values = labels_of(values, column)
    if values.dtype.kind == "f" and (values % 1 != 0).any():
        raise ValueError(f"labels must be answers: text or whole numbers, not {values[values % 1 != 0].iloc[0]!r}")
    learner = arguments.choice("learner", learner, LEARNERS)
    answers, given = np.unique(values.map(int) if values.dtype.kind == "f" else values.to_numpy(), return_inverse=True)
    if len(answers) < 2:
        raise ValueError(
            f"labels need at least two different answers; here {len(known)} galaxies have {listed(answers) or 'none'}. "
            "Label more galaxies, drawn at random or like one that you know."
        )
    points = table.take(table.rows_of(known)).astype(float)
    middle, size = points.mean(0), max(float(points.std()), np.finfo(np.float32).tiny)  # one unit: distances stay
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops early or at a bound is good enough where labels are few
        model = _learner(learner, given, points.shape[1], seed).fit((points - middle) / size, given)
    names = [f"{column}_{answer}_probability" for answer in answers]
    yes_no = set(answers.tolist()) == {0, 1}

    def probabilities(features: np.ndarray) -> dict[str, np.ndarray]:
        shares = model.predict_proba((features - middle) / size)
        found = {f"{column}_probability": shares[:, 1]} if yes_no else dict(zip(names, shares.T, strict=True))
        return found | {"acquisition": entr(shares).sum(-1)}

    found = _for_each_galaxy(table, probabilities)
    return _ranked(found[~found["id_str"].isin(known)], "acquisition")


def disagreement(
    predictions: pd.DataFrame, tree: DecisionTree, questions: Sequence[str] | None = None
) -> pd.DataFrame:
    """On which galaxies the passes of a model with dropout disagree: whose votes would teach it most.

    Each pass is like another network. Where all of them are unsure in the same way, volunteers will be divided too, and
    their votes say little that is new; where each is sure of something else, they decide. That is the mutual
    information of the next volunteer's answer and the network (BALD: Houlsby et al. 2011, arXiv:1112.5745; of galaxies
    Walmsley et al. 2020, MNRAS 491, 1554), weighted by the share of volunteers who come to the question.

    Args:
        predictions: a table made by ``predict`` with several ``passes``.
        tree: the decision tree.
        questions: names of the questions that matter; all of them by default.

    Returns:
        DataFrame: ``id_str`` and ``acquisition`` [nat per volunteer], summed over the questions, sorted by it.

    Raises:
        ValueError: there is one pass only, a column is missing, or a question is unknown.
    """
    check(tree)
    names = [question.name for question in tree.questions]
    asked_for = [questions] if isinstance(questions, str) else arguments.names("questions", questions or names)
    wanted = {tree.question(name).name for name in asked_for}
    predictions = keyed(predictions, "the table of predictions")
    concentrations = votes.predicted_concentrations(predictions, tree)
    if concentrations.shape[2] < 2:
        raise ValueError("one pass cannot disagree with itself: predict with several, such as passes=10")
    shares = np.stack([votes.expected_fractions(one, tree) for one in np.moveaxis(concentrations, 2, 0)])
    asked = votes.proportion_asked(shares.mean(0), tree)
    total = np.zeros(len(predictions))
    for place, (start, stop) in enumerate(tree.index_groups):
        if names[place] in wanted:
            of_one = shares[..., start:stop]
            total += asked[:, place] * np.clip(entr(of_one.mean(0)).sum(-1) - entr(of_one).sum(-1).mean(0), 0, None)
    return _ranked(pd.DataFrame({"id_str": predictions["id_str"].to_numpy(), "acquisition": total}), "acquisition")


def ask(path: str | Path, scores: pd.DataFrame, n: int = 25, seed: int = 0) -> pd.DataFrame:
    """The galaxies to label next: of high ``acquisition``, but not all alike.

    The first ones of a ranking often look like one another, and one label would tell of all. So the best few times
    ``n`` are sorted into ``n`` groups of similar ones, and each group sends its best (Zhdanov 2019, arXiv:1901.05954).

    Args:
        path: a table of features, best a compressed one.
        scores: ``id_str`` and ``acquisition`` of galaxies without a label: what :func:`classify`,
            :func:`disagreement` or :func:`~zoobook.representations.interesting` made.
        n: how many galaxies to ask about.
        seed: makes the groups repeatable.

    Returns:
        DataFrame: the rows of ``scores`` to ask about, the highest acquisition first; all where there are no more.

    Raises:
        ValueError: a column is missing, or a galaxy is not in the table.
    """
    from sklearn.cluster import KMeans

    n, seed = arguments.whole("n", n), arguments.seed(seed)
    require(["acquisition"], scores, "the table of scores")
    scores = keyed(scores, "the table of scores").assign(acquisition=floats(scores["acquisition"]))
    if not np.isfinite(scores["acquisition"]).all():
        raise ValueError("the table of scores has galaxies whose acquisition is missing or no finite number")
    ranked = scores.sort_values(["acquisition", "id_str"], ascending=[False, True], ignore_index=True)
    crowd, table = ranked.head(CROWD * n), FeatureTable(path)
    rows = table.rows_of(crowd["id_str"].to_numpy(object))
    if len(crowd) <= n:
        return crowd
    points = table.take(rows).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of galaxies that are exactly alike there are fewer groups
        group = KMeans(n, n_init=1, random_state=seed).fit_predict(points)
    first = ~pd.Series(group).duplicated()
    chosen = np.r_[np.flatnonzero(first), np.flatnonzero(~first)][:n]
    return crowd.iloc[np.sort(chosen)].reset_index(drop=True)


def settled(rounds: Sequence[pd.DataFrame]) -> bool:
    """The stopping rule: whether more labels still change the answers.

    Labels may end when each of the last rounds gave every galaxy much the same answer as the one before: Cohen's kappa
    of their likeliest answers was at least 0.9, twice in a row (after Bloodgood & Vijay-Shanker 2009, CoNLL, who ask
    for more than a search for something rare can give). That says nothing of whether the answers are right.

    Args:
        rounds: the tables that :func:`classify` made, one a round; only the last three count.

    Returns:
        bool: whether to stop. Never before the third round, nor while all galaxies have the same answer.
    """
    from sklearn.metrics import cohen_kappa_score

    if isinstance(rounds, (str, pd.DataFrame)) or not isinstance(rounds, Iterable):
        raise ValueError(f"rounds must be a list of the tables that classify made, not {rounds!r:.60}")
    last = [_likeliest(one) for one in list(rounds)[-ROUNDS:]]
    if len(last) < ROUNDS or any(one.nunique() < 2 for one in last):
        return False
    for before, after in zip(last, last[1:], strict=False):
        both = before.index.intersection(after.index)
        if not len(both):
            raise ValueError("two rounds have no galaxy in common: were they made of one table of features?")
        if not cohen_kappa_score(before[both], after[both]) >= KAPPA:
            return False
    return True


def _likeliest(scores: pd.DataFrame) -> pd.Series:
    """The likeliest answer of each galaxy, by id, as text."""
    scores = keyed(scores, "a round")
    columns = [name for name in scores if str(name).endswith("_probability")]
    if not columns:
        raise ValueError(f"a round has no column …_probability, as `classify` makes them: {listed(scores.columns)}")
    shares = scores.set_index("id_str")[columns].apply(floats)
    if shares.isna().any(axis=None):
        raise ValueError("a round has probabilities that are missing or no numbers")
    return (shares[columns[0]] > 0.5).astype(str) if len(columns) == 1 else shares.idxmax(axis=1)


def _learner(name: str, given: np.ndarray, width: int, seed: int):
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    if name == "process":
        size = width**0.5
        kernel = ConstantKernel(1.0, (0.01, 100)) * RBF(size, (0.1 * size, 10 * size))
        return GaussianProcessClassifier(kernel, random_state=seed)
    rarest = np.bincount(given).min()
    if rarest < 3:  # too few to be both learned and asked for
        return LogisticRegression(C=1.0, max_iter=1000)
    folds = StratifiedKFold(min(5, rarest), shuffle=True, random_state=seed)
    return LogisticRegressionCV(Cs=STRENGTHS, cv=folds, scoring="neg_log_loss", max_iter=1000)
