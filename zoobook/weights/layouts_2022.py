"""The four layouts of the seven weight files that Zoobot published in 2022, for GZ DECaLS.

Such a file says nothing but names and numbers. Each layout says what timm's names of the tensors are called in it;
that the shapes fit tells whether it is what it seems.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from zoobook import trees
from zoobook.learning import architectures

_KERAS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class Layout(NamedTuple):
    """How one of the original programs named its tensors."""

    mark: str  # regular expression of what the names of its encoder's tensors begin with
    architecture: str
    rename: Callable[[str, str], str]  # of timm's layer and tensor, such as "blocks.0.0.conv_dw" and "weight"
    head: tuple[str, str] = ("model.2.0.weight", "model.2.0.bias")
    order: Callable[[str, int], tuple[int, ...]] = lambda name, axes: tuple(range(axes))  # of its axes


def layout_of(names: list[str]) -> Layout | None:
    """Which layout a file with tensors of these names has; nothing where it has none of them."""
    return next((layout for layout in LAYOUTS if any(re.match(layout.mark, name) for name in names)), None)


def read_layout(layout: Layout, tensors: dict[str, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
    """The channels of a model's images, and its weights with zoobook's names and PyTorch's order of axes."""
    answers, features = len(trees.load("decals_dr5").label_columns), architectures.BOTH[layout.architecture].features
    first = next(iter(architectures.tensor_shapes(layout.architecture, 1)))
    stem = tensors.get(layout.rename(*first.rsplit(".", 1)))
    channels = stem.shape[layout.order(first, 4)[1]] if stem is not None and stem.ndim == 4 else 1
    shapes, filed = {}, {}
    for name, shape in architectures.tensor_shapes(layout.architecture, channels).items():
        shapes[f"encoder.{name}"], filed[f"encoder.{name}"] = shape, layout.rename(*name.rsplit(".", 1))
    shapes |= {"head.output.weight": [answers, features], "head.output.bias": [answers]}
    filed |= zip(("head.output.weight", "head.output.bias"), layout.head, strict=True)
    order = {name: layout.order(name, len(shape)) for name, shape in shapes.items()}
    expected = {filed[name]: [shape[axis] for axis in np.argsort(order[name])] for name, shape in shapes.items()}
    architectures.check_tensors(layout.architecture, expected, tensors)
    return channels, {name: tensors[filed[name]].transpose(order[name]) for name in shapes}


def _torchvision_efficientnet(layer: str, tensor: str) -> str:
    outer = {"conv_stem": "0.0", "bn1": "0.1", "conv_head": "8.0", "bn2": "8.1"}
    if layer in outer:
        return f"model.0.features.{outer[layer]}.{tensor}"
    _, stage, block, layer = layer.split(".", 3)
    if stage == "0":
        inner = {"conv_dw": "0.0", "bn1": "0.1", "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0",
                 "bn2": "2.1"}  # fmt: skip
    else:
        inner = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "se.conv_reduce": "2.fc1",
                 "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"}  # fmt: skip
    return f"model.0.features.{int(stage) + 1}.{block}.block.{inner[layer]}.{tensor}"


def _torchvision_resnet(layer: str, tensor: str) -> str:
    layer = {"conv1": "0", "bn1": "1"}.get(layer, layer)
    return "model.0." + re.sub(r"^layer(\d)", lambda found: str(int(found[1]) + 3), layer) + f".{tensor}"


def _detectron_resnet(layer: str, tensor: str) -> str:
    layer = re.sub(r"^(conv1|bn1)$", r"stem.\1", layer)
    layer = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", layer)
    layer = layer.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return "model.0.0." + re.sub(r"bn(\d)$", r"conv\1.norm", layer) + f".{tensor}"


def _keras_efficientnet(layer: str, tensor: str) -> str:
    """As in a TensorFlow checkpoint, which numbers the layers as they follow one another."""
    if re.search(r"bn\d$", layer):
        tensor = _KERAS[tensor]
    elif tensor == "weight":
        tensor = "depthwise_kernel" if layer.endswith("conv_dw") else "kernel"
    return _keras_variable(f"0/layer_with_weights-0/layer_with_weights-{_keras_numbers()[layer]}/{tensor}")


def _keras_variable(name: str) -> str:
    return f"layer_with_weights-{name}/.ATTRIBUTES/VARIABLE_VALUE"


@cache
def _keras_numbers() -> dict[str, int]:
    layers = dict.fromkeys(name.rsplit(".", 1)[0] for name in architectures.tensor_shapes("tf_efficientnet_b0", 1))
    return {layer: number for number, layer in enumerate(layers)}


def _keras_order(name: str, axes: int) -> tuple[int, ...]:
    if axes == 4:
        return (2, 3, 0, 1) if name.endswith("conv_dw.weight") else (3, 2, 0, 1)
    return (1, 0) if axes == 2 else (0,)


LAYOUTS = (
    Layout(r"model\.0\.features\.", "efficientnet_b0", _torchvision_efficientnet),
    Layout(r"model\.0\.0\.(stem|res\d)\.", "resnet50_detectron", _detectron_resnet),
    Layout(r"model\.0\.(0\.weight|[14567]\.)", "resnet50", _torchvision_resnet),
    Layout("layer_with_weights-", "tf_efficientnet_b0", _keras_efficientnet,
           (_keras_variable("1/kernel"), _keras_variable("1/bias")), _keras_order),
)  # fmt: skip
