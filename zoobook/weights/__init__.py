"""Weight files that know no framework: safetensors, tensors named as in timm, and a JSON description.

A file holds ``encoder.*`` (names and layouts of timm's PyTorch models) and, if the model has one, ``head.*``. Its
metadata holds the model's ``spec`` (architecture, channels, image size, field of view, dropout, decision tree and
head), what else another program must know to get the same features
(:func:`zoobook.learning.architectures.describe`), and where it comes from.

Some files come with zoobook: :func:`shipped` lists them, and their names serve wherever a path does.

Zoobot's own weights, which come in several other layouts, are listed by :func:`published`, fetched by :func:`fetch` and
read by :func:`read_legacy`.
"""
from __future__ import annotations

from pathlib import Path

from zoobook.weights.legacy import read_legacy
from zoobook.weights.names import find_shipped, known_names
from zoobook.weights.neutral_file import inspect, read, write
from zoobook.weights.registry import fetch, published, shipped

__all__ = [
    "fetch", "find_shipped", "inspect", "known_names", "load", "published", "read", "read_legacy", "save", "shipped",
    "write",
]  # fmt: skip


def save(model, path: str | Path, *, half: bool = False, **provenance: str) -> Path:
    """Write a model's weights and description.

    Args:
        model: a model of ``zoobook.pytorch`` or ``zoobook.tensorflow``.
        path: the file, usually ``….safetensors``.
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


def load(path: str | Path, framework: str):
    """Build the model that a weight file describes.

    Args:
        path: a file written by :func:`save`, a run folder, or a name that :func:`shipped` lists.
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
