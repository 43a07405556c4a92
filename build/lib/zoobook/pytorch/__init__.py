"""zoobook in PyTorch: the same names, arguments and promises as ``zoobook.tensorflow``.

Nothing heavy is imported until a name is first used.
"""
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


def __getattr__(name: str):
    if name not in _HOME and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in ("torch", "timm", "pytorch_lightning"):
        if _find_spec(package) is None:
            raise ImportError(f'zoobook.pytorch needs {package}: pip install "zoobook[pytorch]"')
    _load_triton_first()
    module = _import_module(f"{__name__}.{_HOME.get(name, name)}")
    return module if name in _PARTS else getattr(module, name)


def __dir__():
    return __all__
