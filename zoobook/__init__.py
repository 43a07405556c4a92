"""zoobook: learn galaxy morphology from Galaxy Zoo votes, equally in PyTorch and TensorFlow.

Importing it loads neither framework; each part is imported at its first use.
"""
from importlib import import_module
from importlib.util import find_spec

__version__ = "0.1.0"

FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}
_PARTS = (
    "architectures", "augment", "catalogs", "chapters", "datasets", "evaluation", "images", "inference", "plots",
    "representations", "runs", "simulation", "training", "trees", "votes", "weights",
)
__all__ = ["load_framework", *_PARTS]


def load_framework(name: str):
    """The twin package of a framework, so that one line changes the framework.

    Args:
        name: ``"pytorch"`` or ``"tensorflow"``.

    Returns:
        module: :mod:`zoobook.pytorch` or ``zoobook.tensorflow``.

    Raises:
        ValueError: there is no such framework.
        ImportError: the framework is not installed (the message says how to install it), or has no twin yet.
    """
    if name not in FRAMEWORKS:
        raise ValueError(f"unknown framework {name!r}: choose {' or '.join(map(repr, FRAMEWORKS))}")
    if find_spec(FRAMEWORKS[name]) is None:
        raise ImportError(f'{FRAMEWORKS[name]} is not installed: pip install "zoobook[{name}]"')
    if find_spec(f"zoobook.{name}") is None:
        raise ImportError(f"zoobook {__version__} has no {name} half yet: choose 'pytorch'")
    return import_module(f"zoobook.{name}")


def __getattr__(name: str):
    if name in _PARTS:
        return import_module(f"zoobook.{name}")
    if name in FRAMEWORKS:
        try:
            return load_framework(name)
        except ImportError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module 'zoobook' has no attribute {name!r}")
