"""PyTorch as an engine of zoobook, see :class:`zoobook.learning.engine.Engine`; Lightning trains."""

import contextlib
import copy
import functools
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.models import temporarily
from zoobook.learning.runs import damaged
from zoobook.learning.schedule import learning_rate_factors
from zoobook.learning.training import WEIGHT_DECAY, Run
from zoobook.pytorch import models
from zoobook.pytorch.models import GalaxyModel, apply_view

NAME, STATE, OUT_OF_MEMORY = "pytorch", "last.ckpt", torch.OutOfMemoryError
_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}  # Lightning's names


def gpus() -> list[str]:
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return found or ["mps"] * torch.backends.mps.is_available()


def compute_capability() -> int | None:
    return torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else None


class GalaxyLoader:
    """The batches as tensors, of which each of several processes takes its share; on a GPU, they are read ahead."""

    def __init__(self, batches: GalaxyBatches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple]:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        place = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        found = map(_tensors, self.batches.read(*place))
        if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
            yield from found  # all cores work on the current batch: to read ahead would only disturb them
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(next, found, None)
            while (current := ahead.result()) is not None:
                ahead = reader.submit(next, found, None)
                yield current


def _tensors(batch: tuple) -> tuple:
    tensors = [torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part for part in batch]
    if torch.cuda.is_available():
        tensors = [part.pin_memory() if isinstance(part, torch.Tensor) else part for part in tensors]
    return tuple(tensors)


def replicate(model: GalaxyModel, devices: list[str]) -> list[GalaxyModel]:
    copies = [copy.deepcopy(model).to(device, memory_format=torch.channels_last) for device in devices]
    return [one.eval().requires_grad_(False) for one in copies]


@torch.inference_mode()
def features(replica: GalaxyModel, images: torch.Tensor, views: torch.Tensor, share: float) -> np.ndarray:
    device, spec = next(replica.parameters()).device, replica.spec
    images, views = images.to(device, non_blocking=True), views.to(device, non_blocking=True)
    seen = apply_view(images, views, spec["channels"], spec["image_size"], share)
    return replica.features(seen).cpu().numpy()


def head_answers(model: GalaxyModel, features: np.ndarray, passes: int, seed: int) -> np.ndarray:
    head = copy.deepcopy(nn.Sequential(model.dropout, model.head)).to("cpu").eval()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.train(passes > 1)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        answers = [model.activate(head(torch.from_numpy(features))) for _ in range(passes)]
    return torch.stack(answers, -1).numpy()


class Trainer:
    """Trains with Lightning, which knows torchrun and SLURM."""

    def __init__(self, devices: str | int, num_nodes: int, precision: str):
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # that torchrun has started on this machine
        on_cpu = devices == "cpu" or (devices == "auto" and not torch.cuda.is_available() and processes > 1)
        place = {"accelerator": "cpu", "devices": processes} if on_cpu else {"devices": devices}
        self.options = {**place, "num_nodes": num_nodes, "precision": _PRECISIONS[precision]}

    @property
    def is_first(self) -> bool:
        return rank_zero_only.rank == 0

    @contextlib.contextmanager
    def building(self, seed: int) -> Iterator[None]:
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            yield

    @torch.inference_mode(False)
    @torch.enable_grad()
    def fit(self, model: GalaxyModel, run: Run, lr_scales: dict[str, float]) -> None:
        groups = _parameter_groups(model, run.settings["learning_rate"], lr_scales)
        module = GalaxyModule(model, groups, run)
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))), _quiet():
            trainer = lightning.Trainer(
                **self.options,
                max_epochs=run.settings["epochs"],
                accumulate_grad_batches=run.train.parts,
                callbacks=[CheckpointCallback(run)],
                logger=False,
                enable_progress_bar=False,
                enable_checkpointing=False,  # CheckpointCallback does it, atomically
                enable_model_summary=False,
                num_sanity_val_steps=-1 if run.judges_start and not run.state.exists() else 0,
                default_root_dir=run.state.parent,
            )
            state = run.state if run.state.exists() else None
            if state is not None and not zipfile.is_zipfile(state):  # as PyTorch's checkpoints are
                raise damaged(state)
            loaders = GalaxyLoader(run.train), GalaxyLoader(run.val)
            try:
                trainer.fit(module, *loaders, ckpt_path=state, weights_only=True)
            except SystemExit:
                if not trainer.interrupted:
                    raise
                raise KeyboardInterrupt from None


class GalaxyModule(lightning.LightningModule):
    """How a model learns: Lightning calls these methods."""

    def __init__(self, model: GalaxyModel, groups: list[dict], run: Run):
        super().__init__()
        self.model, self.groups, self.run = model.to(memory_format=torch.channels_last), groups, run
        self.view = model.spec["channels"], model.spec["image_size"], run.train.share

    def configure_optimizers(self) -> dict:
        factors = learning_rate_factors(self.trainer.estimated_stepping_batches)
        fused = True if self.device.type == "cpu" else None  # one kernel for all tensors: 6 % of a step saved
        optimizer = torch.optim.AdamW(self.groups, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(factors[step]))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        images, views, *_ = self.trainer.strategy.batch_to_device(next(iter(GalaxyLoader(self.run.train))), self.device)
        models.initialize_batchnorm_stats(self.model, apply_view(images, views, *self.view))

    def on_train_epoch_start(self) -> None:
        # Whatever is random follows from the seed and the epoch, so a resumed run repeats an uninterrupted one.
        draw = np.random.SeedSequence([self.run.settings["seed"], self.current_epoch, 2, self.global_rank])
        torch.manual_seed(int(draw.generate_state(1)[0]))
        self.run.train.epoch = self.current_epoch
        for module in self.model.modules():  # frozen batch normalisation keeps its statistics
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()

    def _loss(self, batch: tuple, name: str) -> torch.Tensor:
        images, views, targets, _ = batch
        loss = self.model.galaxy_losses(apply_view(images, views, *self.view), targets).mean()
        count = len(images) * self.trainer.world_size  # else Lightning rounds the mean count of its processes down
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def training_step(self, batch: tuple, _: int) -> torch.Tensor:
        # Lightning averages over parts and processes, whatever their sizes
        return self._loss(batch, "train_loss") * (len(batch[0]) * self.trainer.world_size / batch[3])

    def validation_step(self, batch: tuple, _: int) -> None:
        self._loss(batch, "val_loss")


class CheckpointCallback(lightning.Callback):
    """Tells the History of the run what happens, and keeps the state to resume from."""

    def __init__(self, run: Run):
        self.history, self.state, self.start = run.history, run.state, None

    def on_sanity_check_end(self, trainer: lightning.Trainer, module: GalaxyModule) -> None:
        self.start = float(trainer.callback_metrics["val_loss"])

    def on_train_start(self, trainer: lightning.Trainer, module: GalaxyModule) -> None:
        self.history.begin(
            trainer.current_epoch, trainer.max_epochs, trainer.num_training_batches, trainer.is_global_zero
        )
        if self.start is not None:
            self.history.note_start(self.start, module.model)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: GalaxyModule, outputs: dict, batch: tuple, batch_number: int
    ) -> None:
        self.history.step(batch_number, lambda: outputs["loss"])

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: GalaxyModule) -> None:
        train_loss, val_loss = (float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss"))
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        self.history.end_epoch(train_loss, val_loss, rate, module.model)
        part = self.state.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.state)
        trainer.strategy.barrier()
        trainer.should_stop = trainer.should_stop or self.history.stopping.should_stop


def _parameter_groups(model: GalaxyModel, learning_rate: float, lr_scales: dict[str, float]) -> list[dict]:
    """What AdamW learns at which rate, the head last: matrices with weight decay, biases and scales without."""
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate, decay = learning_rate * lr_scales.get(name, 1.0), WEIGHT_DECAY if parameter.ndim > 1 else 0.0
            group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    return list(groups.values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on the hardware and its advice."""
    packages = ("pytorch_lightning", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in packages]
    levels = [(functools.partial(getattr, one, "level"), one.setLevel, logging.ERROR) for one in loggers]
    with temporarily(*levels), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils")
        yield
