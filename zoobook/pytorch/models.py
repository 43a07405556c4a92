"""Encoder, dropout, head: the network that looks at a galaxy and answers."""
from __future__ import annotations

import difflib

import numpy as np
import timm
import torch
from torch import nn

from zoobook.images.views import FIELD_OF_VIEW, check_radii
from zoobook.learning.architectures import BOTH, ResNet, check_options, check_tensors, whole_spec
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
        architecture: any name that timm knows, such as ``"efficientnet_b0"`` or ``"resnet50"``, or one of
            :data:`zoobook.learning.architectures.BOTH`.
        channels: 1 for grey images (the mean of the colours), 3 for colour.
        dropout: share of the features that are left out at random while training.
        image_size: side of the images that the model sees, in pixels.
        field_of_view: the same in units of the galaxy's half-light radius R50. Zoobot sees 14.7 of the 17 of a stamp of
            GZ DECaLS.

    Returns:
        GalaxyModel: the network; it takes float images [N, channels, image_size, image_size] from 0 to 1.

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


class GalaxyModel(nn.Module):
    """An encoder of timm, dropout, and a head.

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
        self.spec = spec = check_options(whole_spec(spec))
        self.tree = DecisionTree.from_dict(spec["tree"]) if spec["tree"] else None
        self.encoder = _encoder(spec)
        self.num_features = getattr(self.encoder, "head_hidden_size", None) or self.encoder.num_features
        self.dropout = nn.Dropout(spec["dropout"])
        self.head = None
        if spec["head"]:
            outputs = len(self.tree.label_columns) if self.tree else len(spec["head"].get("classes", "1"))
            self.head = Head(spec["head"], self.num_features, outputs, spec["dropout"])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled output of the encoder.

        Args:
            images: float [N, channels, image_size, image_size], from 0 to 1.

        Returns:
            Tensor: float32 [N, num_features].
        """
        return _precise(self.encoder(images))

    def raw(self, images: torch.Tensor) -> torch.Tensor:
        """What comes out of the head before :meth:`Head.answer`, for the loss."""
        return self.head(self.dropout(self.features(images)))

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """What the head says to features [N, num_features], see :meth:`Head.answer`."""
        return self.head.answer(self.head(self.dropout(features)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Answer images: concentrations [N, A], probabilities [N, C], a number [N, 1]; or features without a head."""
        features = self.features(images)
        return features if self.head is None else self.answer(features)


class Head(nn.Module):
    """Dense layers on features, always in float32: concentrations reach 101, too fine a scale for 16 bits.

    Args:
        spec: the entry ``head`` of a model's ``spec``.
        features: number of features.
        outputs: number of outputs.
        dropout: share left out after each hidden layer.
    """

    def __init__(self, spec: dict, features: int, outputs: int, dropout: float):
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        if spec["hidden"]:  # features of a given encoder may have any scale
            layers.append(nn.BatchNorm1d(features, affine=False))
        for width in spec["hidden"]:
            layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout)]
            features = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(features, 1 if spec["kind"] == "binary" else outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Raw outputs: logits, or a standardised number."""
        with torch.autocast(features.device.type, enabled=False):
            return self.output(self.hidden(_precise(features)))

    def answer(self, raw: torch.Tensor) -> torch.Tensor:
        """From raw outputs to concentrations from 1 to 101, probabilities, or the number itself."""
        kind = self.spec["kind"]
        if kind == "concentrations":
            return LOWEST + (HIGHEST - LOWEST) * torch.sigmoid(raw)
        if kind in ("binary", "fraction"):
            return torch.sigmoid(raw)
        if kind == "classes":
            return torch.softmax(raw, -1)
        return self.spec["mean"] + self.spec["deviation"] * raw

    def start_from(self, constant: np.ndarray) -> None:
        """Make the untrained head answer much the same concentrations for every galaxy: what is known without looking.

        Args:
            constant: [A] concentrations, such as those of :func:`zoobook.votes.fit_constant`.
        """
        share = np.clip((constant - LOWEST) / (HIGHEST - LOWEST), 1e-3, 1 - 1e-3)
        with torch.no_grad():
            self.output.bias.copy_(torch.from_numpy(np.log(share / (1 - share))))
            self.output.weight.mul_(0.1)


def to_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """A model's weights as plain arrays, named and laid out as in timm.

    Args:
        model: the model.

    Returns:
        dict: ``encoder.*`` and ``head.*``, without PyTorch's count of batches, which nothing uses.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    return {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in state.items()}


def from_arrays(spec: dict, arrays: dict[str, np.ndarray]) -> GalaxyModel:
    """Build a model and give it weights.

    Args:
        spec: what the model is made of, see :class:`GalaxyModel`.
        arrays: its weights, as :func:`to_arrays` gives them.

    Returns:
        GalaxyModel: the model, in evaluation mode.

    Raises:
        ValueError: tensors are missing, superfluous or of the wrong shape.
    """
    with torch.random.fork_rng(devices=[]):  # its first, random weights are not wanted
        model = GalaxyModel(spec)
    set_arrays(model, arrays)
    return model.eval()


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
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()}, strict=False)


def check_architecture(name: str) -> None:
    """Refuse what cannot be built.

    Args:
        name: of an architecture.

    Raises:
        ValueError: timm does not know it; the message names what comes close.
    """
    if name not in BOTH and not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        raise ValueError(
            f"timm knows no architecture {name!r}. "
            + (f"Close names: {', '.join(close)}." if close else "timm.list_models() lists them all.")
        )


def _check_size(model: GalaxyModel, image_size: int) -> None:
    """Refuse images of a size that a trained model cannot go on with.

    Args:
        model: the trained model.
        image_size: side of what it shall see, in pixels.

    Raises:
        ValueError: its weights are for another size, as those of a transformer with a code for each patch are.
    """
    own = model.spec["image_size"]
    if image_size == own:
        return
    with torch.random.fork_rng(devices=[]):
        other = _encoder({**model.spec, "image_size": image_size}).state_dict()
    if any(other[name].shape != tensor.shape for name, tensor in model.encoder.state_dict().items()):
        raise ValueError(
            f"image_size is {image_size}, but the given {model.spec['architecture']} was trained with {own}, and its "
            f"weights fit no other size. Pass image_size={own}; the stored images may have any size."
        )


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _encoder(spec: dict) -> nn.Module:
    name = spec["architecture"]
    check_architecture(name)
    design, options = BOTH.get(name), {"pretrained": False, "num_classes": 0, "in_chans": spec["channels"]}
    if isinstance(design, ResNet):
        return _resnet(design, options)
    try:  # transformers have one position code per patch and must know the size beforehand
        return timm.create_model(name, **options, img_size=spec["image_size"])
    except TypeError:
        return timm.create_model(name, **options)


def _resnet(design: ResNet, options: dict) -> nn.Module:
    """A ResNet whose strides are where its description has them; timm makes them in the 3 x 3 convolutions."""
    encoder = timm.create_model("resnet50", **options)
    if design.stride_in == "1x1":
        for stage in (encoder.layer2, encoder.layer3, encoder.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return encoder
