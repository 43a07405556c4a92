"""Similarity search: the galaxies whose features are nearest to those of given ones."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from zoobook import arguments
from zoobook.catalogs import tables
from zoobook.files import ensure_writable_dir
from zoobook.representations.tables import FeatureTable

_BLOCK = 4096  # rows compared at a time, so that their distances stay in the processor's cache
_MOST_CELLS, _TRAINING, _SHARD = 4096, 64, 1 << 18  # of an index: cells, galaxies that make each, rows made at a time


def nearest(
    path: str | Path, id_str: str | list[str], k: int = 8, index: str | Path | None = None
) -> pd.DataFrame:
    """The galaxies most similar to given ones: smallest Euclidean distance between features.

    Exact, in one pass over the table: a few seconds for millions of galaxies. For many searches in such a table, make
    an index once with :func:`build_index`.

    Args:
        path: a table of features, best a compressed one.
        id_str: one galaxy, or several.
        k: how many neighbours of each.
        index: of this table; the search is then much faster, and may miss a few neighbours.

    Returns:
        DataFrame: ``query``, ``rank`` (1 is nearest), ``id_str`` and ``distance``; the galaxy itself is left out.

    Raises:
        ValueError: a galaxy is not in the table, ``k`` is below 1, or the index is of another table.
        FileNotFoundError: there is no such table or index.
        ImportError: an index is given and faiss is not installed.
    """
    table = FeatureTable(path)
    queries, k = tables.ids_of(id_str), arguments.whole("k", k)
    if not len(queries):
        return pd.DataFrame({"query": [], "rank": [], "id_str": [], "distance": []})
    unique = list(dict.fromkeys(queries.tolist()))
    places, rows = table.rows_of(unique)
    lost = sorted(set(range(len(unique))) - set(places))
    if lost:
        others = f" ({len(lost)} are missing)" if lost[1:] else ""
        raise ValueError(f"{table.path} has no galaxy {unique[lost[0]]!r}{others}")
    first = np.array([rows[places == place][0] for place in range(len(unique))])
    points = table.take(first)
    if index is None:
        found, distance = _exact(table, points, places, rows, k)
    else:
        found, distance = _by_index(table, points, places, rows, k, index)
    ids = np.full(found.shape, None, dtype=object)
    ids[found >= 0] = table.ids_at(found[found >= 0])
    again = np.array([unique.index(query) for query in queries])
    result = pd.DataFrame({
        "query": np.repeat(queries, k),
        "rank": np.tile(np.arange(1, k + 1), len(queries)),
        "id_str": ids[again].ravel(),
        "distance": distance[again].ravel(),
    })
    return result[(found[again] >= 0).ravel()].reset_index(drop=True)


def build_index(path: str | Path, out: str | Path, seed: int = 0) -> Path:
    """Make an index for fast approximate searches (an inverted file: Jégou et al. 2011, IEEE TPAMI 33, 117).

    k-means sorts the galaxies into cells; a search then looks only into the cells nearest to the galaxy asked for.
    The index is on disk and neither made nor searched in memory as a whole. It pays above a million galaxies.

    Args:
        path: a table of features, best a compressed one.
        out: the index to write, two files: ``out`` and ``out.lists``, which belong together.
        seed: decides from which galaxies the cells are made.

    Returns:
        Path: ``out``.

    Raises:
        ImportError: faiss is not installed.
        OSError: ``out`` cannot be written to.
    """
    seed = arguments.whole("seed", seed, 0)
    faiss, merge = _faiss()
    table, out = FeatureTable(path), arguments.path(out)
    ensure_writable_dir(out.parent)
    cells = int(np.clip(2 * np.sqrt(len(table)), 1, _MOST_CELLS))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        index = faiss.index_factory(len(table.columns), f"IVF{cells},Flat")
        index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid = seed, 10, 1
        index.train(np.ascontiguousarray(table.sample(_TRAINING * cells, seed)))
        shards, shard, first = [], faiss.clone_index(index), 0
        for features in table.features():
            last = first + len(features)
            shard.add_with_ids(np.ascontiguousarray(features), np.arange(first, last))
            first = last
            if shard.ntotal >= _SHARD or first == len(table):
                shards.append(f"{folder}/{len(shards)}")
                faiss.write_index(shard, shards[-1])
                shard = faiss.clone_index(index)
        merge(index, shards, f"{folder}/{out.name}.lists")  # the index will look for a file of this name beside it
        faiss.write_index(index, f"{folder}/{out.name}")
        os.replace(f"{folder}/{out.name}.lists", f"{out}.lists")
        os.replace(f"{folder}/{out.name}", out)
    return out


def _exact(
    table: FeatureTable, points: np.ndarray, places: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [Q, k] of the nearest galaxies, -1 where there are no more, and their distances.

    Products in float32 tell which galaxies may be among the nearest, with a margin for their rounding; differences in
    float64 then decide.
    """
    centre = points.mean(0)
    shifted = points - centre
    lengths = (shifted**2).sum(1)
    rounding = 4 * (len(table.columns) + 8) * np.finfo(np.float32).eps
    best, best_rows = np.full((len(points), k), np.inf), np.full((len(points), k), -1)
    last = 0
    with threadpool_limits(1):  # products of small blocks: threads would wait for one another longer than they work
        for features in table.features():
            for start in range(0, len(features), _BLOCK):
                block = features[start : start + _BLOCK]
                first, last = last, last + len(block)
                others = block - centre
                norms = np.einsum("nf,nf->n", others, others)
                squared = (-2 * shifted) @ others.T  # plus the length of the point, which does not matter to the order
                squared += norms
                own = (rows >= first) & (rows < last)
                squared[places[own], rows[own] - first] = np.inf
                margin = rounding * (lengths + norms.max())
                limit = best[:, -1] - lengths
                if not np.isfinite(limit).all() and len(block) > k:
                    limit = np.minimum(limit, np.partition(squared, k - 1, axis=1)[:, k - 1] + margin)
                bound = np.nextafter((limit + margin).astype(np.float32), np.float32(np.inf))  # equal ones are near too
                few = np.flatnonzero(squared <= bound[:, None])  # nonzero is far slower
                if not len(few):
                    continue
                asked, near = np.divmod(few, len(block))
                exact = ((points[asked].astype(float) - block[near]) ** 2).sum(1)
                exact[~np.isfinite(squared[asked, near])] = np.inf
                for query in np.unique(asked):
                    mine = asked == query
                    distances = np.concatenate([best[query], exact[mine]])
                    order = np.argsort(distances, kind="stable")[:k]
                    best[query] = distances[order]
                    best_rows[query] = np.concatenate([best_rows[query], near[mine] + first])[order]
    best_rows[~np.isfinite(best)] = -1
    return best_rows, np.sqrt(best)


def _by_index(
    table: FeatureTable, points: np.ndarray, places: np.ndarray, rows: np.ndarray, k: int, path: str | Path
) -> tuple[np.ndarray, np.ndarray]:
    """Like :func:`_exact`, from an index."""
    faiss, _ = _faiss()
    path = arguments.path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no index at {path}; make one with build_index")
    index = faiss.read_index(str(path), faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY)
    index.nprobe = max(8, index.nlist // 16)
    if (index.ntotal, index.d) != (len(table), points.shape[1]):
        raise _another_table(path, table)
    spare = int(np.bincount(places).max())  # the galaxies themselves are found too
    squared, found = index.search(points, k + spare)
    there = found >= 0
    exact = np.full(found.shape, np.inf)
    exact[there] = ((np.repeat(points.astype(float), there.sum(1), axis=0) - table.take(found[there])) ** 2).sum(1)
    if not np.allclose(exact[there], squared[there], rtol=1e-3, atol=1e-4 * (points.astype(float) ** 2).sum(1).max()):
        raise _another_table(path, table)
    for place, row in zip(places, rows, strict=True):
        exact[place, found[place] == row] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    exact, found = np.take_along_axis(exact, order, 1), np.take_along_axis(found, order, 1)
    return np.where(np.isfinite(exact), found, -1), np.sqrt(exact)


def _another_table(path: str | Path, table: FeatureTable) -> ValueError:
    return ValueError(f"{path} is the index of another table than {table.path}: make it again with build_index")


def _faiss():
    try:
        import faiss
        from faiss.contrib.ondisk import merge_ondisk
    except ImportError:
        raise ImportError('an index needs faiss: pip install "zoobook[search]", or search without one') from None
    return faiss, merge_ondisk
