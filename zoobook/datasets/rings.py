"""Catalogues of rings: the basic one of Zoobot, with images, and both rebuilt from votes by their rules.

The basic catalogue has 235 galaxies that a volunteer tagged "ring" and 235 that nobody did (Walmsley et al. 2022,
MNRAS 513, 1581). The advanced one of that paper was committed too (``data/example_ring_catalog_advanced.parquet``, at
every tag from v0.0.2 to v2.0.1), but could not be obtained; its rules are published.
"""

import os
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from zoobook import catalogs, trees
from zoobook.catalogs.columns import require
from zoobook.datasets.download import RemoteFile, fetch
from zoobook.datasets.names import home, known

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
        base_url: where to fetch from, instead of the public repository: an address before ``data/…``.

    Returns:
        DataFrame: ``id_str``, ``iauname``, ``file_loc``, ``ring`` (int64, 1 or 0), and the other columns of the table.
    """
    root = home(root)
    if root.is_file() or _TABLE_ENDING.search(root.name) and not root.is_dir():
        return _labelled(catalogs.read(root), root)
    for name in _TABLE_NAMES:
        if (root / name).is_file():
            return _labelled(catalogs.read(root / name), root / name)

    entry, place = known("rings"), folder(root)
    wanted = remote_files(base_url or entry["address"])
    fetch(wanted, place, "rings", entry["by_hand"], download)
    catalog = catalogs.read(place / entry["catalogue"]["path"])
    names = catalog["local_png_loc"].str.rsplit("/", n=1).str[-1]
    catalog.insert(2, "file_loc", [str(place / entry["images"] / name) for name in names])
    return _labelled(catalog.drop(columns="local_png_loc"), place)


def rebuild(
    votes: pd.DataFrame | str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
    rule: str = "advanced",
    seed: int = 0,
) -> pd.DataFrame:
    """Make a ring catalogue from votes as Walmsley et al. (2022, section 4.2) made theirs, but the same each time.

    Labels are those of :func:`zoobook.catalogs.ring_labels`.

    - ``"advanced"``: 70 % of the rings are for training. Each is shown ``repeats`` times, the whole number of
      times that non-rings outnumber rings, beside as many different non-rings. The other rings and as many
      of the other non-rings are shuffled together: a third is for validation, the rest for the test.
    - ``"basic"``: galaxies that are featured (fraction above 0.6), not edge-on (above 0.75) and without spiral arms
      (above 0.5), rings and as many others, split 70 / 10 / 20.

    Who is chosen follows from a hash of id and seed, so neither the order of rows nor the machine matters.

    Args:
        votes: a catalogue of votes that also asked about rings, or a file with one; the simulated survey by default.
            The published tables of GZ DECaLS hold no votes on rings.
        root: the folder of the simulated survey; the home of all data sets by default.
        rule: ``"advanced"`` or ``"basic"``.
        seed: of the choices.

    Returns:
        DataFrame: the galaxies chosen, in the order of the votes, with ``ring``, ``subset`` and ``repeats`` (1 but for
        rings of the training subset). ``catalog.loc[catalog.index.repeat(catalog["repeats"])]`` repeats them.
        ``.attrs["notes"]`` says who was left out.

    Raises:
        ValueError: the rule is unknown, columns are missing, or there are too few rings or non-rings.
    """
    if votes is None:
        from zoobook.datasets import simulated

        votes = simulated.load(root)
    votes = votes if isinstance(votes, pd.DataFrame) else catalogs.read(votes)
    labelled = catalogs.ring_labels(votes, rule)
    notes = [f"{len(votes) - len(labelled):,} of {len(votes):,} galaxies left out: no label by the {rule} rule"]
    if rule == "basic":
        chosen = catalogs.ring_labels(labelled[basic_cuts(labelled)], rule, balance=True, seed=seed)
        chosen = catalogs.split(chosen, seed=seed).assign(repeats=1)
    else:
        chosen = _advanced_sample(labelled, seed)
    notes.append(f"{len(labelled) - len(chosen):,} left out: by the cuts, or because rings and others must balance")
    chosen = chosen.reset_index(drop=True)
    chosen.attrs["notes"] = notes
    return chosen


def basic_cuts(catalog: pd.DataFrame) -> np.ndarray:
    """Which galaxies, [N] bool, the basic catalogue was cut to: featured, not edge-on, without spiral arms."""
    tree = trees.load("decals_dr5")
    return (
        (catalogs.vote_fraction(catalog, tree, "smooth-or-featured_featured-or-disk") > 0.6)
        & (catalogs.vote_fraction(catalog, tree, "disk-edge-on_no") > 0.75)
        & (catalogs.vote_fraction(catalog, tree, "has-spiral-arms_no") > 0.5)
    )


def remote_files(base_url: str) -> list[RemoteFile]:
    """The catalogue and its 470 images, below a base address."""
    entry = known("rings")
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


def folder(root: Path) -> Path:
    """Where the files lie: a copy of the repository is used as it is, in another root they have a folder."""
    return root if (root / known("rings")["catalogue"]["path"]).is_file() else root / "rings"


def _advanced_sample(labelled: pd.DataFrame, seed: int) -> pd.DataFrame:
    order = catalogs.shuffled(labelled, f"rings:{seed}")
    is_ring = labelled["ring"].to_numpy()[order] == 1
    rings, others = order[is_ring], order[~is_ring]
    if len(others) < len(rings):
        rings = rings[: len(others)]
    if len(rings) < 4:
        raise ValueError(
            f"{is_ring.sum()} rings and {len(others)} others are too few for three balanced subsets: "
            "at least 4 of each are needed. Give more galaxies."
        )
    repeats = len(others) // len(rings)
    for_training = int(0.7 * len(rings))
    train = np.concatenate([rings[:for_training], others[: for_training * repeats]])
    hidden = np.concatenate([rings[for_training:], others[for_training * repeats :][: len(rings) - for_training]])
    hidden = hidden[catalogs.shuffled(labelled.iloc[hidden], f"hidden:{seed}")]
    subset, shown = np.full(len(labelled), "", object), np.ones(len(labelled), np.int64)
    subset[train] = "train"
    subset[hidden[: len(hidden) // 3]] = "val"
    subset[hidden[len(hidden) // 3 :]] = "test"
    shown[rings[:for_training]] = repeats
    return labelled.assign(subset=subset, repeats=shown)[subset != ""]


def _labelled(catalog: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The catalogue, if it has images and labels."""
    require(("file_loc", "ring"), catalog, str(where))
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
