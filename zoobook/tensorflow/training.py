"""Training: from scratch, and the one engine that fine-tuning uses too."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from zoobook import weights
from zoobook.files import atomic_write, fingerprint
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
from zoobook.tensorflow.data import Batches, look
from zoobook.tensorflow.losses import galaxy_losses
from zoobook.tensorflow.models import (
    GalaxyModel,
    _first_weights_from,
    build_model,
    check_architecture,
    set_arrays,
    to_arrays,
)
from zoobook.tensorflow.prediction import accelerators, device_names
from zoobook.trees import DecisionTree
from zoobook.votes import fit_constant

_PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


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
        architecture: a name of :data:`zoobook.learning.architectures.BOTH`; ``None``: that of ``model``, or EfficientNet-B0.
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
        num_nodes: machines, each started by SLURM or with ``TF_CONFIG``.
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
        make: builds the untrained model, and by variable the share of the learning rate where it is not the whole;
            layers that are not trainable are frozen.
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
    strategy = _strategy(devices, num_nodes)
    folder = RunFolder(out_dir, {**settings, "framing": store.framing, "data": task.data}, resume)
    best, last = folder.path / "best.safetensors", folder.path / "last.safetensors"
    if not folder.resuming:
        last.unlink(missing_ok=True)
    if not folder.finished:
        keep_memory()
        size, epochs = settings["batch_size"], settings["epochs"]
        seed, parts = settings["seed"], settings["accumulate"]
        progress = Progress(folder, settings["patience"])
        if not progress.done:
            with strategy.scope(), _first_weights_from(seed), _policy(settings["precision"], devices):
                model, shares = make()
                share = augment.share_seen(model.spec, store)
                views = {"share": share, "photometric": settings["photometric"]}
                batches = Batches(store.pixels, task.rows["train"], size, task.targets["train"], seed, parts, **views)
                validation = Batches(store.pixels, task.rows["val"], size, task.targets["val"], share=share)
                learner = _Learner(model, share)
                rates = _Rates(settings["learning_rate"], epochs * len(batches) // batches.parts, batches.parts)
                optimizer = _AdamW(rates, model.trainable_variables, shares, batches.parts)
                if keras.config.dtype_policy().compute_dtype == "float16":
                    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
                optimizer.build(model.trainable_variables)
            if last.exists():
                _restore(model, optimizer, last)
            else:
                images, views, _ = next(iter(batches))
                settle_statistics(model, look(images, views, *learner.seen_by_model))
            try:
                _run(learner, optimizer, strategy, batches, validation, progress, settings, last)
            except KeyboardInterrupt:
                raise progress.interrupted() from None
            finally:
                progress.close()
        if 0 in _replicas(strategy):
            folder.finish()
            last.unlink(missing_ok=True)
    return Result(weights.load(best, "tensorflow"), folder.history, best)


def settle_statistics(model: GalaxyModel, images: tf.Tensor) -> bool:
    """Let untrained batch normalisation begin with the statistics of some images instead of mean 0 and variance 1.

    Galaxies are dark and deep networks multiply small variances, so from 1 the running averages would take hundreds
    of steps to arrive, and until then a model that has learned looks in evaluation as if it had not.

    Args:
        model: the model; batch normalisation that has been trained is left as it is.
        images: float [N, H, W, C], what the model sees.

    Returns:
        bool: whether there was any.
    """
    norms = [layer for layer in model.encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    fresh = [layer for layer in norms if not np.any(layer.moving_mean)]
    if not fresh:
        return False
    momentum = fresh[0].momentum
    for layer in fresh:
        layer.momentum = 0.0
    model.encoder(images, training=True)
    for layer in fresh:
        layer.momentum = momentum
    return True


class _Learner(keras.layers.Layer):
    """From stored bytes to the loss of each galaxy. Called with ``training=True``, all layers below it are training."""

    def __init__(self, model: GalaxyModel, share: float):
        super().__init__(dtype="float32", name="learner")
        self.model = model
        self.seen_by_model = model.spec["channels"], model.spec["image_size"], share

    def call(self, images, views, targets):
        return galaxy_losses(self.model, look(images, views, *self.seen_by_model), targets)


class _Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step."""

    def __init__(self, highest: float, steps: int, parts: int):
        factors = np.repeat(learning_rate_factors(steps), parts)  # Keras asks once for each part of a batch
        self.rates = tf.constant(highest * factors, tf.float32)

    def __call__(self, step):
        return tf.gather(self.rates, step)


class _AdamW(keras.optimizers.Adam):
    """AdamW with a learning rate and a weight decay for each variable, as PyTorch's has them."""

    def __init__(self, rates: _Rates, variables: list, shares: dict[str, float], parts: int):
        super().__init__(
            rates, epsilon=1e-8, name="adamw", gradient_accumulation_steps=parts if parts > 1 else None
        )
        self.shares = tuple(shares.get(variable.path, 1.0) for variable in variables)

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = learning_rate * self.shares[self._get_variable_index(variable)]
        if len(variable.shape) > 1:
            self.assign_sub(variable, variable * (learning_rate * WEIGHT_DECAY))
        super().update_step(gradient, variable, learning_rate)


def _run(
    learner: _Learner, optimizer, strategy, batches: Batches, validation: Batches, progress: Progress, settings, last
) -> None:
    """Epoch after epoch, until there are enough."""
    model, variables, replicas = learner.model, learner.model.trainable_variables, _replicas(strategy)
    first = 0 in replicas

    def learn(images, views, targets, shares):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(learner(images, views, targets, training=True), tf.float32) * shares)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss

    def judge(images, views, targets, shares):
        return tf.reduce_sum(tf.cast(learner(images, views, targets, training=False), tf.float32) * shares)

    def streams(of: Batches) -> list:  # one epoch, cut up: an iterator for each device
        return [iter(of._share(replica, strategy.num_replicas_in_sync)) for replica in replicas]

    def step(work):  # the mean over a batch: each device adds its share
        def share(data):
            replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            return work(*next(data[replicas.index(replica)]))

        whole = lambda *data: strategy.reduce("SUM", strategy.run(share, [data]), axis=None)  # noqa: E731
        return tf.function(whole, autograph=False)

    learn_step, judge_step = step(learn), step(judge)

    def validate() -> float:
        data = streams(validation)
        return float(np.average([judge_step(*data) for _ in range(len(validation))], weights=validation._sizes))

    def saver(epoch: int) -> Callable[[Path], None] | None:
        return (lambda path: weights.save(model, path, epoch=str(epoch))) if first else None

    done = int(keras.ops.convert_to_numpy(optimizer.iterations)) * batches.parts // len(batches)
    progress.begin(done, settings["epochs"], len(batches), visible=first)
    if settings["what"] == "finetune" and not done:
        progress.note_start(validate(), saver(-1))
    for epoch in range(done, settings["epochs"]):
        _reseed(model, settings["seed"], epoch)
        batches.epoch, losses = epoch, []
        data = streams(batches)
        for number in range(len(batches)):
            losses.append(learn_step(*data))
            progress.step(number, lambda: losses[-1])  # noqa: B023
        progress.end_epoch(
            float(np.average(losses, weights=batches._sizes)), validate(), float(optimizer.learning_rate), saver(epoch)
        )
        # The state goes last: if this is cut short, the epoch is repeated, with the same result.
        if first:
            atomic_write(last, to_bytes({f"{i:05d}": value for i, value in enumerate(_state(model, optimizer))}))
        if progress.done:
            break
    # Together again: the others must not read what the first is still writing.
    strategy.reduce("SUM", strategy.run(tf.function(lambda: tf.constant(1))), axis=None)


def _replicas(strategy) -> list[int]:
    """The devices of this process, as they are numbered among all that work together; who has the first, writes."""
    number = strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)
    return [int(one) for one in strategy.experimental_local_results(number)]


def _state(model: GalaxyModel, optimizer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in [*model.variables, *optimizer.variables]]


def _restore(model: GalaxyModel, optimizer, file: Path) -> None:
    kept = load_file(file)
    for i, variable in enumerate([*model.variables, *optimizer.variables]):
        variable.assign(kept[f"{i:05d}"])


def _reseed(model: GalaxyModel, seed: int, epoch: int) -> None:
    """Whatever is random follows from the seed and the epoch, so a resumed run repeats an uninterrupted one."""
    if model.dropout.rate:
        state = model.dropout.seed_generator.state
        draw = np.random.SeedSequence([seed, epoch, 2, 0]).generate_state(1) >> 1
        state.assign(np.array([draw[0], 0], state.dtype))


def _strategy(devices: str | int, num_nodes: int):
    """How devices work together."""
    if num_nodes > 1:
        resolvers = tf.distribute.cluster_resolver
        slurm = "SLURM_PROCID" in os.environ and "TF_CONFIG" not in os.environ
        resolver = resolvers.SlurmClusterResolver() if slurm else resolvers.TFConfigClusterResolver()
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except RuntimeError as error:
            raise RuntimeError(
                f"TensorFlow cannot connect {num_nodes} machines: {error}. It must do so before it computes anything, "
                "so also before a model is loaded. Put tf.distribute.MultiWorkerMirroredStrategy("
                f"tf.distribute.cluster_resolver.{type(resolver).__name__}()) at the top of your script."
            ) from None
    places = device_names(devices)
    return tf.distribute.MirroredStrategy(places) if places[1:] else tf.distribute.OneDeviceStrategy(places[0])


@contextlib.contextmanager
def _policy(precision: str, devices: str | int):
    """Layers made meanwhile compute in this precision; ``"auto"``: in 16 bits where the device is faster so."""
    if precision == "auto":
        gpus = [] if devices == "cpu" else tf.config.list_physical_devices("GPU")
        precision = "float32"
        if gpus:
            capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (8, 0))
            precision = "bfloat16" if capability[0] >= 8 else "float16"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
