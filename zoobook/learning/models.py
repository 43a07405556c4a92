"""The network that looks at a galaxy and answers: what it is in both frameworks."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from zoobook import arguments
from zoobook.catalogs.columns import listed
from zoobook.images.views import FIELD_OF_VIEW
from zoobook.learning.architectures import check_options, check_tensors, whole_spec
from zoobook.learning.engine import Twin
from zoobook.learning.settings import checked, lowest_given
from zoobook.learning.tasks import Votes, kind_of
from zoobook.trees import DecisionTree

Network = TypeVar("Network", bound="GalaxyNetwork")
FROM_FEATURES = {  # what of a head is as wide as the features, by whether it has hidden layers
    False: ("head.output.weight",),
    True: ("head.hidden.0.running_mean", "head.hidden.0.running_var", "head.hidden.1.weight"),
}


def build_model(
    twin: Twin,
    tree: DecisionTree | None = None,
    architecture: str = "efficientnet_b0",
    channels: int = 1,
    dropout: float = 0.2,
    image_size: int = 224,
    field_of_view: float = FIELD_OF_VIEW,
    lowest: float | None = None,
) -> GalaxyNetwork:
    """Build a network, with random weights, that predicts the votes on a decision tree.

    As in Walmsley et al. 2022 (MNRAS 509, 3966): an encoder, dropout, and one Dirichlet concentration per answer,
    1 + 100 sigmoid(x), or from another lowest one to 101.

    Args:
        tree: the decision tree; ``None`` gives the encoder alone, whose output are its features.
        architecture: a name of ``zoobook.learning.architectures.BOTH``, such as ``"efficientnet_b0"`` or
            ``"resnet50"``; in PyTorch, any that timm knows.
        channels: 1 for grey images (the mean of the colours), 3 for colour.
        dropout: share of the features that are left out at random while training.
        image_size: side of the images that the model sees, in pixels.
        field_of_view: the same in units of the galaxy's half-light radius R50. By default Zoobot's, 14.7.
        lowest: the lowest concentration, see ``train``; ``None``: 1, as Zoobot.

    Returns:
        GalaxyModel: the network, for float images from 0 to 1: in PyTorch [N, channels, image_size, image_size], in
        TensorFlow [N, image_size, image_size, channels].

    Raises:
        ValueError: an unknown architecture, or channels, dropout, image_size or field_of_view out of range.
    """
    return twin.models.GalaxyModel(
        {
            "architecture": architecture,
            "channels": channels,
            "image_size": image_size,
            "field_of_view": field_of_view,
            "dropout": dropout,
            "tree": tree.to_dict() if tree else None,
            "head": {"kind": Votes.name, **lowest_given(lowest), "hidden": []} if tree else None,
        }
    )


def with_all_stages(twin: Twin, model: GalaxyNetwork) -> GalaxyNetwork:
    """The same model, with features that tell what each stage of its encoder sees, not only the last one.

    On its way through a network an image loses what the network's own questions do not need. A new question may need
    it: the shipped encoder's last stage hardly knows how light falls off with the radius, its first ones do. So
    features are those of the encoder as it was, and behind them the mean of each feature map before the last one
    ("Head2Toe", Evci et al. 2022, ICML 162, 6009): the last map of each resolution, or in a transformer that of each
    block. The weights stay as they are, and it takes no more time.

    Args:
        model: a trained model, with or without a head; it is left as it is.

    Returns:
        GalaxyModel: for ``represent`` and ``finetune``. Instead of 1280 features EfficientNet-B0 has 1472, ResNet50
        3904 instead of 2048. A head does not use the new ones yet, so its answers stay as they are.

    Raises:
        ValueError: of this architecture, timm gives nothing but the features.
    """
    arrays, spec = model.to_arrays(), {**model.spec, "all_stages": True}
    encoder = {name: array for name, array in arrays.items() if name.startswith("encoder.")}
    alone = twin.models.from_arrays({**spec, "tree": None, "head": None}, encoder)
    if model.head is None:
        return alone
    new = alone.num_features - model.num_features
    for name in FROM_FEATURES[bool(spec["head"]["hidden"])]:
        beside = [(0, 0)] * (arrays[name].ndim - 1)
        arrays[name] = np.pad(arrays[name], [*beside, (0, new)], constant_values=int(name.endswith("var")))
    return twin.models.from_arrays(spec, arrays)


class GalaxyNetwork:
    """An encoder, dropout, and a head: the part of each framework's ``GalaxyModel`` that needs no framework.

    Args:
        spec: what the model is made of, as plain data: ``architecture``, ``channels``, ``image_size``,
            ``field_of_view``, ``dropout``, ``tree`` (a :class:`~zoobook.trees.DecisionTree` as a dictionary, or
            ``None``) and ``head`` (``None``, or what a :class:`zoobook.learning.tasks.Kind` notes of itself, and
            ``hidden``: widths of the dense layers before the output); ``all_stages`` (true, or left out) as
            :func:`with_all_stages` has it.

    Attributes:
        encoder: image → feature maps, pooled.
        head: features → logits, always in float32: concentrations reach 101, too fine a scale for 16 bits; ``None``
            for an encoder alone.
        kind: the :class:`~zoobook.learning.tasks.Kind` of answer; ``None`` for an encoder alone.
        tree: the decision tree; ``None`` if the model answers something else.
        num_features: number of features of an image.
    """

    # Each framework's own
    ACTIVATIONS: dict[str, Callable]  # by the names that kinds of answer have
    LOSSES: dict[str, Callable]
    Dropout: type
    Head: type

    def __init__(self, spec: dict):
        super().__init__()
        spec = check_options(whole_spec(spec))
        if "lowest" in (spec["head"] or {}):
            checked({"lowest": spec["head"]["lowest"]})
        self._spec = json.dumps(spec, default=arguments.plain)  # text, since Keras puts wrappers around dictionaries
        self.tree = DecisionTree.from_dict(spec["tree"]) if spec["tree"] else None
        self.kind = kind_of(spec["head"], self.tree) if spec["head"] else None
        self.encoder, self.num_features = self.build_encoder(spec)
        self.dropout = self.Dropout(spec["dropout"])
        widths = self.kind and [self.num_features, *spec["head"]["hidden"], self.kind.outputs]
        self.head = self.Head(widths, spec["dropout"]) if widths else None

    def build_encoder(self, spec: dict) -> tuple[Any, int]:
        """The encoder, untrained, and how many features it gives."""
        raise NotImplementedError

    @property
    def spec(self) -> dict:
        """What the model is made of; it is kept with the weights, so that the model can be built again."""
        return json.loads(self._spec)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The weights, named and laid out as in timm: ``encoder.*`` and ``head.*``."""
        raise NotImplementedError

    def set_arrays(self: Network, arrays: dict[str, np.ndarray]) -> Network:
        """Give the model weights; a ``ValueError`` if some are missing, not the model's, or of the wrong shape."""
        expected = {name: list(array.shape) for name, array in self.to_arrays().items()}
        check_tensors(self.spec["architecture"], expected, arrays)
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise ValueError(f"weights are NaN or infinite ({listed(bad, 4)}): their training went astray, or the file "
                             "is damaged")  # fmt: skip
        self._assign(arrays)
        return self

    def _assign(self, arrays: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def features(self, images: Any) -> Any:
        """Pooled output of the encoder [N, num_features], float32."""
        raise NotImplementedError

    def logits(self, features: Any) -> Any:
        """What the head gives for features: for classes, logits; for a number, a standardised one."""
        return self.head(self.dropout(features))

    def activate(self, logits: Any) -> Any:
        """The answer: concentrations up to 101 [N, A], probabilities [N, C], or the number itself [N, 1]."""
        offset, factor = self.kind.scale
        return offset + factor * self.ACTIVATIONS[self.kind.activation](logits)

    def galaxy_losses(self, images: Any, targets: Any) -> Any:
        """The loss of each galaxy [N]: in nats, or for a number its squared error in units of the training variance."""
        return self.LOSSES[self.kind.loss](self, self.logits(self.features(images)), targets)

    def answer(self, images: Any) -> Any:
        """The answer to images, or the features of an encoder alone: what calling the model does."""
        features = self.features(images)
        return features if self.head is None else self.activate(self.logits(features))


@contextlib.contextmanager
def temporarily(*settings: tuple[Callable, Callable, Any]) -> Iterator[None]:
    """Settings, each by what reads it, what sets it, and its value meanwhile; afterwards they are as they were."""
    before = [read() for read, _, _ in settings]
    try:
        for _, write, value in settings:
            write(value)
        yield
    finally:
        for (_, write, _), value in zip(settings, before, strict=True):
            write(value)
