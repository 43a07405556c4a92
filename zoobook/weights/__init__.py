"""Weight files that know no framework: safetensors, tensors named as in timm, and a JSON description.

A file holds ``encoder.*`` (names and layouts of timm's PyTorch models) and, if the model has one, ``head.*``. Its
metadata holds the model's ``spec``, what else another program must know to get the same features
(``zoobook.learning.architectures.describe``), and where it comes from.

The names of files that come with zoobook (:func:`shipped`) serve wherever a path does. Zoobot's own weights, which come
in several other layouts, are listed by :func:`published`, fetched by :func:`fetch` and read by :func:`read_legacy`.
"""

from pathlib import Path

from zoobook.catalogs.columns import listed
from zoobook.learning.models import GalaxyNetwork
from zoobook.weights import legacy
from zoobook.weights.names import find_shipped
from zoobook.weights.neutral_file import inspect, read, write
from zoobook.weights.registry import fetch, published, shipped

__all__ = [
    "fetch", "find_shipped", "inspect", "load", "published", "read", "read_legacy", "save", "shipped", "write",
]  # fmt: skip


def save(model: GalaxyNetwork, path: str | Path, *, half: bool = False, **provenance: str) -> Path:
    """Write a model's weights and description, and give back the path.

    Args:
        model: a model of ``zoobook.pytorch`` or ``zoobook.tensorflow``.
        path: the file, usually ``….safetensors``.
        half: see :func:`write`.
        **provenance: anything worth remembering, such as ``data="GZ DECaLS"``.
    """
    if not isinstance(model, GalaxyNetwork):
        raise ValueError(f"model must be a model, such as the `model` of a Result, not {type(model).__name__}")
    framework = type(model).__module__.split(".")[1]
    return write(path, model.spec, model.to_arrays(), half=half, **{"framework": framework, **provenance})


def load(path: str | Path, framework: str) -> GalaxyNetwork:
    """Build the model, in evaluation mode, that a weight file describes.

    Args:
        path: a file written by :func:`save`, a run folder, or a name that :func:`shipped` lists.
        framework: ``"pytorch"`` or ``"tensorflow"``.
    """
    spec, tensors = read(path)
    lacking = {"architecture", "channels", "image_size", "dropout"} - spec.keys()
    if lacking:
        raise ValueError(f"{path} does not say the {listed(sorted(lacking))} of its network: fetch or write it again")
    return _build(path, framework, spec, tensors)


def read_legacy(path: str | Path, framework: str, architecture: str | None = None) -> GalaxyNetwork:
    """Build a model from weights that Zoobot published or wrote.

    Args:
        path: one of these: the ``.ckpt`` file of a Zoobot model for PyTorch, of 2022 or of today, pretrained or
            fine-tuned; a TensorFlow checkpoint of 2021 or 2022 (its folder, its ``.index`` file, or what its files
            begin with); a folder with an encoder as timm publishes it (``config.json`` and ``model.safetensors``); or
            the name of one on the Hugging Face hub, such as ``"hf_hub:mwalmsley/zoobot-encoder-efficientnet_b0"``.
        framework: ``"pytorch"`` or ``"tensorflow"``, whichever the file comes from.
        architecture: timm's name of the encoder; needed only where a fine-tuned file does not say it.

    Returns:
        the model, in evaluation mode. Models of 2022 kept dropout on when predicting, as ``predict(…, passes=5)`` does.

    Raises:
        ValueError: the file is not whole, of no known layout, would run something, or tensors are missing,
            unexpected or of the wrong shape; or the framework does not have its architecture.
    """
    return _build(path, framework, *legacy.read(path, architecture))


def _build(path: str | Path, framework: str, spec: dict, tensors: dict):
    import zoobook

    try:
        return zoobook.load_framework(framework).models.from_arrays(spec, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
