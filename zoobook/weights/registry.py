"""The weights that Zoobot published in 2022 for GZ DECaLS: what they are, and getting them."""
from __future__ import annotations

import difflib
import os
from importlib.resources import files
from pathlib import Path

import pandas as pd
import yaml

from zoobook.datasets import download, home
from zoobook.weights import legacy


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
    folder = (Path(root).expanduser().absolute() if root else home()) / "weights" / name
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
    content = yaml.safe_load(files("zoobook.weights").joinpath("registry.yaml").read_text("utf8"))
    return {name: {**content["all"], **entry} for name, entry in content["weights"].items()}


def _there(folder: Path) -> bool:
    return any(folder.glob("*.ckpt")) or any(folder.glob("*.index"))
