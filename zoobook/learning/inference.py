"""Going through any number of images shard by shard: what ``predict`` and ``represent`` do in both frameworks."""
from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from tqdm import tqdm

from zoobook.catalogs.shards import ShardedTable
from zoobook.files import fingerprint
from zoobook.images.views import UNSTATED
from zoobook.learning.training import keep_memory


def by_shards(
    store,
    replicas: list,
    features: Callable[[object, np.ndarray], Iterator[np.ndarray]],
    table: Callable[[np.ndarray, np.ndarray, int], pd.DataFrame],
    out,
    made_of: dict,
    shard_rows: int,
) -> pd.DataFrame | Path:
    """Make a table of all images from their features, over all devices at once.

    Args:
        store: the :class:`~zoobook.images.ImageStore` with the images.
        replicas: the model, once for each device.
        features: gives, batch by batch, the features of the rows of images that it is asked for, with one replica.
        table: makes of ids, features and the number of a shard its rows of the table.
        out: folder for the table, which a rerun completes; ``None``: the table is returned.
        made_of: what decides the content, beside the images, as JSON can hold it.
        shard_rows: rows of a shard.

    Returns:
        DataFrame or Path: the table, or its folder.

    Raises:
        ValueError: ``out`` holds another table.
        OSError: ``out`` cannot be written to.
    """
    keep_memory()
    ids = np.asarray(store.ids, dtype=object)
    frames: dict[int, pd.DataFrame] = {}
    if out is None:
        starts = range(0, len(ids), shard_rows)
        todo = [(shard, start, min(start + shard_rows, len(ids))) for shard, start in enumerate(starts)]
        keep = frames.__setitem__
    else:
        some = np.array(store.pixels[:: max(1, len(ids) // 16)])
        made_of = made_of | {"images": fingerprint(ids.tolist(), some)}
        shards = ShardedTable(out, len(ids), made_of, shard_rows, UNSTATED)
        todo, keep = shards.missing(), shards.write
    free: SimpleQueue = SimpleQueue()
    for replica in replicas:
        free.put(replica)
    visible = sys.stderr.isatty() or "ipykernel" in sys.modules
    images = sum(stop - start for _, start, stop in todo)
    with (
        tqdm(total=images, unit=" images", unit_scale=True, disable=not visible) as bar,
        ThreadPoolExecutor(len(replicas)) as workers,
    ):

        def work(start: int, stop: int) -> np.ndarray:
            replica = free.get()
            try:
                found = []
                for some in features(replica, np.arange(start, stop)):
                    found.append(some)
                    bar.update(len(some))
                return np.concatenate(found)
            finally:
                free.put(replica)

        def finish(shard: int, start: int, stop: int, found: Future) -> None:
            keep(shard, table(ids[start:stop], found.result(), shard))

        waiting: deque = deque()
        try:
            for shard, start, stop in todo:
                waiting.append((shard, start, stop, workers.submit(work, start, stop)))
                if len(waiting) > len(replicas):  # so many at work, one being written, none piling up
                    finish(*waiting.popleft())
            while waiting:
                finish(*waiting.popleft())
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
    return shards.finish() if out is not None else pd.concat([frames[i] for i in sorted(frames)], ignore_index=True)


def feature_table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
    """The rows of a table of representations.

    Args:
        ids: [N] galaxy ids.
        features: float32 [N, F].
        shard: number of the shard, which does not matter here.

    Returns:
        DataFrame: ``id_str``, ``feat_0``, ``feat_1`` …
    """
    frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(features.shape[1])])
    frame.insert(0, "id_str", ids)
    return frame


def shard_seed(seed: int, shard: int) -> int:
    """A seed for what is random in one shard.

    Args:
        seed: of the whole table.
        shard: number of the shard.

    Returns:
        int: below 2**31.
    """
    return int(np.random.SeedSequence([seed, shard]).generate_state(1)[0] >> 1)
