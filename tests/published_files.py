"""Files as Zoobot wrote them in 2022, with made-up weights that follow from the names of the tensors alone.

``data/published_weights`` has the lists of tensors and the answers of the original programs, and says how they were
measured.
"""
import json
import zlib
from collections import OrderedDict
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from toys import array, images_for

FACTS = Path(__file__).parent / "data" / "published_weights"
FEATURES_KEPT = 64  # of each image, in the answers of the original programs
KERAS_ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"
NAMES = [
    "effnet_train_only_dr5_greyscale_tf",
    "effnet_train_only_dr5_color_tf",
    "efficientnet_dr5_pytorch",
    "efficientnet_dr5_pytorch_color",
    "resnet_detectron_dr5_pytorch",
    "resnet_detectron_dr5_pytorch_color",
    "resnet50_torchvision_dr5_pytorch_color",
]
STEMS = (
    "features.0.0.weight", "stem.conv1.weight", "model.0.0.weight", "stem_conv/kernel",  # of 2022
    "encoder.conv_stem.weight", "encoder.conv1.weight",  # of timm
)  # fmt: skip


def uniform(name: str, shape) -> np.ndarray:
    count = int(np.prod(shape, dtype=int))
    return np.random.RandomState(zlib.crc32(name.encode())).random_sample(count).reshape(shape)


def weight(name: str, shape, gains: dict) -> np.ndarray:
    """The made-up value of one tensor."""
    kind, share = name.replace("/", ".").split(".")[-1], uniform(name, shape)
    if kind == "num_batches_tracked":
        return np.array(1000)
    if kind in ("running_var", "moving_variance"):
        value = 0.05 + 0.9 * share
    elif kind in ("running_mean", "moving_mean"):
        value = 0.1 * (2 * share - 1)
    elif len(shape) >= 2:
        into = shape[1:] if "/" not in name else shape[:2] if kind == "depthwise_kernel" else shape[:-1]
        gain = 1.0 if len(shape) == 2 else gains["stem_gain" if name.endswith(STEMS) else "conv_gain"]
        value = (2 * share - 1) * np.sqrt(3 * gain / np.prod(into))
    elif kind in ("weight", "gamma"):
        value = 1 + 0.25 * (2 * share - 1)
    else:
        value = 0.1 * (2 * share - 1)
    return np.asarray(value, np.float32)


@cache
def images(size: int, channels: int) -> np.ndarray:
    """Two made-up galaxies, float32 [2, channels, size, size]."""
    block = -(-size // 8)
    coarse = uniform("zoobook-legacy-image/coarse", (2, 3, 8, 8)).repeat(block, 2).repeat(block, 3)
    found = 0.7 * coarse[:, :, :size, :size] + 0.3 * uniform(f"zoobook-legacy-image/fine{size}", (2, 3, size, size))
    place = (2 * np.arange(size) + 1) / size - 1
    for k in range(2):
        found[k] /= 1 + (place[:, None] ** 2 + place**2) / (0.5 * (k + 1)) ** 2
    if channels == 1:
        found = (found[:, :1] + found[:, 1:2] + found[:, 2:]) / 3
    return found.astype(np.float32)


class Published:
    """One of the seven: what is known of it, and a file with made-up weights."""

    def __init__(self, name: str):
        self.name, facts = name, json.loads((FACTS / "facts.json").read_text("utf8"))[name]
        self.channels, self.gains = facts["channels"], facts
        self.lines = (FACTS / facts["tensors"]).read_text("utf8").splitlines()

    def answers(self, what: str) -> np.ndarray:
        """What the original program answered, such as `outputs_224`."""
        with np.load(FACTS / "answers.npz") as answers:
            return answers[f"{self.name}/{what}"]

    def tensors(self) -> dict[str, np.ndarray]:
        """Its tensors by their names in the file."""
        found, ending = {}, KERAS_ENDING if self.name.endswith("_tf") else ""
        for line in self.lines:
            key, *variable, sides = line.split()  # PyTorch has one name for both
            shape = [self.channels if n == "channels" else int(n) for n in sides.split("x") if n != "-"]
            found[key + ending] = weight((variable or [key])[0], shape, self.gains)
        return found

    def write(self, folder: Path, tensors: dict | None = None) -> Path:
        """Write it as it was published; returns what to read."""
        tensors = self.tensors() if tensors is None else tensors
        return self.write_tensorflow(folder, tensors) if self.name.endswith("_tf") else lightning(folder, tensors)

    def write_tensorflow(self, folder: Path, tensors: dict) -> Path:
        import tensorflow as tf

        others = {"_CHECKPOINTABLE_OBJECT_GRAPH": b"a description of the program"}
        others[f"step{KERAS_ENDING}"] = np.int64(3)
        slot = "layer_with_weights-1/bias/.OPTIMIZER_SLOT/optimizer/m"
        others[f"{slot}{KERAS_ENDING}"] = np.zeros(34, np.float32)
        others[f"optimizer/iter{KERAS_ENDING}"] = np.int64(9)
        others[f"layer-0/_rng/_state_var{KERAS_ENDING}"] = np.zeros(3, np.int64)
        everything = {**tensors, **others}
        tf.raw_ops.SaveV2(
            prefix=str(folder / "checkpoint"),
            tensor_names=list(everything),
            shape_and_slices=[""] * len(everything),
            tensors=[tf.constant(value) for value in everything.values()],
        )
        (folder / "checkpoint").write_text('model_checkpoint_path: "checkpoint"\n')  # TensorFlow writes this beside it
        return folder


def lightning(folder: Path, tensors: dict, settings: dict | None = None, file: str = "epoch=0-step=1.ckpt") -> Path:
    """Write a checkpoint as Lightning does."""
    import torch

    state = OrderedDict((name, torch.tensor(value)) for name, value in tensors.items())
    content = {"epoch": 0, "global_step": 1, "pytorch-lightning_version": "1.6.5", "state_dict": state, "loops": {}}
    if settings is not None:
        content |= {"hparams_name": "kwargs", "hyper_parameters": settings}
    torch.save(content, folder / file)
    return folder / file


@contextmanager
def precision(half, name: str):
    """Make models that compute in float32 or float64."""
    try:
        half.models.DTYPE = name
        yield
    finally:
        half.models.DTYPE = "float32"


def look_at(half, model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and answers of a model for images [N, C, H, W]."""
    features = model.features(images_for(half, np.moveaxis(images, 1, 3)))
    return array(features), None if model.head is None else array(model.activate(model.logits(features)))
