"""Training: from scratch, and the one engine that fine-tuning uses too."""
from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from torch import nn
from tqdm import tqdm

from zoobook import labels, weights
from zoobook.pytorch.data import Batches, look
from zoobook.pytorch.losses import galaxy_losses
from zoobook.pytorch.models import GalaxyModel, build_model
from zoobook.runs import Result, RunFolder
from zoobook.trees import DecisionTree
from zoobook.votes import fit_constant

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
WEIGHT_DECAY = 0.01


def train(
    store,
    catalog: pd.DataFrame,
    tree: DecisionTree,
    *,
    architecture: str = "efficientnet_b0",
    channels: int = 1,
    image_size: int | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    patience: int = 10,
    precision: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    out_dir,
    resume: bool = True,
) -> Result:
    """Train a network from scratch to predict votes.

    AdamW with a short warm-up and a cosine decay; random views of every galaxy (:mod:`zoobook.augment`). The model
    of the epoch with the lowest validation loss is kept. Every finished epoch is on disk: call again with the same
    arguments after an interruption and the run goes on; a finished run is only read. On a CPU a run, interrupted
    or not, repeats to the last digit.

    Args:
        store: the :class:`~zoobook.images.ImageStore` with the images.
        catalog: ``id_str``, ``subset`` (``"train"``, ``"val"``; others are not looked at) and the votes.
        tree: the decision tree that was voted on.
        architecture: any name that timm knows.
        channels: 1 for grey images, 3 for colour.
        image_size: side of what the model sees, in pixels; ``None``: that of the stored images.
        epochs: passes over the training galaxies, at most.
        batch_size: galaxies per step, over all devices together.
        learning_rate: highest learning rate.
        patience: epochs without a lower validation loss after which to stop.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` (mixed with float32), or ``"auto"``: what the
            device does best. The loss is always exact.
        devices: ``"auto"``, ``"cpu"``, or how many GPUs.
        num_nodes: machines, each started by SLURM or torchrun.
        seed: decides the first weights, order, views and dropout.
        out_dir: folder of the run.
        resume: go on with the run in ``out_dir``; ``False`` starts it afresh.

    Returns:
        Result: model of the best epoch, history, and weight file. Losses are in nats per galaxy.

    Raises:
        ValueError: arguments, catalogue or votes are bad, ``out_dir`` holds another run, or the loss is not a number.
        OSError: ``out_dir`` cannot be written to.
    """
    image_size = image_size or store.size
    settings = dict(
        what="train", tree=tree.to_dict(), architecture=architecture, channels=channels, image_size=image_size,
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, patience=patience, precision=precision,
        seed=seed,
    )  # fmt: skip
    with torch.device("meta"):  # costs nothing, and refuses bad arguments before anything is written
        build_model(tree, architecture, channels, image_size=image_size)
    task = labels.find_task(store, catalog, tree)

    def make() -> tuple[GalaxyModel, list[dict]]:
        model = build_model(tree, architecture, channels, image_size=image_size)
        model.head.start_from(fit_constant(task.targets["train"], tree))
        return model, parameter_groups(model.parameters(), learning_rate)

    return fit(make, task, store, settings, devices, num_nodes, out_dir, resume)


def fit(
    make: Callable[[], tuple[GalaxyModel, list[dict]]],
    task: labels.Task,
    store,
    settings: dict,
    devices: str | int,
    num_nodes: int,
    out_dir,
    resume: bool,
) -> Result:
    """Run, or go on with, or only read a training run.

    Args:
        make: builds the untrained model and the optimiser's parameter groups; weights without gradient are frozen.
        task: what to learn.
        store: the images.
        settings: all that decides the outcome, among it ``epochs``, ``batch_size``, ``patience``, ``precision`` and
            ``seed``.
        devices: see :func:`train`.
        num_nodes: see :func:`train`.
        out_dir: see :func:`train`.
        resume: see :func:`train`.

    Returns:
        Result: model, history, weight file.
    """
    _check(settings, devices)
    accelerator = {"accelerator": "cpu", "devices": 1} if devices == "cpu" else {"devices": devices}
    folder = RunFolder(out_dir, {**settings, "data": task.data}, resume)
    best, last = folder.path / "best.safetensors", folder.path / "last.ckpt"
    if not folder.resuming:
        last.unlink(missing_ok=True)
    if not folder.finished:
        keep_memory()
        seed, size = settings["seed"], settings["batch_size"]
        with _undisturbed():
            torch.manual_seed(seed)
            model, groups = make()
            loaders = [
                Batches(store.pixels, task.rows["train"], size, task.targets["train"], seed),
                Batches(store.pixels, task.rows["val"], size, task.targets["val"]),
            ]
            keeper = _Keeper(folder, settings["patience"])
            if not keeper.done:
                with _quiet():
                    trainer = lightning.Trainer(
                        **accelerator,
                        num_nodes=num_nodes,
                        precision=_precision(settings["precision"], devices),
                        max_epochs=settings["epochs"],
                        callbacks=[keeper],
                        logger=False,
                        enable_progress_bar=False,
                        enable_checkpointing=False,  # _Keeper does it, atomically
                        enable_model_summary=False,
                        num_sanity_val_steps=0,
                        default_root_dir=folder.path,
                    )
                    _run(trainer, _Learner(model, groups, seed), loaders, last)
        folder.finish()
        last.unlink(missing_ok=True)
    return Result(weights.load(best, "pytorch"), folder.history, best)


def parameter_groups(parameters: Iterable[nn.Parameter], learning_rate: float) -> list[dict]:
    """Those of some parameters that can learn, for AdamW: matrices with weight decay, biases and scales without.

    Args:
        parameters: the parameters.
        learning_rate: their learning rate.

    Returns:
        list[dict]: parameter groups.
    """
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "lr": learning_rate, "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trainable if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def settle_statistics(model: GalaxyModel, images: torch.Tensor) -> None:
    """Let untrained batch normalisation begin with the statistics of some images instead of mean 0 and variance 1.

    Galaxies are dark and deep networks multiply small variances, so from 1 the running averages would take hundreds
    of steps to arrive, and until then a model that has learned looks in evaluation as if it had not.

    Args:
        model: the model; batch normalisation that has been trained is left as it is.
        images: float [N, C, H, W], what the model sees.
    """
    fresh = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.running_mean.any()]
    momenta, training = [m.momentum for m in fresh], model.training
    model.eval()
    for module in fresh:
        module.train().momentum = 1.0
    with torch.no_grad():
        model(images)
    for module, momentum in zip(fresh, momenta, strict=True):
        module.momentum = momentum
    model.train(training)


class _Learner(lightning.LightningModule):
    """How a model learns: Lightning calls these methods."""

    def __init__(self, model: GalaxyModel, groups: list[dict], seed: int):
        super().__init__()
        self.model, self.groups, self.seed = model.to(memory_format=torch.channels_last), groups, seed

    def configure_optimizers(self):
        steps = self.trainer.estimated_stepping_batches
        warm_up = max(1, steps // 20)

        def factor(step: int) -> float:
            cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0, step - warm_up) / max(1, steps - warm_up)))
            return min(1.0, (step + 1) / warm_up) * max(cosine, 0.01)

        optimizer = torch.optim.AdamW(self.groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self):
        if self.current_epoch == 0:
            batch = self.trainer.strategy.batch_to_device(next(iter(self.trainer.train_dataloader)), self.device)
            settle_statistics(self.model, look(*batch[:2], self.model.spec["channels"], self.model.spec["image_size"]))

    def on_train_epoch_start(self):
        # Whatever is random follows from the seed and the epoch, so a resumed run repeats an uninterrupted one.
        draw = np.random.SeedSequence([self.seed, self.current_epoch, 2, self.global_rank]).generate_state(1)
        torch.manual_seed(int(draw[0]))
        self.trainer.train_dataloader.epoch = self.current_epoch
        for module in self.model.modules():  # frozen batch normalisation keeps its statistics
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()

    def _loss(self, batch, name: str) -> torch.Tensor:
        images, views, targets = batch
        seen = look(images, views, self.model.spec["channels"], self.model.spec["image_size"])
        loss = galaxy_losses(self.model, seen, targets).mean()
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def training_step(self, batch, _):
        return self._loss(batch, "train_loss")

    def validation_step(self, batch, _):
        self._loss(batch, "val_loss")


class _Keeper(lightning.Callback):
    """After each epoch: history, best weights, state to resume from, progress, and whether to stop."""

    def __init__(self, folder: RunFolder, patience: int):
        self.folder, self.patience = folder, patience
        self.losses = list(folder.history["val_loss"]) if folder.resuming else []
        self.bar = None

    @property
    def done(self) -> bool:
        """Whether the validation loss has not fallen for long enough."""
        return bool(self.losses) and len(self.losses) - 1 - int(np.argmin(self.losses)) >= self.patience

    def on_train_start(self, trainer, learner):
        self.losses = self.losses[: trainer.current_epoch]
        visible = trainer.is_global_zero and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        total = trainer.max_epochs * trainer.num_training_batches
        self.bar = tqdm(
            total=total, initial=trainer.global_step, unit="step", disable=not visible, leave=False, mininterval=0.5
        )

    def on_train_epoch_start(self, trainer, learner):
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_number):
        self.bar.update()
        if batch_number % 10 == 0:  # looking at the loss makes a GPU wait
            loss = float(outputs["loss"])
            _refuse_not_a_number(loss, trainer.current_epoch)
            self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, loss {loss:.3f}")

    def on_train_epoch_end(self, trainer, learner):
        epoch = trainer.current_epoch
        train_loss, val_loss = (float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss"))
        for loss in (train_loss, val_loss):
            _refuse_not_a_number(loss, epoch)
        improved = not self.losses or val_loss < min(self.losses)
        self.losses.append(val_loss)
        seconds = time.perf_counter() - self.started
        part = self.folder.path / "last.part"
        # The state goes last: if this is cut short, the epoch is repeated, with the same result.
        if trainer.is_global_zero:
            self.folder.log(
                epoch=epoch,
                train_loss=train_loss,
                val_loss=val_loss,
                learning_rate=trainer.optimizers[0].param_groups[-1]["lr"],
                seconds=round(seconds, 2),
            )
            if improved:
                weights.save(learner.model, self.folder.path / "best.safetensors", epoch=str(epoch))
            self.bar.write(
                f"epoch {epoch + 1:3d}/{trainer.max_epochs}  train {train_loss:.4f}  val {val_loss:.4f}"
                f"{'  best' if improved else '      '}  {seconds:.1f} s",
                file=sys.stdout,
            )
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.folder.path / "last.ckpt")
        trainer.strategy.barrier()
        trainer.should_stop = trainer.should_stop or self.done

    def teardown(self, trainer, learner, stage):
        if self.bar is not None:
            self.bar.close()


def keep_memory() -> None:
    """Let the C library keep freed memory instead of handing it back to the system.

    Tensors of a training step are large, so glibc would map fresh pages for each and fault them in again, step after
    step: with this, a step on a CPU is 1.4 to 1.6 times as fast. Elsewhere than glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, at_most = -1, -3, 32 << 20  # older glibc refuses a higher mmap threshold
        mallopt(trim_threshold, (1 << 31) - 1)
        _ = mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, at_most)


def _run(trainer: lightning.Trainer, learner: _Learner, loaders: list[Batches], last: Path) -> None:
    """Let Lightning train; an interruption says how to go on."""
    try:
        trainer.fit(learner, *loaders, ckpt_path=last if last.exists() else None, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt(
            f"stopped; whole epochs are kept in {last.parent}. Call again with the same arguments to go on."
        ) from None


@contextlib.contextmanager
def _quiet():
    """Without Lightning's remarks on the hardware and its advice."""
    packages = ("pytorch_lightning", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in packages]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _undisturbed():
    """Leave the caller's random numbers as they were."""
    gpus = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=list(gpus)):
        yield


def _precision(name: str, devices: str | int) -> str:
    """Lightning's name of a precision; ``"auto"``: 16 bits where the device is faster so."""
    if name != "auto":
        return PRECISIONS[name]
    if devices == "cpu" or not torch.cuda.is_available():
        return PRECISIONS["float32"]
    return PRECISIONS["bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"]


def _check(settings: dict, devices: str | int) -> None:
    if devices not in ("auto", "cpu") and not (isinstance(devices, int) and devices >= 1):
        raise ValueError(f"devices must be 'auto', 'cpu' or how many to use, not {devices!r}")
    for name in ("epochs", "batch_size", "patience"):
        if not isinstance(settings[name], int) or settings[name] < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, not {settings[name]!r}")
    if not 0 < settings["learning_rate"] < math.inf:
        raise ValueError(f"learning_rate must be a positive number, not {settings['learning_rate']!r}")
    if settings["precision"] not in ("auto", *PRECISIONS):
        raise ValueError(f"precision must be 'auto' or one of {', '.join(PRECISIONS)}, not {settings['precision']!r}")


def _refuse_not_a_number(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss became {loss} in epoch {epoch + 1}. A lower learning_rate usually helps, "
            "or precision='float32'; the epochs before are kept."
        )
