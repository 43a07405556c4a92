"""Weights that Zoobot published, from 2021 to today, read as they are."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from zoobook import arguments, trees
from zoobook.images.views import FIELD_OF_VIEW
from zoobook.learning import architectures
from zoobook.weights import layouts_2022, pytorch_file, tensorflow_file
from zoobook.weights.names import known_names

_HUB = "hf_hub:"
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")  # the second one in old repositories
# What files hold beside weights: batch counters (absent in frozen layers), optimisers, random states, class weights
_UNUSED = re.compile(
    r"num_batches_tracked$|OPTIMIZER_SLOT|^optimizer/|^(step|save_counter)/|^layer-\d+/_rng/|^(loss\.)?class_weights$"
)
_KERAS = "of TensorFlow, checkpoints are read (.index with .data files), but no files of Keras"
_OTHERS = {
    ".h5": _KERAS, ".hdf5": _KERAS, ".keras": _KERAS,
    ".safetensors": "zoobook.weights.load reads zoobook's own; of timm's, name the folder, with config.json",
}  # fmt: skip
_DROPOUTS = ("head_dropout_prob", "dropout_rate", "dropout_prob")  # of today, of pretraining, of versions 1 and 2.0
_STEM = re.compile(r"(encoder\.)?(conv_stem|conv1|stem|patch_embed)\b.*weight$")  # an encoder's first convolution

Contents = tuple[dict, dict[str, np.ndarray]]  # a model's spec, and its tensors by name


def read(path: str | Path, architecture: str | None = None) -> Contents:
    """What a file that Zoobot published holds, without any framework; see :func:`zoobook.weights.read_legacy`.

    Returns:
        tuple: a model's spec, and its tensors, float32, by zoobook's names.
    """
    kind, found = _find(str(path))
    try:
        if kind == "encoder":
            spec, tensors = _timm_encoder(found)
        else:
            spec, tensors = _checkpoint(found, kind, architecture)
        spec = architectures.check_options(spec)
    except ValueError as error:
        raise ValueError(str(error) if str(found) in str(error) else f"{found}: {error}") from None
    single = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    return spec, {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in single.items()}


# ---- Where the weights are ----


def _find(path: str) -> tuple[str, Path]:
    """What kind of weights lie at a path, and where exactly."""
    if path.startswith(_HUB):
        return _find(_from_hub(path.removeprefix(_HUB)))
    place = arguments.path(path.removeprefix("local-dir:"))
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", str(place))
    if Path(f"{prefix}.index").is_file():
        return "tensorflow", Path(prefix)
    if place.is_file():
        if place.suffix.lower() in _OTHERS:
            raise ValueError(f"{place} is no checkpoint: {_OTHERS[place.suffix.lower()]}")
        return "pytorch", place
    if not place.is_dir():
        raise FileNotFoundError(f"there are no weights at {place}{known_names(path)}")
    if any((place / name).is_file() for name in _TIMM_FILES):
        return "encoder", place
    inside = [file for file in sorted(place.iterdir()) if file.suffix in (".index", ".ckpt")]
    if len(inside) != 1:
        names = ", ".join(file.name for file in inside[:4]) or "none"
        raise ValueError(f"the folder {place} must hold one file of weights (the best.safetensors of a training that "
                         f"has finished an epoch, one .ckpt or one .index), or you name one; it has: {names}")
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


# ---- What they hold ----


def _checkpoint(path: Path, kind: str, architecture: str | None) -> Contents:
    """A checkpoint of either framework."""
    if kind == "tensorflow":
        settings, tensors = {}, tensorflow_file.read(path)
    else:
        content = pytorch_file.read(path)
        settings, tensors = content.get("hyper_parameters"), content.get("state_dict", content)
    tensors = {str(name): array for name, array in tensors.items() if isinstance(array, np.ndarray)}
    tensors = {name: array for name, array in tensors.items() if not _UNUSED.search(name)}
    layout = layouts_2022.layout_of(list(tensors))
    if layout:
        channels, tensors = layouts_2022.read_layout(layout, tensors)
        return _spec(layout.architecture, channels, trees.load("decals_dr5")), tensors
    if any(name.startswith("encoder.") for name in tensors):
        return _zoobot(tensors, settings if isinstance(settings, dict) else {}, architecture)
    shown = ", ".join(list(tensors)[:4]) or "none"
    raise ValueError(f"{path} is laid out like no Zoobot model that zoobook knows; its first tensors are: {shown}")


def _zoobot(tensors: dict[str, np.ndarray], settings: dict, architecture: str | None) -> Contents:
    """A pretrained or fine-tuned model, or an encoder alone, as Zoobot writes them from version 1 on."""
    design = architecture or _design(settings)
    tensors = {name.replace("encoder._orig_mod.", "encoder."): array for name, array in tensors.items()}
    channels = _channels(tensors)
    if design in architectures.BOTH:
        wanted = {f"encoder.{name}": shape for name, shape in architectures.tensor_shapes(design, channels).items()}
    else:  # only PyTorch has it, and checks it
        wanted = {name: list(array.shape) for name, array in tensors.items() if name.startswith("encoder.")}
    tree, head, renamed = None, None, {}
    layer = next((name.rsplit(".", 1)[0] for name in tensors if name.startswith("head.")), None)
    if layer:
        weight, outputs = tensors.get(f"{layer}.weight", np.empty((0, 0))), len(tensors.get(f"{layer}.bias", ()))
        if layer == "head.1.0":
            tree = _tree(settings)
            outputs = len(tree.label_columns)
        elif layer == "head.linear":
            head = _head(settings, outputs)
        else:
            raise ValueError(f"its head {layer!r} is none of Zoobot's: head.1.0 (a decision tree) or head.linear")
        width = architectures.BOTH[design].features if design in architectures.BOTH else weight.shape[-1]
        wanted |= {f"{layer}.weight": [outputs, width], f"{layer}.bias": [outputs]}
        renamed = {f"{layer}.{tensor}": f"head.output.{tensor}" for tensor in ("weight", "bias")}
    architectures.check_tensors(design, wanted, tensors)
    dropout = next((settings[key] for key in _DROPOUTS if isinstance(settings.get(key), float)), 0.0)
    spec = _spec(design, channels, tree, head, dropout=dropout)
    return spec, {renamed.get(name, name): array for name, array in tensors.items()}


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
    for tree in map(trees.load, trees.names()):
        if tree.label_columns == columns:
            return tree
    questions = [
        {
            "name": question,
            "answers": [answer.removeprefix("_") for answer in answers],
            "asked_after": [after[question]] if after.get(question) in columns else [],
        }
        for question, answers in pairs.items()
    ]
    return trees.DecisionTree.from_dict({"name": "zoobot", "questions": questions})


def _timm_encoder(folder: Path) -> Contents:
    """An encoder as timm publishes it."""
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
    tensors = {name: array for name, array in tensors.items()
               if not _UNUSED.search(name) and not name.startswith(top)}  # fmt: skip
    channels = _channels(tensors)
    if design in architectures.BOTH:
        architectures.check_tensors(design, architectures.tensor_shapes(design, channels), tensors)
    size = (about.get("input_size") or [3, 224, 224])[-1]
    return _spec(design, channels, size=size), {f"encoder.{name}": array for name, array in tensors.items()}


def _channels(tensors: dict[str, np.ndarray]) -> int:
    """How many channels an encoder of timm sees, from its first convolution."""
    stems = [name for name, array in tensors.items() if array.ndim == 4 and _STEM.match(name)]
    if not stems:
        raise ValueError("its first convolution is missing")
    return tensors[min(stems)].shape[1]


def _spec(
    design: str, channels: int, tree: trees.DecisionTree | None = None, head: dict | None = None, size: int = 224,
    dropout: float = 0.2,
) -> dict:  # fmt: skip
    return {
        "architecture": design,
        "channels": int(channels),
        "image_size": int(size),
        "field_of_view": FIELD_OF_VIEW,
        "dropout": float(dropout),
        "tree": tree.to_dict() if tree else None,
        "head": {"kind": "concentrations", "hidden": []} if tree else head,
    }
