"""Weights known by a name: those that come with zoobook, and those that Zoobot published in 2022 for GZ DECaLS."""

import os
from pathlib import Path

import pandas as pd

from zoobook import arguments
from zoobook.datasets import home
from zoobook.weights import legacy
from zoobook.weights.names import registry
from zoobook.weights.neutral_file import inspect


def shipped() -> pd.DataFrame:
    """The weights that come with zoobook; :func:`zoobook.weights.load` takes their names.

    Returns:
        DataFrame: ``name``, ``architecture``, ``channels``, ``image_size``, ``tree``, ``trained_on``, ``licence``.
    """
    rows = []
    for name, entry in registry()["shipped"].items():
        spec = inspect(name)["spec"]
        rows.append({"name": name, **entry, **spec, "tree": (spec["tree"] or {}).get("name")})
    return pd.DataFrame(rows)[["name", "architecture", "channels", "image_size", "tree", "trained_on", "licence"]]


def published() -> pd.DataFrame:
    """The published weights that :func:`fetch` knows.

    Today's encoders need no list: :func:`zoobook.weights.read_legacy` takes their names on the Hugging Face hub.

    Returns:
        DataFrame: one row each: ``name``, ``architecture``, ``channels`` (1: the mean of the colours), ``written_by``,
        ``on_disk`` (whether it is where :func:`fetch` puts it), ``trained_on``, ``licence``, ``location``,
        ``citation``.
    """
    rows = [{"name": name, "on_disk": _there(home() / "weights" / name), **entry}
            for name, entry in registry()["published"].items()]  # fmt: skip
    columns = ["name", "architecture", "channels", "written_by", "on_disk", "trained_on", "licence", "location",
               "citation"]  # fmt: skip
    return pd.DataFrame(rows)[columns]


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """The folder of published weights, in the layout in which they were published.

    No program can fetch them: a FileNotFoundError says where they are to be had, and where to put them. Once they are
    there, they are checked.

    Args:
        name: such as ``"efficientnet_dr5_pytorch"``; :func:`published` lists them.
        root: the folder of the data; :func:`zoobook.datasets.home` by default.

    Returns:
        Path: the folder with the weights, for :func:`zoobook.weights.read_legacy`.
    """
    known = registry()["published"]
    if name not in known:
        hint = arguments.did_you_mean(name, known)
        raise ValueError(f"there are no published weights {name!r}.{hint} Known: {', '.join(known)}.")
    entry, folder = known[name], home(root) / "weights" / name
    if not _there(folder):
        raise FileNotFoundError(
            f"{name} is part of a shared folder and cannot be fetched by a program. Do it by hand: open "
            f"{entry['location']} in a browser, download {name}, and put its files (one .ckpt, or one .index with its "
            f".data files) into {folder}. Then run this again."
        )
    spec, _ = legacy.read(folder)
    for key in ("architecture", "channels"):
        if spec[key] != entry[key]:
            raise ValueError(f"the weights in {folder} are not {name}: {key} is {spec[key]}, not {entry[key]}")
    return folder


def _there(folder: Path) -> bool:
    return any(folder.glob("*.ckpt")) or any(folder.glob("*.index"))
