"""The basic ring catalogue of Zoobot: 235 galaxies that a volunteer tagged "ring", 235 not (Walmsley et al. 2022)."""
from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from zoobook import catalogs
from zoobook.datasets import home, registry
from zoobook.datasets.download import RemoteFile, fetch, missing, size_of

_TABLE_NAMES = ("catalog.csv", "catalog.csv.gz", "catalog.parquet", "catalog.fits")
_TABLE_ENDING = re.compile(r"\.(csv|csv\.gz|parquet|fits?)$", re.IGNORECASE)


def load(root: str | os.PathLike | None = None, download: bool = True, base_url: str | None = None) -> pd.DataFrame:
    """Load the ring catalogue and its images, or one's own table of rings.

    Args:
        root: one of

            - a folder to keep the data in, as ``{root}/rings`` (by default the home of all data sets);
            - a copy of Zoobot's repository at v0.0.3, with the catalogue and images in its ``data`` folder;
            - one's own table, or a folder with one called ``catalog.csv`` (or ``.csv.gz``, ``.parquet``, ``.fits``):
              columns ``id_str`` or ``iauname``, ``file_loc`` and ``ring``.

            Of the first two, files that are missing or damaged are fetched.
        download: whether files may be fetched.
        base_url: where to fetch from, instead of the public repository: an address before ``data/…``. By default
            ``$ZOOBOOK_RINGS_URL``, if that is set.

    Returns:
        DataFrame: ``id_str``, ``iauname``, ``file_loc``, ``ring`` (int64, 1 or 0), and the other columns of the table.

    Raises:
        ValueError: one's own table lacks a column, or has a ``ring`` that is neither 0 nor 1.
        FileNotFoundError: the table is missing; or files are missing and ``download`` is ``False``.
        OSError: files could not be fetched or written.
    """
    root = home() if root is None else Path(root).expanduser().absolute()
    if _TABLE_ENDING.search(root.name) and not root.is_dir():
        return _labelled(catalogs.read(root), root)
    for name in _TABLE_NAMES:
        if (root / name).is_file():
            return _labelled(catalogs.read(root / name), root / name)

    entry, folder = registry()["rings"], _folder(root)
    wanted = remote_files(base_url or os.environ.get("ZOOBOOK_RINGS_URL") or entry["address"])
    if download:
        fetch(wanted, folder, "rings", entry["by_hand"])
    elif lacking := missing(wanted, folder):
        raise FileNotFoundError(
            f"{len(lacking)} of the {len(wanted)} files of the ring catalogue are missing or damaged in {folder}, such "
            f"as {lacking[0].path}. Allow the download, or fetch them by hand: {entry['by_hand']}"
        )
    catalog = catalogs.read(folder / entry["catalogue"]["path"])
    names = catalog["local_png_loc"].str.rsplit("/", n=1).str[-1]
    catalog.insert(2, "file_loc", [str(folder / entry["images"] / name) for name in names])
    return _labelled(catalog.drop(columns="local_png_loc"), folder)


def on_disk(root: Path) -> bool:
    """Whether all files are there, going by their sizes.

    Args:
        root: the home of all data sets.
    """
    folder = _folder(root)
    return all(size_of(folder / file.path) == file.bytes for file in remote_files(""))


def remote_files(base_url: str) -> list[RemoteFile]:
    """The catalogue and its 470 images.

    Args:
        base_url: what comes before the paths.
    """
    entry = registry()["rings"]
    base_url = base_url.rstrip("/") + "/"
    table = entry["catalogue"]
    images = pd.read_csv(files("zoobook.datasets").joinpath("rings_basic_files.csv"))
    paths = [table["path"], *(entry["images"] + images["name"])]
    sizes = [table["bytes"], *images["bytes"]]
    hashes = [table["hash"], *("sha256:" + images["sha256"])]
    return [
        RemoteFile(base_url + quote(path), path, int(size), digest)
        for path, size, digest in zip(paths, sizes, hashes, strict=True)
    ]


def _folder(root: Path) -> Path:
    """Where the files lie: a copy of the repository is used as it is."""
    return root if (root / registry()["rings"]["catalogue"]["path"]).is_file() else root / "rings"


def _labelled(catalog: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The catalogue, if it has images and labels."""
    for column in ("file_loc", "ring"):
        if column not in catalog.columns:
            raise ValueError(f"{where} has no column `{column}`; there are: {', '.join(map(str, catalog.columns))}")
    ring = pd.to_numeric(catalog["ring"], errors="coerce")
    bad = catalog[~ring.isin([0, 1])]
    if len(bad):
        first = bad.iloc[0]
        raise ValueError(
            f"{where}: `ring` must be 1 or 0, but is not in {len(bad)} of {len(catalog)} rows. First: galaxy "
            f"{first['id_str']!r} (row {bad.index[0]}, counted from 0): {first['ring']}"
        )
    catalog["ring"] = ring.astype("int64")
    front = [name for name in ("id_str", "iauname", "file_loc", "ring") if name in catalog.columns]
    return catalog[front + [name for name in catalog.columns if name not in front]]
