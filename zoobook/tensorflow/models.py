"""From stored images to answers, in TensorFlow: what the network sees, the network, and its weights as arrays."""

import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from zoobook.arguments import did_you_mean
from zoobook.images.views import CENTRE, SKY, noise_pool, shrinking, sky_rank, sky_step
from zoobook.images.views import apply_view as apply_view_on_cores
from zoobook.learning.architectures import BOTH, MOMENTUM, EfficientNet, ResNet, pass_through
from zoobook.learning.models import GalaxyNetwork, temporarily
from zoobook.tensorflow.losses import LOSSES

DTYPE = "float32"  # of weights and features, whatever the user's policy is


def known_defaults(policy: str | None = None) -> AbstractContextManager:
    config = keras.config
    return temporarily(
        (config.floatx, config.set_floatx, DTYPE),
        (config.image_data_format, config.set_image_data_format, "channels_last"),
        (config.dtype_policy, config.set_dtype_policy, policy or DTYPE),
    )


class Head(layers.Layer):
    """Dense layers, from as many features as the first of the widths to as many outputs as the last."""

    def __init__(self, widths: list[int], dropout: float):
        super().__init__(dtype=DTYPE)
        self.hidden: list[layers.Layer] = []
        if len(widths) > 2:  # features of a given encoder may have any scale
            norm = layers.BatchNormalization(
                center=False, scale=False, epsilon=1e-5, momentum=1 - MOMENTUM, dtype=DTYPE, name="hidden.0"
            )
            norm.build((None, widths[0]))
            self.hidden.append(norm)
        *pairs, last = pairwise(widths)
        for pair in pairs:
            dense = _dense(f"hidden.{len(self.hidden)}", *pair)  # the numbers that PyTorch gives them
            self.hidden += [dense, layers.ReLU(dtype=DTYPE), layers.Dropout(dropout, dtype=DTYPE)]
        self.output_layer = _dense("output", *last)
        self.built = True

    def call(self, features: tf.Tensor) -> tf.Tensor:
        for layer in self.hidden:
            features = layer(features)
        return self.output_layer(features)


def _dense(name: str, features: int, width: int) -> layers.Dense:
    """A dense layer with PyTorch's first weights."""
    uniform = keras.initializers.RandomUniform(-(features**-0.5), features**-0.5)
    dense = layers.Dense(width, kernel_initializer=uniform, bias_initializer=uniform.clone(), dtype=DTYPE, name=name)
    dense.build((None, features))
    return dense


class GalaxyModel(GalaxyNetwork, keras.Model):
    """An encoder, dropout, and a head; images are [N, image_size, image_size, channels]."""

    ACTIVATIONS = {"sigmoid": tf.sigmoid, "softmax": tf.nn.softmax, "linear": tf.identity}

    LOSSES, Dropout, Head = LOSSES, layers.Dropout, Head

    def __init__(self, spec: dict):
        super().__init__(spec)
        self.built = True

    def build_encoder(self, spec: dict) -> tuple[keras.Model, int]:
        check_architecture(spec["architecture"])
        design = BOTH[spec["architecture"]]
        images = keras.Input((None, None, spec["channels"]), dtype=DTYPE)  # of any size, as in PyTorch
        *earlier, last = (layers.GlobalAveragePooling2D()(x) for x in pass_through(_Layers(design), design, images))
        pooled = layers.Concatenate()([last, *earlier]) if "all_stages" in spec else last
        return keras.Model(images, pooled, name="encoder"), pooled.shape[-1]

    def features(self, images: tf.Tensor) -> tf.Tensor:
        pooled = self.encoder(images)
        return pooled if pooled.dtype == tf.float64 else tf.cast(pooled, tf.float32)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.answer(images)

    def to_arrays(self) -> dict[str, np.ndarray]:
        found = {name: _transposed(layer, variable.numpy()) for name, layer, variable in weights(self)}
        return {name: np.ascontiguousarray(array) for name, array in found.items()}

    def _assign(self, arrays: dict[str, np.ndarray]) -> None:
        for name, layer, variable in weights(self):
            variable.assign(_transposed(layer, arrays[name], back=True))


to_arrays = GalaxyModel.to_arrays


def from_arrays(spec: dict, arrays: dict[str, np.ndarray]) -> GalaxyModel:
    with first_weights_from(0), known_defaults():  # these are not wanted
        return GalaxyModel(spec).set_arrays(arrays)


def check_architecture(name: str) -> None:
    if name not in BOTH:
        hint = f"{did_you_mean(name, BOTH)} There are: {', '.join(BOTH)}. PyTorch has every one of timm's."
        raise ValueError(f"there is no architecture {name!r} in TensorFlow.{hint}")


def first_weights_from(seed: int) -> AbstractContextManager:
    """Keras draws the seeds of first weights from Python's random numbers; the caller's are left as they were."""
    return temporarily((random.getstate, random.setstate, random.Random(seed).getstate()))


_TIMM_NAMES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_TO_TORCH = {layers.Conv2D: (3, 2, 0, 1), layers.DepthwiseConv2D: (2, 3, 0, 1), layers.Dense: (1, 0)}


def weights(model: GalaxyModel) -> Iterator[tuple]:
    """Each weight of a model: its name in timm, its layer, its variable."""
    for layer in model.encoder.layers:
        for variable in layer.variables:
            yield f"encoder.{layer.name}.{_TIMM_NAMES[variable.name]}", layer, variable
    for layer in [*model.head.hidden, model.head.output_layer] if model.head else []:
        for variable in layer.variables:
            if variable.name in _TIMM_NAMES:  # not the state of a dropout's random numbers
                yield f"head.{layer.name}.{_TIMM_NAMES[variable.name]}", layer, variable


def _transposed(layer: layers.Layer, array: np.ndarray, back: bool = False) -> np.ndarray:
    """From Keras' layout to PyTorch's, or back."""
    if array.ndim < 2:
        return array
    axes = _TO_TORCH[type(layer)]
    return array.transpose(np.argsort(axes) if back else axes)


def stages(model: GalaxyModel) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    last = "stem"
    for name, layer, variable in weights(model):
        if name.startswith("encoder.") and not variable.name.startswith("moving"):
            block = re.match(r"blocks\.\d+|layer\d+", layer.name)
            last = block[0] if block else last  # layers after the last block belong to its stage
            found.setdefault(last, []).append(name)
    return list(found.values())


def freeze(model: GalaxyModel, names: set[str]) -> None:
    for name, layer, _ in weights(model):
        if name in names:
            layer.trainable = False


def initialize_batchnorm_stats(model: GalaxyModel, images: tf.Tensor) -> bool:
    norms = [layer for layer in model.encoder.layers if isinstance(layer, layers.BatchNormalization)]
    fresh = [layer for layer in norms if not np.any(layer.moving_mean)]
    for layer in fresh:
        layer.momentum = 0.0
    if fresh:
        model.encoder(images, training=True)
    for layer in fresh:
        layer.momentum = 1 - MOMENTUM
    return bool(fresh)


class _FusedBatchNorm(layers.BatchNormalization):
    """Batch normalisation in TensorFlow's one kernel for it, which Keras does not use: a step takes 0.8 of the time.

    As in PyTorch, the running variance is the unbiased estimate, divided by N - 1.
    """

    def call(self, inputs, training=None, mask=None):
        if inputs.dtype == tf.float64:  # there is no kernel
            return super().call(inputs, training=training)
        training = bool(training and self.trainable)
        running = self.moving_mean, self.moving_variance
        normalised, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, epsilon=self.epsilon, is_training=training,
            mean=[] if training else running[0], variance=[] if training else running[1],
        )  # fmt: skip
        if training:
            for kept, new in zip(running, (mean, variance), strict=True):
                kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return normalised


class _Layers:
    """Adds layers under timm's names, with timm's first weights, for ``pass_through``."""

    def __init__(self, design: EfficientNet | ResNet):
        self.design = design
        self.random = lambda: keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")

    def convolve(self, x, name: str, channels: int, kernel: int = 1, stride: int = 1, bias: bool = False):
        pad, x = self._pad(x, kernel, stride)
        return layers.Conv2D(
            channels, kernel, stride, pad, use_bias=bias, kernel_initializer=self.random(), name=name
        )(x)  # fmt: skip

    def depthwise(self, x, name: str, kernel: int, stride: int):
        pad, x = self._pad(x, kernel, stride)
        return layers.DepthwiseConv2D(
            kernel, stride, pad, use_bias=False, depthwise_initializer=self.random(), name=name
        )(x)  # fmt: skip

    def norm(self, x, name: str, activation: str | None = None, gamma: str = "ones"):
        x = _FusedBatchNorm(epsilon=self.design.epsilon, momentum=1 - MOMENTUM, gamma_initializer=gamma, name=name)(x)
        return layers.Activation(activation)(x) if activation else x

    def pool(self, x):
        pad, x = self._pad(x, 3, 2)  # of numbers that are not negative, so a border of zeros never wins
        return layers.MaxPooling2D(3, 2, pad)(x)

    def squeeze_and_excite(self, x, name: str, squeezed: int):
        weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
        weight = layers.Activation("silu")(self.convolve(weight, f"{name}.conv_reduce", squeezed, bias=True))
        weight = self.convolve(weight, f"{name}.conv_expand", x.shape[-1], bias=True)
        return layers.Multiply()([x, layers.Activation("sigmoid")(weight)])

    def join(self, x, before, activation: str | None = None):
        x = layers.Add()([x, before])
        return layers.Activation(activation)(x) if activation else x

    def width(self, x) -> int:
        return x.shape[-1]

    def _pad(self, x, kernel: int, stride: int):
        if kernel == 1 or stride == 1 or self.design.padding == "same":  # with stride 1 both paddings are the same
            return "same", x
        return "valid", layers.ZeroPadding2D((kernel - 1) // 2)(x)


def apply_view(
    images: tf.Tensor, views: tf.Tensor, channels: int, image_size: int, share: float = CENTRE
) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if tf.config.list_physical_devices("GPU"):
        return _resample(images, views, channels, image_size, share)

    on_cores = partial(apply_view_on_cores, channels=channels, image_size=image_size, share=share)
    seen = tf.numpy_function(on_cores, [images, views], tf.float32)
    return tf.ensure_shape(seen, [images.shape[0], image_size, image_size, channels])


def _resample(images: tf.Tensor, views: tf.Tensor, channels: int, image_size: int, share: float) -> tf.Tensor:
    """The same, all images at once, as a GPU likes it."""
    stored = images.shape[1]
    factor, side, margin = shrinking(stored, image_size, share)
    kept = slice(margin, margin + side * factor)
    sky = tf.cast(tf.concat([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1), tf.float32)
    sky = tf.sort(sky, 1)[:, None, None, sky_rank(sky.shape[1])]
    seen = tf.cast(images[:, kept, kept], tf.float32)
    if channels == 1:
        seen, sky = tf.reduce_mean(seen, 3, keepdims=True), tf.reduce_mean(sky, 3, keepdims=True)
    if factor > 1:
        seen = tf.nn.avg_pool2d(seen, factor, factor, "VALID")
    seen = tf.raw_ops.ImageProjectiveTransformV3(
        images=seen - sky,
        transforms=_pixel_maps(views[:, :2], stored, factor, margin, image_size),
        output_shape=[image_size, image_size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    seen = (seen + sky) / 255
    return seen if views.shape[1] == 2 else _through_other_telescopes(seen, views[:, 2:])


def _pixel_maps(views: tf.Tensor, stored: int, factor: int, margin: int, wanted: int) -> tf.Tensor:
    """Views, whose coordinates run from -1 to 1, as maps [N, 8] between pixels counted from 0."""
    views = tf.cast(views, tf.float64)
    linear = views[:, :, :2] * (stored / wanted / factor)
    corner = tf.reduce_sum(views[:, :, :2], axis=2) * (1 / wanted - 1) + views[:, :, 2]
    shift = ((corner + 1) * stored / 2 - margin) / factor - 0.5
    rows = tf.reshape(tf.concat([linear, shift[:, :, None]], axis=2), [-1, 6])
    return tf.cast(tf.pad(rows, [[0, 0], [0, 2]]), tf.float32)


def _through_other_telescopes(seen: tf.Tensor, how: tf.Tensor) -> tf.Tensor:
    """Views [N, S, S, C] with other seeing, sky, stretch, brightness and noise, see :func:`.views.views`."""
    size, channels = seen.shape[2:]
    sigma, taken, gamma, brightness, deviation, start = tf.unstack(tf.reshape(how[:, :2], [-1, 6, 1, 1, 1]), axis=1)
    # A blur whose edges mirror the view, as the product with a matrix for each axis
    here, there = np.arange(size)[:, None], np.arange(size)
    steps = np.stack([here - there, here + there + 1, 2 * size - 1 - here - there])
    kernel = tf.exp(-0.5 * (steps.astype(np.float32) / tf.maximum(sigma * size / 64, 0.05)) ** 2)
    kernel = tf.reduce_sum(kernel, 1)
    kernel = kernel / tf.reduce_sum(kernel, 2, keepdims=True)
    seen = tf.einsum("nij,njkc->nikc", kernel, seen)
    seen = tf.einsum("nkj,nijc->nikc", kernel, seen)
    values, step = size * size * channels, sky_step(size)
    some = tf.reshape(seen, [-1, size * size, channels])[:, ::step]
    some = tf.reshape(some, [-1, some.shape[1] * channels])
    sky = tf.sort(some, 1)[:, sky_rank(some.shape[1], SKY), None, None, None]
    seen = tf.maximum(seen - taken * sky, 0) ** gamma * brightness
    if channels == 3:
        seen *= how[:, 2, None, None]
    pool = noise_pool(values)
    begin = tf.cast(tf.reshape(start, [-1, 1]) * (len(pool) - values), tf.int32)
    noise = tf.gather(tf.constant(pool), begin + np.arange(values, dtype=np.int32))
    return tf.clip_by_value(seen + deviation * tf.reshape(noise, [-1, size, size, channels]), 0, 1)
