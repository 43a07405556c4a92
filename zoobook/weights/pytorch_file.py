"""Reads the files of ``torch.save`` with NumPy alone, and runs nothing that they contain.

Such a file is a zip archive: a pickle that describes the objects, and beside it the raw numbers of the tensors. A
pickle is a small program, and may call anything. This reader lets it call nothing: tensors become plain notes of where
their numbers lie, objects of PyTorch and its relatives become empty shells, and any other name ends the reading.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_DTYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
# Whose objects may occur in a checkpoint, as settings or unused state; they are read as shells.
_KNOWN = {
    "torch", "torchvision", "timm", "zoobot", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics",
    "numpy", "pathlib", "omegaconf", "argparse",
}  # fmt: skip

_DAMAGE = (
    zipfile.BadZipFile, KeyError, EOFError, OSError, NotImplementedError, OverflowError, UnicodeDecodeError,
    struct.error, zlib.error,
)  # fmt: skip


class Shell(dict):
    """Stands for an object of a library that is not loaded; its attributes are those in the file."""

    __hash__ = object.__hash__

    def __init__(self, *args, **kwargs):
        super().__init__()

    def __setstate__(self, state) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def extend(self, items: Iterable) -> None:
        """Of a list, which nothing here needs."""

    append = extend


class _Storage(NamedTuple):
    dtype: str
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(Exception):
    """The file asks for something that weights never need."""


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _reconstruct(kind: Any, *_) -> Shell:
    return kind() if isinstance(kind, type) and issubclass(kind, Shell) else Shell()


# All that a pickle may call, and what is called in its place
_CALLABLE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{(module, "_reconstructor"): _reconstruct for module in ("copyreg", "copy_reg")},
    **{(module, name): set for module in ("builtins", "__builtin__") for name in ("set", "frozenset")},
}


def read(path: Path) -> dict:
    """The outermost dictionary of a file of ``torch.save``.

    The tensors in it, or in its ``state_dict``, are NumPy arrays (bfloat16 as float32). Objects of other libraries are
    :class:`Shell`. A file that is no such file, not whole, or would run something is a ``ValueError``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content, root = _unpickle(archive, path)
            state = content.get("state_dict", content)
            for name, value in list(state.items()):
                if isinstance(value, _Tensor):
                    state[name] = _array(archive, root, value)
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is not a whole PyTorch checkpoint ({error}). Fetch it again. (Files from before PyTorch 1.6 are "
            "no zip archives; whoever has one must load and save it with a newer PyTorch.)"
        ) from None
    return content


def _unpickle(archive: zipfile.ZipFile, path: Path) -> tuple[dict, str]:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{path} is a zip archive, but not one that PyTorch writes: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError(f"{path} was written on a big-endian computer, which zoobook cannot read")
    try:
        content = _Reader(io.BytesIO(archive.read(pickles[0]))).load()
    except _Refused as refused:
        raise ValueError(
            f"{path} asks to run {refused}, which weights never need. Nothing of it was run. Do not use this file, and "
            "do not load it with anything else."
        ) from None
    except Exception as error:  # damaged bytes make the unpickler fail in every way there is
        raise ValueError(f"the contents of {path} cannot be read ({error}); fetch it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict", content), dict):
        raise ValueError(f"{path} holds no dictionary of tensors, so it is no checkpoint")
    return content, root


class _Reader(pickle._Unpickler):
    """Unpickles notes instead of objects: no name in the file leads to anything that could do something.

    In plain Python: the unpickler in C takes all memory where a damaged file stores an object under a huge number.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.shells: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = (module, name)
        if found in _CALLABLE:
            return _CALLABLE[found]
        if module.split(".")[0] not in _KNOWN:
            raise _Refused(f"{module}.{name}")
        return self.shells.setdefault(found, type(name.split(".")[-1], (Shell,), {"__module__": module}))

    def persistent_load(self, note: Any) -> _Storage:
        kind, storage, key, *_ = note
        dtype = _DTYPES.get(getattr(storage, "__name__", None)) if kind == "storage" else None
        if dtype is None:
            raise pickle.UnpicklingError(f"numbers of an unknown kind: {storage}")
        return _Storage(dtype, str(key))


def _array(archive: zipfile.ZipFile, root: str, tensor: _Tensor) -> np.ndarray:
    where = (tensor.offset, *tensor.shape, *tensor.stride)
    if not isinstance(tensor.storage, _Storage) or not all(type(number) is int and number >= 0 for number in where):
        raise ValueError(f"{archive.filename} describes a tensor that cannot be: {tensor}")
    dtype = np.dtype("<u2" if tensor.storage.dtype == "bfloat16" else tensor.storage.dtype)
    numbers = np.frombuffer(archive.read(f"{root}data/{tensor.storage.key}"), dtype)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    if np.prod(tensor.shape, dtype=object) > len(numbers) or (0 not in tensor.shape and last >= len(numbers)):
        raise ValueError(f"{archive.filename}: a tensor of shape {list(tensor.shape)} has more than its numbers")
    strides = [step * dtype.itemsize for step in tensor.stride]
    array = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    if tensor.storage.dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array).reshape(tensor.shape)
