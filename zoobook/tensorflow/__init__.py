"""zoobook in TensorFlow: the same names, arguments and promises as :mod:`zoobook.pytorch`.

Nothing heavy is imported until a name is first used; but where PyTorch's triton is installed, it is loaded now, because
it must be there before TensorFlow, which the user may import next.
"""
import os as _os
import sys as _sys

from zoobook import _load_triton_first
from zoobook.learning.engine import lazy_package as _lazy_package

__all__, __getattr__, __dir__ = _lazy_package(__name__, ("tensorflow",))

if "tensorflow" not in _sys.modules:
    _os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # few remarks
    _os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # leave PyTorch some memory of a GPU they share
    _load_triton_first()
