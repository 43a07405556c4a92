"""Weights that Zoobot published, from 2021 to today, read as they are.

Each layout is a dictionary from timm's names to those in the file. What a file does not say (the first ones say
nothing but names and numbers) follows from the names and shapes.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from zoobook import arguments, trees
from zoobook.images.views import FIELD_OF_VIEW
from zoobook.learning import architectures
from zoobook.weights import pytorch_file, tensorflow_file

_HUB = "hf_hub:"
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")  # the second one in old repositories
# What files hold beside weights: batch counters (absent in frozen layers), optimisers, random states, class weights
_UNUSED = re.compile(
    r"num_batches_tracked$|OPTIMIZER_SLOT|^optimizer/|^(step|save_counter)/|^layer-\d+/_rng/|^(loss\.)?class_weights$"
)


def read_legacy(path: str | Path, framework: str, architecture: str | None = None):
    """Build a model from weights that Zoobot published or wrote.

    Args:
        path: one of these: the ``.ckpt`` file of a Zoobot model for PyTorch, of 2022 or of today, pretrained or
            fine-tuned; a TensorFlow checkpoint of 2021 or 2022 (its folder, its ``.index`` file, or what its files
            begin with); a folder with an encoder as timm publishes it (``config.json`` and ``model.safetensors``); or
            the name of one on the Hugging Face hub, such as ``"hf_hub:mwalmsley/zoobot-encoder-efficientnet_b0"``.
        framework: ``"pytorch"`` or ``"tensorflow"``, whichever the file comes from.
        architecture: timm's name of the encoder; needed only where a fine-tuned file does not say it.

    Returns:
        the model, in evaluation mode. Models of 2022 kept dropout on when predicting: ``predict(…, passes=5)`` does so.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the file is not whole, of no known layout, would run something, or tensors are missing,
            superfluous or of the wrong shape; or the framework does not have its architecture.
    """
    import zoobook

    spec, tensors = read(path, architecture)
    try:
        return zoobook.load_framework(framework).models.from_arrays(spec, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read(path: str | Path, architecture: str | None = None) -> tuple[dict, dict[str, np.ndarray]]:
    """What a file that Zoobot published holds, without any framework.

    Args:
        path: as for :func:`read_legacy`.
        architecture: as for :func:`read_legacy`.

    Returns:
        tuple: a model's spec, and its tensors, float32, by zoobook's names.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: as for :func:`read_legacy`.
    """
    kind, found = _find(str(path))
    try:
        if kind == "encoder":
            return _checked(*_hub_encoder(found))
        if kind == "tensorflow":
            settings, tensors = {}, tensorflow_file.read(found)
        else:
            content = pytorch_file.read(found)
            settings, tensors = content.get("hyper_parameters"), content.get("state_dict", content)
        tensors = {str(name): array for name, array in tensors.items() if isinstance(array, np.ndarray)}
        tensors = {name: array for name, array in tensors.items() if not _UNUSED.search(name)}
        for mark, (design, rename) in _LAYOUTS.items():
            if any(re.match(mark, name) for name in tensors):
                return _checked(*_published(design, rename, tensors))
        if any(name.startswith("encoder.") for name in tensors):
            return _checked(*_zoobot(tensors, settings if isinstance(settings, dict) else {}, architecture))
    except ValueError as error:
        raise ValueError(str(error) if str(found) in str(error) else f"{found}: {error}") from None
    shown = ", ".join(list(tensors)[:4]) or "none"
    raise ValueError(f"{found} is laid out like no Zoobot model that zoobook knows; its first tensors are: {shown}")


def _checked(spec: dict, tensors: dict[str, np.ndarray]) -> tuple[dict, dict[str, np.ndarray]]:
    spec = architectures.check_options(spec)
    single = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    return spec, {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in single.items()}


def _find(path: str) -> tuple[str, Path]:
    """What kind of weights lie at a path, and where exactly."""
    if path.startswith(_HUB):
        return _find(_from_hub(path.removeprefix(_HUB)))
    place = arguments.path(path.removeprefix("local-dir:"))
    if Path(f"{place}.index").is_file():
        return "tensorflow", place
    if place.is_file():
        return ("tensorflow", place.with_suffix("")) if place.suffix == ".index" else ("pytorch", place)
    if not place.is_dir():
        from zoobook.weights.registry import known_names  # which imports this module

        raise FileNotFoundError(f"there are no weights at {place}{known_names(path)}")
    if any((place / name).is_file() for name in _TIMM_FILES):
        return "encoder", place
    inside = [file for file in sorted(place.iterdir()) if file.suffix in (".index", ".ckpt")]
    if len(inside) != 1:
        names = ", ".join(file.name for file in inside[:4]) or "neither"
        raise ValueError(f"the folder {place} must hold one file .index or .ckpt, or you name one; it has: {names}")
    return _find(str(inside[0]))


def _from_hub(repository: str) -> str:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(
            "fetching from the Hugging Face hub needs huggingface_hub: pip install huggingface_hub (timm brings it), "
            "or download the repository by hand and give its folder"
        ) from None
    try:
        return snapshot_download(repository, allow_patterns=["config.json", *_TIMM_FILES, "*.ckpt"])
    except Exception as error:  # of several libraries, depending on what fails
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"{repository!r} could not be fetched from the Hugging Face hub: {reason}") from None


# ---- The seven of 2022, for GZ DECaLS ----


def _published(design: str, rename: Callable[[str], str], tensors: dict) -> tuple[dict, dict[str, np.ndarray]]:
    tree, features = trees.load("decals_dr5"), architectures.BOTH[design].features
    in_tensorflow = rename is _keras
    stem = tensors.get(rename("encoder." + next(iter(architectures.tensor_shapes(design, 1)))), np.empty((1, 1, 1, 1)))
    channels = stem.shape[2 if in_tensorflow else 1] if stem.ndim == 4 else 1
    wanted = {f"encoder.{name}": shape for name, shape in architectures.tensor_shapes(design, channels).items()}
    wanted |= {"head.output.weight": [len(tree.label_columns), features]}
    wanted |= {"head.output.bias": [len(tree.label_columns)]}
    order = {name: _axes(name, len(shape)) if in_tensorflow else range(len(shape)) for name, shape in wanted.items()}
    as_filed = {rename(name): [shape[i] for i in np.argsort(order[name])] for name, shape in wanted.items()}
    architectures.check_tensors(design, as_filed, tensors)
    return _spec(design, channels, tree), {name: tensors[rename(name)].transpose(order[name]) for name in wanted}


def _spec(design: str, channels: int, tree=None, head: dict | None = None, size: int = 224, dropout=0.2) -> dict:
    if tree is not None:
        head = {"kind": "concentrations", "hidden": []}
    return {
        "architecture": design,
        "channels": int(channels),
        "image_size": int(size),
        "field_of_view": FIELD_OF_VIEW,
        "dropout": float(dropout),
        "tree": tree.to_dict() if tree else None,
        "head": head,
    }


def _efficientnet(name: str) -> str:
    """As in torchvision."""
    part, layer, tensor = _parts(name)
    if part == "head":
        return f"model.2.0.{tensor}"
    outer = {"conv_stem": "0.0", "bn1": "0.1", "conv_head": "8.0", "bn2": "8.1"}
    if layer in outer:
        return f"model.0.features.{outer[layer]}.{tensor}"
    _, stage, block, layer = layer.split(".", 3)
    if stage == "0":
        inner = {"conv_dw": "0.0", "bn1": "0.1", "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2", "conv_pw": "2.0",
                 "bn2": "2.1"}  # fmt: skip
    else:
        inner = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "se.conv_reduce": "2.fc1",
                 "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"}  # fmt: skip
    return f"model.0.features.{int(stage) + 1}.{block}.block.{inner[layer]}.{tensor}"


def _torchvision_resnet(name: str) -> str:
    part, layer, tensor = _parts(name)
    if part == "head":
        return f"model.2.0.{tensor}"
    layer = {"conv1": "0", "bn1": "1"}.get(layer, layer)
    return "model.0." + re.sub(r"^layer(\d)", lambda found: str(int(found[1]) + 3), layer) + f".{tensor}"


def _detectron(name: str) -> str:
    part, layer, tensor = _parts(name)
    if part == "head":
        return f"model.2.0.{tensor}"
    layer = re.sub(r"^(conv1|bn1)$", r"stem.\1", layer)
    layer = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", layer)
    layer = layer.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return "model.0.0." + re.sub(r"bn(\d)$", r"conv\1.norm", layer) + f".{tensor}"


def _keras(name: str) -> str:
    """As in a TensorFlow checkpoint, which numbers the layers as they follow one another."""
    part, layer, tensor = _parts(name)
    if part == "head":
        return f"layer_with_weights-1/{'kernel' if tensor == 'weight' else 'bias'}/.ATTRIBUTES/VARIABLE_VALUE"
    if re.search(r"bn\d$", layer):
        tensor = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}[
            tensor
        ]
    elif tensor == "weight":
        tensor = "depthwise_kernel" if layer.endswith("conv_dw") else "kernel"
    inside = "layer_with_weights-0/layer_with_weights-0"
    return f"{inside}/layer_with_weights-{_keras_numbers()[layer]}/{tensor}/.ATTRIBUTES/VARIABLE_VALUE"


@cache
def _keras_numbers() -> dict[str, int]:
    names = architectures.tensor_shapes("tf_efficientnet_b0", 1)
    layers = dict.fromkeys(name.rsplit(".", 1)[0] for name in names)
    return {layer: number for number, layer in enumerate(layers)}


def _axes(name: str, axes: int) -> tuple[int, ...]:
    """Which axes of a Keras kernel are those of a PyTorch weight."""
    if axes == 4:
        return (2, 3, 0, 1) if name.endswith("conv_dw.weight") else (3, 2, 0, 1)
    return (1, 0) if axes == 2 else (0,)


def _parts(name: str) -> tuple[str, str, str]:
    """Of ``encoder.blocks.0.0.conv_dw.weight``: ``encoder``, ``blocks.0.0.conv_dw``, ``weight``."""
    part, rest = name.split(".", 1)
    return part, *rest.rsplit(".", 1)


# What the names of the tensors begin with, what encoder that is, and what timm's names are called there
_LAYOUTS = {
    r"model\.0\.features\.": ("efficientnet_b0", _efficientnet),
    r"model\.0\.0\.(stem|res\d)\.": ("resnet50_detectron", _detectron),
    r"model\.0\.(0\.weight|[14567]\.)": ("resnet50", _torchvision_resnet),
    r"layer_with_weights-": ("tf_efficientnet_b0", _keras),
}


# ---- Zoobot from version 1 on: encoders of timm ----


def _zoobot(tensors: dict, settings: dict, architecture: str | None) -> tuple[dict, dict[str, np.ndarray]]:
    """A checkpoint of a pretrained or fine-tuned model, or of an encoder alone."""
    design = architecture or _design(settings)
    tensors = {name.replace("encoder._orig_mod.", "encoder."): array for name, array in tensors.items()}
    layers = [name.rsplit(".", 1)[0] for name in tensors if name.startswith("head.")]
    layer, tree, head = (layers[0] if layers else None), None, None
    outputs = len(tensors.get(f"{layer}.bias", ()))
    if layer == "head.1.0":
        tree = _tree(settings)
        outputs = len(tree.label_columns)
    elif layer == "head.linear":
        head = _head(settings, outputs)
    elif layer is not None:
        raise ValueError(f"its head {layer!r} is none of Zoobot's: head.1.0 (a decision tree) or head.linear")
    weight = tensors.get(f"{layer}.weight", np.empty((0, 0)))
    wanted = {name: list(array.shape) for name, array in tensors.items() if name.startswith("encoder.")}
    channels = _channels({name.removeprefix("encoder."): array for name, array in tensors.items()})
    if design in architectures.BOTH:
        wanted = {f"encoder.{name}": shape for name, shape in architectures.tensor_shapes(design, channels).items()}
    renamed = {}
    if layer:
        width = architectures.BOTH[design].features if design in architectures.BOTH else weight.shape[-1]
        wanted |= {f"{layer}.weight": [outputs, width], f"{layer}.bias": [outputs]}
        renamed = {f"{layer}.weight": "head.output.weight", f"{layer}.bias": "head.output.bias"}
    architectures.check_tensors(design, wanted, tensors)
    dropout = next((settings[key] for key in _DROPOUTS if isinstance(settings.get(key), float)), 0.0)
    spec = _spec(design, channels, tree, head, dropout=dropout)
    return spec, {renamed.get(name, name): array for name, array in tensors.items()}


_DROPOUTS = ("head_dropout_prob", "dropout_rate", "dropout_prob")  # of today, of pretraining, of versions 1 and 2.0


def _design(settings: dict) -> str:
    """Which encoder it is: the last part of a name such as ``hf_hub:mwalmsley/zoobot-encoder-greyscale-resnet50``."""
    name = settings.get("architecture_name") or settings.get("name")
    if isinstance(name, str) and (name.startswith(_HUB) or ":" not in name):
        return re.split(r"[/-]", name)[-1].split(".")[0]
    raise ValueError(
        f"the file does not say which encoder it holds{f' (only {name!r})' if name else ''}: give "
        "architecture=…, timm's name of it, such as 'convnext_nano'"
    )


def _head(settings: dict, outputs: int) -> dict:
    label = str(settings.get("label_col") or "label")
    if outputs != 1:
        return {"kind": "classes", "hidden": [], "label": label, "classes": list(range(outputs))}
    if settings.get("unit_interval"):
        return {"kind": "fraction", "hidden": [], "label": label}
    return {"kind": "regression", "hidden": [], "label": label, "mean": 0.0, "deviation": 1.0}


def _tree(settings: dict) -> trees.DecisionTree:
    """The questions that a model answers: one of the trees that zoobook knows, or else as the file describes them."""
    schema = settings.get("schema")
    described = vars(schema) if isinstance(schema, pytorch_file.Shell) else settings
    pairs, after = described.get("question_answer_pairs"), described.get("dependencies") or {}
    if not isinstance(pairs, dict):
        raise ValueError("the file does not say which questions its model answers (question_answer_pairs is missing)")
    columns = [question + answer for question, answers in pairs.items() for answer in answers]
    for name in trees.names():
        if trees.load(name).label_columns == columns:
            return trees.load(name)
    questions = [
        {
            "name": question,
            "answers": [answer.removeprefix("_") for answer in answers],
            "asked_after": [after[question]] if after.get(question) in columns else [],
        }
        for question, answers in pairs.items()
    ]
    return trees.DecisionTree.from_dict({"name": "zoobot", "questions": questions})


def _channels(tensors: dict) -> int:
    """How many channels an encoder of timm sees, from its first convolution."""
    stems = [name for name, array in tensors.items() if array.ndim == 4 and re.match(_STEM, name)]
    if not stems:
        raise ValueError("its first convolution is missing")
    return tensors[min(stems)].shape[1]


_STEM = r"(conv_stem|conv1|stem|patch_embed)\b.*weight$"


def _hub_encoder(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """An encoder as timm publishes it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / "config.json").read_text("utf8"))
        design, about = config["architecture"], config.get("pretrained_cfg") or {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} describes no encoder of timm ({error!r})") from None
    if (folder / "model.safetensors").is_file():
        try:
            tensors = load_file(folder / "model.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{folder / 'model.safetensors'} is not whole ({error}); fetch it again") from None
    else:
        tensors = pytorch_file.read(folder / "pytorch_model.bin")
    top = f"{about.get('classifier')}."  # of an encoder that was published with classes
    tensors = {
        name: array for name, array in tensors.items() if not _UNUSED.search(name) and not name.startswith(top)
    }
    channels = _channels(tensors)
    if design in architectures.BOTH:
        architectures.check_tensors(design, architectures.tensor_shapes(design, channels), tensors)
    size = (about.get("input_size") or [3, 224, 224])[-1]
    return _spec(design, channels, size=size), {f"encoder.{name}": array for name, array in tensors.items()}
