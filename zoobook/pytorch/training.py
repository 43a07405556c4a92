"""Training: from scratch, and the one engine that fine-tuning uses too."""
from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from zoobook import weights
from zoobook.files import fingerprint
from zoobook.images import views as augment
from zoobook.images.views import FIELD_OF_VIEW
from zoobook.learning import tasks
from zoobook.learning.architectures import check_options
from zoobook.learning.runs import Result, RunFolder
from zoobook.learning.training import (
    WEIGHT_DECAY,
    Progress,
    check_settings,
    check_start,
    keep_memory,
    learning_rate_factors,
    take_over,
    voting_spec,
)
from zoobook.pytorch.data import Batches, look
from zoobook.pytorch.losses import galaxy_losses
from zoobook.pytorch.models import GalaxyModel, _check_size, build_model, check_architecture, set_arrays, to_arrays
from zoobook.pytorch.prediction import accelerators
from zoobook.trees import DecisionTree
from zoobook.votes import fit_constant

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def train(
    store,
    catalog: pd.DataFrame,
    tree: DecisionTree,
    *,
    model: GalaxyModel | None = None,
    architecture: str | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    field_of_view: float | None = None,
    photometric: bool = False,
    epochs: int = 100,
    batch_size: int = 128,
    accumulate: int = 1,
    learning_rate: float = 1e-3,
    patience: int = 10,
    precision: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    out_dir,
    resume: bool = True,
) -> Result:
    """Train a network to predict votes: from scratch, or going on from a trained one.

    AdamW with a short warm-up and a cosine decay; random views of every galaxy (:mod:`zoobook.images.views`). The model
    of the epoch with the lowest validation loss is kept. Every finished epoch is on disk: call again with the same
    arguments after an interruption and the run goes on; a finished run is only read. On a CPU a run, interrupted
    or not, repeats to the last digit.

    Args:
        store: the :class:`~zoobook.images.ImageStore` with the images.
        catalog: ``id_str``, ``subset`` (``"train"``, ``"val"``; others are not looked at) and the votes.
        tree: the decision tree that was voted on.
        model: a trained model to go on from; it is left as it is. Its encoder is taken over with its batch statistics,
            and its head for each question that its tree and ``tree`` have with the same answers.
        architecture: any name that timm knows; ``None``: that of ``model``, or EfficientNet-B0.
        channels: 1 for grey images, 3 for colour; ``None``: those of ``model``, or 1.
        image_size: side of what the model sees, in pixels; ``None``: that of the stored images.
        field_of_view: the same in units of the galaxy's half-light radius R50; ``None``: the model's, or 14.7, as
            Zoobot. With the framing of the images, it decides which part of them the model sees.
        photometric: let training views also differ in what differs from telescope to telescope (seeing, depth,
            brightness, size), for a model that shall serve other surveys too.
        epochs: passes over the training galaxies, at most.
        batch_size: galaxies per step, over all devices together.
        accumulate: parts of a batch that are computed one after the other, where the memory does not suffice for a
            whole one; their gradients are added up.
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
    built = check_start(model and model.spec, architecture=architecture, channels=channels)
    built["image_size"] = image_size or store.size
    if field_of_view is None:
        field_of_view = model.spec["field_of_view"] if model else FIELD_OF_VIEW
    built["field_of_view"] = field_of_view
    check_architecture(built["architecture"])  # bad arguments are refused before anything is written
    built |= {name: value for name, value in check_options({**built, "dropout": 0}).items() if name in built}
    if model is not None:
        _check_size(model, built["image_size"])
    settings = dict(
        what="train", tree=tree.to_dict(), **built, photometric=photometric, epochs=epochs, batch_size=batch_size,
        accumulate=accumulate, learning_rate=learning_rate, patience=patience, precision=precision, seed=seed,
        model=model and fingerprint(model.spec, *to_arrays(model).values()),
    )  # fmt: skip
    task = tasks.find_task(store, catalog, tree)

    def make() -> tuple[GalaxyModel, dict[str, float]]:
        if model is not None:
            return go_on(model, {**voting_spec(model.spec, tree), **built}, task), {}
        new = build_model(tree, **built)
        new.head.start_from(fit_constant(task.targets["train"], tree))
        return new, {}

    return fit(make, task, store, settings, devices, num_nodes, out_dir, resume)


def go_on(model: GalaxyModel, spec: dict, task: tasks.Task) -> GalaxyModel:
    """A model to be trained that begins where another has arrived.

    Args:
        model: the trained model; it is left as it is.
        spec: what the new model is made of, with the same encoder.
        task: what it shall learn.

    Returns:
        GalaxyModel: the new model, see :func:`zoobook.learning.training.take_over`.
    """
    new = GalaxyModel(spec)
    if task.tree:
        new.head.start_from(fit_constant(task.targets["train"], task.tree))
    set_arrays(new, take_over(model.spec, to_arrays(model), spec, to_arrays(new)))
    return new


def fit(
    make: Callable[[], tuple[GalaxyModel, dict[str, float]]],
    task: tasks.Task,
    store,
    settings: dict,
    devices: str | int,
    num_nodes: int,
    out_dir,
    resume: bool,
) -> Result:
    """Run, or go on with, or only read a training run.

    Args:
        make: builds the untrained model, and by parameter the share of the learning rate where it is not the whole;
            parameters without gradient are frozen.
        task: what to learn.
        store: the images.
        settings: all that decides the outcome, among it ``epochs``, ``batch_size``, ``accumulate``, ``patience``,
            ``precision``, ``learning_rate``, ``photometric`` and ``seed``.
        devices: see :func:`train`.
        num_nodes: see :func:`train`.
        out_dir: see :func:`train`.
        resume: see :func:`train`.

    Returns:
        Result: model, history, weight file.
    """
    galaxies = len(task.rows["train"])
    settings, devices, num_nodes = check_settings(settings, galaxies, devices, num_nodes, accelerators())
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # that torchrun has started on this machine
    on_cpu = devices == "cpu" or (devices == "auto" and not torch.cuda.is_available() and processes > 1)
    accelerator = {"accelerator": "cpu", "devices": processes} if on_cpu else {"devices": devices}
    folder = RunFolder(out_dir, {**settings, "framing": store.framing, "data": task.data}, resume)
    best, last = folder.path / "best.safetensors", folder.path / "last.ckpt"
    if not folder.resuming:
        last.unlink(missing_ok=True)
    if not folder.finished:
        keep_memory()
        seed, size = settings["seed"], settings["batch_size"]
        with _undisturbed():
            torch.manual_seed(seed)
            model, shares = make()
            groups = _parameter_groups(model, settings["learning_rate"], shares)
            share, parts = augment.share_seen(model.spec, store), settings["accumulate"]
            views = {"share": share, "photometric": settings["photometric"]}
            loaders = [
                Batches(store.pixels, task.rows["train"], size, task.targets["train"], seed, parts, **views),
                Batches(store.pixels, task.rows["val"], size, task.targets["val"], share=share),
            ]
            progress = Progress(folder, settings["patience"])
            if not progress.done:
                with _quiet():
                    trainer = lightning.Trainer(
                        **accelerator,
                        num_nodes=num_nodes,
                        precision=_precision(settings["precision"], devices),
                        max_epochs=settings["epochs"],
                        accumulate_grad_batches=loaders[0].parts,
                        callbacks=[_Keeper(progress)],
                        logger=False,
                        enable_progress_bar=False,
                        enable_checkpointing=False,  # _Keeper does it, atomically
                        enable_model_summary=False,
                        num_sanity_val_steps=-1 if settings["what"] == "finetune" and not last.exists() else 0,
                        default_root_dir=folder.path,
                    )
                    _run(trainer, _Learner(model, groups, seed, share, loaders[0]), loaders, last, progress)
        if rank_zero_only.rank == 0:  # of several processes, one writes
            folder.finish()
            last.unlink(missing_ok=True)
    return Result(weights.load(best, "pytorch"), folder.history, best)


def settle_statistics(model: GalaxyModel, images: torch.Tensor) -> bool:
    """Let untrained batch normalisation begin with the statistics of some images instead of mean 0 and variance 1.

    Galaxies are dark and deep networks multiply small variances, so from 1 the running averages would take hundreds
    of steps to arrive, and until then a model that has learned looks in evaluation as if it had not.

    Args:
        model: the model; batch normalisation that has been trained is left as it is.
        images: float [N, C, H, W], what the model sees.

    Returns:
        bool: whether there was any.
    """
    fresh = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.running_mean.any()]
    if not fresh:
        return False
    momenta, training = [m.momentum for m in fresh], model.training
    model.eval()
    for module in fresh:
        module.train().momentum = 1.0
    with torch.no_grad():
        model(images)
    for module, momentum in zip(fresh, momenta, strict=True):
        module.momentum = momentum
    model.train(training)
    return True


class _Learner(lightning.LightningModule):
    """How a model learns: Lightning calls these methods."""

    def __init__(self, model: GalaxyModel, groups: list[dict], seed: int, share: float, batches: Batches):
        super().__init__()
        self.model, self.groups, self.seed = model.to(memory_format=torch.channels_last), groups, seed
        self.batches = batches
        self.seen_by_model = model.spec["channels"], model.spec["image_size"], share

    def configure_optimizers(self):
        factors = learning_rate_factors(self.trainer.estimated_stepping_batches)
        fused = True if self.device.type == "cpu" else None  # one kernel for all tensors: 6 % of a step saved
        optimizer = torch.optim.AdamW(self.groups, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(factors[step]))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self):
        batch = self.trainer.strategy.batch_to_device(next(iter(self.batches)), self.device)
        settle_statistics(self.model, look(*batch[:2], *self.seen_by_model))

    def on_train_epoch_start(self):
        # Whatever is random follows from the seed and the epoch, so a resumed run repeats an uninterrupted one.
        draw = np.random.SeedSequence([self.seed, self.current_epoch, 2, self.global_rank]).generate_state(1)
        torch.manual_seed(int(draw[0]))
        self.batches.epoch = self.current_epoch
        for module in self.model.modules():  # frozen batch normalisation keeps its statistics
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()

    def _loss(self, batch, name: str) -> torch.Tensor:
        images, views, targets = batch
        loss = galaxy_losses(self.model, look(images, views, *self.seen_by_model), targets).mean()
        count = len(images) * self.trainer.world_size  # else Lightning rounds the mean count of its processes down
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def training_step(self, batch, number):
        return self._loss(batch, "train_loss") * self.batches._weight(number)

    def validation_step(self, batch, _):
        self._loss(batch, "val_loss")


class _Keeper(lightning.Callback):
    """Tells :class:`~zoobook.learning.training.Progress` what happens, and keeps the state to resume from."""

    def __init__(self, progress: Progress):
        self.progress, self.start = progress, None

    def on_sanity_check_end(self, trainer, learner):
        self.start = float(trainer.callback_metrics["val_loss"])

    def on_train_start(self, trainer, learner):
        self.progress.begin(
            trainer.current_epoch, trainer.max_epochs, trainer.num_training_batches, trainer.is_global_zero
        )
        if self.start is not None:
            self.progress.note_start(self.start, self._saver(trainer, learner, -1))

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_number):
        self.progress.step(batch_number, lambda: outputs["loss"])

    def on_train_epoch_end(self, trainer, learner):
        train_loss, val_loss = (float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss"))
        epoch, first = trainer.current_epoch, trainer.is_global_zero
        self.progress.end_epoch(
            train_loss,
            val_loss,
            trainer.optimizers[0].param_groups[-1]["lr"],
            self._saver(trainer, learner, epoch),
        )
        # The state goes last: if this is cut short, the epoch is repeated, with the same result.
        folder = self.progress.folder.path
        trainer.save_checkpoint(folder / "last.part")
        if first:
            os.replace(folder / "last.part", folder / "last.ckpt")
        trainer.strategy.barrier()
        trainer.should_stop = trainer.should_stop or self.progress.done

    def _saver(self, trainer, learner, epoch: int) -> Callable[[Path], None] | None:
        return (lambda path: weights.save(learner.model, path, epoch=str(epoch))) if trainer.is_global_zero else None

    def teardown(self, trainer, learner, stage):
        self.progress.close()


def _run(
    trainer: lightning.Trainer, learner: _Learner, loaders: list[Batches], last: Path, progress: Progress
) -> None:
    """Let Lightning train; an interruption says how to go on."""
    try:
        trainer.fit(learner, *loaders, ckpt_path=last if last.exists() else None, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        if not trainer.interrupted:
            raise
        raise progress.interrupted() from None


def _parameter_groups(model: GalaxyModel, learning_rate: float, shares: dict[str, float]) -> list[dict]:
    """What AdamW learns at which rate, the head last: matrices with weight decay, biases and scales without."""
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            settings = {
                "lr": learning_rate * shares.get(name, 1.0), "weight_decay": WEIGHT_DECAY if parameter.ndim > 1 else 0.0
            }  # fmt: skip
            groups.setdefault(tuple(settings.values()), {"params": [], **settings})["params"].append(parameter)
    return list(groups.values())


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
        return _PRECISIONS[name]
    if devices == "cpu" or not torch.cuda.is_available():
        return _PRECISIONS["float32"]
    return _PRECISIONS["bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"]
