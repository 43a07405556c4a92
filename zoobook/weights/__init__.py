"""Weight files that know no framework: safetensors, tensors named as in timm, and a JSON description.

A file holds ``encoder.*`` (names and layouts of timm's PyTorch models) and, if the model has one, ``head.*``. Its
metadata holds the model's ``spec`` (architecture, channels, image size, field
of view, dropout, decision tree and head), what else
another program must know to get the same features (:func:`zoobook.architectures.describe`), and where it comes from.

Zoobot's own weights, which come in several other layouts, are listed by :func:`published`, fetched by :func:`fetch` and
read by :func:`read_legacy`.
"""
from __future__ import annotations

import json
import os
from pathlib import Path

from zoobook import architectures
from zoobook.weights.legacy import read_legacy
from zoobook.weights.registry import fetch, published

__all__ = ["fetch", "inspect", "load", "published", "read", "read_legacy", "save", "write"]

FORMAT = "1"


def save(model, path: str | Path, **provenance: str) -> Path:
    """Write a model's weights and description.

    Args:
        model: a model of ``zoobook.pytorch`` or ``zoobook.tensorflow``.
        path: the file, by custom ``….safetensors``.
        **provenance: anything worth remembering, such as ``data="GZ DECaLS"``.

    Returns:
        Path: the file.

    Raises:
        OSError: it cannot be written.
    """
    import zoobook

    framework = type(model).__module__.split(".")[1]
    tensors = zoobook.load_framework(framework).models.to_arrays(model)
    return write(path, model.spec, tensors, framework=framework, **provenance)


def write(path: str | Path, spec: dict, tensors: dict, **provenance: str) -> Path:
    """Write a model's weights and description without any framework.

    Args:
        path: the file.
        spec: what the model is made of, as ``model.spec``.
        tensors: its weights as NumPy arrays, by name.
        **provenance: as for :func:`save`.

    Returns:
        Path: the file.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    import zoobook
    from zoobook.runs import own_folder, write_whole

    path = Path(path).expanduser().absolute()
    own_folder(path.parent)
    metadata = {
        "format": f"zoobook {FORMAT}",
        "spec": json.dumps(spec),
        "encoder": json.dumps(architectures.describe(spec["architecture"])),
        "provenance": json.dumps({"zoobook": zoobook.__version__, **provenance}),
    }
    write_whole(path, to_bytes(dict(sorted(tensors.items())), metadata))
    return path


def load(path: str | Path, framework: str):
    """Build the model that a weight file describes.

    Args:
        path: a file written by :func:`save`.
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
        path: a file written by :func:`save`.

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
        path: a file written by :func:`save`.

    Returns:
        dict: ``spec``, ``encoder`` (see :func:`zoobook.architectures.describe`), ``provenance`` and ``tensors``: the
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

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or write it again") from None
    if metadata.get("format") != f"zoobook {FORMAT}":
        raise ValueError(f"{path} is a safetensors file, but not one written by zoobook.weights.save")
    return metadata, architectures.whole_spec(json.loads(metadata["spec"])), tensors
