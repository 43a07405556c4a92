"""Applying a model to any number of images: answers, and representations."""
from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from zoobook import arguments
from zoobook.files import fingerprint
from zoobook.images import views as augment
from zoobook.learning import tasks
from zoobook.learning.inference import by_shards, feature_table, shard_seed
from zoobook.learning.training import check_devices
from zoobook.pytorch.data import Batches, look
from zoobook.pytorch.models import GalaxyModel, to_arrays

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
        store: the :class:`~zoobook.images.ImageStore` with the images, of any size. Its framing and the model's
            field of view decide which part of them is seen.
        out: folder for the table, as parquet files that a rerun completes after an interruption; ``None``: the table
            is returned.
        passes: 1: one answer, without dropout. More: that many answers with dropout on, which tell how sure the model
            is (Gal & Ghahramani 2016; Walmsley et al. 2020, MNRAS 491, 1554).
        devices: ``"auto"`` (all GPUs, or else the CPU), ``"cpu"``, or how many GPUs.
        batch_size: images at a time on each device; where its memory does not suffice, half as many, and so on.
        seed: decides which features dropout leaves out.

    Returns:
        DataFrame or Path: the table, or ``out``; one row an image in the order of the store, with ``id_str`` and the
            columns of :func:`zoobook.learning.tasks.answer_table`.

    Raises:
        ValueError: the model has no head, an argument is bad, or ``out`` holds another table.
        OSError: ``out`` cannot be written to.
    """
    if model.head is None:
        raise ValueError("this model is an encoder alone and has nothing to predict; use represent, or finetune it")
    passes, seed = arguments.whole("passes", passes), arguments.whole("seed", seed, 0)
    head = nn.ModuleDict({"dropout": model.dropout, "head": model.head})
    head = copy.deepcopy(head).to("cpu").eval()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.train(passes > 1)

    def table(ids: np.ndarray, features: np.ndarray, shard: int) -> pd.DataFrame:
        # Few features and a small head: on the CPU it costs nothing, and dropout is the same on every machine.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(shard_seed(seed, shard))
            given = torch.from_numpy(features)
            answers = [head["head"].answer(head["head"](head["dropout"](given))) for _ in range(passes)]
        return tasks.answer_table(ids, torch.stack(answers, -1).numpy(), model.head.spec, model.tree)

    made_of = {"what": "predict", "passes": passes, "seed": seed}
    return _apply(model, store, table, out, devices, batch_size, made_of)


def represent(
    model: GalaxyModel, store, *, out=None, devices: str | int = "auto", batch_size: int = 256
) -> pd.DataFrame | Path:
    """The features that a model's encoder finds in every image: galaxies alike in form are near one another in them.

    As in Walmsley et al. 2022 (MNRAS 513, 1581).

    Args:
        model: a trained model, with or without a head; it is left as it is.
        store: the :class:`~zoobook.images.ImageStore` with the images, of any size. Its framing and the model's
            field of view decide which part of them is seen.
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

    return _apply(model, store, feature_table, out, devices, batch_size, {"what": "represent"})


def _apply(model: GalaxyModel, store, table, out, devices: str | int, batch_size: int, made_of: dict):
    """Features of all images, shard by shard over all devices; ``table`` makes of each what is kept."""
    batch_size = arguments.whole("batch_size", batch_size)
    replicas = [copy.deepcopy(model).to(place, memory_format=torch.channels_last) for place in device_names(devices)]
    for replica in replicas:
        replica.eval().requires_grad_(False)
    if out is not None:
        about = {"framing": store.framing, "field_of_view": model.spec["field_of_view"]}
        made_of |= {"model": fingerprint(*to_arrays(model).values()), **about}

    def features(replica: GalaxyModel, rows: np.ndarray) -> Iterator[np.ndarray]:
        return _features(replica, store, rows, batch_size)

    return by_shards(store, replicas, features, table, out, made_of, SHARD_ROWS)


def features_of(model: GalaxyModel, store, rows: np.ndarray, devices: str | int) -> np.ndarray:
    """What a model's encoder finds in some images, on one device.

    Args:
        model: the model; it is left as it is.
        store: the images.
        rows: int64 [N], which of them.
        devices: as for :func:`predict`; where there are several, the first is used.

    Returns:
        ndarray: float32 [N, F].
    """
    place = device_names("cpu" if devices == "cpu" else "auto")[0]
    replica = copy.deepcopy(model).to(place, memory_format=torch.channels_last).eval()
    return np.concatenate(list(_features(replica, store, rows, 256)))


@torch.inference_mode()
def _features(model: GalaxyModel, store, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Features of some rows, batch by batch; out of memory, with batches half as large."""
    device, share = next(model.parameters()).device, augment.share_seen(model.spec, store)
    seen_by_model = model.spec["channels"], model.spec["image_size"], share
    done = 0
    while done < len(rows):
        try:
            for images, views in Batches(store.pixels, rows[done:], batch_size, share=share):
                images, views = images.to(device, non_blocking=True), views.to(device, non_blocking=True)
                features = model.features(look(images, views, *seen_by_model)).cpu().numpy()
                done += len(features)
                yield features
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            torch.cuda.empty_cache()


def device_names(devices: str | int) -> list[str]:
    """The devices to use.

    Args:
        devices: ``"auto"`` (all GPUs, or else the CPU), ``"cpu"``, or how many GPUs.

    Returns:
        list[str]: their names in PyTorch.

    Raises:
        ValueError: there are not so many, or the text is another.
    """
    gpus = accelerators()
    devices = check_devices(devices, gpus)
    number = gpus if devices == "auto" else 0 if devices == "cpu" else devices
    if number and not torch.cuda.is_available():
        return ["mps"]
    return [f"cuda:{i}" for i in range(number)] or ["cpu"]


def accelerators() -> int:
    """How many GPUs there are; that of an Apple computer is one too."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())
