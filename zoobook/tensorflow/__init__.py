"""zoobook in TensorFlow: the same names, arguments and promises as :mod:`zoobook.pytorch`.

Nothing heavy is imported until a name is first used; but where PyTorch's triton is installed, it is loaded now, because
it must be there before TensorFlow, which the user may import next.
"""
import os as _os
import sys as _sys
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

from zoobook import _load_triton_first

_HOME = {
    "dirichlet_multinomial_nll": "losses",
    "build_model": "models",
    "train": "training",
    "finetune": "finetuning",
    "predict": "prediction",
    "represent": "prediction",
}
_PARTS = ("losses", "models", "data", "training", "finetuning", "prediction")
__all__ = list(_HOME)

if "tensorflow" not in _sys.modules:
    _os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # few remarks
    _os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # leave PyTorch some memory of a GPU they share
    _load_triton_first()


def __getattr__(name: str):
    if name not in _HOME and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _find_spec("tensorflow") is None:
        raise ImportError('zoobook.tensorflow needs tensorflow: pip install "zoobook[tensorflow]"')
    module = _import_module(f"{__name__}.{_HOME.get(name, name)}")
    return module if name in _PARTS else getattr(module, name)


def __dir__():
    return __all__

