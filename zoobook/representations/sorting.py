"""Sorting galaxies by their features: the odd, the interesting, and groups of similar ones."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs import check_ids
from zoobook.catalogs.columns import floats, labels_of
from zoobook.representations.tables import FeatureTable, blocks

_SAMPLE = 65_536  # galaxies that a forest or the centres of groups are made from; all are then sorted
_BLOCK = 8192  # galaxies compared with the rated ones at a time


def anomalies(path: str | Path, seed: int = 0) -> pd.DataFrame:
    """Rank galaxies from the most unusual to the most ordinary by an isolation forest (Liu et al. 2008, ICDM 413).

    Args:
        path: a table of features, best a compressed one.
        seed: makes the forest repeatable.

    Returns:
        DataFrame: ``id_str`` and ``anomaly_score`` (about 0.5 for the ordinary, towards 1 for the unusual), sorted.
    """
    from sklearn.ensemble import IsolationForest

    table, seed = FeatureTable(path), arguments.seed(seed)
    forest = IsolationForest(n_estimators=200, random_state=seed).fit(table.sample(_SAMPLE, seed))
    found = _for_each_galaxy(table, lambda features: {"anomaly_score": -forest.score_samples(features)})
    return _ranked(found, "anomaly_score")


def interesting(
    path: str | Path, ratings: Mapping[str, float] | pd.Series, explore: float = 1.0, seed: int = 0
) -> pd.DataFrame:
    """Rank galaxies by how interesting they may be, judged by the ratings of a few: active search for the unusual.

    An anomaly is odd, but not always of interest. So rate some galaxies, look at the first of this list, rate them
    too, and ask again. A Gaussian process predicts the rating of every galaxy from its features, and how uncertain that
    is (Lochner & Bassett 2021, Astronomy and Computing 36, 100481; Walmsley et al. 2022, MNRAS 513, 1581).

    Args:
        path: a table of features, best a compressed one.
        ratings: by id, the rated galaxies: any scale, higher is more interesting. A few hundred are enough.
        explore: how much to prefer galaxies of which the prediction is uncertain, in its standard deviations; 0: not.
        seed: makes the fit repeatable.

    Returns:
        DataFrame: of galaxies not yet rated ``id_str``, ``expected`` (rating), ``std`` (its standard deviation),
        and ``acquisition`` (the first plus ``explore`` times the second: an upper confidence bound), sorted by it.

    Raises:
        ValueError: fewer than two galaxies are rated, one of them is not in the table, or a rating is not a number.
    """
    table, (rated, values) = FeatureTable(path), by_id(ratings, "ratings")
    seed, explore = arguments.seed(seed), arguments.real("explore", explore, np.isfinite, "a number")
    known = floats(values)
    if len(rated) < 2:
        raise ValueError(f"rate at least two galaxies, not {len(rated)}")
    if not np.isfinite(known).all():
        raise ValueError(f"the rating of {rated[int(np.argmin(np.isfinite(known)))]!r} is not a finite number")
    labels_of(values, "ratings", ratings=True)  # refuses numbers that stand for none
    predict = _fit_ratings(table.take(table.rows_of(rated)).astype(float), known, seed)
    found = _for_each_galaxy(table, predict)
    found = found[~found["id_str"].isin(rated)]
    return _Candidates(_ranked(found.assign(acquisition=found["expected"] + explore * found["std"]), "acquisition"))


def clusters(path: str | Path, n_clusters: int, seed: int = 0) -> pd.DataFrame:
    """Sort galaxies into groups of similar ones by k-means.

    In a long table the centres come from a sample of its galaxies.

    Args:
        path: a table of features, best a compressed one.
        n_clusters: how many groups, from 1 to the number of galaxies.
        seed: makes the groups repeatable.

    Returns:
        DataFrame: ``id_str``, ``cluster`` (0 is the largest group) and ``distance`` from the centre of the group.
    """
    from sklearn.cluster import KMeans

    table = FeatureTable(path)
    most = min(len(table), _SAMPLE)
    n_clusters = arguments.whole(f"n_clusters, for {len(table)} galaxies,", n_clusters, 1, most)
    seed = arguments.seed(seed)
    model = KMeans(n_clusters, n_init=4, random_state=seed).fit(np.ascontiguousarray(table.sample(_SAMPLE, seed)))

    def group(features: np.ndarray) -> dict[str, np.ndarray]:
        cluster = model.predict(features)
        return {"cluster": cluster, "distance": np.linalg.norm(features - model.cluster_centers_[cluster], axis=1)}

    found = _for_each_galaxy(table, group)
    sizes = np.bincount(found["cluster"], minlength=n_clusters)
    by_size = np.argsort(np.argsort(-sizes, kind="stable"))
    return found.assign(cluster=by_size[found["cluster"]])


def _fit_ratings(points: np.ndarray, ratings: np.ndarray, seed: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A Gaussian process through the ratings [n] of points [n, F]: gives ``expected`` and ``std`` of others."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    size = max(float(points.std()), np.finfo(np.float32).tiny)  # one unit for all features, so that distances stay
    width = points.shape[1] ** 0.5
    kernel = ConstantKernel(1.0, (0.01, 100)) * RBF(width, (0.1 * width, 10 * width)) + WhiteKernel(0.1, (1e-3, 10))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound is a sensible answer where ratings are few
        process.fit(points / size, ratings)

    def predict(features: np.ndarray) -> dict[str, np.ndarray]:
        guesses = [process.predict(block / size, return_std=True) for block in blocks(features, _BLOCK)]
        return dict(zip(("expected", "std"), map(np.concatenate, zip(*guesses, strict=True)), strict=True))

    return predict


def by_id(given: Mapping | pd.Series, what: str) -> tuple[np.ndarray, pd.Series]:
    """Ids [N] and values of what was given by id and is called ``what``; a ValueError where it is no such thing."""
    if not isinstance(given, (Mapping, pd.Series)):
        raise ValueError(f"{what} must be a dictionary or a Series by id, such as dict(zip(table['id_str'], "
                         f"table['ring'])), not {type(given).__name__}")  # fmt: skip
    table = pd.DataFrame(list(given.items()), columns=["id_str", "value"], dtype=object)
    return check_ids(table, f"the {what}"), table["value"].infer_objects()


def _for_each_galaxy(table: FeatureTable, columns: Callable[[np.ndarray], dict[str, np.ndarray]]) -> pd.DataFrame:
    """``id_str``, and the columns that a function makes of features [n, F]."""
    parts = [{"id_str": ids, **columns(np.ascontiguousarray(features))} for ids, features in table.batches()]
    found = pd.concat(map(pd.DataFrame, parts), ignore_index=True)
    check_ids(found, str(table.path))
    return found


def _ranked(found: pd.DataFrame, column: str) -> pd.DataFrame:
    return found.sort_values(column, ascending=False, kind="stable", ignore_index=True)


class _Candidates(pd.DataFrame):
    """What :func:`interesting` gives; its columns answer to their former names for one more version."""

    def __getitem__(self, key):
        new = {"unsure": "std", "interest": "acquisition"}.get(key) if isinstance(key, str) else None
        if new:
            warnings.warn(f"the column {key!r} is now {new!r}; the old name goes with the next version",
                          DeprecationWarning, stacklevel=2)  # fmt: skip
        return super().__getitem__(new or key)
