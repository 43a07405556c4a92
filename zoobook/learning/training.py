"""What training has in common in both frameworks: its settings, its learning rates, and what happens after an epoch."""
from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zoobook import arguments
from zoobook.learning.runs import RunFolder
from zoobook.trees import DecisionTree

PRECISIONS = ("float32", "bfloat16", "float16")
WEIGHT_DECAY = 0.01  # of matrices and kernels; biases and scales have none
DEFAULTS = {"architecture": "efficientnet_b0", "channels": 1, "dropout": 0.2}

# Fine-tuning
TOP_SHARE = 0.25  # unfreeze="top": the last stages, until they hold this share of the encoder's weights
ENCODER_RATE = 0.1  # to a label: the last stage of the encoder learns this much more slowly than the head
STAGE_DECAY = 0.7  # and each stage further from the head this much more slowly than the one above it
BATCH_SIZE = {"votes": 128, "labels": 32}  # votes come with many galaxies, other labels with few


def check_settings(
    settings: dict, galaxies: int, devices: str | int, num_nodes: int, gpus: int
) -> tuple[dict, str | int, int]:
    """Refuse settings that make no sense, before anything is written.

    Args:
        settings: ``epochs``, ``batch_size``, ``accumulate``, ``patience``, ``learning_rate``, ``precision``,
            ``photometric`` and ``seed``.
        galaxies: how many to learn from.
        devices: ``"auto"``, ``"cpu"``, or how many GPUs.
        num_nodes: machines.
        gpus: how many there are.

    Returns:
        tuple: settings, devices and machines, their numbers as Python's own.

    Raises:
        ValueError: one of them is out of range; the message names it.
    """
    devices, num_nodes = check_devices(devices, gpus), arguments.whole("num_nodes", num_nodes)
    several = ("epochs", "batch_size", "accumulate", "patience")
    counts = {name: arguments.whole(name, settings[name]) for name in several}
    counts["seed"] = arguments.whole("seed", settings["seed"], 0)
    settings = {**settings, **counts, "learning_rate": arguments.real("learning_rate", settings["learning_rate"])}
    if isinstance(settings["photometric"], np.bool_):
        settings["photometric"] = bool(settings["photometric"])
    if not isinstance(settings["photometric"], bool):
        raise ValueError(f"photometric must be True or False, not {settings['photometric']!r}")
    if settings["precision"] not in ("auto", *PRECISIONS):
        raise ValueError(f"precision must be 'auto' or one of {', '.join(PRECISIONS)}, not {settings['precision']!r}")
    size = settings["batch_size"]
    if galaxies // -(-galaxies // size) < 2:
        raise ValueError(
            f"batch_size={size} makes batches of a single galaxy out of {galaxies}, from which batch normalisation can "
            "learn nothing: it takes at least 2 training galaxies, and a batch_size that leaves none alone"
        )
    return settings, devices, num_nodes


def check_devices(devices: str | int, gpus: int) -> str | int:
    """Refuse devices that are not there, in training and afterwards, before anything starts.

    Args:
        devices: ``"auto"``, ``"cpu"``, or how many GPUs.
        gpus: how many there are.

    Returns:
        str or int: the same, as Python's own.

    Raises:
        ValueError: it is something else, or there are not so many.
    """
    if isinstance(devices, str) and devices in ("auto", "cpu"):
        return devices
    number = None if isinstance(devices, str) else arguments.whole("devices, if not 'auto' or 'cpu',", devices)
    if number is None:
        raise ValueError(f"devices must be 'auto', 'cpu' or how many GPUs to use, not {devices!r}")
    if number > gpus:
        raise ValueError(f"devices={number}, but the GPUs that can be used here are {gpus}; 'auto' takes what there is")
    return number


def check_start(spec: dict | None, **asked) -> dict:
    """What a network is made of that may go on from a trained one.

    Args:
        spec: of the trained model; ``None`` where there is none.
        **asked: ``architecture`` and ``channels``; ``None`` where they are left open.

    Returns:
        dict: both: the trained model's, or what was asked for, or :data:`DEFAULTS`.

    Raises:
        ValueError: the trained model has another one than was asked for; the message names it.
    """
    for name, value in asked.items():
        if spec is not None and value not in (None, spec[name]):
            raise ValueError(
                f"{name} is {value!r}, but the given model has {spec[name]!r}, and its weights fit nothing else. "
                f"Leave {name} out, or train without model."
            )
    return {name: (spec or DEFAULTS)[name] if value is None else value for name, value in asked.items()}


def voting_spec(spec: dict, tree: DecisionTree) -> dict:
    """What a network is made of that goes on from a trained one and predicts votes: its encoder, and a linear head.

    Args:
        spec: of the trained model.
        tree: the decision tree that was voted on.

    Returns:
        dict: a model's ``spec``. The dropout is the trained model's where it had such a head, or none.
    """
    usual = (spec["head"] or {}).get("hidden")  # a head with hidden layers has the strong dropout of few labels
    return {
        **spec,
        "tree": tree.to_dict(),
        "head": {"kind": "concentrations", "hidden": []},
        "dropout": DEFAULTS["dropout"] if usual else spec["dropout"],
    }


def label_spec(spec: dict, head: dict) -> dict:
    """What a network is made of that goes on from a trained one and learns a label: its encoder, and a linear head.

    Args:
        spec: of the trained model.
        head: what :func:`zoobook.learning.tasks.find_task` says of the answer.

    Returns:
        dict: a model's ``spec``.
    """
    return {**spec, "tree": None, "head": {**head, "hidden": []}, "dropout": DEFAULTS["dropout"]}


def take_over(spec: dict, arrays: dict, new_spec: dict, new_arrays: dict) -> dict:
    """The weights with which a network begins that goes on from a trained one.

    Args:
        spec: of the trained model.
        arrays: its weights by name.
        new_spec: of the network to be trained.
        new_arrays: its first weights by name; what they say stays where the trained model says nothing.

    Returns:
        dict: the weights by name: the trained encoder with its batch statistics and, where both models have a linear
            head for votes, the trained answers to each question that both their trees have with the same answers.
    """
    begun = new_arrays | {name: array for name, array in arrays.items() if name.startswith("encoder.")}
    linear = {"kind": "concentrations", "hidden": []}
    if all(one["head"] is not None and one["head"].items() >= linear.items() for one in (spec, new_spec)):
        new, old = DecisionTree.from_dict(new_spec["tree"]).shared_with(DecisionTree.from_dict(spec["tree"]))
        for name in ("head.output.weight", "head.output.bias"):
            begun[name] = new_arrays[name].copy()
            begun[name][new] = arrays[name][old]
    return begun


def learning_rate_factors(steps: int) -> np.ndarray:
    """The learning rate of each step as a share of the highest: a short linear warm-up, then half a cosine.

    Args:
        steps: how many steps the training has.

    Returns:
        ndarray: float32 [steps + 1], from above 0 to 1 and down to 0.01.
    """
    step = np.arange(steps + 1)
    warm_up = max(1, steps // 20)
    cosine = 0.5 + 0.5 * np.cos(np.pi * np.clip((step - warm_up) / max(1, steps - warm_up), 0, 1))
    return (np.minimum(1, (step + 1) / warm_up) * np.maximum(cosine, 0.01)).astype(np.float32)


class Progress:
    """Follows a training: shows it, keeps its history and its best weights, and says when it is enough.

    Args:
        folder: where the run is kept.
        patience: epochs without a lower validation loss after which to stop.
    """

    def __init__(self, folder: RunFolder, patience: int):
        self.folder, self.patience = folder, patience
        history = folder.history
        self.losses = dict(zip(history["epoch"], history["val_loss"], strict=True)) if folder.resuming else {}
        self.bar, self.epoch, self.epochs = None, 0, 0

    @property
    def done(self) -> bool:
        """Whether the validation loss has not fallen for long enough."""
        return bool(self.losses) and max(self.losses) - min(self.losses, key=self.losses.get) >= self.patience

    def begin(self, epoch: int, epochs: int, steps: int, visible: bool = True) -> None:
        """Start, or go on.

        Args:
            epoch: the first to be done now, from 0.
            epochs: how many there are in all.
            steps: of one epoch.
            visible: ``False`` for all but one of several processes.
        """
        self.losses = {done: loss for done, loss in self.losses.items() if done < epoch}
        self.epoch, self.epochs = epoch, epochs
        visible = visible and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self.bar = tqdm(
            total=epochs * steps, initial=epoch * steps, unit="step", disable=not visible, leave=False, mininterval=0.5
        )
        self._started = time.perf_counter()

    def step(self, number: int, loss: Callable[[], float]) -> None:
        """Note that a step is done.

        Args:
            number: of the step in its epoch.
            loss: gives its loss; called now and then only, because looking makes a GPU wait.
        """
        self.bar.update()
        if number % 10 == 0:
            value = float(loss())
            self._refuse_not_a_number(value)
            self.bar.set_description(f"epoch {self.epoch + 1}/{self.epochs}, loss {value:.3f}")

    def end_epoch(
        self, train_loss: float, val_loss: float, learning_rate: float, save: Callable[[Path], None] | None
    ) -> None:
        """Write an epoch's row, and its weights where they are the best so far.

        Args:
            train_loss: mean over the training galaxies.
            val_loss: mean over the validation galaxies.
            learning_rate: of the head.
            save: writes the weights to a path; ``None`` for all but one of several processes, which then write nothing.
        """
        self._refuse_not_a_number(train_loss)
        self._keep(self.epoch, train_loss, val_loss, learning_rate, save)
        self.epoch += 1

    def note_start(self, val_loss: float, save: Callable[[Path], None] | None) -> None:
        """Let the state before the first step be the first that may be the best: epoch -1 of the history.

        Args:
            val_loss: mean over the validation galaxies.
            save: see :meth:`end_epoch`.
        """
        self._keep(-1, math.nan, val_loss, 0.0, save)

    def close(self) -> None:
        """Take the progress bar away."""
        if self.bar is not None:
            self.bar.close()

    def interrupted(self) -> KeyboardInterrupt:
        """What to raise when somebody stops the run."""
        return KeyboardInterrupt(
            f"stopped; whole epochs are kept in {self.folder.path}. Call again with the same arguments to go on."
        )

    def _keep(self, epoch: int, train_loss: float, val_loss: float, learning_rate: float, save) -> None:
        self._refuse_not_a_number(val_loss)
        improved = not self.losses or val_loss < min(self.losses.values())
        self.losses[epoch] = val_loss
        seconds, self._started = time.perf_counter() - self._started, time.perf_counter()
        if save is not None:
            self.folder.log(
                epoch=epoch, train_loss=train_loss, val_loss=val_loss, learning_rate=learning_rate,
                seconds=round(seconds, 2),
            )  # fmt: skip
            if improved:
                save(self.folder.path / "best.safetensors")
            train = "at the start" if epoch < 0 else f"train {train_loss:.4f}"
            self.bar.write(
                f"epoch {epoch + 1:3d}/{self.epochs}  {train}  val {val_loss:.4f}"
                f"{'  best' if improved else '      '}  {seconds:.1f} s",
                file=sys.stdout,
            )

    def _refuse_not_a_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} in epoch {self.epoch + 1}. A lower learning_rate usually helps, "
                "or precision='float32'; the epochs before are kept."
            )


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
