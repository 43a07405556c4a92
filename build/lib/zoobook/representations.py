"""Tables of features: what a network saw in each galaxy, compressed, searched, and sorted.

A table is a parquet file or a folder of them, with one row a galaxy: an id (``id_str`` or ``iauname``) and features
``feat_0 … feat_1279``. The published tables (``feat_0_pred …``) and compressed ones (``feat_0_pca …``) read alike.
Tables are read in pieces, so none has to fit into memory.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoobook.runs import own_folder, table_files

ROWS = 16_384  # rows read at a time: 80 MB of 1280 float32 features
_FEATURE = re.compile(r"feat_(\d+)(?:_pred|_pca)?|feat_pca_(\d+)")


class FeatureTable:
    """A table of features on disk.

    Attributes:
        columns: names of the feature columns, in numeric order.
        id_column: ``"id_str"`` or ``"iauname"``.
    """

    def __init__(self, path: str | Path):
        self._files = table_files(path)
        self.path = Path(path)
        names = pq.ParquetFile(self._files[0]).schema_arrow.names
        numbered = [(int(m[1] or m[2]), name) for name in names if (m := _FEATURE.fullmatch(name))]
        self.columns = [name for _, name in sorted(numbered)]
        if not self.columns:
            raise ValueError(f"{path} has no feature columns (feat_0, feat_1, …), only {', '.join(names[:8])} …")
        self.id_column = next((name for name in ("id_str", "iauname") if name in names), None)
        if self.id_column is None:
            raise ValueError(f"{path} has neither an id_str nor an iauname column to tell the galaxies apart")

    def __len__(self) -> int:
        return sum(pq.ParquetFile(file).metadata.num_rows for file in self._files)

    def __repr__(self) -> str:
        return f"FeatureTable({str(self.path)!r}, {len(self)} galaxies, {len(self.columns)} features)"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the table in pieces.

        Yields:
            tuple: ids [n] and features, float32 [n, F].

        Raises:
            ValueError: a feature is missing or not a finite number.
        """
        for file in self._files:
            for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=[self.id_column, *self.columns]):
                ids = np.array(batch.column(self.id_column).cast(pa.string()).to_pylist(), dtype=object)
                features = np.empty((len(ids), len(self.columns)), np.float32)
                for f, name in enumerate(self.columns):
                    features[:, f] = batch.column(name).to_numpy(zero_copy_only=False)
                bad = ~np.isfinite(features)
                if bad.any():
                    row, column = np.argwhere(bad)[0]
                    raise ValueError(
                        f"{file}: galaxy {ids[row]!r} has no finite number in column {self.columns[column]!r} "
                        f"({int(bad.any(1).sum())} such galaxies in this piece)"
                    )
                yield ids, features

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the whole table into memory.

        Returns:
            tuple: ids [N] and features, float32 [N, F].
        """
        ids, features = zip(*self.batches(), strict=True)
        return np.concatenate(ids), np.concatenate(features)


def open(path: str | Path) -> FeatureTable:  # noqa: A001 - reads as representations.open(path)
    """Open a table of features without reading it.

    Args:
        path: a parquet file, or a folder written by ``represent``.

    Returns:
        FeatureTable: the table.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: it is unfinished, or has no features or ids.
    """
    return FeatureTable(path)


@dataclass(frozen=True)
class Compression:
    """A principal component analysis of a table.

    Attributes:
        path: the compressed table.
        mean: [F] mean features.
        components: [K, F] principal axes.
        explained: [F] share of the variance along *every* axis, largest first; ``explained[:K].sum()`` was kept.
    """

    path: Path
    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray


def compress(path: str | Path, out: str | Path, n_components: int = 40) -> Compression:
    """Compress features by principal component analysis (PCA), reading the table twice and holding none of it.

    The covariance matrix is summed in float64 and diagonalised, which is exact, where an incremental PCA is not.

    Args:
        path: a table of features.
        out: the compressed table to write: a parquet file with the id and ``feat_0_pca …``.
        n_components: how many components to keep (Walmsley et al. 2022, MNRAS 513, 1581, keep 40 of 1280).

    Returns:
        Compression: the axes and the variance that each explains.

    Raises:
        ValueError: more components are wanted than there are features or galaxies.
    """
    table, out = FeatureTable(path), Path(out)
    rows, width = len(table), len(table.columns)
    if not 1 <= n_components <= min(width, rows):
        raise ValueError(
            f"n_components must lie between 1 and {min(width, rows)} for {rows} galaxies of {width} features, "
            f"not at {n_components}"
        )
    origin = next(table.batches())[1].mean(0, dtype=float)  # sums about a near-by origin lose no digits
    total, products = np.zeros(width), np.zeros((width, width))
    for _, features in table.batches():
        shifted = features - origin
        total += shifted.sum(0)
        products += shifted.T @ shifted
    mean = origin + total / rows
    covariance = (products - np.outer(total, total) / rows) / max(rows - 1, 1)
    variance, axes = np.linalg.eigh(covariance)
    variance, axes = np.clip(variance[::-1], 0, None), axes[:, ::-1].T[:n_components]
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(n_components), largest])[:, None]  # an axis has no sign: choose one

    own_folder(out.absolute().parent)
    part = out.with_name(out.name + ".part")
    names = [f"feat_{k}_pca" for k in range(n_components)]
    schema = pa.schema([(table.id_column, pa.string()), *((name, pa.float32()) for name in names)])
    with pq.ParquetWriter(part, schema) as writer:
        for ids, features in table.batches():
            scores = ((features - mean) @ axes.T).astype(np.float32)
            writer.write_table(pa.table([pa.array(ids, pa.string()), *scores.T], schema=schema))
    os.replace(part, out)
    return Compression(out, mean, axes, variance / max(variance.sum(), np.finfo(float).tiny))


def nearest(path: str | Path, id_str: str | list[str], k: int = 8) -> pd.DataFrame:
    """The galaxies most similar to given ones: smallest Euclidean distance between features.

    Args:
        path: a table of features, best a compressed one.
        id_str: one galaxy, or several.
        k: how many neighbours of each.

    Returns:
        DataFrame: ``query``, ``rank`` (1 is nearest), ``id_str`` and ``distance``; the galaxy itself is left out.

    Raises:
        ValueError: a galaxy is not in the table.
    """
    table = FeatureTable(path)
    queries = [id_str] if isinstance(id_str, str) else list(id_str)
    found: dict[str, np.ndarray] = {}
    for ids, features in table.batches():
        for row in np.flatnonzero(np.isin(ids, queries)):
            found[ids[row]] = features[row]
    lost = [query for query in queries if query not in found]
    if lost:
        others = f" ({len(lost)} are missing)" if lost[1:] else ""
        raise ValueError(f"{table.path} has no galaxy {lost[0]!r}{others}")
    points = np.stack([found[query] for query in queries]).astype(float)
    best_ids = np.empty((len(queries), 0), dtype=object)
    best = np.empty((len(queries), 0))
    for ids, features in table.batches():
        squared = ((points**2).sum(1)[:, None] - 2 * points @ features.T.astype(float)
                   + (features.astype(float) ** 2).sum(1))
        squared[ids[None] == np.array(queries, dtype=object)[:, None]] = np.inf
        best = np.concatenate([best, squared], axis=1)
        best_ids = np.concatenate([best_ids, np.broadcast_to(ids, squared.shape)], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :k]
        best, best_ids = np.take_along_axis(best, order, 1), np.take_along_axis(best_ids, order, 1)
    kept = min(k, len(table) - 1)
    return pd.DataFrame({
        "query": np.repeat(np.array(queries, dtype=object), kept),
        "rank": np.tile(np.arange(1, kept + 1), len(queries)),
        "id_str": best_ids[:, :kept].ravel(),
        "distance": np.sqrt(np.clip(best[:, :kept], 0, None)).ravel(),
    })


def anomalies(path: str | Path, seed: int = 0) -> pd.DataFrame:
    """Rank galaxies from the most unusual to the most ordinary by an isolation forest (Liu et al. 2008, ICDM 413).

    Args:
        path: a table of features, best a compressed one.
        seed: makes the forest repeatable.

    Returns:
        DataFrame: ``id_str`` and ``anomaly_score`` (about 0.5 for the ordinary, towards 1 for the unusual), sorted.
    """
    from sklearn.ensemble import IsolationForest

    ids, features = FeatureTable(path).read()
    score = -IsolationForest(n_estimators=200, random_state=seed).fit(features).score_samples(features)
    ranked = pd.DataFrame({"id_str": ids, "anomaly_score": score})
    return ranked.sort_values("anomaly_score", ascending=False, kind="stable", ignore_index=True)


def clusters(path: str | Path, n_clusters: int, seed: int = 0) -> pd.DataFrame:
    """Sort galaxies into groups of similar ones by k-means.

    Args:
        path: a table of features, best a compressed one.
        n_clusters: how many groups.
        seed: makes the groups repeatable.

    Returns:
        DataFrame: ``id_str``, ``cluster`` (0 is the largest group) and ``distance`` from the centre of the group.
    """
    from sklearn.cluster import KMeans

    ids, features = FeatureTable(path).read()
    if not 1 <= n_clusters <= len(ids):
        raise ValueError(f"n_clusters must lie between 1 and {len(ids)}, the number of galaxies, not at {n_clusters}")
    model = KMeans(n_clusters, n_init=4, random_state=seed).fit(features)
    by_size = np.argsort(np.argsort(-np.bincount(model.labels_, minlength=n_clusters), kind="stable"))
    distance = np.linalg.norm(features - model.cluster_centers_[model.labels_], axis=1)
    return pd.DataFrame({"id_str": ids, "cluster": by_size[model.labels_], "distance": distance})


def crossmatch(path: str | Path, catalog: pd.DataFrame, on: str | None = None) -> pd.DataFrame:
    """Join features with a catalogue by galaxy id.

    Args:
        path: a table of features that fits into memory, best a compressed one.
        catalog: a catalogue with the same ids.
        on: the id column; default: the table's own.

    Returns:
        DataFrame: the galaxies that both have; ``.attrs["report"]`` counts what was left out.

    Raises:
        ValueError: the catalogue has no such column.
    """
    from zoobook import catalogs

    table = FeatureTable(path)
    ids, features = table.read()
    frame = pd.concat([pd.DataFrame({table.id_column: ids}), pd.DataFrame(features, columns=table.columns)], axis=1)
    return catalogs.crossmatch(catalog, frame, on=on or table.id_column)
