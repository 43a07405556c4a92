"""Published tables of galaxies, all read by what ``registry.yaml`` says of each: names, types, checks, notes."""
from __future__ import annotations

import difflib
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zoobook import catalogs, tables, trees
from zoobook.datasets.download import RemoteFile, fetch, missing
from zoobook.trees import DecisionTree

_FEATURES = 1280
_TRUE = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def load(
    name: str,
    root: str | os.PathLike | None = None,
    download: bool = True,
    columns: list[str] | None = None,
    ids: list[str] | pd.Series | None = None,
    images: str | os.PathLike | None = None,
) -> pd.DataFrame:
    """Load a published table as a catalogue.

    The id becomes ``id_str``, text, and exact. The votes of a campaign get its ending (``bar_no`` becomes
    ``bar-dr5_no``), so that different campaigns can stand in one table but never in one column. What was left out is
    in ``.attrs["notes"]``, a list of sentences; of rows that are left out, a warning tells as well.

    Args:
        name: of the data set.
        root: the folder of the data; its files lie in ``{root}/{name}``.
        download: whether files may be fetched.
        columns: read only these, named as in the catalogue, beside ``id_str``; all but the bulky ones by default.
        ids: read only these galaxies. With it, tables larger than memory can be read.
        images: the folder of the images, which gives the catalogue a ``file_loc``.

    Returns:
        DataFrame: ``id_str``, the id under its own name too, ``file_loc`` if there are images, and the columns.

    Raises:
        FileNotFoundError: the table is missing, and may not be fetched.
        ValueError: the file lacks columns or rows, or holds what it should not.
        OSError: the file could not be fetched or written.
    """
    from zoobook import datasets

    entry = datasets.registry()[name]
    folder = (datasets.home() if root is None else Path(root).expanduser().absolute()) / name
    paths = [_table(name, entry, folder, group, download) for group in _groups(entry)]
    if images is None and (archive := _archive(entry)):
        images = _unpacked(name, entry, folder, archive, download)
    wanted = None if ids is None else pd.unique(pd.Series(ids).astype(str))
    notes: list[str] = []
    parts = []
    for path in paths:
        part = _read(path, entry, columns, wanted, notes)
        subset = entry["files"].get(path.name, {}).get("subset")
        parts.append(part.assign(published_subset=subset) if subset else part)
    catalog = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if ids is None:
        _check_rows(len(catalog), entry, name, paths)
    catalog = _unique(catalog, name, notes)
    if images is not None and "image" in entry:
        catalog.insert(1, "file_loc", _image_paths(catalog, entry["image"], Path(images).expanduser().absolute()))
    catalog.attrs["notes"] = notes
    return catalog


def remote_files(name: str) -> list[RemoteFile]:
    """The files of a data set that are fetched: of a table in several formats the first.

    Args:
        name: of the data set.
    """
    from zoobook import datasets

    entry = datasets.registry()[name]
    archive = _archive(entry)
    return [_remote(entry, group[0]) for group in _groups(entry)] + ([_remote(entry, archive)] if archive else [])


def local_files(name: str, folder: Path) -> list[RemoteFile]:
    """The files of a data set as they are on disk, or would be fetched where they are not.

    Args:
        name: of the data set.
        folder: where its files lie.
    """
    from zoobook import datasets

    entry = datasets.registry()[name]
    there = [next((file for file in group if (folder / file).is_file()), group[0]) for group in _groups(entry)]
    archive = _archive(entry)
    return [_remote(entry, file) for file in there + ([archive] if archive else [])]


# ---- files


def _groups(entry: dict) -> list[list[str]]:
    """The tables of a data set, each with the formats in which it comes, the best first."""
    tables_ = [file for file in entry["files"] if not _is_archive(file)]
    subsets = {entry["files"][file].get("subset") for file in tables_}
    return [[file for file in tables_ if entry["files"][file].get("subset") == subset] for subset in sorted(
        subsets, key=str, reverse=True)]  # train before test


def _archive(entry: dict) -> str | None:
    return next((file for file in entry["files"] if _is_archive(file)), None)


def _is_archive(file: str) -> bool:
    return file.endswith((".tar.gz", ".zip"))


def _remote(entry: dict, file: str) -> RemoteFile:
    known = entry["files"][file]
    addresses = entry["address"] if isinstance(entry["address"], list) else [entry["address"]]
    urls = tuple(address.replace("{file}", known.get("at", file)) for address in addresses)
    return RemoteFile(urls if len(urls) > 1 else urls[0], file, known.get("bytes"), known.get("hash"))


def by_hand(file: RemoteFile, folder: Path) -> str:
    """How to fetch a file without this package.

    Args:
        file: the file.
        folder: where the files of its data set lie.
    """
    address = file.url if isinstance(file.url, str) else file.url[0]
    return f"download {address} and save it as {folder / file.path}"


def _table(name: str, entry: dict, folder: Path, group: list[str], download: bool) -> Path:
    """The table on disk, in whichever format; fetched, if it is not there."""
    there = next((file for file in group if (folder / file).is_file()), group[0])
    return _present(name, _remote(entry, there), folder, download)


def _present(name: str, file: RemoteFile, folder: Path, download: bool) -> Path:
    if download:
        fetch([file], folder, name, by_hand(file, folder))
    elif not (folder / file.path).is_file():
        raise FileNotFoundError(
            f"the data set {name!r} is not on disk: {folder / file.path} is missing. Allow the download, or "
            f"{by_hand(file, folder)}"
        )
    elif file.hash and missing([file], folder):
        raise ValueError(
            f"{folder / file.path} is damaged: its content is not that of the published file ({file.hash}). "
            f"Delete it and allow the download, or {by_hand(file, folder)}"
        )
    return folder / file.path


def _unpacked(name: str, entry: dict, folder: Path, archive: str, download: bool) -> Path:
    """The folder of the images, taken out of their archive if that has not been done."""
    from zoobook.datasets import archives

    done = folder / f".{archive}.unpacked"
    if not done.exists():
        archives.extract(_present(name, _remote(entry, archive), folder, download), folder)
        done.touch()
    return folder


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
                notes.append(f"{tables.listed(gone)}: {left_out} ({why})")
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
        if len(rows) < len(ids):
            notes.append(f"{path.name} has {len(rows):,} of the {len(ids):,} galaxies that were asked for")
    table = tables.read(path, [entry["id"], *ours], rows)
    id_str = tables.id_array(table[entry["id"]], str(path), entry["id"]).to_numpy(zero_copy_only=False)
    table = table.rename(columns=ours).drop(columns="id_str", errors="ignore")
    if entry["id"] in table:
        table[entry["id"]] = id_str
    table.insert(0, "id_str", id_str)
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
        if name == f"{code}_count":
            name = new
        elif re.fullmatch(rf"{code}_(weight|fraction|weighted_fraction|debiased|flag)", name):
            name = new + name.removeprefix(code)
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


def _closest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(map(str, known)), n=1)
    return f" The closest that there is: {close[0]!r}." if close else f" There are: {tables.listed(known)}."


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
    again = catalog["id_str"].duplicated().to_numpy()
    if again.any():
        first = catalog["id_str"].to_numpy()[again][0]
        sentence = f"{again.sum():,} rows of {name!r} left out: their ids occur in earlier rows (such as {first!r})"
        notes.append(sentence)
        warnings.warn(sentence, stacklevel=4)
        catalog = catalog[~again].reset_index(drop=True)
    return catalog


def _check_rows(rows: int, entry: dict, name: str, paths: list[Path]) -> None:
    if isinstance(entry["rows"], int) and rows < entry["rows"]:
        raise ValueError(
            f"{', '.join(map(str, paths))}: {rows:,} galaxies, but {name!r} has {entry['rows']:,}. "
            "Was the file cut off? Delete it and load again."
        )


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


def _image_paths(catalog: pd.DataFrame, pattern: str, folder: Path) -> list[str]:
    fields = [field for field in catalog.columns if f"{{{field}}}" in pattern]
    parts = zip(catalog["id_str"], *(catalog[field] for field in fields), strict=True)
    return [os.path.join(folder, pattern.format(id=name, **dict(zip(fields, values, strict=True))))
            for name, *values in parts]
