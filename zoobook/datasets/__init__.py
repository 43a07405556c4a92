"""Data sets by name: what there is, and loading it as a catalogue."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pandas as pd

from zoobook import arguments
from zoobook.catalogs.columns import check_ids, file_locations
from zoobook.datasets import published, rings
from zoobook.datasets.download import fetch as fetch_files
from zoobook.datasets.download import missing
from zoobook.datasets.names import framing, home, known, registry
from zoobook.files import fingerprint
from zoobook.images import ImageStore

__all__ = [
    "available", "build_store", "fetch", "folder_of", "framing", "home", "known", "load", "registry", "remote_files",
    "state",
]  # fmt: skip

_VERIFIED = {
    "bytes": "read and hashed",
    "code": "address and hash as in upstream code",
    "text": "address and hash as in a published description",
}


def build_store(catalog: pd.DataFrame, size: int, **options) -> ImageStore:
    """The image store of a catalogue, kept in :func:`home` under a name that follows from its galaxies.

    Args:
        catalog: ``id_str`` and ``file_loc``.
        size: side of the stored images in pixels.
        **options: of :meth:`zoobook.images.ImageStore.build`.
    """
    key = fingerprint(check_ids(catalog).tolist(), file_locations(catalog))
    return ImageStore.build(catalog, home() / "stores" / f"{key}-{size}.arrow", size, **options)


def available() -> pd.DataFrame:
    """The data sets that :func:`load` knows.

    Returns:
        DataFrame: one row a data set: ``name``, ``title``, ``rows`` and ``bytes`` (missing where they are as many as
        asked for, or unknown), ``on_disk`` (whether it is in :func:`home`: whole, if it is downloaded; any of it, if
        it is made here), ``verified`` (how far the registry was checked), ``licence``, ``citation``.
    """
    table = pd.DataFrame(list(registry().values())).assign(name=list(registry()))
    table["rows"] = table["rows"].astype("string").str.replace(r"\D", "", regex=True)  # some say "about …"
    table["bytes"] = [_size(name, entry) for name, entry in registry().items()]
    table["on_disk"] = [_on_disk(name, entry) for name, entry in registry().items()]
    table["verified"] = table["verified"].map(_VERIFIED)
    table = table.astype({"rows": "Int64", "bytes": "Int64", "on_disk": bool})
    return table[["name", "title", "rows", "bytes", "on_disk", "verified", "licence", "citation"]]


def load(name: str, root: str | os.PathLike | None = None, download: bool = True, **options) -> pd.DataFrame:
    """Load a data set as a catalogue, downloading or making what is not on disk yet.

    Args:
        name: such as ``"simulated"`` or ``"gz2"``; :func:`available` lists them.
        root: the folder of the data; :func:`home` by default. Files that are already there are used.
        download: whether files may be fetched from the network; ``False`` makes missing ones an error.
        **options: of that data set: see :func:`zoobook.datasets.published.load` for published tables,
            :func:`zoobook.datasets.rings.load` and :func:`~zoobook.datasets.rings.rebuild` for rings,
            :func:`zoobook.datasets.simulated.load` for the simulated survey.

    Returns:
        DataFrame: a catalogue with ``id_str``, and ``file_loc`` where there are images.

    Raises:
        FileNotFoundError: files are missing and may not be fetched; the message says where to put them.
        OSError: files could not be fetched or written; what is finished is kept for the next time.
    """
    function = _loader(name, known(name))
    accepted = inspect.signature(function).parameters
    unknown = [option for option in options if option not in accepted]
    if unknown:
        own = ", ".join(option for option in accepted if option not in ("root", "download"))
        raise ValueError(f"the data set {name!r} has no option {unknown[0]!r}; its options are: {own}")
    if "download" in accepted:
        options["download"] = arguments.truth("download", download)
    return function(root=root, **options)


def state(name: str, root: str | os.PathLike | None = None) -> pd.DataFrame:
    """The files of a data set, and whether each is there and what it should be: they are read and hashed.

    Args:
        name: of a data set that is downloaded.
        root: the folder of the data; :func:`home` by default.

    Returns:
        DataFrame: ``path``, ``address`` and ``state``: ``whole``, ``missing``, ``damaged``, or ``unchecked`` (it is
        there, but no hash of it was ever published).
    """
    remote, folder = remote_files(name, root)
    lacking = {file.path for file in missing([f for f in remote if f.hash], folder, thorough=True)}

    def state_of(file) -> str:
        if not (folder / file.path).is_file():
            return "missing"
        return "unchecked" if not file.hash else "damaged" if file.path in lacking else "whole"

    return pd.DataFrame(
        {
            "path": [str(folder / file.path) for file in remote],
            "address": [file.urls[0] for file in remote],
            "state": [state_of(file) for file in remote],
        }
    )


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """Bring the files of a data set, see :func:`state`, to disk without reading them, and give back their folder."""
    remote, folder = remote_files(name, root)
    fetch_files(remote, folder, name)
    return folder


def folder_of(name: str, root: str | os.PathLike | None = None) -> Path:
    """The folder where a data set is kept, whether it is there or not."""
    if "address" in known(name):
        return remote_files(name, root)[1]
    return home(root) / name


def remote_files(name: str, root: str | os.PathLike | None = None) -> tuple[list, Path]:
    """The files of a data set that is downloaded, and their folder; a ValueError where there are none."""
    entry, root = known(name), home(root)
    if "address" not in entry:
        raise ValueError(f"the data set {name!r} is made on this machine: it has no files to fetch or to verify")
    if "catalogue" in entry:
        return rings.remote_files(entry["address"]), rings.folder(root)
    return published.local_files(name, root / name), root / name


def _loader(name: str, entry: dict) -> Callable[..., pd.DataFrame]:
    module, _, function = entry.get("loader", "published.load").partition(".")
    found = getattr(import_module(f"{__name__}.{module}"), function)
    return found if "loader" in entry else partial(found, name)


def _size(name: str, entry: dict) -> int | None:
    """Bytes to fetch, if they are known of every file."""
    if "files" not in entry:
        return entry.get("bytes")
    told = [entry["files"][file.path] for file in published.local_files(name, home() / name)]
    sizes = [file.get("bytes", file.get("size")) for file in told]
    return None if None in sizes else sum(sizes)


def _on_disk(name: str, entry: dict) -> bool:
    if "address" not in entry:
        return (home() / name).is_dir()
    remote, folder = remote_files(name)
    return all((folder / f.path).is_file() and f.bytes in (None, (folder / f.path).stat().st_size) for f in remote)
