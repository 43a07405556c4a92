"""TensorFlow as an engine of zoobook, see :class:`zoobook.learning.engine.Engine`; ``tf.distribute`` joins devices."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from zoobook import files
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.devices import choose_devices
from zoobook.learning.runs import damaged
from zoobook.learning.schedule import learning_rate_factors
from zoobook.learning.training import WEIGHT_DECAY, Run
from zoobook.tensorflow import models
from zoobook.tensorflow.models import GalaxyModel, apply_view, known_defaults

NAME, STATE, OUT_OF_MEMORY = "tensorflow", "last.safetensors", tf.errors.ResourceExhaustedError


def gpus() -> list[str]:
    return [f"gpu:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))]


def compute_capability() -> int | None:
    present = tf.config.list_physical_devices("GPU")
    if not present:
        return None
    return tf.config.experimental.get_device_details(present[0]).get("compute_capability", (8, 0))[0]


class GalaxyLoader:
    """The batches as tensors, the next ones being read ahead: the share of one ``replica`` ``of`` several."""

    def __init__(self, batches: GalaxyBatches, replica: int = 0, of: int = 1):
        self.batches, self.place = batches, (replica, of)

    def __iter__(self) -> Iterator[tuple]:
        batches = self.batches
        signature = [
            tf.TensorSpec([None, *batches.pixels.shape[1:]], tf.uint8),
            tf.TensorSpec([None, 5 if batches.photometric else 2, 3], tf.float32),
        ]
        if batches.targets is not None:
            targets = tf.TensorSpec([None, *batches.targets.shape[1:]], batches.targets.dtype)
            signature += [targets, tf.TensorSpec([], tf.float64)]
        options = tf.data.Options()
        options.autotune.enabled = False  # nothing to tune, and each iterator would wait seconds for its tuner to end
        data = tf.data.Dataset.from_generator(lambda: batches.read(*self.place), output_signature=tuple(signature))
        return iter(data.prefetch(2).with_options(options))


def replicate(model: GalaxyModel, devices: list[str]) -> list[tuple]:
    replicas = []
    for device in devices:
        with tf.device(device):
            replica = model if len(devices) == 1 else models.from_arrays(model.spec, models.to_arrays(model))
        if not hasattr(replica, "seen_features"):  # the graph stays with the model: to make it takes seconds
            replica.seen_features = _compiled(_seen_features(replica))
        replicas.append((device, replica.seen_features))
    return replicas


def _seen_features(model: GalaxyModel) -> Callable:
    channels, size = model.spec["channels"], model.spec["image_size"]
    return lambda images, views, share: model.features(apply_view(images, views, channels, size, share))


def _compiled(function: Callable) -> Callable:
    # TensorFlow counts graphs by their code, and would warn of the graphs of several models: a partial has none
    return tf.function(functools.partial(function), reduce_retracing=True, autograph=False)


def features(replica: tuple, images: tf.Tensor, views: tf.Tensor, share: float) -> np.ndarray:
    device, seen_features = replica
    with tf.device(device):
        return seen_features(images, views, share).numpy()


def head_answers(model: GalaxyModel, features: np.ndarray, passes: int, seed: int) -> np.ndarray:
    layers = [model.dropout, *model.head.hidden, model.head.output_layer]
    answers = []
    with tf.device("CPU"):
        for number in range(passes):
            values = tf.constant(features)
            for depth, layer in enumerate(layers):
                rate = getattr(layer, "rate", None)
                if rate is None:
                    values = layer(values)
                elif rate and passes > 1:
                    keep = tf.random.stateless_uniform(tf.shape(values), [seed, number * len(layers) + depth]) >= rate
                    values = values * tf.cast(keep, values.dtype) / (1 - rate)
            answers.append(model.activate(values).numpy())
    return np.stack(answers, -1)


class Trainer:
    """Trains with a loop of its own, over the devices that a strategy of ``tf.distribute`` joins."""

    def __init__(self, devices: str | int, num_nodes: int, precision: str):
        self.policy = None if precision == "float32" else f"mixed_{precision}"
        names = choose_devices(devices, gpus())
        self.strategy = _connect_machines(num_nodes) if num_nodes > 1 else _join(names)

    @property
    def replicas(self) -> list[int]:
        """The devices of this process, as they are numbered among all that work together."""
        number = self.strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)
        return [int(one) for one in self.strategy.experimental_local_results(number)]

    @property
    def is_first(self) -> bool:
        return 0 in self.replicas

    @contextlib.contextmanager
    def building(self, seed: int) -> Iterator[None]:
        with self.strategy.scope(), models.first_weights_from(seed), known_defaults(self.policy):
            yield

    def fit(self, model: GalaxyModel, run: Run, lr_scales: dict[str, float]) -> None:
        with self.strategy.scope(), known_defaults(self.policy):
            module = GalaxyLosses(model, run.train.share)
            optimizer = _optimizer(model, run, lr_scales)
        if run.state.exists():
            try:
                kept = load_file(run.state)
            except SafetensorError:
                raise damaged(run.state) from None
            for i, variable in enumerate([*model.variables, *optimizer.variables]):
                variable.assign(kept[f"{i:05d}"])
        else:
            images, views, *_ = next(iter(GalaxyLoader(run.train)))
            models.initialize_batchnorm_stats(model, apply_view(images, views, *module.view))
        learn, judge = _steps(module, optimizer)
        self._epochs(model, optimizer, run, self._on_all(learn), self._on_all(judge))
        # Together again: the others must not read what the first is still writing.
        self.strategy.reduce("SUM", self.strategy.run(tf.function(functools.partial(tf.constant, 1))), axis=None)

    def _epochs(self, model: GalaxyModel, optimizer, run: Run, learn: Callable, judge: Callable) -> None:
        """Epoch after epoch, until there are enough."""
        history, batches, epochs = run.history, run.train, run.settings["epochs"]

        def validate() -> float:
            data = self._streams(run.val)
            return float(np.average([judge(*data) for _ in range(len(run.val))], weights=run.val.sizes))

        done = int(keras.ops.convert_to_numpy(optimizer.iterations)) * batches.parts // len(batches)
        history.begin(done, epochs, len(batches), self.is_first)
        if run.judges_start and not done:
            history.note_start(validate(), model)
        for epoch in range(done, epochs):
            _seed_dropout(model, run.settings["seed"], epoch)
            batches.epoch, losses = epoch, []
            data = self._streams(batches)
            for number in range(len(batches)):
                losses.append(learn(*data))
                history.step(number, lambda: losses[-1])  # noqa: B023
            train_loss = float(np.average(losses, weights=batches.sizes))
            history.end_epoch(train_loss, validate(), float(optimizer.learning_rate), model)
            if history.writes:
                state = map(keras.ops.convert_to_numpy, [*model.variables, *optimizer.variables])
                files.atomic_write(run.state, to_bytes({f"{i:05d}": value for i, value in enumerate(state)}))
            if history.stopping.should_stop:
                return

    def _streams(self, batches: GalaxyBatches) -> list[Iterator]:
        """One epoch, cut up: an iterator for each device of this process."""
        return [iter(GalaxyLoader(batches, one, self.strategy.num_replicas_in_sync)) for one in self.replicas]

    def _on_all(self, work: Callable) -> Callable:
        """Work on a batch by all devices together: each adds what its galaxies share in the mean."""
        replicas = self.replicas

        def share(data):
            replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            return work(*next(data[replicas.index(replica)]))

        def whole(*data):
            return self.strategy.reduce("SUM", self.strategy.run(share, [data]), axis=None)

        return tf.function(functools.partial(whole), autograph=False)  # see `_compiled`


class GalaxyLosses(keras.layers.Layer):
    """From stored bytes to the loss of each galaxy. Called with ``training=True``, all layers below it are training."""

    def __init__(self, model: GalaxyModel, share: float):
        super().__init__(dtype="float32", name="losses")
        self.model = model
        self.view = model.spec["channels"], model.spec["image_size"], share

    def call(self, images: tf.Tensor, views: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return tf.cast(self.model.galaxy_losses(apply_view(images, views, *self.view), targets), tf.float32)


def _steps(module: GalaxyLosses, optimizer) -> tuple[Callable, Callable]:
    """What one device does with its share of a batch: learn from it, or only judge it."""
    variables = module.model.trainable_variables

    def learn(images, views, targets, count):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(module(images, views, targets, training=True) * tf.cast(1 / count, tf.float32))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss

    def judge(images, views, targets, count):
        return tf.reduce_sum(module(images, views, targets, training=False) * tf.cast(1 / count, tf.float32))

    return learn, judge


class _Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step; Keras asks once for each part of a batch."""

    def __init__(self, highest: float, steps: int, parts: int):
        self.rates = tf.constant(highest * np.repeat(learning_rate_factors(steps), parts), tf.float32)

    def __call__(self, step):
        return tf.gather(self.rates, step)


class _AdamW(keras.optimizers.Adam):
    """AdamW with a learning rate and a weight decay for each variable, as PyTorch's has them."""

    def __init__(self, rates: _Rates, lr_scales: list[float], parts: int):
        accumulated = parts if parts > 1 else None
        super().__init__(rates, epsilon=1e-8, name="adamw", gradient_accumulation_steps=accumulated)
        self.lr_scales = tuple(lr_scales)

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = learning_rate * self.lr_scales[self._get_variable_index(variable)]
        if len(variable.shape) > 1:
            self.assign_sub(variable, variable * (learning_rate * WEIGHT_DECAY))
        super().update_step(gradient, variable, learning_rate)


def _optimizer(model: GalaxyModel, run: Run, lr_scales: dict[str, float]):
    variables, parts = model.trainable_variables, run.train.parts
    names = {variable.path: name for name, _, variable in models.weights(model)}
    rates = _Rates(run.settings["learning_rate"], run.settings["epochs"] * len(run.train) // parts, parts)
    optimizer = _AdamW(rates, [lr_scales.get(names.get(variable.path), 1.0) for variable in variables], parts)
    if keras.config.dtype_policy().compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def _seed_dropout(model: GalaxyModel, seed: int, epoch: int) -> None:
    """Whatever is random follows from the seed and the epoch, so a resumed run repeats an uninterrupted one."""
    if model.dropout.rate:
        state = model.dropout.seed_generator.state
        draw = np.random.SeedSequence([seed, epoch, 2, 0]).generate_state(1) >> 1
        state.assign(np.array([draw[0], 0], state.dtype))


def _join(devices: list[str]):
    return tf.distribute.MirroredStrategy(devices) if devices[1:] else tf.distribute.OneDeviceStrategy(devices[0])


def _connect_machines(num_nodes: int):
    resolvers = tf.distribute.cluster_resolver
    slurm = "SLURM_PROCID" in os.environ and "TF_CONFIG" not in os.environ
    resolver = resolvers.SlurmClusterResolver() if slurm else resolvers.TFConfigClusterResolver()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        raise ValueError(
            f"TensorFlow cannot connect {num_nodes} machines: {error}. It must do so before it computes anything, "
            "so also before a model is loaded. Put tf.distribute.MultiWorkerMirroredStrategy("
            f"tf.distribute.cluster_resolver.{type(resolver).__name__}()) at the top of your script."
        ) from None
