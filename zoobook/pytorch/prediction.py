"""Applying a model to any number of images: answers, and representations."""
from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from zoobook import labels
from zoobook.pytorch.data import Batches, look
from zoobook.pytorch.models import GalaxyModel, to_arrays
from zoobook.runs import ShardedTable, fingerprint

SHARD_ROWS = 4096


def predict(
    model: GalaxyModel,
    store,
    *,
    out=None,
    passes: int = 1,
    devices: str | int = "auto",
    batch_size: int = 256,
    seed: int = 0,
) -> pd.DataFrame | Path:
    """Let a model answer for every image.

    Args:
        model: a trained model with a head; it is left as it is.
        store: the :class:`~zoobook.images.ImageStore` with the images, of any size.
        out: folder for the table, as parquet files that a rerun completes after an interruption; ``None``: the table
            is returned.
        passes: 1: one answer, without dropout. More: that many answers with dropout on, which tell how sure the model
            is (Gal & Ghahramani 2016; Walmsley et al. 2020, MNRAS 491, 1554).
        devices: ``"auto"`` (all GPUs, or else the CPU), ``"cpu"``, or how many GPUs.
        batch_size: images at a time on each device; where its memory does not suffice, half as many, and so on.
        seed: decides which features dropout leaves out.

    Returns:
        DataFrame or Path: the table, or ``out``; one row an image in the order of the store, with ``id_str`` and the
            columns of :func:`zoobook.labels.answer_table`.

    Raises:
        ValueError: the model has no head, an argument is bad, or ``out`` holds another table.
        OSError: ``out`` cannot be written to.
    """
    if model.head is None:
        raise ValueError("this model is an encoder alone and has nothing to predict; use represent, or finetune it")
    if passes < 1:
        raise ValueError(f"passes must be at least 1, not {passes}")
    head = nn.ModuleDict({"dropout": model.dropout, "head": model.head})
    head = copy.deepcopy(head).to("cpu").eval()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.train(passes > 1)

    def table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
        # Few features and a small head: on the CPU it costs nothing, and dropout is the same on every machine.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(int(np.random.SeedSequence([seed, shard]).generate_state(1)[0]))
            given = torch.from_numpy(features)
            answers = [head["head"].answer(head["head"](head["dropout"](given))) for _ in range(passes)]
        return labels.answer_table(ids, torch.stack(answers, -1).numpy(), model.head.spec, model.tree)

    made_of = {"what": "predict", "passes": passes, "seed": seed}
    return _apply(model, store, table, out, devices, batch_size, made_of)


def represent(
    model: GalaxyModel, store, *, out=None, devices: str | int = "auto", batch_size: int = 256
) -> pd.DataFrame | Path:
    """The features that a model's encoder finds in every image: galaxies alike in form are near one another in them.

    As in Walmsley et al. 2022 (MNRAS 513, 1581).

    Args:
        model: a trained model, with or without a head; it is left as it is.
        store: the :class:`~zoobook.images.ImageStore` with the images, of any size.
        out: as for :func:`predict`.
        devices: as for :func:`predict`.
        batch_size: as for :func:`predict`.

    Returns:
        DataFrame or Path: the table, or ``out``; one row an image in the order of the store: ``id_str`` and float32
            ``feat_0``, ``feat_1`` … (1280 of them for EfficientNet-B0, 2048 for ResNet50).

    Raises:
        ValueError: an argument is bad, or ``out`` holds another table.
        OSError: ``out`` cannot be written to.
    """

    def table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
        frame = pd.DataFrame(features, columns=[f"feat_{i}" for i in range(features.shape[1])])
        frame.insert(0, "id_str", ids)
        return frame

    return _apply(model, store, table, out, devices, batch_size, {"what": "represent"})


def _apply(
    model: GalaxyModel, store, table: Callable, out, devices: str | int, batch_size: int, made_of: dict
) -> pd.DataFrame | Path:
    """Features of all images, shard by shard over all devices; ``table`` makes of each what is kept."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    ids = np.asarray(store.ids, dtype=object)
    frames: dict[int, pd.DataFrame] = {}
    if out is None:
        starts = range(0, len(ids), SHARD_ROWS)
        todo = [(shard, start, min(start + SHARD_ROWS, len(ids))) for shard, start in enumerate(starts)]
        keep = frames.__setitem__
    else:
        some = np.array(store.pixels[:: max(1, len(ids) // 16)])
        made_of |= {"model": fingerprint(*to_arrays(model).values()), "images": fingerprint(ids.tolist(), some)}
        shards = ShardedTable(out, len(ids), made_of, SHARD_ROWS)
        todo, keep = shards.missing(), shards.write
    visible = sys.stderr.isatty() or "ipykernel" in sys.modules
    replicas: SimpleQueue = SimpleQueue()
    places = _devices(devices)
    for place in places:
        replica = copy.deepcopy(model).to(place, memory_format=torch.channels_last).eval()
        replicas.put(replica.requires_grad_(False))

    images = sum(stop - start for _, start, stop in todo)
    with (
        tqdm(total=images, unit=" images", unit_scale=True, disable=not visible) as bar,
        ThreadPoolExecutor(len(places)) as workers,
    ):

        def work(start: int, stop: int) -> np.ndarray:
            replica = replicas.get()
            try:
                found = []
                for features in _features(replica, store.pixels, np.arange(start, stop), batch_size):
                    found.append(features)
                    bar.update(len(features))
                return np.concatenate(found)
            finally:
                replicas.put(replica)

        def finish(shard: int, start: int, stop: int, features: Future) -> None:
            keep(shard, table(ids[start:stop], features.result(), shard))

        waiting: deque = deque()
        try:
            for shard, start, stop in todo:
                waiting.append((shard, start, stop, workers.submit(work, start, stop)))
                if len(waiting) > len(places):  # so many at work, one being written, none piling up
                    finish(*waiting.popleft())
            while waiting:
                finish(*waiting.popleft())
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
    return shards.finish() if out is not None else pd.concat([frames[i] for i in sorted(frames)], ignore_index=True)


@torch.inference_mode()
def _features(model: GalaxyModel, pixels, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Features of some rows, batch by batch; out of memory, with batches half as large."""
    device = next(model.parameters()).device
    done = 0
    while done < len(rows):
        try:
            for images, views in Batches(pixels, rows[done:], batch_size):
                images, views = images.to(device, non_blocking=True), views.to(device, non_blocking=True)
                features = model.features(look(images, views, model.spec["channels"], model.spec["image_size"]))
                features = features.cpu().numpy()
                done += len(features)
                yield features
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            torch.cuda.empty_cache()


def _devices(devices: str | int) -> list[str]:
    """Names of the devices to use."""
    gpus = torch.cuda.device_count()
    if isinstance(devices, int):
        if not 1 <= devices <= max(gpus, 1):
            raise ValueError(f"devices={devices}, but this machine has {gpus} GPUs")
        return [f"cuda:{i}" for i in range(devices)] if gpus else ["cpu"]
    if devices == "auto" and gpus:
        return [f"cuda:{i}" for i in range(gpus)]
    if devices == "auto" and torch.backends.mps.is_available():
        return ["mps"]
    if devices in ("auto", "cpu"):
        return ["cpu"]
    raise ValueError(f"devices must be 'auto', 'cpu' or a number of GPUs, not {devices!r}")
