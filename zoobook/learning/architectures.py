"""The encoders that both frameworks build, described so exactly that the same weights give the same features.

PyTorch takes them from timm, TensorFlow builds them from the tables here. Layers carry timm's names, so weight files
need no dictionary between the frameworks. What usually differs between libraries stands in each description:
the padding, the constants of batch normalisation, and where a ResNet makes its strides.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass

from zoobook import arguments
from zoobook.images.views import FIELD_OF_VIEW, check_radii


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind in a row, in an EfficientNet.

    Attributes:
        kind: ``"plain"`` (a convolution), ``"separable"`` (depthwise, then 1 x 1), ``"inverted"`` (1 x 1 that widens,
            depthwise, 1 x 1 that narrows) or ``"edge"`` (a full convolution that widens, 1 x 1 that narrows).
        repeats: how many blocks.
        kernel: side of the convolution.
        stride: of the first block; the others have 1.
        expansion: by which factor a block widens its input.
        channels: of the output.
        squeeze: channels of the squeeze-and-excitation as a share of the block's input; 0: it has none.
    """

    kind: str
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int
    squeeze: float = 0.25


@dataclass(frozen=True)
class EfficientNet:
    """An EfficientNet (Tan & Le 2019, ICML 97, 6105).

    Attributes:
        stem: channels of the first convolution.
        stages: what follows.
        features: channels of the last convolution, hence the number of features.
        padding: ``"symmetric"`` (as in PyTorch: (kernel - 1) / 2 on each side) or ``"same"`` (as in TensorFlow: for an
            even image and stride 2, one pixel more on the right and below).
        epsilon: added to the variance in batch normalisation.
    """

    stem: int
    stages: tuple[Stage, ...]
    features: int
    padding: str = "symmetric"
    epsilon: float = 1e-5


@dataclass(frozen=True)
class ResNet:
    """A ResNet of bottleneck blocks (He et al. 2016, CVPR, 770).

    Attributes:
        repeats: blocks of each of the four stages.
        stride_in: which convolution of a stage's first block makes the stride: ``"3x3"`` (torchvision, timm) or
            ``"1x1"`` (the paper, detectron2).
        padding: as for :class:`EfficientNet`.
        epsilon: as for :class:`EfficientNet`.
    """

    repeats: tuple[int, ...]
    stride_in: str = "3x3"
    padding: str = "symmetric"
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


def describe(architecture: str) -> dict:
    """What another program must know, beside the tensors, to get the same features from a weight file.

    Args:
        architecture: name of the encoder.

    Returns:
        dict: plain data: ``input``, ``channel_order``, ``tensor_layout``, ``pooling``, and for an encoder of
            :data:`BOTH` its ``padding``, ``stride_in`` (ResNets), ``batch_norm_epsilon`` and ``batch_norm_momentum``.
    """
    about = {
        "input": "0 to 1 (a byte divided by 255), no further normalisation",
        "channel_order": "red, green, blue; with one channel their plain mean",
        "tensor_layout": "PyTorch: [out, in, height, width], [out, in]",
        "pooling": "mean over the last feature map",
    }
    if architecture in BOTH:
        known = asdict(BOTH[architecture])
        about["padding"] = known["padding"]
        if "stride_in" in known:
            about["stride_in"] = known["stride_in"]
        about["batch_norm_epsilon"], about["batch_norm_momentum"] = known["epsilon"], MOMENTUM
    return about


def tensor_shapes(architecture: str, channels: int) -> dict[str, list[int]]:
    """The tensors of an encoder's weights, in the order in which an image passes them.

    Args:
        architecture: a name of :data:`BOTH`.
        channels: of the images.

    Returns:
        dict: the shape of each tensor, in PyTorch's layout, by timm's name.
    """
    design, shapes = BOTH[architecture], _Shapes()
    if isinstance(design, EfficientNet):
        shapes.efficientnet(design, channels)
    else:
        shapes.resnet(design, channels)
    return shapes


class _Shapes(dict):
    """Collects the tensors of one layer after the other."""

    def convolution(self, name: str, norm: str, out: int, into: int, kernel: int = 1) -> None:
        self[f"{name}.weight"] = [out, into, kernel, kernel]
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            self[f"{norm}.{tensor}"] = [out]

    def squeeze_and_excite(self, name: str, width: int, squeezed: int) -> None:
        self[f"{name}.conv_reduce.weight"], self[f"{name}.conv_reduce.bias"] = [squeezed, width, 1, 1], [squeezed]
        self[f"{name}.conv_expand.weight"], self[f"{name}.conv_expand.bias"] = [width, squeezed, 1, 1], [width]

    def efficientnet(self, design: EfficientNet, channels: int) -> None:
        self.convolution("conv_stem", "bn1", design.stem, channels, 3)
        width = design.stem
        for s, stage in enumerate(design.stages):
            for b in range(stage.repeats):
                self.block(f"blocks.{s}.{b}.", stage, width)
                width = stage.channels
        self.convolution("conv_head", "bn2", design.features, width)

    def block(self, name: str, stage: Stage, width: int) -> None:
        wide, squeezed = width * stage.expansion, round(width * stage.squeeze)
        if stage.kind == "plain":
            self.convolution(f"{name}conv", f"{name}bn1", stage.channels, width, stage.kernel)
        elif stage.kind == "separable":
            self.convolution(f"{name}conv_dw", f"{name}bn1", width, 1, stage.kernel)
            self.squeeze_and_excite(f"{name}se", width, squeezed)
            self.convolution(f"{name}conv_pw", f"{name}bn2", stage.channels, width)
        elif stage.kind == "edge":
            self.convolution(f"{name}conv_exp", f"{name}bn1", wide, width, stage.kernel)
            self.convolution(f"{name}conv_pwl", f"{name}bn2", stage.channels, wide)
        else:
            self.convolution(f"{name}conv_pw", f"{name}bn1", wide, width)
            self.convolution(f"{name}conv_dw", f"{name}bn2", wide, 1, stage.kernel)
            self.squeeze_and_excite(f"{name}se", wide, squeezed)
            self.convolution(f"{name}conv_pwl", f"{name}bn3", stage.channels, wide)

    def resnet(self, design: ResNet, channels: int) -> None:
        self.convolution("conv1", "bn1", 64, channels, 7)
        width = 64
        for s, repeats in enumerate(design.repeats):
            inner = 64 * 2**s
            for b in range(repeats):
                name = f"layer{s + 1}.{b}."
                self.convolution(f"{name}conv1", f"{name}bn1", inner, width)
                self.convolution(f"{name}conv2", f"{name}bn2", inner, inner, 3)
                self.convolution(f"{name}conv3", f"{name}bn3", 4 * inner, inner)
                if b == 0:
                    self.convolution(f"{name}downsample.0", f"{name}downsample.1", 4 * inner, width)
                width = 4 * inner


def whole_spec(spec: dict) -> dict:
    """A model's description with what earlier versions did not write: ``field_of_view``, which was Zoobot's then.

    Args:
        spec: see ``zoobook.pytorch.models.GalaxyModel``.
    """
    return {"field_of_view": FIELD_OF_VIEW, **spec}


def check_options(spec: dict) -> dict:
    """Refuse what no encoder can be built with.

    Args:
        spec: a model's description, see ``zoobook.pytorch.models.GalaxyModel``.

    Returns:
        dict: the same, its numbers as Python's own.

    Raises:
        ValueError: ``channels``, ``dropout``, ``image_size`` or ``field_of_view`` is out of range.
    """
    if spec["channels"] not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), not {spec['channels']!r}")
    return {
        **spec,
        "channels": int(spec["channels"]),
        "image_size": arguments.whole("image_size", spec["image_size"], 16),
        "field_of_view": check_radii("field_of_view", spec["field_of_view"]),
        "dropout": arguments.real("dropout", spec["dropout"], lambda rate: 0 <= rate < 1, "from 0 to below 1"),
    }


def check_tensors(architecture: str, expected: dict[str, list[int]], arrays: dict) -> None:
    """Refuse weights that are not those of a model.

    Args:
        architecture: name of the model's encoder, for the message.
        expected: shape of each tensor by name.
        arrays: the weights by name.

    Raises:
        ValueError: tensors are missing, superfluous or of another shape; the message names up to four.
    """
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - arrays.keys())]
    wrong += [f"{name} is superfluous" for name in sorted(arrays.keys() - expected.keys())]
    wrong += [
        f"{name} has the shape {list(arrays[name].shape)} instead of {expected[name]}"
        for name in sorted(expected.keys() & arrays.keys())
        if list(arrays[name].shape) != expected[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"the weights do not fit {architecture}: {'; '.join(wrong[:4])}{more}")
