"""What weights there are by name (``registry.yaml``): those that come with zoobook, and those that Zoobot published."""
from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

SHIPPED = Path(__file__).parent / "shipped"


@cache
def registry() -> dict[str, dict[str, dict]]:
    """The entries of each kind, ``shipped`` and ``published``, by name."""
    content = yaml.safe_load(files("zoobook.weights").joinpath("registry.yaml").read_text("utf8"))
    published = {name: {**content["all"], **entry} for name, entry in content["weights"].items()}
    return {"shipped": content["shipped"], "published": published}


def find_shipped(name: str) -> Path | None:
    """The file of weights of this name that come with zoobook, or ``None``.

    Raises:
        ValueError: the file is not the one that zoobook came with: its hash differs.
    """
    entry = registry()["shipped"].get(name)
    if entry is None:
        return None
    file = SHIPPED / f"{name}.safetensors"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
        raise ValueError(f"{file} is not the file that came with zoobook (missing, or its hash differs): reinstall it")
    return file


def known_names(path: str) -> str:
    """To add to the message that there is nothing at a path: the names that may be meant, if it looks like one."""
    if os.path.basename(path) != path or path.endswith((".safetensors", ".ckpt", ".index")):
        return ""
    shipped, published = registry().values()
    if path in published:
        return f"; Zoobot published it: zoobook.weights.read_legacy reads what zoobook.weights.fetch({path!r}) gets"
    return (
        f", and no weights of that name.{did_you_mean(path, [*shipped, *published])} With zoobook come: "
        f"{', '.join(shipped)}; Zoobot published: {', '.join(published)}."
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the most similar of the known names, after a blank; nothing where none is similar.

    >>> did_you_mean("resnet5", ["resnet50", "efficientnet_b0"])
    " Did you mean 'resnet50'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
