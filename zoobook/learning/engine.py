"""What a framework must do for zoobook, and how its six public functions are made of that.

Everything that does not need a framework is written once, in the other modules of :mod:`zoobook.learning`, whose
functions take the framework's package as their first argument: ``zoobook.pytorch`` or ``zoobook.tensorflow``.
"""
from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from zoobook.trees import DecisionTree, check

if TYPE_CHECKING:
    from zoobook.learning.training import Run

# Each framework's own
Tensor: TypeAlias = Any
Model: TypeAlias = Any
Replica: TypeAlias = Any

FUNCTIONS = {
    "dirichlet_multinomial_nll": "losses",
    "build_model": "models",
    "with_all_stages": "models",
    "train": "training",
    "finetune": "training",
    "predict": "prediction",
    "represent": "prediction",
}
PARTS = ("losses", "models", "engine")
RENAMED = {"accumulate": "accumulate_grad_batches"}  # arguments, whose old name works for one more version


class Twin(Protocol):
    """The package of a framework, with its three modules."""

    __name__: str
    losses: Losses
    models: Models
    engine: Engine


class Losses(Protocol):
    """The module ``losses``.

    Attributes:
        LOSSES: by the names that kinds of answer have, the loss of each galaxy [N], of a model, logits and targets.
    """

    LOSSES: dict[str, Callable]

    def nll(self, concentrations: Tensor, votes: Tensor, tree: DecisionTree) -> Tensor:
        """What :func:`zoobook.learning.losses.dirichlet_multinomial_nll` gives for tensors that fit the tree."""


class Models(Protocol):
    """The module ``models``.

    Attributes:
        GalaxyModel: the network, made of its description; see :class:`zoobook.learning.models.GalaxyNetwork`.
    """

    GalaxyModel: type

    def known_defaults(self) -> AbstractContextManager:
        """Whatever the user has set for the whole framework, meanwhile models are made and run in float32."""

    def check_architecture(self, name: str) -> None:
        """Raise a ``ValueError`` for an architecture that cannot be built, with names that come close."""

    def from_arrays(self, spec: dict, arrays: dict[str, np.ndarray]) -> Model:
        """A model with given weights, in evaluation mode."""

    def stages(self, model: Model) -> list[list[str]]:
        """Names of the encoder's weights that can learn, stage by stage from the image up, as timm groups them."""

    def freeze(self, model: Model, names: set[str]) -> None:
        """Let these weights not learn; of a layer with nothing to learn, the batch statistics stay too."""

    def initialize_batchnorm_stats(self, model: Model, images: Tensor) -> bool:
        """Let untrained batch normalisation begin with the statistics of some images, instead of mean 0 and variance 1.

        Galaxies are dark and deep networks multiply small variances, so from 1 the running averages would take hundreds
        of steps to arrive, and until then a model that has learned looks in evaluation as if it had not. What has been
        trained is left as it is. Returns whether there was any that had not.
        """

    def apply_view(self, images: Tensor, views: Tensor, channels: int, image_size: int, share: float) -> Tensor:
        """What the model sees of stored bytes, see :func:`zoobook.images.views.apply_view`; on the device of images."""


class Engine(Protocol):
    """The module ``engine``.

    Attributes:
        NAME: ``"pytorch"`` or ``"tensorflow"``.
        STATE: name of the file in a run folder from which an unfinished run goes on.
        OUT_OF_MEMORY: what is raised where a device has too little memory.
        GalaxyLoader: makes tensors of :class:`zoobook.learning.batches.GalaxyBatches`.
    """

    NAME: str
    STATE: str
    OUT_OF_MEMORY: type[Exception]
    GalaxyLoader: type
    Trainer: type[Trainer]

    def gpus(self) -> list[str]:
        """The names of the GPUs that there are."""

    def compute_capability(self) -> int | None:
        """The generation of NVIDIA's GPU, such as 8; ``None`` where there is none."""

    def replicate(self, model: Model, devices: list[str]) -> list[Replica]:
        """The model to be evaluated on each device; the given one is left as it is."""

    def features(self, replica: Replica, images: Tensor, views: Tensor, share: float) -> np.ndarray:
        """The encoder's features, float32 [B, F], of a batch of a ``GalaxyLoader``."""

    def head_answers(self, model: Model, features: np.ndarray, passes: int, seed: int) -> np.ndarray:
        """The head's answers to features, [N, outputs, passes], on the CPU; with dropout on for more than one pass."""


class Trainer(Protocol):
    """How one model is trained: made first of all, since machines must be connected before anything is computed.

    Args:
        devices: ``"auto"``, ``"cpu"``, or how many GPUs.
        num_nodes: machines.
        precision: one of :data:`zoobook.learning.devices.PRECISIONS`.
    """

    is_first: bool

    def __init__(self, devices: str | int, num_nodes: int, precision: str): ...

    def building(self, seed: int) -> AbstractContextManager:
        """Where the model is made: for these devices and this precision, its first weights from a seed."""

    def fit(self, model: Model, run: Run, lr_scales: dict[str, float]) -> None:
        """Train a model made in :meth:`building`, or go on, and tell ``run.history`` of each step and epoch.

        ``lr_scales`` has, by name of a weight, its share of the learning rate where that is not the whole.
        """


def lazy_package(package: str, needs: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> tuple:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a framework's package, which imports nothing before it is needed.

    What it ``needs`` must be installed; ``prepare`` is called before that is imported.
    """

    @functools.cache
    def part(name: str) -> Any:
        if name not in FUNCTIONS and name not in PARTS:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for need in needs:
            if find_spec(need) is None:
                raise ImportError(f'{package} needs {need}: pip install "zoobook[{package.rpartition(".")[2]}]"')
        prepare()
        if name in PARTS:
            return import_module(f"{package}.{name}")
        return bind(getattr(import_module(f"zoobook.learning.{FUNCTIONS[name]}"), name), import_module(package))

    return list(FUNCTIONS), part, lambda: list(FUNCTIONS)


def check_given(twin: Twin, given: dict[str, Any]) -> None:
    """Refuse what was given in place of a model, of images, a tree or a name, and say how to get one."""
    name = twin.__name__.rpartition(".")[2]
    if "model" in given and not isinstance(given["model"], twin.models.GalaxyModel):
        raise ValueError(f"model must be a model of {twin.__name__}, such as the `model` of a Result, not "
                         f"{repr(given['model']):.60}; zoobook.weights.load(path, {name!r}) makes one")  # fmt: skip
    if "store" in given and not hasattr(given["store"], "pixels"):
        raise ValueError(f"store must be an image store, not {repr(given['store']):.60}; ImageStore.open(path) gives "
                         "one, and ImageStore.build makes one of a catalogue")  # fmt: skip
    if "tree" in given:
        check(given["tree"])
    if not isinstance(given.get("architecture", ""), str):
        raise ValueError(f"architecture must be a name, not {given['architecture']!r}")


def bind(function: Callable[..., Any], twin: Twin) -> Callable[..., Any]:
    """A function of :mod:`zoobook.learning` as one framework's: without its first argument, the framework."""

    @functools.wraps(function)
    def bound(*args, **options):
        for old, new in RENAMED.items():
            if old in options and new in signature.parameters:
                message = f"{function.__name__}: {old} is now {new}; the old name goes with the next version"
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                options[new] = options.pop(old)
        given = signature.bind(*args, **options)  # a wrong argument is told of this function, not of a hidden one
        optional = {name for name, parameter in signature.parameters.items() if parameter.default is None}
        check_given(twin, {k: v for k, v in given.arguments.items() if v is not None or k not in optional})
        with twin.models.known_defaults():
            return function(twin, *args, **options)

    signature = inspect.signature(function)
    signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    vars(bound)["__signature__"], bound.__module__ = signature, twin.__name__
    del bound.__wrapped__
    return bound
