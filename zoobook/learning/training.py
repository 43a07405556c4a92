"""Training from scratch, going on from a trained model, and fine-tuning: the same in both frameworks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zoobook import weights
from zoobook.files import explain_full_disk
from zoobook.images import ImageStore
from zoobook.images.views import FIELD_OF_VIEW, share_seen
from zoobook.learning import transfer
from zoobook.learning.architectures import check_options
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.devices import CPU, choose_devices, choose_precision, tune_malloc
from zoobook.learning.early_stopping import History
from zoobook.learning.engine import Twin
from zoobook.learning.models import GalaxyNetwork
from zoobook.learning.runs import Result, RunFolder, model_fingerprint
from zoobook.learning.settings import checked, lowest_given
from zoobook.learning.tasks import Task, Votes, find_task
from zoobook.trees import DecisionTree

WEIGHT_DECAY = 0.01  # of matrices and kernels; biases and scales have none
BATCH_SIZE = {"votes": 128, "labels": 32}  # in fine-tuning: votes come with many galaxies, other labels with few


@dataclass(frozen=True)
class Run:
    """One training, as an engine's ``Trainer`` sees it."""

    settings: dict  # all that decides the outcome, among it epochs, learning_rate and seed
    history: History  # to be told of each step and epoch
    train: GalaxyBatches  # to learn from
    val: GalaxyBatches  # to judge by
    state: Path  # file from which an unfinished run goes on

    @property
    def judges_start(self) -> bool:
        """Whether the state before the first step is judged, and may be the best."""
        return self.settings["what"] == "finetune"


def train(
    twin: Twin,
    store: ImageStore,
    catalog: pd.DataFrame,
    tree: DecisionTree,
    *,
    model: GalaxyNetwork | None = None,
    architecture: str | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    field_of_view: float | None = None,
    lowest: float | None = None,
    photometric: bool = False,
    epochs: int = 100,
    batch_size: int = 128,
    accumulate_grad_batches: int = 1,
    learning_rate: float = 1e-3,
    patience: int = 10,
    precision: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    out_dir: str | Path,
    resume: bool = True,
) -> Result:
    """Train a network to predict votes: from scratch, or going on from a trained one.

    AdamW with a short warm-up and a cosine decay; random views of every galaxy (``zoobook.images.views``). The model
    of the epoch with the lowest validation loss is kept. Every finished epoch is on disk: call again with the same
    arguments after an interruption and the run goes on; a finished run is only read. On a CPU a run, interrupted
    or not, repeats to the last digit.

    Args:
        store: the :class:`~zoobook.images.ImageStore` with the images.
        catalog: ``id_str``, ``subset`` (``"train"``, ``"val"``; others are not looked at) and the votes.
        tree: the decision tree that was voted on.
        model: a trained model to go on from; it is left as it is. Its encoder is taken over with its batch statistics,
            and its head for each question that its tree and ``tree`` have with the same answers, unless ``lowest`` is
            another than its own: then the head begins anew.
        architecture: as for ``build_model``; ``None``: that of ``model``, or EfficientNet-B0.
        channels: 1 for grey images, 3 for colour; ``None``: those of ``model``, or 1.
        image_size: side of what the model sees, in pixels; ``None``: that of the stored images.
        field_of_view: the same in units of the galaxy's half-light radius R50; ``None``: the model's, or 14.7, as
            Zoobot. With the framing of the images, it decides which part of them the model sees.
        lowest: the lowest concentration that the model can give, from 0.01 to 1; ``None``: that of ``model``, or
            1, as Zoobot. At 1, its belief in an answer has a single peak. Below, such as 0.05, it may also be that the
            volunteers agree, but not on what: the intervals of galaxies that are hard to make out become right.
        photometric: let training views also differ in what differs from telescope to telescope (seeing, depth,
            brightness, size), for a model that is to serve other surveys too.
        epochs: passes over the training galaxies, at most.
        batch_size: galaxies per step, over all devices together.
        accumulate_grad_batches: parts of a batch that are computed one after the other, where the memory does not
            suffice for a whole one; their gradients are added up.
        learning_rate: highest learning rate.
        patience: epochs without a lower validation loss after which to stop.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` (mixed with float32), or ``"auto"``: what the
            device does best. The loss is always exact.
        devices: ``"auto"`` (all GPUs, or else the CPU), ``"cpu"``, or how many GPUs.
        num_nodes: machines, each started by SLURM, or by torchrun for PyTorch and with ``TF_CONFIG`` for TensorFlow.
        seed: decides the first weights, order, views and dropout.
        out_dir: folder of the run.
        resume: go on with the run in ``out_dir``; ``False`` starts it afresh.

    Returns:
        Result: model of the best epoch, history, and weight file. Losses are in nats per galaxy.

    Raises:
        ValueError: arguments, catalogue or votes are bad, ``out_dir`` holds another run, or the loss is not a number.
    """
    given = model.spec if model else {"architecture": "efficientnet_b0", "channels": 1, "field_of_view": FIELD_OF_VIEW}
    for name, value in (("architecture", architecture), ("channels", channels)):
        if model is not None and value not in (None, given[name]):
            raise ValueError(
                f"{name} is {value!r}, but the given model has {given[name]!r}, and its weights fit nothing else. "
                f"Leave {name} out, or train without model."
            )
    built = {
        "architecture": given["architecture"] if architecture is None else architecture,
        "channels": given["channels"] if channels is None else channels,
        "image_size": store.size if image_size is None else image_size,
        "field_of_view": given["field_of_view"] if field_of_view is None else field_of_view,
    }
    twin.models.check_architecture(built["architecture"])  # bad arguments are refused before anything is written
    built |= {name: value for name, value in check_options({**built, "dropout": 0}).items() if name in built}
    if model is not None:
        transfer.check_image_size(twin, model, built["image_size"])
    settings = checked(dict(
        what="train", tree=tree.to_dict(), **built, **lowest_given(lowest), photometric=photometric, epochs=epochs,
        batch_size=batch_size, accumulate_grad_batches=accumulate_grad_batches, learning_rate=learning_rate,
        patience=patience, precision=precision, seed=seed,
        model=model and model_fingerprint(model.spec, model.to_arrays()),
    ))  # fmt: skip
    task = find_task(store, catalog, tree)
    spec = {**transfer.new_spec(model.spec if model else {"head": None, "dropout": transfer.DROPOUT}, task), **built}
    spec["head"] |= lowest_given(lowest)

    def make() -> tuple[GalaxyNetwork, dict[str, float]]:
        return transfer.new_model(twin, spec, task, model), {}

    return _fit(twin, make, task, store, settings, devices, num_nodes, out_dir, resume)


def finetune(
    twin: Twin,
    model: GalaxyNetwork,
    store: ImageStore,
    catalog: pd.DataFrame,
    label: str | DecisionTree,
    *,
    unfreeze: str = "head",
    photometric: bool = False,
    epochs: int = 60,
    batch_size: int | None = None,
    accumulate_grad_batches: int = 1,
    learning_rate: float = 1e-3,
    patience: int = 15,
    precision: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    out_dir: str | Path,
    resume: bool = True,
) -> Result:
    """Give a trained encoder a new head and train it on a new question.

    The task follows from the labels, see :func:`zoobook.learning.tasks.find_task`: yes or no, classes, a number, or
    votes on a decision tree. The new head is linear, and begins with what is known already:

    - for a label, with the logistic (for a number, ridge) regression on the features that the encoder has now, see
      ``zoobook.learning.tasks.linear_answer``. Labels come with few galaxies, so what is unfrozen of the encoder
      learns ten times more slowly than the head, deeper stages more slowly still (Kumar et al. 2022, ICLR), and batch
      normalisation stays as it is. (An untrained encoder has nothing to lose, and learns as fast as the head.)
    - for votes, with the model's own answers to the questions that its tree has too. Votes come with many galaxies:
      what is unfrozen learns as fast as in training, and with ``unfreeze="all"`` this is the same as
      ``train(model=...)`` with the model's ``image_size``.

    The start is judged like every epoch (epoch -1 of the history, without training loss), and may be the best: by its
    validation loss, the result is never worse than what it began with. Runs are kept, resumed and repeated as in
    ``train``, and arguments that are not explained here are those of ``train``.

    Args:
        model: a trained model, with or without a head; it is left as it is. Its field of view stays, and for votes its
            lowest concentration.
        catalog: ``id_str``, ``subset`` and the labels.
        label: the column to learn, or a decision tree whose votes to learn.
        unfreeze: what learns besides the new head: ``"head"`` nothing, ``"top"`` the last stages of the encoder,
            ``"all"`` the whole encoder. What is frozen keeps its batch statistics.
        batch_size: galaxies per step, over all devices together; ``None``: 128 for votes, else 32.
        learning_rate: highest learning rate, that of the head.
        seed: decides order, views, dropout, and the head's first weights for new questions of a tree.

    Returns:
        Result: model of the best epoch, history, and weight file.

    Raises:
        ValueError: arguments or labels are bad, ``out_dir`` holds another run, or the loss is not a number.
    """
    task = find_task(store, catalog, label)
    votes, spec = isinstance(task.kind, Votes), transfer.new_spec(model.spec, task)
    settings = checked(dict(
        what="finetune", spec=spec, unfreeze=unfreeze, photometric=photometric, epochs=epochs,
        batch_size=BATCH_SIZE["votes" if votes else "labels"] if batch_size is None else batch_size,
        accumulate_grad_batches=accumulate_grad_batches, learning_rate=learning_rate, patience=patience,
        precision=precision, seed=seed, model=model_fingerprint(model.spec, model.to_arrays()),
    ))  # fmt: skip

    def make() -> tuple[GalaxyNetwork, dict[str, float]]:
        new = transfer.new_model(twin, spec, task, model)
        lr_scales = transfer.freeze_layers(twin, new, unfreeze)
        if votes or transfer.start_head(twin, new, store, task, devices):
            return new, {}
        transfer.freeze_batchnorm(twin, new)
        return new, lr_scales

    return _fit(twin, make, task, store, settings, devices, num_nodes, out_dir, resume)


def _fit(
    twin: Twin,
    make: Callable[[], tuple[GalaxyNetwork, dict[str, float]]],
    task: Task,
    store: ImageStore,
    settings: dict,
    devices: str | int,
    num_nodes: int,
    out_dir: str | Path,
    resume: bool,
) -> Result:
    """Run, or go on with, or only read a training; ``make`` gives the model and the shares of its learning rate."""
    resume, num_nodes = checked({"resume": resume, "num_nodes": num_nodes}).values()
    names = choose_devices(devices, twin.engine.gpus())
    _check_batches(settings["batch_size"], len(task.rows["train"]))
    capability = None if names == [CPU] else twin.engine.compute_capability()
    precision = choose_precision(settings["precision"], capability)
    trainer = twin.engine.Trainer(devices if isinstance(devices, str) else len(names), num_nodes, precision)
    all_settings = {**settings, "framework": twin.engine.NAME, "framing": store.framing, "data": task.data}
    folder = RunFolder(out_dir, all_settings, resume)
    best, state = folder.path / "best.safetensors", folder.path / twin.engine.STATE
    if not folder.resuming:
        state.unlink(missing_ok=True)
    if not folder.finished:
        store.check()
        tune_malloc()
        history = History(folder, settings["patience"])
        if not history.stopping.should_stop:
            with trainer.building(settings["seed"]):
                model, lr_scales = make()
            train, val = _batches(task, store, settings, share_seen(model.spec, store))
            try:
                with explain_full_disk(folder.path):
                    trainer.fit(model, Run(settings, history, train, val, state), lr_scales)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped; whole epochs are kept in {folder.path}. Call again with the same arguments to go on."
                ) from None
            finally:
                history.close()
    if not best.exists():
        raise ValueError(f"{best} of this run is missing: bring it back, or pass resume=False to start it afresh")
    if trainer.is_first and not folder.finished:
        folder.finish()
        state.unlink(missing_ok=True)
    return Result(weights.load(best, twin.engine.NAME), folder.history, best)


def _batches(task: Task, store: ImageStore, settings: dict, share: float) -> tuple[GalaxyBatches, GalaxyBatches]:
    """What to learn from, and what to judge by."""
    size, parts = settings["batch_size"], settings["accumulate_grad_batches"]
    train = GalaxyBatches(
        store.pixels, task.rows["train"], size, task.targets["train"], settings["seed"], parts, share,
        settings["photometric"],
    )  # fmt: skip
    return train, GalaxyBatches(store.pixels, task.rows["val"], size, task.targets["val"], share=share)


def _check_batches(size: int, galaxies: int) -> None:
    if galaxies // -(-galaxies // size) < 2:
        raise ValueError(
            f"batch_size={size} makes batches of a single galaxy out of {galaxies}, from which batch normalisation can "
            "learn nothing: it takes at least 2 training galaxies, and a batch_size that leaves none alone"
        )
