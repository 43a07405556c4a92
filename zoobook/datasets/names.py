"""What data sets there are by name (``registry.yaml``), and where they are kept."""

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import pooch
import yaml

from zoobook import arguments
from zoobook.images.decals import DECALS_FRAMING


def home(root: str | os.PathLike | None = None) -> Path:
    """The folder where data sets are kept: ``root``, else ``$ZOOBOOK_HOME``, else the system's cache folder."""
    if root is None:
        root = os.environ.get("ZOOBOOK_HOME") or pooch.os_cache("zoobook")
    return arguments.path(root)


@cache
def registry() -> dict[str, dict]:
    """What is known of each data set: address, hashes, columns, licence, citation (``registry.yaml`` explains)."""
    return yaml.safe_load(files("zoobook.datasets").joinpath("registry.yaml").read_text("utf8"))


def known(name: str) -> dict:
    """What the registry says of one data set; a ValueError where there is none of that name."""
    entries = registry()
    if not isinstance(name, str) or name not in entries:
        hint = arguments.did_you_mean(name, entries)
        raise ValueError(f"there is no data set {name!r}.{hint} Known: {', '.join(entries)}.")
    return entries[name]


def framing(name: str) -> float:
    """The side of a data set's images in units of the galaxy's half-light radius R50, as ``ImageStore.build`` takes it.

    Whatever is no data set, such as the path of one's own table, is taken to be framed as DECaLS.
    """
    return registry().get(str(name), {}).get("framing", DECALS_FRAMING)
