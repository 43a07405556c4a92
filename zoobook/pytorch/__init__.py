"""zoobook in PyTorch: the same names, arguments and promises as ``zoobook.tensorflow``.

Nothing heavy is imported until a name is first used.
"""
import zoobook as _zoobook
from zoobook.learning import engine as _engine

__all__, __getattr__, __dir__ = _engine.lazy_package(
    __name__, ("torch", "timm", "pytorch_lightning"), _zoobook._load_triton_first
)
