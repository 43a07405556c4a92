"""Applying a model to any number of images: answers, and representations, the same in both frameworks.

A table is made shard by shard, over all devices at once, and written so that a rerun completes it. Its columns are
those of the kind of answer, see :mod:`zoobook.learning.tasks`.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from tqdm import tqdm

from zoobook.catalogs.shards import ShardedTable
from zoobook.files import explain_full_disk, fingerprint
from zoobook.images import ImageStore
from zoobook.images.views import share_seen
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.devices import choose_devices, tune_malloc
from zoobook.learning.engine import Replica, Twin
from zoobook.learning.models import GalaxyNetwork
from zoobook.learning.settings import checked

SHARD_ROWS = 4096


def predict(
    twin: Twin,
    model: GalaxyNetwork,
    store: ImageStore,
    *,
    out: str | Path | None = None,
    passes: int = 1,
    orientations: int = 1,
    devices: str | int = "auto",
    batch_size: int = 256,
    seed: int = 0,
) -> pd.DataFrame | Path:
    """Let a model answer for every image.

    Args:
        model: a trained model with a head; it is left as it is.
        store: the :class:`~zoobook.images.ImageStore` with the images, of any size. Its framing and the model's
            field of view decide which part of them is seen.
        out: folder for the table, as parquet files that a rerun completes after an interruption; ``None``: the table
            is returned.
        passes: 1: one answer, without dropout. More: that many answers with dropout on, which tell how sure the model
            is (Gal & Ghahramani 2016; Walmsley et al. 2020, MNRAS 491, 1554).
        orientations: 1: galaxies are seen upright. Up to 8: features are the mean over so many quarter turns and mirror
            images; that takes so many times as long, and tells more of a galaxy.
        devices: ``"auto"`` (all GPUs, or else the CPU), ``"cpu"``, or how many GPUs.
        batch_size: images at a time on each device; where its memory does not suffice, half as many, and so on.
        seed: decides which features dropout leaves out.

    Returns:
        DataFrame or Path: the table, or ``out``; one row an image in the order of the store, with ``id_str`` and the
        columns of the model's kind of answer, see :mod:`zoobook.learning.tasks`.

    Raises:
        ValueError: the model has no head, an argument is bad, or ``out`` holds another table.
    """
    if model.head is None:
        raise ValueError("this model is an encoder alone and has nothing to predict; use represent, or finetune it")
    passes, seed = checked({"passes": passes, "seed": seed}).values()

    def table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
        # Few features and a small head: on the CPU it costs nothing, and dropout is the same on every machine.
        drawn = int(np.random.SeedSequence([seed, shard]).generate_state(1)[0] >> 1)
        return model.kind.table(ids, twin.engine.head_answers(model, features, passes, drawn))

    config = {"what": "predict", "passes": passes, "seed": seed}
    config |= {name: value for name, value in model.spec["head"].items() if name == "lowest"}  # not seen in the weights
    return _apply(twin, model, store, table, out, orientations, devices, batch_size, config)


def represent(
    twin: Twin,
    model: GalaxyNetwork,
    store: ImageStore,
    *,
    out: str | Path | None = None,
    orientations: int = 1,
    devices: str | int = "auto",
    batch_size: int = 256,
) -> pd.DataFrame | Path:
    """The features that a model's encoder finds in every image (Walmsley et al. 2022, MNRAS 513, 1581).

    Galaxies alike in form are near one another in them. Arguments and errors are those of ``predict``.

    Returns:
        DataFrame or Path: the table, or ``out``; one row an image in the order of the store: ``id_str`` and float32
        ``feat_0``, ``feat_1`` … (1280 of them for EfficientNet-B0, 2048 for ResNet50; more of an encoder
        ``with_all_stages``, which suit most new questions better).
    """
    return _apply(twin, model, store, feature_table, out, orientations, devices, batch_size, {"what": "represent"})


def feature_table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
    """The rows of a table of representations: ``id_str``, ``feat_0``, ``feat_1`` …"""
    frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(features.shape[1])])
    frame.insert(0, "id_str", ids)
    return frame


def features_of(
    twin: Twin, model: GalaxyNetwork, store: ImageStore, rows: np.ndarray, devices: str | int
) -> np.ndarray:
    """What a model's encoder finds in some rows of images, float32 [N, F], on the first of the devices."""
    (replica,) = twin.engine.replicate(model, choose_devices(devices, twin.engine.gpus())[:1])
    return np.concatenate(list(batch_features(twin, replica, store, rows, 256, share_seen(model.spec, store))))


def batch_features(
    twin: Twin, replica: Replica, store: ImageStore, rows: np.ndarray, batch_size: int, share: float,
    orientation: int = 0,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Features of some rows, batch by batch; out of memory, with batches half as large."""
    done = 0
    while done < len(rows):
        try:
            batches = GalaxyBatches(store.pixels, rows[done:], batch_size, share=share, orientation=orientation)
            for images, views in twin.engine.GalaxyLoader(batches):
                found = twin.engine.features(replica, images, views, share)
                done += len(found)
                yield found
        except (MemoryError, twin.engine.OUT_OF_MEMORY) as error:
            if batch_size == 1:
                raise MemoryError(str(error)) from error
            batch_size //= 2


def by_shards(
    store: ImageStore,
    replicas: list,
    features: Callable[[object, np.ndarray], Iterator[np.ndarray]],
    table: Callable[[np.ndarray, np.ndarray, int], pd.DataFrame],
    out: str | Path | None,
    config: dict,
    shard_rows: int,
) -> pd.DataFrame | Path:
    """Make a table of all images from their features, over all devices at once: there is a replica for each.

    With one replica, ``features`` gives those of the rows that it is asked for, batch by batch; ``table`` makes of ids,
    features and the number of a shard its rows. In the folder ``out`` a rerun completes the table; ``None``: it is
    returned. Beside the images, ``config`` is what decides the content, as JSON can hold it.
    """
    tune_malloc()
    store.check()
    ids = np.asarray(store.ids, dtype=object)
    frames: list[pd.DataFrame] = []
    if out is None:
        starts = range(0, len(ids), shard_rows)
        todo = [(shard, start, min(start + shard_rows, len(ids))) for shard, start in enumerate(starts)]
    else:
        some = np.array(store.pixels[:: max(1, len(ids) // 16)])
        config = config | {"images": fingerprint(ids.tolist(), some)}
        shards = ShardedTable(out, len(ids), config, shard_rows)
        todo = shards.missing()
    images = sum(stop - start for _, start, stop in todo)
    visible = sys.stderr.isatty() or "ipykernel" in sys.modules
    with (
        tqdm(total=images, unit=" images", unit_scale=True, disable=not visible) as bar,
        contextlib.closing(_in_parallel(replicas, features, todo, bar)) as shards_done,
    ):
        for (shard, start, stop), found in shards_done:
            if not np.isfinite(found).all():
                raise ValueError("the model's features are no finite numbers: its weights are damaged")
            frame = table(ids[start:stop], found, shard)
            if out is None:
                frames.append(frame)
            else:
                with explain_full_disk(shards.folder):
                    shards.write(shard, frame)
    return pd.concat(frames, ignore_index=True) if out is None else shards.finish()


def _in_parallel(replicas: list, features, todo: list[tuple[int, int, int]], bar: tqdm) -> Generator[tuple, None, None]:
    """Each shard and its features, in order: as many at work as there are replicas, and one more ready."""
    free: SimpleQueue = SimpleQueue()
    for replica in replicas:
        free.put(replica)

    def work(start: int, stop: int) -> np.ndarray:
        replica, found = free.get(), []
        try:
            for some in features(replica, np.arange(start, stop)):
                found.append(some)
                bar.update(len(some))
            return np.concatenate(found)
        finally:
            free.put(replica)

    waiting: deque = deque()
    workers = ThreadPoolExecutor(len(replicas))
    try:
        for shard in todo:
            waiting.append((shard, workers.submit(work, *shard[1:])))
            if len(waiting) > len(replicas):
                shard, future = waiting.popleft()
                yield shard, future.result()
        while waiting:
            shard, future = waiting.popleft()
            yield shard, future.result()
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _apply(
    twin: Twin, model: GalaxyNetwork, store: ImageStore, table, out, orientations: int, devices: str | int,
    batch_size: int, config: dict,
) -> pd.DataFrame | Path:  # fmt: skip
    """The table that ``table`` makes of the features of all images."""
    batch_size, orientations = checked({"batch_size": batch_size, "orientations": orientations}).values()
    replicas = twin.engine.replicate(model, choose_devices(devices, twin.engine.gpus()))
    share = share_seen(model.spec, store)
    if out is not None:
        config["model"] = fingerprint(*model.to_arrays().values())
        config |= {"framing": store.framing, "field_of_view": model.spec["field_of_view"]}
        if "all_stages" in model.spec:  # with the same weights as without
            config["all_stages"] = True
        if orientations > 1:
            config["orientations"] = orientations

    def features(replica, rows: np.ndarray) -> Iterator[np.ndarray]:
        each = (batch_features(twin, replica, store, rows, batch_size, share, turn) for turn in range(orientations))
        if orientations == 1:
            yield from next(each)
        else:
            yield sum(np.concatenate(list(found)) for found in each) / np.float32(orientations)

    return by_shards(store, replicas, features, table, out, config, SHARD_ROWS)
