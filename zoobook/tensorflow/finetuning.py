"""Fine-tuning: a trained encoder learns something new from few galaxies."""
from __future__ import annotations

import math
import re

import keras
import pandas as pd

from zoobook.files import fingerprint
from zoobook.images import views as augment
from zoobook.learning import tasks
from zoobook.learning.runs import Result
from zoobook.learning.training import BATCH_SIZE, ENCODER_RATE, STAGE_DECAY, TOP_SHARE, label_spec, voting_spec
from zoobook.tensorflow.data import Batches, look
from zoobook.tensorflow.models import GalaxyModel, set_arrays, to_arrays
from zoobook.tensorflow.prediction import features_of
from zoobook.tensorflow.training import fit, go_on, settle_statistics
from zoobook.trees import DecisionTree


def finetune(
    model: GalaxyModel,
    store,
    catalog: pd.DataFrame,
    label: str | DecisionTree,
    *,
    unfreeze: str = "head",
    photometric: bool = False,
    epochs: int = 60,
    batch_size: int | None = None,
    accumulate: int = 1,
    learning_rate: float = 1e-3,
    patience: int = 15,
    precision: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    out_dir,
    resume: bool = True,
) -> Result:
    """Give a trained encoder a new head and train it on a new question.

    The task follows from the labels, see :func:`zoobook.learning.tasks.find_task`: yes or no, classes, a number, or votes on
    a decision tree. The new head is linear, and begins with what is known already:

    - for a label, with the logistic (for a number, ridge) regression on the features that the encoder has now, see
      :func:`zoobook.learning.tasks.linear_answer`. Labels come with few galaxies, so what is unfrozen of the encoder learns
      ten times more slowly than the head, deeper stages more slowly still (Kumar et al. 2022, ICLR), and batch
      normalisation stays as it is. (An untrained encoder has nothing to lose, and learns as fast as the head.)
    - for votes, with the model's own answers to the questions that its tree has too. Votes come with many galaxies:
      what is unfrozen learns as fast as in training, and with ``unfreeze="all"`` this is the same as
      ``train(model=...)`` with the model's ``image_size``.

    The start is judged like every epoch (epoch -1 of the history, without training loss), and may be the best: by its
    validation loss, the result is never worse than what it began with. Runs are kept, resumed and
    repeated as in :func:`~zoobook.tensorflow.training.train`.

    Args:
        model: a trained model, with or without a head; it is left as it is. Its field of view stays.
        store: the :class:`~zoobook.images.ImageStore` with the images.
        catalog: ``id_str``, ``subset`` (``"train"``, ``"val"``; others are not looked at) and the labels.
        label: the column to learn, or a decision tree whose votes to learn.
        unfreeze: what learns besides the new head: ``"head"`` nothing, ``"top"`` the last stages of the encoder,
            ``"all"`` the whole encoder. What is frozen keeps its batch statistics.
        photometric: see :func:`~zoobook.tensorflow.training.train`.
        epochs: passes over the training galaxies, at most.
        batch_size: galaxies per step, over all devices together; ``None``: 128 for votes, else 32.
        accumulate: parts of a batch that are computed one after the other, where the memory does not suffice for a
            whole one; their gradients are added up.
        learning_rate: highest learning rate, that of the head.
        patience: epochs without a lower validation loss after which to stop.
        precision: see :func:`~zoobook.tensorflow.training.train`.
        devices: ``"auto"``, ``"cpu"``, or how many GPUs.
        num_nodes: machines, each started by SLURM or with ``TF_CONFIG``.
        seed: decides order, views, dropout, and the head's first weights for new questions of a tree.
        out_dir: folder of the run.
        resume: go on with the run in ``out_dir``; ``False`` starts it afresh.

    Returns:
        Result: model of the best epoch, history, and weight file.

    Raises:
        ValueError: arguments or labels are bad, ``out_dir`` holds another run, or the loss is not a number.
        OSError: ``out_dir`` cannot be written to.
    """
    if unfreeze not in ("head", "top", "all"):
        raise ValueError(f"unfreeze must be 'head', 'top' or 'all', not {unfreeze!r}")
    task = tasks.find_task(store, catalog, label)
    if task.tree:
        spec, batch_size = voting_spec(model.spec, task.tree), batch_size or BATCH_SIZE["votes"]
    else:
        spec, batch_size = label_spec(model.spec, task.head), batch_size or BATCH_SIZE["labels"]
    settings = dict(
        what="finetune", spec=spec, unfreeze=unfreeze, photometric=photometric, epochs=epochs,
        batch_size=batch_size, accumulate=accumulate, learning_rate=learning_rate, patience=patience,
        precision=precision, seed=seed, model=fingerprint(model.spec, *to_arrays(model).values()),
    )  # fmt: skip

    def make() -> tuple[GalaxyModel, dict[str, float]]:
        new = go_on(model, spec, task)
        shares = _thaw(new, unfreeze)
        if task.tree:
            return new, {}
        untrained = _start_head(new, store, task, devices)
        if untrained:
            return new, {}
        for layer in new.encoder.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        return new, shares

    return fit(make, task, store, settings, devices, num_nodes, out_dir, resume)


def _size(layer) -> int:
    """How many numbers a layer can learn."""
    return sum(math.prod(v.shape) for v in layer.variables if not v.name.startswith("moving"))


def _start_head(model: GalaxyModel, store, task: tasks.Task, devices: str | int) -> bool:
    """Let the head of a label begin with the linear answer to what the encoder finds in the training galaxies.

    Returns:
        bool: whether the encoder was untrained, so that it has nothing to lose.
    """
    rows, share = task.rows["train"], augment.share_seen(model.spec, store)
    images, views = next(iter(Batches(store.pixels, rows, 128, share=share)))
    untrained = settle_statistics(model, look(images, views, model.spec["channels"], model.spec["image_size"], share))
    features = features_of(model, store, rows, devices)
    weights, bias = tasks.linear_answer(features, task.targets["train"], task.head)
    set_arrays(model, to_arrays(model) | {"head.output.weight": weights, "head.output.bias": bias})
    return untrained


def _thaw(model: GalaxyModel, unfreeze: str) -> dict[str, float]:
    """Freeze what shall not learn; for the rest, factors that fall with the distance from the head, by variable."""
    stages = _stages(model.encoder)
    everything = sum(map(_size, model.encoder.layers))
    shares, held = {}, 0
    for depth, stage in enumerate(reversed(stages)):
        learns = unfreeze == "all" or (unfreeze == "top" and held < TOP_SHARE * everything)
        held += sum(map(_size, stage))
        for layer in stage:
            layer.trainable = learns
            shares |= {variable.path: ENCODER_RATE * STAGE_DECAY**depth for variable in layer.trainable_variables}
    return shares


def _stages(encoder) -> list[list]:
    """The encoder's layers with weights, stage by stage from the image up, as timm groups them."""
    stages: dict[str, list] = {}
    last = "stem"
    for layer in encoder.layers:
        if layer.weights:
            found = re.match(r"blocks\.\d+|layer\d+", layer.name)
            last = found[0] if found else last  # layers after the last block belong to its stage
            stages.setdefault(last, []).append(layer)
    return list(stages.values())
