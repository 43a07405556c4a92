"""Weight files that know no framework: safetensors, tensors named as in timm, and a JSON description.

A file holds ``encoder.*`` (names and layouts of timm's PyTorch models) and, if the model has one, ``head.*``. Its
metadata holds the model's ``spec`` (architecture, channels, image size, field
of view, dropout, decision tree and head), what else
another program must know to get the same features (:func:`zoobook.learning.architectures.describe`), and where it comes from.

Some files come with zoobook: :func:`shipped` lists them, and their names serve wherever a path does.

Zoobot's own weights, which come in several other layouts, are listed by :func:`published`, fetched by :func:`fetch` and
read by :func:`read_legacy`.
"""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from zoobook import arguments
from zoobook.learning import architectures
from zoobook.weights.legacy import read_legacy
from zoobook.weights.registry import fetch, find_shipped, known_names, published, shipped

__all__ = ["fetch", "inspect", "load", "published", "read", "read_legacy", "save", "shipped", "write"]

FORMAT = "1"


def save(model, path: str | Path, *, half: bool = False, **provenance: str) -> Path:
    """Write a model's weights and description.

    Args:
        model: a model of ``zoobook.pytorch`` or ``zoobook.tensorflow``.
        path: the file, by custom ``….safetensors``.
        half: see :func:`write`.
        **provenance: anything worth remembering, such as ``data="GZ DECaLS"``.

    Returns:
        Path: the file.

    Raises:
        OSError: it cannot be written.
    """
    import zoobook

    framework = type(model).__module__.split(".")[1]
    tensors = zoobook.load_framework(framework).models.to_arrays(model)
    return write(path, model.spec, tensors, half=half, framework=framework, **provenance)


def write(path: str | Path, spec: dict, tensors: dict, *, half: bool = False, **provenance: str) -> Path:
    """Write a model's weights and description without any framework.

    Args:
        path: the file.
        spec: what the model is made of, as ``model.spec``.
        tensors: its weights as NumPy arrays, by name.
        half: write matrices and kernels in half precision, in half the space; whoever reads the file gets float32. The
            few other numbers, biases and batch statistics, stay exact.
        **provenance: as for :func:`save`.

    Returns:
        Path: the file.

    Raises:
        OSError: it cannot be written.
        ValueError: a weight is beyond the range of half precision.
    """
    from safetensors.numpy import save as to_bytes

    import zoobook
    from zoobook.files import atomic_write, ensure_writable_dir

    if half:
        tensors = {name: _halved(name, array) if array.ndim > 1 else array for name, array in tensors.items()}
    path = arguments.path(path)
    ensure_writable_dir(path.parent)
    metadata = {
        "format": f"zoobook {FORMAT}",
        "spec": json.dumps(spec, default=arguments.plain),
        "encoder": json.dumps(architectures.describe(spec["architecture"])),
        "provenance": json.dumps({"zoobook": zoobook.__version__, **provenance}, default=arguments.plain),
    }
    atomic_write(path, to_bytes(dict(sorted(tensors.items())), metadata))
    return path


def load(path: str | Path, framework: str):
    """Build the model that a weight file describes.

    Args:
        path: a file written by :func:`save`, the folder of a training, or the name of one that comes with zoobook, see
            :func:`shipped`.
        framework: ``"pytorch"`` or ``"tensorflow"``.

    Returns:
        the model, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole, not zoobook's, or its tensors do not fit its description.
    """
    import zoobook

    spec, tensors = read(path)
    try:
        return zoobook.load_framework(framework).models.from_arrays(spec, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read(path: str | Path) -> tuple[dict, dict]:
    """What a weight file holds, without any framework.

    Args:
        path: a file written by :func:`save`, the folder of a training, or the name of one that comes with zoobook, see
            :func:`shipped`.

    Returns:
        tuple: the model's spec, and its tensors as NumPy arrays by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole or not zoobook's.
    """
    about, spec, tensors = _open(path)
    described = json.loads(about.get("encoder", "{}"))
    built = architectures.describe(spec.get("architecture", ""))
    for key in ("padding", "stride_in", "batch_norm_epsilon", "batch_norm_momentum"):
        if key in described and described[key] != built.get(key):
            raise ValueError(
                f"{path} was made for {key} {described[key]}, but this zoobook builds {spec['architecture']} with "
                f"{built.get(key)}: use the version of zoobook that wrote it"
            )
    return spec, tensors


def inspect(path: str | Path) -> dict:
    """What a weight file says of itself.

    Args:
        path: a file written by :func:`save`, the folder of a training, or the name of one that comes with zoobook, see
            :func:`shipped`.

    Returns:
        dict: ``spec``, ``encoder`` (see :func:`zoobook.learning.architectures.describe`), ``provenance`` and ``tensors``: the
        shape of each by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole or not zoobook's.
    """
    about, spec, tensors = _open(path)
    return {
        "spec": spec,
        "encoder": json.loads(about.get("encoder", "{}")),
        "provenance": json.loads(about.get("provenance", "{}")),
        "tensors": {name: list(array.shape) for name, array in tensors.items()},
    }


def _open(path: str | Path) -> tuple[dict, dict, dict]:
    """Metadata, spec and tensors of a file."""
    from safetensors import SafetensorError, safe_open

    name, path = os.fspath(path), arguments.path(path)
    if path.is_dir() and (path / "best.safetensors").is_file():  # the folder of a training
        path = path / "best.safetensors"
    if not path.is_file():
        path = find_shipped(name)
        if path is None:
            raise FileNotFoundError(f"no weight file at {name}{known_names(name)}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: _single(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or write it again") from None
    if metadata.get("format") != f"zoobook {FORMAT}":
        raise ValueError(f"{path} is a safetensors file, but not one written by zoobook.weights.save")
    return metadata, architectures.whole_spec(json.loads(metadata["spec"])), tensors


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    if not np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
        raise ValueError(f"{name} has weights beyond the range of half precision: write it with half=False")
    return array.astype(np.float16)


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array
