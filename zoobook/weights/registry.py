"""Weights known by a name: those that come with zoobook, and those that Zoobot published in 2022 for GZ DECaLS."""
from __future__ import annotations

import difflib
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd
import yaml

from zoobook import arguments
from zoobook.datasets import download, home
from zoobook.weights import legacy

SHIPPED = Path(__file__).parent / "shipped"


def shipped() -> pd.DataFrame:
    """The weights that come with zoobook; :func:`zoobook.weights.load` takes their names.

    Returns:
        DataFrame: one row each: ``name``, ``architecture``, ``channels``, ``image_size``, ``tree``, ``trained_on``,
        ``licence``.
    """
    from zoobook.weights import inspect

    rows = []
    for name, entry in _registry()["shipped"].items():
        spec = inspect(name)["spec"]
        built = {key: spec[key] for key in ("architecture", "channels", "image_size")}
        tree = (spec["tree"] or {}).get("name")
        rows.append({"name": name, **built, "tree": tree, **{key: entry[key] for key in ("trained_on", "licence")}})
    return pd.DataFrame(rows)


def find_shipped(name: str) -> Path | None:
    """The file of weights that come with zoobook.

    Args:
        name: such as ``"simulated_efficientnet_b0"``.

    Returns:
        Path: the file, checked against its hash; ``None`` where no weights of that name come with zoobook.

    Raises:
        ValueError: the file is not the one that zoobook came with.
    """
    entry = _registry()["shipped"].get(name)
    if entry is None:
        return None
    file = SHIPPED / f"{name}.safetensors"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
        raise ValueError(f"{file} is not the file that came with zoobook (missing, or its hash differs): reinstall it")
    return file


def known_names(path: str) -> str:
    """What to add to the message that there is nothing at a path: it may have been meant as a name.

    Args:
        path: what was asked for.

    Returns:
        str: the name that was perhaps meant, and all that there are; nothing where ``path`` looks like no name.
    """
    if os.path.basename(path) != path or path.endswith((".safetensors", ".ckpt", ".index")):
        return ""
    registry = _registry()
    close = difflib.get_close_matches(path, [*registry["shipped"], *registry["weights"]], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shipped, published = (", ".join(registry[key]) for key in ("shipped", "weights"))
    return f", and no weights of that name.{hint} With zoobook come: {shipped}; Zoobot published: {published}."


def published() -> pd.DataFrame:
    """The published weights that :func:`fetch` knows.

    Today's encoders need no list: :func:`zoobook.weights.read_legacy` takes their names on the Hugging Face hub.

    Returns:
        DataFrame: one row each: ``name``, ``architecture``, ``channels`` (1: the mean of the colours), ``written_by``,
        ``on_disk`` (whether it is where :func:`fetch` puts it), ``trained_on``, ``licence``, ``location``,
        ``citation``.
    """
    return pd.DataFrame(
        [
            {
                "name": name,
                "architecture": entry["architecture"],
                "channels": entry["channels"],
                "written_by": entry["written_by"],
                "on_disk": _there(home() / "weights" / name),
                "trained_on": entry["trained_on"],
                "licence": entry["licence"],
                "location": entry["location"],
                "citation": entry["citation"],
            }
            for name, entry in entries().items()
        ]
    )


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """Get published weights, in the layout in which they were published.

    Files whose address is known are downloaded and checked against their hash. Of the others, the message says where
    they are and where to put them; once they are there, they are checked and used.

    Args:
        name: such as ``"efficientnet_dr5_pytorch"``; :func:`published` lists them.
        root: the folder of the data; :func:`zoobook.datasets.home` by default.

    Returns:
        Path: the folder with the weights, for :func:`zoobook.weights.read_legacy`.

    Raises:
        ValueError: there are no weights of that name, or those in the folder are others.
        FileNotFoundError: the weights must be downloaded by hand.
        OSError: the files could not be fetched or written.
    """
    known = entries()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there are no published weights {name!r}. {hint}Known: {', '.join(known)}.")
    entry = known[name]
    folder = (arguments.path(root) if root else home()) / "weights" / name
    by_hand = (
        f"open {entry['location']} in a browser, download {name}, and put its files (one .ckpt, or one .index with its "
        f".data files) into {folder}"
    )
    if "files" in entry:
        download.fetch([download.RemoteFile(**file) for file in entry["files"]], folder, name, by_hand)
    elif not _there(folder):
        raise FileNotFoundError(
            f"{name} is part of a shared folder and cannot be fetched by a program. Do it by hand: {by_hand}. "
            "Then run this again."
        )
    spec, _ = legacy.read(folder)
    for key in ("architecture", "channels"):
        if spec[key] != entry[key]:
            raise ValueError(f"the weights in {folder} are not {name}: {key} is {spec[key]}, not {entry[key]}")
    return folder


def entries() -> dict[str, dict]:
    """What is known of each of the published weights (``registry.yaml``)."""
    content = _registry()
    return {name: {**content["all"], **entry} for name, entry in content["weights"].items()}


@cache
def _registry() -> dict:
    return yaml.safe_load(files("zoobook.weights").joinpath("registry.yaml").read_text("utf8"))


def _there(folder: Path) -> bool:
    return any(folder.glob("*.ckpt")) or any(folder.glob("*.index"))
