"""Principal component analysis (PCA) of tables of any length."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from zoobook import arguments
from zoobook.catalogs.tables import is_parquet
from zoobook.files import check_replaceable, ensure_writable_dir
from zoobook.representations.tables import FeatureTable, blocks

_BLOCK = 4096  # rows in float64 at a time
_NARROW = 256  # up to so many features, threads would wait for one another longer than they work
_ROW_GROUP = 1 << 16  # rows: many small row groups make a table slow to open


@dataclass(frozen=True)
class Compression:
    """A principal component analysis of a table."""

    path: Path  #: the compressed table
    mean: np.ndarray  #: [F] mean features
    components: np.ndarray  #: [K, F] principal axes
    #: [F] share of the variance along *every* axis, largest first; ``explained[:K].sum()`` was kept
    explained: np.ndarray


def compress(path: str | Path, out: str | Path, n_components: int = 40) -> Compression:
    """Compress features by principal component analysis, reading the table twice and holding none of it.

    The covariance matrix is summed in float64 and diagonalised, which is exact, where an incremental PCA is not.

    Args:
        path: a table of features.
        out: the compressed table to write: a parquet file with the id and ``feat_0_pca …``.
        n_components: how many components to keep (Walmsley et al. 2022, MNRAS 513, 1581, keep 40 of 1280).

    Returns:
        Compression: the axes and the variance that each explains.

    Raises:
        ValueError: more components are wanted than there are features or galaxies, or ``out`` is something else.
    """
    table, out = FeatureTable(path), arguments.path(out)
    taken = {file.resolve() for file in (table.path, *table.files)}
    if out.resolve() in taken or (table.path.is_dir() and out.parent.resolve() == table.path.resolve()):
        raise ValueError(f"{out} is the table that is to be compressed, or in its folder: choose another place")
    check_replaceable(out, b"PAR1")
    if not is_parquet(out):
        raise ValueError(f"{out.name}: the result is parquet: let its name end in .parquet")
    rows, width = len(table), len(table.columns)
    what = f"n_components, for {rows} galaxies of {width} features,"
    n_components = arguments.whole(what, n_components, 1, min(width, rows))
    ensure_writable_dir(out.parent)  # before the long sum, not after it
    mean, covariance = _moments(table)
    variance, axes = np.linalg.eigh(covariance)
    variance, axes = np.clip(variance[::-1], 0, None), axes[:, ::-1].T[:n_components]
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(n_components), largest])[:, None]  # an axis has no sign: choose one

    part = out.with_name(f"{out.name}.part")
    names = [f"feat_{k}_pca" for k in range(n_components)]
    schema = pa.schema([(table.id_column, pa.string()), *((name, pa.float32()) for name in names)])
    with pq.ParquetWriter(part, schema, use_dictionary=False) as writer:
        for ids, scores in _in_groups(table, mean, axes):
            writer.write_table(pa.table([pa.array(ids, pa.string()), *scores.T], schema=schema))
    os.replace(part, out)
    return Compression(out, mean, axes, variance / max(variance.sum(), np.finfo(float).tiny))


def _moments(table: FeatureTable) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and covariance [F, F] of the features, in float64, in one pass."""
    rows, width = len(table), len(table.columns)
    origin = next(table.features()).mean(0, dtype=float)  # sums about a near-by origin lose no digits
    total, products = np.zeros(width), np.zeros((width, width))
    with threadpool_limits(None if width > _NARROW else 1):
        for features in table.features():
            for block in blocks(features, _BLOCK):
                shifted = block - origin
                total += shifted.sum(0)
                products += shifted.T @ shifted
    return origin + total / rows, (products - np.outer(total, total) / rows) / max(rows - 1, 1)


def _in_groups(table: FeatureTable, mean: np.ndarray, axes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and scores along the axes, in pieces long enough for a row group of their own."""
    held, rows = [], 0
    for ids, features in table.batches():
        scores = [((block - mean) @ axes.T).astype(np.float32) for block in blocks(features, _BLOCK)]
        held.append((ids, np.concatenate(scores)))
        rows += len(ids)
        if rows >= _ROW_GROUP:
            yield tuple(map(np.concatenate, zip(*held, strict=True)))
            held, rows = [], 0
    if held:
        yield tuple(map(np.concatenate, zip(*held, strict=True)))
