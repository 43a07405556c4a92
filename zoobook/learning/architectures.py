"""The encoders that both frameworks build, described so exactly that the same weights give the same features.

PyTorch takes them from timm, TensorFlow builds them from the tables here. Layers carry timm's names, so weight files
need no dictionary between the frameworks. What usually differs between libraries stands in each description:
the padding, the constants of batch normalisation, and where a ResNet makes its strides.
"""

from dataclasses import asdict, dataclass
from typing import Any

from zoobook import arguments
from zoobook.images.views import FIELD_OF_VIEW, check_radii


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind in a row, in an EfficientNet.

    Kinds: ``"plain"`` (a convolution), ``"separable"`` (depthwise, then 1 x 1), ``"inverted"`` (1 x 1 that widens,
    depthwise, 1 x 1 that narrows) and ``"edge"`` (a full convolution that widens, 1 x 1 that narrows).
    """

    kind: str
    repeats: int  # how many blocks
    kernel: int  # side of the convolution
    stride: int  # of the first block; the others have 1
    expansion: int  # by which factor a block widens its input
    channels: int  # of the output
    squeeze: float = 0.25  # channels of the squeeze-and-excitation as a share of the block's input; 0: it has none


@dataclass(frozen=True)
class EfficientNet:
    """An EfficientNet (Tan & Le 2019, ICML 97, 6105).

    Padding: ``"symmetric"`` (as in PyTorch: (kernel - 1) / 2 on each side) or ``"same"`` (as in TensorFlow: for an even
    image and stride 2, one pixel more on the right and below).
    """

    stem: int  # channels of the first convolution
    stages: tuple[Stage, ...]
    features: int  # channels of the last convolution
    padding: str = "symmetric"
    epsilon: float = 1e-5  # added to the variance in batch normalisation


@dataclass(frozen=True)
class ResNet:
    """A ResNet of bottleneck blocks (He et al. 2016, CVPR, 770)."""

    repeats: tuple[int, ...]  # blocks of each of the four stages
    stride_in: str = "3x3"  # which convolution has the stride: this in torchvision and timm, "1x1" in the paper
    padding: str = "symmetric"  # see EfficientNet
    epsilon: float = 1e-5

    @property
    def features(self) -> int:
        """Number of features."""
        return 2048


MOMENTUM = 0.1  # of the newest batch in the running statistics of batch normalisation; Keras counts the other way round

_B0 = (
    Stage("separable", 1, 3, 1, 1, 16),
    Stage("inverted", 2, 3, 2, 6, 24),
    Stage("inverted", 2, 5, 2, 6, 40),
    Stage("inverted", 3, 3, 2, 6, 80),
    Stage("inverted", 3, 5, 1, 6, 112),
    Stage("inverted", 4, 5, 2, 6, 192),
    Stage("inverted", 1, 3, 1, 6, 320),
)
_TINY = (
    Stage("plain", 1, 3, 1, 1, 16, 0),
    Stage("edge", 1, 3, 2, 4, 24, 0),
    Stage("edge", 1, 3, 2, 4, 32, 0),
    Stage("inverted", 1, 3, 2, 4, 48),
    Stage("inverted", 1, 3, 2, 4, 64),
)

BOTH: dict[str, EfficientNet | ResNet] = {
    "efficientnet_b0": EfficientNet(32, _B0, 1280),
    "tf_efficientnet_b0": EfficientNet(32, _B0, 1280, padding="same", epsilon=1e-3),
    "resnet50": ResNet((3, 4, 6, 3)),
    "resnet50_detectron": ResNet((3, 4, 6, 3), stride_in="1x1"),
    "test_efficientnet": EfficientNet(24, _TINY, 256),  # timm's, for tests
}


def describe(architecture: str, all_stages: bool = False) -> dict:
    """What another program must know, beside the tensors, to get the same features from a weight file: plain data."""
    about = {
        "input": "0 to 1 (a byte divided by 255), no further normalisation",
        "channel_order": "red, green, blue; with one channel their plain mean",
        "tensor_layout": "PyTorch: [out, in, height, width], [out, in]",
        "pooling": "mean over the last feature map"
        + all_stages * "; behind it, from the first to the last, those over the last map of each earlier resolution",
    }
    if architecture in BOTH:
        known = asdict(BOTH[architecture])
        about["padding"] = known["padding"]
        if "stride_in" in known:
            about["stride_in"] = known["stride_in"]
        about["batch_norm_epsilon"], about["batch_norm_momentum"] = known["epsilon"], MOMENTUM
    return about


def pass_through(add: Any, design: EfficientNet | ResNet, image: Any) -> list:
    """Follow an image through an encoder; what it has become before each halving of its size, and in the end.

    Args:
        add: has a method for each operation (see :class:`_Shapes`), which gets its name in timm and what it must know.
        design: of the encoder.
        image: what goes in.
    """
    return (_efficientnet if isinstance(design, EfficientNet) else _resnet)(add, design, image)


def _efficientnet(add, design: EfficientNet, x):
    x, maps = add.norm(add.convolve(x, "conv_stem", design.stem, 3, 2), "bn1", "silu"), []
    for s, stage in enumerate(design.stages):
        if stage.stride == 2:
            maps.append(x)
        for b in range(stage.repeats):
            name, before, width = f"blocks.{s}.{b}", x, add.width(x)
            stride = stage.stride if b == 0 else 1
            squeezed, wide = round(width * stage.squeeze), width * stage.expansion
            if stage.kind == "plain":
                x = add.convolve(x, f"{name}.conv", stage.channels, stage.kernel, stride)
                x = add.norm(x, f"{name}.bn1", "silu")
            elif stage.kind == "separable":
                x = add.norm(add.depthwise(x, f"{name}.conv_dw", stage.kernel, stride), f"{name}.bn1", "silu")
                x = add.squeeze_and_excite(x, f"{name}.se", squeezed)
                x = add.norm(add.convolve(x, f"{name}.conv_pw", stage.channels), f"{name}.bn2")
            elif stage.kind == "edge":
                x = add.convolve(x, f"{name}.conv_exp", wide, stage.kernel, stride)
                x = add.norm(x, f"{name}.bn1", "silu")
                x = add.norm(add.convolve(x, f"{name}.conv_pwl", stage.channels), f"{name}.bn2")
            else:
                x = add.norm(add.convolve(x, f"{name}.conv_pw", wide), f"{name}.bn1", "silu")
                x = add.norm(add.depthwise(x, f"{name}.conv_dw", stage.kernel, stride), f"{name}.bn2", "silu")
                x = add.squeeze_and_excite(x, f"{name}.se", squeezed)
                x = add.norm(add.convolve(x, f"{name}.conv_pwl", stage.channels), f"{name}.bn3")
            if stride == 1 and width == stage.channels:
                x = add.join(x, before)
    return [*maps, add.norm(add.convolve(x, "conv_head", design.features), "bn2", "silu")]


def _resnet(add, design: ResNet, x):
    maps = [add.norm(add.convolve(x, "conv1", 64, 7, 2), "bn1", "relu")]
    x = add.pool(maps[0])
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
            x = add.join(x, before, "relu")
        maps.append(x)
    return maps


def tensor_shapes(architecture: str, channels: int) -> dict[str, list[int]]:
    """Shapes of the weights of an encoder of :data:`BOTH`, by timm's names, in PyTorch's layout and in their order."""
    shapes = _Shapes()
    pass_through(shapes, BOTH[architecture], channels)
    return dict(shapes)


class _Shapes(dict):
    """Notes the tensors of each operation; of the images that pass, it knows only how many channels they have."""

    def convolve(self, x: int, name: str, channels: int, kernel: int = 1, stride: int = 1) -> int:
        self[f"{name}.weight"] = [channels, x, kernel, kernel]
        return channels

    def depthwise(self, x: int, name: str, kernel: int, stride: int) -> int:
        self[f"{name}.weight"] = [x, 1, kernel, kernel]
        return x

    def norm(self, x: int, name: str, activation: str | None = None, gamma: str = "ones") -> int:
        self.update({f"{name}.{tensor}": [x] for tensor in ("weight", "bias", "running_mean", "running_var")})
        return x

    def squeeze_and_excite(self, x: int, name: str, squeezed: int) -> int:
        self[f"{name}.conv_reduce.weight"], self[f"{name}.conv_reduce.bias"] = [squeezed, x, 1, 1], [squeezed]
        self[f"{name}.conv_expand.weight"], self[f"{name}.conv_expand.bias"] = [x, squeezed, 1, 1], [x]
        return x

    def join(self, x: int, *_: Any) -> int:
        return x

    pool = width = join


def whole_spec(spec: dict) -> dict:
    """A model's description as of today: earlier versions had only Zoobot's field of view, and said "number"."""
    head = spec.get("head")
    if head and head["kind"] == "number":
        spec = {**spec, "head": {**head, "kind": "regression"}}
    return {"field_of_view": FIELD_OF_VIEW, **spec}


def check_options(spec: dict) -> dict:
    """A model's description with its numbers as Python's own; a ``ValueError`` where it makes no encoder."""
    if isinstance(spec["channels"], bool) or spec["channels"] not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), not {spec['channels']!r}")
    if spec.get("all_stages", True) is not True:
        raise ValueError(f"all_stages of a model's description is true or left out, not {spec['all_stages']!r}")
    return {
        **spec,
        "channels": int(spec["channels"]),
        "image_size": arguments.whole("image_size", spec["image_size"], 16, 16384),
        "field_of_view": check_radii("field_of_view", spec["field_of_view"]),
        "dropout": arguments.real("dropout", spec["dropout"], lambda rate: 0 <= rate < 1, "from 0 to below 1"),
    }


def check_tensors(architecture: str, expected: dict[str, list[int]], arrays: dict) -> None:
    """Raise a ``ValueError`` that names up to four tensors which are missing, not the model's, or of another shape."""
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - arrays.keys())]
    wrong += [f"{name} is not one of its tensors" for name in sorted(arrays.keys() - expected.keys())]
    wrong += [
        f"{name} has the shape {list(arrays[name].shape)} instead of {expected[name]}"
        for name in sorted(expected.keys() & arrays.keys())
        if list(arrays[name].shape) != expected[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"the weights do not fit {architecture}: {'; '.join(wrong[:4])}{more}")
