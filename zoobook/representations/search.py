"""Similarity search: the galaxies whose features are nearest to those of given ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from zoobook import arguments
from zoobook.catalogs.columns import ids_of, refuse_repeated
from zoobook.representations.tables import FeatureTable, blocks

_BLOCK = 4096  # rows compared at a time, so that their distances stay in the processor's cache


def nearest(path: str | Path, id_str: str | list[str], k: int = 8) -> pd.DataFrame:
    """The galaxies most similar to given ones: smallest Euclidean distance between features.

    Exact, in one pass over the table: a few seconds for millions of galaxies.

    Args:
        path: a table of features, best a compressed one.
        id_str: one galaxy, or several.
        k: how many neighbours of each.

    Returns:
        DataFrame: ``query``, ``rank`` (1 is nearest), ``id_str`` and ``distance``; the galaxy itself is left out.

    Raises:
        ValueError: a galaxy is not in the table, or ``k`` is below 1; a galaxy that was asked for or found has several
            rows.
    """
    table = FeatureTable(path)
    queries, k = ids_of(id_str), min(arguments.whole("k", k), len(table))
    if not len(queries):
        return pd.DataFrame({"query": [], "rank": [], "id_str": [], "distance": []})
    again, unique = pd.factorize(queries)
    rows = table.rows_of(unique)
    found, distance = _exact(table, table.take(rows), rows, k)
    found, distance = found[again], distance[again]
    query, rank = np.nonzero(found >= 0)
    once, place = np.unique(found[query, rank], return_inverse=True)
    ids = table.ids_at(once)
    refuse_repeated(ids, str(table.path), table.id_column, once)
    return pd.DataFrame({
        "query": queries[query], "rank": rank + 1, "id_str": ids[place], "distance": distance[query, rank],
    })  # fmt: skip


def _exact(table: FeatureTable, points: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [Q, k] of the nearest galaxies, -1 where there are no more, and their distances.

    Products in float32 tell which galaxies may be among the nearest, with a margin for their rounding; differences in
    float64 then decide. The given galaxies themselves, whose ``points`` are in the ``rows`` of the table, are left out.
    """
    best, best_rows = np.full((len(points), k), np.inf), np.full((len(points), k), -1)  # so far; squared distances
    centre = points.mean(0)
    shifted = points - centre
    lengths = (shifted**2).sum(1)
    # Sums of F products in float32 err by F eps (Higham 2002, section 3.1): that of a product, twice, and that of
    # a length give 2 F eps (lengths + norms). Twice that to be safe; 8 is for the subtractions and sums around them.
    rounding = 4 * (len(table.columns) + 8) * np.finfo(np.float32).eps
    with threadpool_limits(1):  # products of small blocks: threads would wait for one another longer than they work
        for first, block in _blocks(table):
            others = block - centre
            norms = np.einsum("nf,nf->n", others, others)
            squared = (-2 * shifted) @ others.T  # plus the length of the point, which does not matter to the order
            squared += norms
            own = np.flatnonzero((rows >= first) & (rows < first + len(block)))
            squared[own, rows[own] - first] = np.inf
            margin = rounding * (lengths + norms.max())
            limit = best[:, -1] - lengths
            if not np.isfinite(limit).all() and len(block) > k:
                limit = np.minimum(limit, np.partition(squared, k - 1, axis=1)[:, k - 1] + margin)
            bound = np.nextafter((limit + margin).astype(np.float32), np.float32(np.inf))  # equal ones are near too
            near, row = np.divmod(np.flatnonzero(squared <= bound[:, None]), len(block))  # nonzero is far slower
            exact = ((points[near].astype(float) - block[row]) ** 2).sum(1)
            exact[~np.isfinite(squared[near, row])] = np.inf
            for query in np.unique(near):
                of_it = near == query
                closer = np.concatenate([best[query], exact[of_it]])
                order = np.argsort(closer, kind="stable")[:k]
                best[query] = closer[order]
                best_rows[query] = np.concatenate([best_rows[query], row[of_it] + first])[order]
    return np.where(np.isfinite(best), best_rows, -1), np.sqrt(best)


def _blocks(table: FeatureTable) -> Iterator[tuple[int, np.ndarray]]:
    """Some rows of a table at a time: the number of the first, and their features."""
    first = 0
    for features in table.features():
        for block in blocks(features, _BLOCK):
            yield first, block
            first += len(block)
