"""zoobook in TensorFlow: the same names, arguments and promises as :mod:`zoobook.pytorch`.

Nothing heavy is imported until a name is first used.
"""
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

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


def __getattr__(name: str):
    if name not in _HOME and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _find_spec("tensorflow") is None:
        raise ImportError('zoobook.tensorflow needs tensorflow: pip install "zoobook[tensorflow]"')
    _prepare()
    module = _import_module(f"{__name__}.{_HOME.get(name, name)}")
    return module if name in _PARTS else getattr(module, name)


def __dir__():
    return __all__


def _prepare() -> None:
    """Before TensorFlow is first imported: Keras on TensorFlow, few remarks, and PyTorch still importable later."""
    import os
    import sys

    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Both bring an LLVM of their own; where TensorFlow's is there first, loading Triton's ends the process.
    if sys.platform == "linux" and _find_spec("triton") is not None:
        _import_module("triton")
