"""Published tables of galaxies, all read by what ``registry.yaml`` says of each: names, types, checks, notes."""

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from string import Formatter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoobook import arguments, catalogs, trees
from zoobook.catalogs import tables
from zoobook.catalogs.columns import id_array, ids_of, listed
from zoobook.datasets.archives import images_for
from zoobook.datasets.download import RemoteFile, fetch
from zoobook.datasets.names import home, known
from zoobook.trees import DecisionTree

_FEATURES = 1280
_RUN = 60  # neighbouring names in a run of a sample: about 25 MB of images
_TRUE = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def load(
    name: str,
    root: str | os.PathLike | None = None,
    download: bool = True,
    columns: list[str] | None = None,
    ids: list[str] | pd.Series | None = None,
    images: bool | str | os.PathLike | None = None,
) -> pd.DataFrame:
    """Load a published table as a catalogue.

    The id becomes ``id_str``, text, and exact. The votes of a campaign get its ending (``bar_no`` becomes
    ``bar-dr5_no``), so that different campaigns can stand in one table but never in one column. What was left out is
    in ``.attrs["notes"]``, a list of sentences; of rows that are left out, a warning tells as well.

    Args:
        name: of the data set.
        root: the folder of the data; its files lie in ``{root}/{name}``. A table that is there in another of the
            published formats (``.csv`` instead of ``.parquet``, for instance) is used as it is.
        download: whether files may be fetched.
        columns: read only these, named as in the catalogue, beside ``id_str``; all but the bulky ones by default.
        ids: read only these galaxies. With it, parquet tables larger than memory can be read.
        images: the folder of the images, which gives the catalogue a ``file_loc``; or ``True``: fetch the images of
            these galaxies out of their archives, and leave out galaxies without. By default only data sets whose
            images are few do so.

    Returns:
        DataFrame: ``id_str``, ``file_loc`` if there are images, the id under its own name too, and the columns.
    """
    entry, root = known(name), home(root)
    pictures = entry.get("images", {})
    images = pictures.get("always", False) if images is None else images
    if images and not pictures:
        raise ValueError(f"of {name!r} no images are known: leave out `images`, or add a column `file_loc` yourself")
    parts = Formatter().parse(pictures["image"]) if images else []
    fields = list(dict.fromkeys(field for _, field, _, _ in parts if field))
    columns = columns if columns is None else [*arguments.names("columns", columns), *fields]
    files = local_files(name, root / name)
    fetch(files, root / name, name, download=download)

    wanted, notes, parts = None if ids is None else pd.unique(ids_of(ids)), [], []
    for file in files:
        part = _read(root / name / file.path, entry, columns, wanted, notes)
        subset = entry["files"][file.path].get("subset")
        parts.append(part.assign(published_subset=subset) if subset else part)
    catalog = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if wanted is None and isinstance(entry["rows"], int) and len(catalog) < entry["rows"]:
        raise ValueError(
            f"the table in {root / name} has {len(catalog):,} galaxies, but {name!r} has {entry['rows']:,}. Was the "
            "file cut off? Delete it and load again."
        )
    if wanted is not None and len(catalog) < len(wanted):
        notes.append(f"{name!r} has {len(catalog):,} of the {len(wanted):,} galaxies that were asked for")
    catalog = _unique(catalog, name, notes)
    if images is True:
        catalog = _with_images(catalog, name, pictures, root, download, notes)
    elif images:
        folder = arguments.path(images)
        rows = catalog[fields].to_dict("records")
        catalog["file_loc"] = [str(folder / pictures["image"].format_map(row)) for row in rows]
    front = [column for column in ("id_str", "file_loc") if column in catalog]
    catalog = catalog[front + [column for column in catalog.columns if column not in front]]
    catalog.attrs["notes"] = notes
    return catalog


def sample_runs(catalog: pd.DataFrame, size: int, seed: str = "chapters") -> np.ndarray:
    """Choose galaxies in runs of neighbouring names, whose images lie side by side in their archives.

    A server is then asked about once for each run, and not once for each galaxy. The price: a name tells a galaxy's
    place on the sky, so that the sample is as many strips of the sky as there are runs, and less representative.

    Args:
        catalog: a catalogue.
        size: how many galaxies; all, if there are fewer.
        seed: any text; another one gives another, independent sample.

    Returns:
        ndarray: [size] positions of rows, ascending. They depend on ids and seed alone; a smaller sample is a part of
        a larger one.
    """
    size = arguments.whole("size", size, 0)
    in_order = np.argsort(catalogs.check_ids(catalog).astype(str), kind="stable")
    runs = catalogs.shuffled(catalog.iloc[in_order[::_RUN]], seed)
    rows = [in_order[_RUN * run : _RUN * (run + 1)] for run in runs[: -(-size // _RUN) + 1]]
    return np.sort(np.concatenate(rows)[:size])


# ---- files


def local_files(name: str, folder: Path) -> list[RemoteFile]:
    """The tables of a data set in the format in which they are on disk, or else in that which is fetched, the first."""
    entry, chosen = known(name), {}
    for file, about in entry["files"].items():
        first = chosen.setdefault(about.get("subset"), file)
        if (folder / file).is_file() and not (folder / first).is_file():
            chosen[about.get("subset")] = file
    return [_remote(entry["address"], file, entry["files"][file]) for file in chosen.values()]


def _remote(address: str | list[str], file: str, about: dict) -> RemoteFile:
    addresses = [address] if isinstance(address, str) else address
    urls = tuple(one.replace("{file}", about.get("at", file)) for one in addresses)
    return RemoteFile(urls, file, about.get("bytes"), about.get("hash"))


def _with_images(
    catalog: pd.DataFrame, name: str, pictures: dict, root: Path, download: bool, notes: list[str]
) -> pd.DataFrame:
    archives = [_remote(pictures["address"], file, about) for file, about in pictures["archives"].items()]
    folder = root / pictures["folder"]
    catalog, lacking = images_for(catalog, archives, folder, pictures["image"], f"images of {name}", download)
    if len(lacking):
        first = lacking.iloc[0]
        _say(notes, f"left out of {name!r}: {len(lacking):,} without an image (such as {first['id_str']!r}: "
                    f"{first['cause']})")
    return catalog


# ---- columns


def _read(
    path: Path, entry: dict, columns: list[str] | None, ids: np.ndarray | None, notes: list[str]
) -> pd.DataFrame:
    tree = trees.load(entry["tree"]) if "tree" in entry else None
    names = tables.column_names(path)
    _require(path, entry, tree, names)
    ours = {name: _our_name(name, entry, tree) for name in names if name != entry["id"]}
    ours = {name: our for name, our in ours.items() if our != "id_str"}
    for kind, left_out in (("drop", "left out"), ("on_request", "not read unless asked for by `columns`")):
        for pattern, why in entry.get(kind, {}).items():
            gone = [name for name in ours if re.fullmatch(pattern, name)]
            if gone and (kind == "drop" or columns is None):
                notes.append(f"{listed(gone)}: {left_out} ({why})")
                ours = {name: our for name, our in ours.items() if name not in gone}
    if columns is not None:
        given = {"id_str", entry["id"], *ours.values()}
        unknown = [column for column in columns if column not in given]
        if unknown:
            raise ValueError(f"{path} gives no column {unknown[0]!r}.{_closest(unknown[0], ours.values())}")
        ours = {name: our for name, our in ours.items() if our in columns}

    rows = None
    if ids is not None:
        found = pc.is_in(tables.id_column(path, entry["id"], str(path)), value_set=pa.array(ids, pa.string()))
        rows = np.flatnonzero(found.to_numpy(zero_copy_only=False))
    table = tables.read(path, [entry["id"], *ours], rows, (entry["id"],))
    exact = id_array(table[entry["id"]], str(path), entry["id"]).to_numpy(zero_copy_only=False)
    named = {"id_str": exact, entry["id"]: exact} if columns is None or entry["id"] in columns else {"id_str": exact}
    table = pd.concat([pd.DataFrame(named), table[list(ours)].rename(columns=ours)], axis=1)
    for column in set(entry.get("booleans", [])) & set(table.columns):
        table[column] = _booleans(table[column], path)
    if entry["holds"] == "votes":
        table = _with_votes(table, tree, path, notes)
    return table


def _our_name(name: str, entry: dict, tree: DecisionTree | None) -> str:
    """What a column of the file is called in the catalogue."""
    if entry["holds"] == "features":
        return re.sub(r"^feat_(\d+)_pred$", r"feat_\1", name)
    for code, new in entry.get("rename", {}).items():
        if name.startswith(f"{code}_"):
            name = new + name.removeprefix(code).removesuffix("_count")
            break
    question, underscore, rest = name.partition("_")
    if tree is None or not underscore or not tree.suffix:
        return name
    known = {q.name.removesuffix(tree.suffix) for q in tree.questions}
    known |= {new.partition("_")[0] for new in entry.get("rename", {}).values()}
    rest = re.sub("^total$", "total-votes", rest)
    return f"{question}{tree.suffix}_{rest}" if question in known else name


def _require(path: Path, entry: dict, tree: DecisionTree | None, names: list[str]) -> None:
    """Refuse a file that lacks columns which every copy of it has."""
    needed = [entry["id"], *entry.get("required", [])]
    if entry["holds"] == "features":
        needed += [f"feat_{i}_pred" for i in range(_FEATURES)]
        if "feat_0" in names:
            needed = [name.removesuffix("_pred") for name in needed]
    elif tree is not None:
        codes = {new: f"{code}_count" for code, new in entry.get("rename", {}).items()}
        ending = "_fraction" if entry["holds"] == "predictions" else ""
        for question in tree.questions:
            short = question.name.removesuffix(tree.suffix)
            answers = [f"{short}_{answer.name}{ending}" for answer in question.answers]
            needed += [codes.get(answer, answer) for answer in answers]
    absent = [name for name in needed if name not in names]
    if absent:
        raise ValueError(
            f"{path} lacks {len(absent)} of the {len(needed)} columns that it should have, such as {absent[0]!r}."
            f"{_closest(absent[0], names)} Is it the right file, or another version of it?"
        )


def _closest(name: str, names: Iterable[str]) -> str:
    return arguments.did_you_mean(name, names) or f" There are: {listed(names)}."


# ---- rows


def _with_votes(table: pd.DataFrame, tree: DecisionTree, path: Path, notes: list[str]) -> pd.DataFrame:
    """Check the votes; a question that is empty throughout was asked of nobody: 0."""
    for question in tree.questions:
        columns = [answer.column for answer in question.answers if answer.column in table]
        total = tree.total_column(question.name)
        empty = table[columns].isna().all(axis=1) if columns else pd.Series(False, index=table.index)
        if total in table:
            empty &= table[total].isna() | (table[total] == 0)
        if empty.any():
            notes.append(f"{question.name}: empty for {empty.sum():,} galaxies, read as 0 votes")
            table.loc[empty, [*columns, *({total} & set(table.columns))]] = 0
    if not set(tree.label_columns) <= set(table.columns):  # only some columns were asked for
        return table
    try:
        votes = catalogs.check_votes(table, tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    table[tree.label_columns] = votes
    sums = {
        tree.total_column(question.name): votes[:, start:stop].sum(axis=1)
        for question, (start, stop) in zip(tree.questions, tree.index_groups, strict=True)
    }
    for total, added_up in sums.items():
        if total in table:
            other = int((table[total] != added_up).sum())
            if other:
                notes.append(f"{total}: not the sum of the answers for {other:,} galaxies; kept as published")
    new = {total: added_up for total, added_up in sums.items() if total not in table}
    return pd.concat([table, pd.DataFrame(new, index=table.index)], axis=1)


def _unique(catalog: pd.DataFrame, name: str, notes: list[str]) -> pd.DataFrame:
    again = catalog["id_str"].duplicated()
    if again.any():
        first = catalog["id_str"][again].iloc[0]
        _say(notes, f"left out of {name!r}: {again.sum():,} with an id of an earlier row (such as {first!r})")
        catalog = catalog[~again].reset_index(drop=True)
    return catalog


def _say(notes: list[str], sentence: str) -> None:
    """Note, and say at once, that rows are left out."""
    notes.append(sentence)
    warnings.warn(sentence, stacklevel=5)  # at whoever called datasets.load


def _booleans(values: pd.Series, path: Path) -> pd.Series:
    if values.dtype == bool:
        return values
    as_text = values.astype(str).str.strip().str.lower()
    made = as_text.map(_TRUE)
    bad = made.isna() & values.notna()
    if bad.any():
        row = bad.idxmax()
        raise ValueError(f"{path}: `{values.name}` is neither true nor false in row {row}: {values[row]}")
    return made.astype("boolean" if made.isna().any() else bool)
