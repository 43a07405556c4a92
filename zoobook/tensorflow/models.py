"""Encoder, dropout, head: the network that looks at a galaxy and answers."""
from __future__ import annotations

import contextlib
import difflib
import json
import random

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from zoobook.images.views import FIELD_OF_VIEW, check_radii
from zoobook.learning.architectures import (
    BOTH,
    MOMENTUM,
    EfficientNet,
    ResNet,
    check_options,
    check_tensors,
    whole_spec,
)
from zoobook.trees import DecisionTree
from zoobook.votes import HIGHEST, LOWEST


def build_model(
    tree: DecisionTree | None = None,
    architecture: str = "efficientnet_b0",
    channels: int = 1,
    dropout: float = 0.2,
    image_size: int = 224,
    field_of_view: float = FIELD_OF_VIEW,
) -> GalaxyModel:
    """Build a network, with random weights, that predicts the votes on a decision tree.

    As in Walmsley et al. 2022 (MNRAS 509, 3966): an encoder, dropout, and one Dirichlet concentration per answer,
    1 + 100 sigmoid(x).

    Args:
        tree: the decision tree; ``None`` gives the encoder alone, whose output are its features.
        architecture: a name of :data:`zoobook.learning.architectures.BOTH`, such as ``"efficientnet_b0"`` or ``"resnet50"``.
        channels: 1 for grey images (the mean of the colours), 3 for colour.
        dropout: share of the features that are left out at random while training.
        image_size: side of the images that the model sees, in pixels.
        field_of_view: the same in units of the galaxy's half-light radius R50. Zoobot sees 14.7 of the 17 of a stamp of
            GZ DECaLS.

    Returns:
        GalaxyModel: the network; it takes float images [N, image_size, image_size, channels] from 0 to 1.

    Raises:
        ValueError: an unknown architecture, or channels, dropout, image_size or field_of_view out of range.
    """
    return GalaxyModel(
        {
            "architecture": architecture,
            "channels": channels,
            "image_size": image_size,
            "field_of_view": check_radii("field_of_view", field_of_view),
            "dropout": dropout,
            "tree": tree.to_dict() if tree else None,
            "head": {"kind": "concentrations", "hidden": []} if tree else None,
        }
    )


class GalaxyModel(keras.Model):
    """An encoder, dropout, and a head.

    Args:
        spec: what the model is made of, as plain data: ``architecture``, ``channels``, ``image_size``,
            ``field_of_view``, ``dropout``, ``tree`` (a :class:`~zoobook.trees.DecisionTree` as a dictionary, or
            ``None``) and ``head`` (``None``, or ``kind``: ``"concentrations"``, ``"binary"``, ``"classes"``,
            ``"number"`` or ``"fraction"`` (a number from 0 to 1), and ``hidden``: widths of the dense layers before the
            output; classes and numbers bring what :mod:`zoobook.learning.tasks` notes of them).

    Attributes:
        spec: the same, kept with the weights so that a model can be built again.
        encoder: image → features.
        head: features → answer; ``None`` for an encoder alone.
        tree: the decision tree; ``None`` if the model answers something else.
        num_features: number of features of an image.
    """

    def __init__(self, spec: dict):
        super().__init__()
        spec = check_options(whole_spec(spec))
        self._spec = json.dumps(spec)  # as text, because Keras puts wrappers around dictionaries
        self.tree = DecisionTree.from_dict(spec["tree"]) if spec["tree"] else None
        self.encoder = _encoder(spec)
        self.num_features = BOTH[spec["architecture"]].features
        self.dropout = layers.Dropout(spec["dropout"])
        self.head = None
        if spec["head"]:
            outputs = len(self.tree.label_columns) if self.tree else len(spec["head"].get("classes", "1"))
            self.head = Head(spec["head"], self.num_features, outputs, spec["dropout"])
        self.built = True

    @property
    def spec(self) -> dict:
        """What the model is made of."""
        return json.loads(self._spec)

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """Pooled output of the encoder.

        Args:
            images: float [N, image_size, image_size, channels], from 0 to 1.

        Returns:
            Tensor: float32 [N, num_features].
        """
        return tf.cast(self.encoder(images), _precise())

    def raw(self, images: tf.Tensor) -> tf.Tensor:
        """What comes out of the head before :meth:`Head.answer`, for the loss."""
        return self.head(self.dropout(self.features(images)))

    def answer(self, features: tf.Tensor) -> tf.Tensor:
        """What the head says to features [N, num_features], see :meth:`Head.answer`."""
        return self.head.answer(self.head(self.dropout(features)))

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Answer images: concentrations [N, A], probabilities [N, C], a number [N, 1]; or features without a head."""
        features = self.features(images)
        return features if self.head is None else self.answer(features)


class Head(layers.Layer):
    """Dense layers on features, always in float32: concentrations reach 101, too fine a scale for 16 bits.

    Args:
        spec: the entry ``head`` of a model's ``spec``.
        features: number of features.
        outputs: number of outputs.
        dropout: share left out after each hidden layer.
    """

    def __init__(self, spec: dict, features: int, outputs: int, dropout: float):
        super().__init__(dtype=_precise())
        self._spec, dtype = json.dumps(spec), _precise()
        self.hidden: list[layers.Layer] = []
        if spec["hidden"]:  # features of a given encoder may have any scale
            self.hidden.append(
                layers.BatchNormalization(
                    center=False, scale=False, epsilon=1e-5, momentum=1 - MOMENTUM, dtype=dtype, name="hidden.0"
                )
            )
            self.hidden[0].build((None, features))
        for width in spec["hidden"]:
            at = len(self.hidden)  # the numbers that PyTorch gives them
            self.hidden += [
                _dense(f"hidden.{at}", features, width, dtype),
                layers.ReLU(dtype=dtype),
                layers.Dropout(dropout, dtype=dtype),
            ]
            features = width
        self.output_layer = _dense("output", features, 1 if spec["kind"] == "binary" else outputs, dtype)
        self.built = True

    @property
    def spec(self) -> dict:
        """The entry ``head`` of the model's ``spec``."""
        return json.loads(self._spec)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Raw outputs: logits, or a standardised number."""
        for layer in self.hidden:
            features = layer(features)
        return self.output_layer(features)

    def answer(self, raw: tf.Tensor) -> tf.Tensor:
        """From raw outputs to concentrations from 1 to 101, probabilities, or the number itself."""
        kind = self.spec["kind"]
        if kind == "concentrations":
            return LOWEST + (HIGHEST - LOWEST) * tf.sigmoid(raw)
        if kind in ("binary", "fraction"):
            return tf.sigmoid(raw)
        if kind == "classes":
            return tf.nn.softmax(raw)
        return self.spec["mean"] + self.spec["deviation"] * raw

    def start_from(self, constant: np.ndarray) -> None:
        """Make the untrained head answer much the same concentrations for every galaxy: what is known without looking.

        Args:
            constant: [A] concentrations, such as those of :func:`zoobook.votes.fit_constant`.
        """
        share = np.clip((constant - LOWEST) / (HIGHEST - LOWEST), 1e-3, 1 - 1e-3)
        self.output_layer.bias.assign(np.log(share / (1 - share)))
        self.output_layer.kernel.assign(0.1 * self.output_layer.kernel)


def to_arrays(model: GalaxyModel) -> dict[str, np.ndarray]:
    """A model's weights as plain arrays, named and laid out as in timm.

    Args:
        model: the model.

    Returns:
        dict: ``encoder.*`` and ``head.*``.
    """
    return {
        name: np.ascontiguousarray(_to_torch(layer, variable.numpy())) for name, layer, variable in _variables(model)
    }


def from_arrays(spec: dict, arrays: dict[str, np.ndarray]) -> GalaxyModel:
    """Build a model and give it weights.

    Args:
        spec: what the model is made of, see :class:`GalaxyModel`.
        arrays: its weights, as :func:`to_arrays` gives them.

    Returns:
        GalaxyModel: the model.

    Raises:
        ValueError: tensors are missing, superfluous or of the wrong shape.
    """
    with _first_weights_from(0):  # they are not wanted
        model = GalaxyModel(spec)
    set_arrays(model, arrays)
    return model


def set_arrays(model: GalaxyModel, arrays: dict[str, np.ndarray]) -> None:
    """Give a model weights.

    Args:
        model: the model.
        arrays: its weights, as :func:`to_arrays` gives them.

    Raises:
        ValueError: tensors are missing, superfluous or of the wrong shape.
    """
    expected = {name: list(array.shape) for name, array in to_arrays(model).items()}
    check_tensors(model.spec["architecture"], expected, arrays)
    for name, layer, variable in _variables(model):
        variable.assign(_from_torch(layer, arrays[name]))


def check_architecture(name: str) -> None:
    """Refuse what cannot be built.

    Args:
        name: of an architecture.

    Raises:
        ValueError: it is not one of :data:`zoobook.learning.architectures.BOTH`; the message names them.
    """
    if name not in BOTH:
        close = difflib.get_close_matches(str(name), BOTH, n=1)
        raise ValueError(
            f"there is no architecture {name!r} in TensorFlow. {f'Did you mean {close[0]!r}? ' if close else ''}"
            f"There are: {', '.join(BOTH)}. PyTorch has every one of timm's."
        )


@contextlib.contextmanager
def _first_weights_from(seed: int):
    """Keras draws the seeds of first weights from Python's random numbers; the caller's are left as they were."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


_TIMM_NAMES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_TO_TORCH = {layers.Conv2D: (3, 2, 0, 1), layers.DepthwiseConv2D: (2, 3, 0, 1), layers.Dense: (1, 0)}


def _variables(model: GalaxyModel):
    """Each weight of a model: its name in timm, its layer, its variable."""
    for layer in model.encoder.layers:
        for variable in layer.variables:
            yield f"encoder.{layer.name}.{_TIMM_NAMES[variable.name]}", layer, variable
    for layer in [*model.head.hidden, model.head.output_layer] if model.head else []:
        for variable in layer.variables:
            if variable.name in _TIMM_NAMES:  # not the state of a dropout's random numbers
                yield f"head.{layer.name}.{_TIMM_NAMES[variable.name]}", layer, variable


def _to_torch(layer: layers.Layer, array: np.ndarray) -> np.ndarray:
    return array.transpose(_TO_TORCH[type(layer)]) if array.ndim > 1 else array


def _from_torch(layer: layers.Layer, array: np.ndarray) -> np.ndarray:
    return array.transpose(np.argsort(_TO_TORCH[type(layer)])) if array.ndim > 1 else array


def _precise() -> str:
    """The type of features and answers: float32, or float64 where that is Keras' policy."""
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"


def _dense(name: str, features: int, width: int, dtype: str) -> layers.Dense:
    """A dense layer with PyTorch's first weights."""
    uniform = keras.initializers.RandomUniform(-(features**-0.5), features**-0.5)
    dense = layers.Dense(width, kernel_initializer=uniform, bias_initializer=uniform.clone(), dtype=dtype, name=name)
    dense.build((None, features))
    return dense


def _encoder(spec: dict) -> keras.Model:
    check_architecture(spec["architecture"])
    design = BOTH[spec["architecture"]]
    images = keras.Input((None, None, spec["channels"]), dtype=_precise())  # of any size, as in PyTorch
    build = _efficientnet if isinstance(design, EfficientNet) else _resnet
    return keras.Model(images, layers.GlobalAveragePooling2D()(build(_Layers(design), design, images)), name="encoder")


class _FusedBatchNorm(layers.BatchNormalization):
    """Batch normalisation of images in TensorFlow's one kernel for it, which Keras does not use: a step takes 0.8 of
    the time. As in PyTorch, the running variance is the unbiased estimate, divided by N - 1."""

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
    """Adds layers under timm's names, with timm's first weights."""

    def __init__(self, design: EfficientNet | ResNet):
        self.design = design

    def convolve(self, x, name: str, channels: int, kernel: int = 1, stride: int = 1, bias: bool = False):
        pad, x = self._pad(x, kernel, stride)
        return layers.Conv2D(
            channels, kernel, stride, pad, use_bias=bias, kernel_initializer=_fan_out(), name=name
        )(x)  # fmt: skip

    def depthwise(self, x, name: str, kernel: int, stride: int):
        pad, x = self._pad(x, kernel, stride)
        return layers.DepthwiseConv2D(
            kernel, stride, pad, use_bias=False, depthwise_initializer=_fan_out(), name=name
        )(x)  # fmt: skip

    def norm(self, x, name: str, activation: str | None = None, gamma: str = "ones"):
        x = _FusedBatchNorm(epsilon=self.design.epsilon, momentum=1 - MOMENTUM, gamma_initializer=gamma, name=name)(x)
        return layers.Activation(activation)(x) if activation else x

    def pool(self, x):
        pad, x = self._pad(x, 3, 2)  # of numbers that are not negative, so a border of zeros never wins
        return layers.MaxPooling2D(3, 2, pad)(x)

    def squeeze_and_excite(self, x, name: str, channels: int):
        weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
        weight = layers.Activation("silu")(self.convolve(weight, f"{name}.conv_reduce", channels, bias=True))
        weight = self.convolve(weight, f"{name}.conv_expand", x.shape[-1], bias=True)
        return layers.Multiply()([x, layers.Activation("sigmoid")(weight)])

    def _pad(self, x, kernel: int, stride: int):
        if kernel == 1 or stride == 1 or self.design.padding == "same":  # with stride 1 both paddings are the same
            return "same", x
        return "valid", layers.ZeroPadding2D((kernel - 1) // 2)(x)


def _fan_out():
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _efficientnet(add: _Layers, design: EfficientNet, x):
    x = add.norm(add.convolve(x, "conv_stem", design.stem, 3, 2), "bn1", "silu")
    for s, stage in enumerate(design.stages):
        for b in range(stage.repeats):
            name, before, width = f"blocks.{s}.{b}", x, x.shape[-1]
            stride = stage.stride if b == 0 else 1
            squeezed = round(width * stage.squeeze)
            if stage.kind == "plain":
                x = add.convolve(x, f"{name}.conv", stage.channels, stage.kernel, stride)
                x = add.norm(x, f"{name}.bn1", "silu")
            elif stage.kind == "separable":
                x = add.norm(add.depthwise(x, f"{name}.conv_dw", stage.kernel, stride), f"{name}.bn1", "silu")
                x = add.squeeze_and_excite(x, f"{name}.se", squeezed)
                x = add.norm(add.convolve(x, f"{name}.conv_pw", stage.channels), f"{name}.bn2")
            elif stage.kind == "edge":
                wide = add.convolve(x, f"{name}.conv_exp", width * stage.expansion, stage.kernel, stride)
                x = add.norm(wide, f"{name}.bn1", "silu")
                x = add.norm(add.convolve(x, f"{name}.conv_pwl", stage.channels), f"{name}.bn2")
            else:
                x = add.norm(add.convolve(x, f"{name}.conv_pw", width * stage.expansion), f"{name}.bn1", "silu")
                x = add.norm(add.depthwise(x, f"{name}.conv_dw", stage.kernel, stride), f"{name}.bn2", "silu")
                x = add.squeeze_and_excite(x, f"{name}.se", squeezed)
                x = add.norm(add.convolve(x, f"{name}.conv_pwl", stage.channels), f"{name}.bn3")
            if stride == 1 and width == stage.channels:
                x = layers.Add()([x, before])
    return add.norm(add.convolve(x, "conv_head", design.features), "bn2", "silu")


def _resnet(add: _Layers, design: ResNet, x):
    x = add.pool(add.norm(add.convolve(x, "conv1", 64, 7, 2), "bn1", "relu"))
    for s, repeats in enumerate(design.repeats):
        for b in range(repeats):
            name, before, width = f"layer{s + 1}.{b}", x, 64 * 2**s
            stride = 2 if b == 0 and s > 0 else 1
            first, second = (stride, 1) if design.stride_in == "1x1" else (1, stride)
            x = add.norm(add.convolve(x, f"{name}.conv1", width, 1, first), f"{name}.bn1", "relu")
            x = add.norm(add.convolve(x, f"{name}.conv2", width, 3, second), f"{name}.bn2", "relu")
            x = add.norm(add.convolve(x, f"{name}.conv3", 4 * width), f"{name}.bn3", gamma="zeros")
            if b == 0:
                shortcut = add.convolve(before, f"{name}.downsample.0", 4 * width, 1, stride)
                before = add.norm(shortcut, f"{name}.downsample.1")
            x = layers.Activation("relu")(layers.Add()([x, before]))
    return x
