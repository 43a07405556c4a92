"""zoobook: learn galaxy morphology from Galaxy Zoo votes, equally in PyTorch and TensorFlow.

Importing it loads neither framework; each part is imported at its first use.
"""
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from zoobook._moved import MOVED, keep_old_names

__version__ = "0.2.0.dev0"

FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}
_PARTS = (
    "catalogs", "chapters", "datasets", "evaluation", "export", "gallery", "images", "label", "learning", "plots",
    "rarity", "representations", "simulation", "trees", "votes", "weights",
)
__all__ = ["load_framework", *_PARTS]


def load_framework(name: str) -> ModuleType:
    """The twin package of a framework, ``"pytorch"`` or ``"tensorflow"``, so that one line changes the framework.

    Raises:
        ValueError: there is no such framework.
        ImportError: the framework is not installed; the message says how to install it.
    """
    if name not in FRAMEWORKS:
        raise ValueError(f"unknown framework {name!r}: choose {' or '.join(map(repr, FRAMEWORKS))}")
    if find_spec(FRAMEWORKS[name]) is None:
        raise ImportError(f'{FRAMEWORKS[name]} is not installed: pip install "zoobook[{name}]"')
    return import_module(f"zoobook.{name}")


def __getattr__(name: str):
    if name in _PARTS or name in MOVED:
        return import_module(f"zoobook.{name}")
    if name in FRAMEWORKS:
        try:
            return load_framework(name)
        except ImportError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module 'zoobook' has no attribute {name!r}")


def _load_triton_first() -> None:
    """Before either framework is imported where both are installed.

    TensorFlow and PyTorch's Triton each bring an LLVM; on Linux, if TensorFlow's is there first, loading Triton's ends
    the process. The other way round nothing happens.
    """
    if sys.platform != "linux" or "triton" in sys.modules or not (find_spec("triton") and find_spec("tensorflow")):
        return
    if "tensorflow" in sys.modules:
        raise ImportError(
            "tensorflow was imported before zoobook. On Linux, PyTorch's triton cannot be loaded after it: the process "
            "would end. Start Python again (in a notebook: restart the kernel) and import zoobook.pytorch or "
            "zoobook.tensorflow before tensorflow; then both frameworks work."
        )
    import_module("triton")


keep_old_names()
