"""Data sets by name: what there is, and loading it as a catalogue.

Data live in one folder: the option ``root``, else ``$ZOOBOOK_HOME``, else the cache folder of the operating system.
"""
from __future__ import annotations

import difflib
import inspect
import os
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pandas as pd
import yaml


def home() -> Path:
    """The folder where data sets are kept: ``$ZOOBOOK_HOME``, else the cache folder of the operating system."""
    if os.environ.get("ZOOBOOK_HOME"):
        return Path(os.environ["ZOOBOOK_HOME"]).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("zoobook"))


def available() -> pd.DataFrame:
    """The data sets that :func:`load` knows.

    Returns:
        DataFrame: one row a data set: ``name``, ``title``, ``rows`` and ``bytes`` (missing where they are as many as
        asked for), ``on_disk`` (whether it is in :func:`home`: whole, if it is downloaded; any of it, if it is made
        here), ``licence``, ``citation``.
    """
    table = pd.DataFrame(
        [
            {
                "name": name,
                "title": entry["title"],
                "rows": entry["rows"],
                "bytes": entry["bytes"],
                "on_disk": _on_disk(name, entry),
                "licence": entry["licence"],
                "citation": entry["citation"],
            }
            for name, entry in registry().items()
        ]
    )
    return table.astype({"rows": "Int64", "bytes": "Int64"})


def load(name: str, root: str | os.PathLike | None = None, download: bool = True, **options) -> pd.DataFrame:
    """Load a data set as a catalogue, downloading or making what is not on disk yet.

    Args:
        name: such as ``"simulated"`` or ``"rings"``; :func:`available` lists them.
        root: the folder of the data; :func:`home` by default. Files that are already there are used.
        download: whether files may be fetched from the network; ``False`` makes missing ones an error.
        **options: of that data set, see ``zoobook.datasets.{name}.load``.

    Returns:
        DataFrame: a catalogue with ``id_str`` and ``file_loc``.

    Raises:
        ValueError: the name or an option is unknown.
        FileNotFoundError: files are missing and ``download`` is ``False``.
        OSError: files could not be fetched or written; what is finished is kept for the next time.
    """
    known = registry()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no data set {name!r}. {hint}Known: {', '.join(known)}.")
    function = import_module(f"{__name__}.{name}").load
    accepted = inspect.signature(function).parameters
    unknown = [option for option in options if option not in accepted]
    if unknown:
        own = ", ".join(option for option in accepted if option not in ("root", "download"))
        raise ValueError(f"the data set {name!r} has no option {unknown[0]!r}; its options are: {own}")
    if "download" in accepted:
        options["download"] = download
    return function(root=root, **options)


def registry() -> dict[str, dict]:
    """What is known of each data set: address, size, hashes, licence, citation (``registry.yaml``)."""
    return yaml.safe_load(files(__name__).joinpath("registry.yaml").read_text("utf8"))


def _on_disk(name: str, entry: dict) -> bool:
    if "address" in entry:
        return import_module(f"{__name__}.{name}").on_disk(home())
    return (home() / name).is_dir()
