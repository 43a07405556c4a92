"""What the arguments of a command name: models, decision trees, and galaxies with their images."""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

import zoobook
from zoobook import arguments, catalogs, datasets, trees, weights
from zoobook.catalogs import tables
from zoobook.catalogs.columns import file_locations, require
from zoobook.cli.options import Images
from zoobook.images import ImageStore
from zoobook.images.views import check_radii, stored_size
from zoobook.learning.devices import choose_devices


def load(model: str | None, framework: str | None, devices: str | int) -> tuple[ModuleType, Any]:
    """The half of zoobook for a framework, by default the first that is installed; and the model, if one is named.

    Devices that are not there are refused.
    """
    installed = [name for name, package in zoobook.FRAMEWORKS.items() if find_spec(package)]
    framework = framework or (installed or ["pytorch"])[0]
    half = zoobook.load_framework(framework)
    choose_devices(devices, half.engine.gpus())
    if model is None:
        return half, None
    if is_own(model):
        return half, weights.load(model, framework)
    return half, weights.read_legacy(find_published(model), framework)


def is_own(name: str) -> bool:
    """Whether weights are in zoobook's format: a file, a run folder, or what comes with zoobook."""
    in_run_folder = (arguments.path(name) / "best.safetensors").is_file()
    return in_run_folder or name.endswith(".safetensors") or bool(weights.find_shipped(name))


def find_published(name: str) -> str | Path:
    """The files of weights that go by a published name; any other name as it is."""
    return weights.fetch(name) if name in set(weights.published()["name"]) else name


def load_tree(name: str) -> trees.DecisionTree:
    """A decision tree from a YAML file, or by its name."""
    in_file = name.endswith((".yaml", ".yml")) or arguments.path(name).is_file()
    return trees.DecisionTree.from_yaml(name) if in_file else trees.load(name)


def refuse_overwriting(out: Path, *sources: str | Path | None) -> None:
    """A ValueError where a result would be written over what it is made of, or becomes a part of that."""
    out = arguments.path(out).resolve()
    for source in filter(None, sources):
        place = arguments.path(source).resolve()
        if place == out or (place == out.parent and tables.is_parquet(out)):  # else it is no part of a folder's table
            how = "changed by a result in it" if place.is_dir() else "overwritten by the result"
            raise ValueError(f"{source} would be {how}: give that another place")


def largest_first(table: pd.DataFrame, column: str | None) -> pd.DataFrame:
    """A table sorted by one of its columns, if one is named."""
    if column is None:
        return table
    require([column], table, "the table")
    try:
        return table.sort_values(column, ascending=False, kind="stable")
    except (TypeError, ValueError):  # lists, or words among numbers
        raise ValueError(f"the column {column!r} cannot be sorted: not all of it is numbers, or text") from None


def read_galaxies(
    source: str, spec: dict, images: Images, tree: trees.DecisionTree | None = None
) -> tuple[pd.DataFrame | None, ImageStore]:
    """The catalogue and its images, as a model with this `spec` sees them; of an image store, that alone."""
    framing = None if images.framing is None else check_radii("framing", images.framing)
    if source.endswith(".arrow"):
        store = ImageStore.open(source)
        if framing not in (None, store.framing):
            raise ValueError(f"the images in {source} have a framing of {store.framing:g}: leave out --framing")
        if images.max_blank != Images.max_blank:
            raise ValueError(f"the images in {source} are stored already: leave out --max-blank")
        return None, store
    place = arguments.path(source)
    by_name = source in datasets.registry() and not place.exists()
    if not by_name and not place.exists():
        hint = arguments.did_you_mean(source, datasets.registry())
        raise FileNotFoundError(f"there is no table at {place}, and no data set of that name.{hint}")
    catalog = datasets.load(source) if by_name else catalogs.read(source, tree)
    file_locations(catalog, source)
    framing = framing or datasets.framing(source)
    size = stored_size(spec["image_size"], spec["field_of_view"], framing)
    bad = "quarantine" if images.skip_bad_images else "error"
    store = datasets.build_store(catalog, size, bad=bad, framing=framing, max_blank=images.max_blank)
    return catalog[catalog["id_str"].isin(store.ids)], store


def read_labelled(
    source: str, spec: dict, images: Images, tree: trees.DecisionTree | None = None
) -> tuple[pd.DataFrame, ImageStore]:
    """The same of galaxies to learn from, split."""
    if source.endswith(".arrow"):
        raise ValueError(f"{source} is an image store, without labels to learn from; give the table of the galaxies")
    catalog, store = read_galaxies(source, spec, images, tree)
    return (catalog if "subset" in catalog else catalogs.split(catalog)), store
