"""What weights there are by name (``registry.yaml``): those that come with zoobook, and those that Zoobot published."""

import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from zoobook.arguments import did_you_mean

SHIPPED = Path(__file__).parent / "shipped"


@cache
def registry() -> dict[str, dict[str, dict]]:
    """The entries of each kind, ``shipped`` and ``published``, by name."""
    content = yaml.safe_load(files("zoobook.weights").joinpath("registry.yaml").read_text("utf8"))
    published = {name: {**content["all"], **entry} for name, entry in content["weights"].items()}
    return {"shipped": content["shipped"], "published": published}


def find_shipped(name: str) -> Path | None:
    """The file of weights of this name that come with zoobook, or ``None``."""
    entry = registry()["shipped"].get(name)
    if entry is None:
        return None
    file = SHIPPED / f"{name}.safetensors"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
        raise ValueError(f"{file} is not the file that came with zoobook (missing, or its hash differs): reinstall it")
    return file


def known_names(path: str) -> str:
    """To add to the message that there is nothing at a path: the names that may be meant, if it looks like one."""
    if str(path).startswith("hf_hub:"):
        return ": zoobook.weights.read_legacy reads those of the Hugging Face hub"
    if os.path.basename(path) != path or path.endswith((".safetensors", ".ckpt", ".index")):
        return ""
    shipped, published = registry().values()
    if path in published:
        return f"; Zoobot published it: zoobook.weights.read_legacy reads what zoobook.weights.fetch({path!r}) gets"
    return (
        f", and no weights of that name.{did_you_mean(path, [*shipped, *published])} With zoobook come: "
        f"{', '.join(shipped)}; Zoobot published: {', '.join(published)}."
    )
