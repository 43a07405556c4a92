"""Writing and reading zoobook's weight files without any framework."""

import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

import zoobook
from zoobook import arguments
from zoobook.files import atomic_write, check_replaceable, ensure_writable_dir, fingerprint
from zoobook.learning import architectures
from zoobook.weights.names import find_shipped, known_names

FORMAT = "zoobook 1"


def write(path: str | Path, spec: dict, tensors: dict[str, np.ndarray], *, half: bool = False, **provenance) -> Path:
    """Write a model's weights and description without any framework, and give back the path.

    Args:
        path: the file.
        spec: the model's description, as ``model.spec``.
        tensors: its weights as NumPy arrays, by name.
        half: write matrices and kernels in half precision, in half the space; whoever reads the file gets float32. The
            few other numbers, biases and batch statistics, stay exact.
        **provenance: as for :func:`zoobook.weights.save`.
    """
    tensors = {name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in tensors.items()}
    if arguments.truth("half", half):
        tensors = {name: _halved(name, array) if array.ndim > 1 else array for name, array in tensors.items()}
    path = arguments.path(path)
    check_replaceable(path, rb".{8}\{")
    ensure_writable_dir(path.parent)
    metadata = {
        "format": FORMAT,
        "spec": json.dumps(spec, default=arguments.plain),
        "encoder": json.dumps(architectures.describe(spec["architecture"], "all_stages" in spec)),
        "provenance": json.dumps({"zoobook": zoobook.__version__, **provenance}, default=arguments.plain),
    }
    tensors = dict(sorted(tensors.items()))
    atomic_write(path, to_bytes(tensors, {**metadata, "digest": _digest(metadata, tensors)}))
    return path


def read(path: str | Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What a weight file holds: the model's spec, and its tensors, float32, by name.

    Args:
        path: as for :func:`zoobook.weights.load`.
    """
    about, tensors = _open(path)
    spec, described = about["spec"], about["encoder"]
    built = architectures.describe(spec.get("architecture", ""))
    for key in ("padding", "stride_in", "batch_norm_epsilon", "batch_norm_momentum"):
        if key in described and described[key] != built.get(key):
            raise ValueError(
                f"{path} was made for {key} {described[key]}, but this zoobook builds {spec['architecture']} with "
                f"{built.get(key)}: use the version of zoobook that wrote it"
            )
    return spec, tensors


def inspect(path: str | Path) -> dict:
    """What a weight file, see :func:`zoobook.weights.load`, says of itself.

    Returns:
        dict: ``spec``, ``encoder`` (see ``zoobook.learning.architectures.describe``), ``provenance`` and
        ``tensors``: the shape of each by name.

    >>> inspect("simulated_efficientnet_b0")["spec"]["architecture"]
    'efficientnet_b0'
    """
    about, tensors = _open(path)
    return about | {"tensors": {name: list(array.shape) for name, array in tensors.items()}}


def _open(path: str | Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The description in a file, and its tensors."""
    name, path = path, arguments.path(path)
    if path.is_dir() and (path / "best.safetensors").is_file():  # a run folder
        path = path / "best.safetensors"
    if not path.is_file():
        path = find_shipped(os.fspath(name))
        if path is None:
            raise FileNotFoundError(f"no weight file at {name}{known_names(name)}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or write it again. Weights in other "
                         "formats are for zoobook.weights.read_legacy.") from None  # fmt: skip
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not one written by zoobook.weights.save")
    digest = metadata.pop("digest", None)  # files of earlier versions have none
    if digest not in (None, _digest(metadata, tensors)):
        raise ValueError(f"{path} is damaged: its weights are not those that were written. Fetch or write it again.")
    try:
        about = {key: json.loads(metadata.get(key, "{}")) for key in ("spec", "encoder", "provenance")}
        if not all(isinstance(value, dict) for value in about.values()):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path} does not say of what network its weights are: fetch or write it again") from None
    about["spec"] = architectures.whole_spec(about["spec"])
    single = {name: array.astype(np.float32) for name, array in tensors.items() if array.dtype == np.float16}
    return about, tensors | single


def _digest(metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> str:
    """Of all that a file says, by which damage on the disk is noticed."""
    return fingerprint(metadata, sorted(tensors), *(tensors[name] for name in sorted(tensors)))


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    if not np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
        raise ValueError(f"{name} has weights beyond the range of half precision: write it with half=False")
    return array.astype(np.float16)
