"""Images out of archives: of a zip on a server only the bytes that are needed, of archives on disk without a network.

A zip keeps the list of its members at its end. With that list (a few megabytes of a 26 GB archive) a server can be
asked for just the bytes of the images that a catalogue needs; `zipfile` reads the remote zip as if it were on disk.

Where an image is written follows from the catalogue, never from a name in an archive, so nothing leaves the folder.
"""

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import string
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from zoobook import arguments
from zoobook.catalogs.columns import listed
from zoobook.datasets.download import (
    DownloadError,
    PermanentError,
    RemoteFile,
    TransientError,
    Web,
    fetch,
    folder_lock,
    missing,
    offline,
    require,
)
from zoobook.files import check_room, explain_full_disk

_AT_ONCE = 4  # parts of a zip fetched at the same time, and held in memory
_END = 1 << 17  # bytes of a zip's end that are asked for first; the longest comment after its list is half of that
_GAP = 1 << 20  # bytes: members nearer than this are asked for together, since servers count requests
_RUN = 1 << 25  # bytes asked for at once, apart from single larger members
_LONGEST_LIST = 1 << 30  # bytes
_RATIO, _SLACK = 100, 100_000_000  # a zip may grow 100-fold when unpacked, or to 100 MB; images hardly grow
_BEFORE_BEGIN = errno.EINVAL  # of the error where a damaged zip leads to a place before its beginning
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError, OverflowError,
           struct.error)  # fmt: skip

Wanted = list[tuple[zipfile.ZipInfo, str]]  # members of a zip, and where each is written, below the folder


class ArchiveError(ValueError):
    """An archive is damaged, or not to be trusted; the message says where and what to do."""


def images_for(
    catalog: pd.DataFrame,
    archives: list[RemoteFile],
    folder: str | os.PathLike,
    image: str = "{iauname:.4}/{iauname}.png",
    name: str = "images",
    download: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring the images of a catalogue to disk, out of archives on a server, fetching only what is not there yet.

    Of a zip only the list of its members and the images themselves are fetched; an archive that lies whole in the
    folder is used without the network. Each image appears whole or not at all, and verified: by its checksum in a zip,
    by the hash of the whole tar. After an interruption the next call goes on.

    Args:
        catalog: the galaxies.
        archives: zips, or tars of known hash (those are always fetched whole), in which to look.
        folder: where to put the images, and archives that are fetched whole.
        image: how the path of an image follows from the columns of the catalogue, as a format; in an archive any
            folders may come before it, if that leads to one image only; of several archives the first that has it
            counts, and those on disk come first. By default that of Galaxy Zoo DECaLS,
            ``J000/J000001.85+004309.3.png``. The columns are text, but for formats of whole numbers, such as
            ``{run:06d}.png``.
        name: what to call them in messages.
        download: whether the network may be used; ``$ZOOBOOK_OFFLINE`` forbids it too.

    Returns:
        (DataFrame, DataFrame): the rows of the catalogue that have an image, with its path as ``file_loc``; and the
        others: ``id_str`` (if the catalogue has it), ``image``, ``cause``.

    Raises:
        ArchiveError: an archive is damaged or not to be trusted, or has several images that may be the wanted one.
        OSError: the network, the server or the disk failed, or the network may not be used; finished images are kept.
    """
    folder, names = arguments.path(folder), _image_names(catalog, image)
    causes: dict[str, str] = {}
    if not all((folder / path).is_file() for path in names):
        with folder_lock(folder, name, ".unpack.lock"), explain_full_disk(folder):
            left = {path for path in names if not (folder / path).is_file()}  # by another process, perhaps none
            causes = _bring(left, set(names), archives, folder, name, download and not offline())
    found = ~names.isin(causes).to_numpy()
    have = catalog.loc[found].assign(file_loc=[str(folder / path) for path in names[found]])
    lacking = catalog.loc[~found, [column for column in ("id_str",) if column in catalog]]
    lacking = lacking.assign(image=names[~found].to_numpy(), cause=[causes[path] for path in names[~found]])
    return have.reset_index(drop=True), lacking.reset_index(drop=True)


def _image_names(catalog: pd.DataFrame, image: str) -> pd.Series:
    try:
        fields = [(field, spec) for _, field, spec, _ in string.Formatter().parse(image) if field is not None]
        if any("{" in spec for _, spec in fields):
            raise ValueError("one column is within another")
    except ValueError as error:
        raise ValueError(f"the path of an image, {image!r}, is no format: {error}") from None
    columns = [field for field, _ in fields]
    if not columns:
        raise ValueError(f"the path of an image, {image!r}, names no column, as '{{iauname}}.png' does")
    if lacking := [column for column in columns if column not in catalog.columns]:
        raise ValueError(
            f"the path of an image, {image!r}, needs the column `{lacking[0]}`; the catalogue has: "
            f"{', '.join(map(str, catalog.columns))}"
        )
    names, text = [], {column: catalog[column].astype(str).str.strip() for column in columns}
    for column in columns:
        gaps = np.flatnonzero(catalog[column].isna())
        if len(gaps):
            raise ValueError(f"the path of an image, {image!r}, needs `{column}`, which is empty in {len(gaps)} rows "
                             f"(counted from 0): {listed(gaps)}")  # fmt: skip
    for row, values in enumerate(zip(*text.values(), strict=True)):
        try:
            names.append(_safe_name(_Path().format(image, **dict(zip(text, values, strict=True))), "the catalogue"))
        except (ArchiveError, ValueError) as error:
            raise ValueError(f"row {row} (counted from 0): {error}") from None
    return pd.Series(names, dtype=object)


class _Path(string.Formatter):
    """Formats text, which in a format of whole numbers, such as ``06d``, must be one."""

    def format_field(self, value: str, spec: str) -> str:
        """One field."""
        if spec.endswith("d") and not re.fullmatch("-?[0-9]+", value):
            raise ValueError(f"{value!r} is no whole number, as {{:{spec}}} in the path of an image asks for")
        return format(int(value) if spec.endswith("d") else value, spec)


def _bring(
    left: set[str], names: set[str], archives: list[RemoteFile], folder: Path, name: str, network: bool
) -> dict[str, str]:
    """Bring those of the files that are ``left`` into a folder; the cause of each that could not be had."""
    absent = missing(archives, folder)
    zips: list[tuple[_Zip, Wanted]] = []
    links: dict[str, str] = {}
    with Web() as web:
        for archive in sorted(archives, key=lambda archive: archive in absent):  # what is on disk first
            if not left or (archive in absent and not network):
                continue
            if archive.path.lower().endswith(".zip"):
                source = _RemoteZip(archive, web) if archive in absent else _Zip(folder / archive.path)
                zips.append((source, source.find(left, names)))
            else:
                links |= _unpack_tar(archive, folder, left, names, name)
        if left and absent and not network:
            require(archives, folder, f"{name} ({len(left):,} are not on disk)")

        need = sum(info.file_size for _, wanted in zips for info, _ in wanted)
        total = sum(len(wanted) for _, wanted in zips)
        check_room(folder, need, f"{name} ({total:,}) need")
        where = archives[0].path if len(archives) == 1 else f"any of the {len(archives)} archives"
        causes = {path: links.get(path, f"not in {where}") for path in left}
        with tqdm(total=need, unit="B", unit_scale=True, desc=name, disable=not total) as bar:
            for source, wanted in zips:
                try:
                    causes |= source.unpack(wanted, folder, bar)
                except DownloadError as error:
                    raise DownloadError(f"{error}. Finished images are kept: run again and it goes on.") from None
    return causes


def _take(
    members: dict[str, Any], left: set[str], names: set[str], contents: Callable, label: str
) -> list[tuple[Any, str]]:
    """The members, by path, that are wanted, and what for: the longest of all paths that is theirs, or ends theirs.

    It is left no longer then. Refused are several that end in one path, unless their ``contents`` are the same.
    """
    ends: dict[str, dict[str, Any]] = {}
    for own, member in members.items():
        own = path = own.replace("\\", "/").removeprefix("./")
        while path and path not in names:
            path = path.partition("/")[2]
        if path in left:
            ends.setdefault(path, {})[own] = member
    alike = {path: found for path, found in ends.items() if path not in found and len(found) > 1}
    held = contents({member for found in alike.values() for member in found.values()})
    for path, found in alike.items():
        if len({held[member] for member in found.values()}) > 1:
            raise ArchiveError(f"{label} has several files that may be {path!r}: {listed(found, 3)}. Put their folder "
                               "into the path of an image")  # fmt: skip
    left.difference_update(ends)
    return [(found.get(path, next(iter(found.values()))), path) for path, found in ends.items()]


# ---- zips


class _Zip:
    """A zip on disk."""

    def __init__(self, path: Path):
        self.label = path.name
        self.read_list(path, path.stat().st_size, f"Delete {path} and fetch it again.")

    def read_list(self, file: Path | BinaryIO, length: int, do: str) -> None:
        try:
            self.zip = zipfile.ZipFile(file)
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno != _BEFORE_BEGIN:
                raise
            raise ArchiveError(f"{self.label} is damaged, or is no zip: {error}. {do}") from None
        last = {info.filename: info for info in self.zip.infolist()}  # of a name that was added again
        self.members = {name: info for name, info in last.items() if not info.is_dir()}
        size = sum(info.file_size for info in self.members.values())
        if size > max(_SLACK, _RATIO * length):
            raise ArchiveError(
                f"{self.label} would grow from {length:,} to {size:,} bytes when unpacked, as no archive of images "
                "does. It is not used."
            )

    def find(self, left: set[str], names: set[str]) -> Wanted:
        """The members that are wanted, in the order in which they lie; they are wanted no longer then."""
        found = _take(self.members, left, names, lambda infos: {info: (info.CRC, info.file_size) for info in infos},
                      self.label)  # fmt: skip
        for info, _ in found:
            _safe_name(info.filename, self.label)
        return sorted(found, key=lambda one: one[0].header_offset)

    def unpack(self, wanted: Wanted, folder: Path, bar: tqdm) -> dict[str, str]:
        """Write members to a folder; the causes of those that are damaged, by path, of which nothing is written."""
        causes = {path: self.unpack_one(info, folder / path) for info, path in wanted}
        bar.update(sum(info.file_size for info, _ in wanted))
        return {path: cause for path, cause in causes.items() if cause}

    def unpack_one(self, info: zipfile.ZipInfo, target: Path) -> str | None:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            return f"a link in {self.label}, not a file"
        if info.flag_bits & 1:
            return f"encrypted in {self.label}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"packed in {self.label} by a method that is not supported ({info.compress_type})"
        try:
            with self.zip.open(info) as source, _whole_or_absent(target) as out:
                shutil.copyfileobj(source, out)
                if out.tell() != info.file_size:
                    raise EOFError(f"it has {out.tell():,} of {info.file_size:,} bytes")
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno != _BEFORE_BEGIN:
                raise
            return f"damaged in {self.label}: {error or type(error).__name__}"
        return None


class _RemoteZip(_Zip):
    """A zip on a server, of which only the list of members and what is wanted are fetched."""

    def __init__(self, archive: RemoteFile, web: Web):
        self.label, self.file = archive.path, _RangeFile(archive, web)
        self.read_list(self.file, self.file.length, "Fetch it from elsewhere.")
        self.starts = [*sorted(info.header_offset for info in self.zip.infolist()), self.zip.start_dir]

    def unpack(self, wanted: Wanted, folder: Path, bar: tqdm) -> dict[str, str]:
        causes: dict[str, str] = {}
        # where a member ends: the list does not tell how long its own header is, so at the next one
        spans = [(info.header_offset, self.starts[bisect_right(self.starts, info.header_offset)]) for info, _ in wanted]
        runs = join_spans(spans)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for first in range(0, len(runs), _AT_ONCE):
                    some = runs[first : first + _AT_ONCE]
                    parts = pool.map(lambda run: self.file.get(spans[run.start][0], spans[run.stop - 1][1]), some)
                    for run, part in zip(some, parts, strict=True):
                        self.file.held = [(spans[run.start][0], part)]
                        causes |= super().unpack(wanted[run], folder, bar)
            except BaseException:
                self.file.web.stop.set()  # an interruption too ends the other threads at their next piece
                raise
        return causes


def join_spans(spans: list[tuple[int, int]]) -> list[slice]:
    """Which parts of a file to ask for together, since servers count requests: neighbours, some megabytes in all.

    The spans, each a first byte and the byte after the last one, are in the order of the file.
    """
    runs: list[slice] = []
    for i, (start, stop) in enumerate(spans):
        if runs and start - spans[i - 1][1] <= _GAP and stop - spans[runs[-1].start][0] <= _RUN:
            runs[-1] = slice(runs[-1].start, i + 1)
        else:
            runs.append(slice(i, i + 1))
    return runs


class _RangeFile(io.RawIOBase):
    """A file on a server for ``zipfile`` to read; what is ``held``, by first byte, need not be asked for again."""

    def __init__(self, archive: RemoteFile, web: Web):
        self.archive, self.web, self.at, self.versions = archive, web, 0, {}
        self.length = archive.bytes or web.first_that_works(archive.urls, self._ask_length)
        end = max(0, self.length - _END)
        self.held = [(end, self.get(end, self.length))]

    def _ask_length(self, url: str) -> int:
        with self.web.ask(url, 0, 1) as answer:
            return answer.length or 0

    def get(self, start: int, stop: int) -> bytes:
        """Some bytes of the file, from whichever mirror has them."""
        return self.web.first_that_works(self.archive.urls, lambda url: self._ask(url, start, stop))

    def _ask(self, url: str, start: int, stop: int) -> bytes:
        with self.web.ask(url, start, stop) as answer:
            if answer.length != self.length:
                raise PermanentError(f"the server has {answer.length or 0:,} bytes, where {self.length:,} are expected")
            if self.versions.setdefault(url, answer.validator) != answer.validator:
                raise PermanentError("it was changed on the server while it was read; run again")
            if answer.start != start or not answer.partial:
                raise PermanentError("the server serves no parts of files; fetch the whole by hand, into the folder "
                                     "of the images")  # fmt: skip
            data = b"".join(answer.pieces())
        if len(data) != stop - start:
            raise TransientError(f"the connection broke after {len(data):,} of {stop - start:,} bytes")
        return data

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence])
        return self.at

    def read(self, size: int = -1) -> bytes:
        start, stop = self.at, self.length if size < 0 else min(self.at + size, self.length)
        if start >= stop:
            return b""
        if stop - start > _LONGEST_LIST:
            raise zipfile.BadZipFile("its list of members is impossibly long")
        self.at = stop
        for first, part in self.held:
            if first <= start and stop <= first + len(part):
                return part[start - first : stop - first]
        self.held.append((start, self.get(start, stop)))
        return self.held[-1][1]


# ---- tars


def _unpack_tar(archive: RemoteFile, folder: Path, left: set[str], names: set[str], name: str) -> dict[str, str]:
    """Fetch a tar, and write its members that are wanted, which are wanted no longer then.

    Gives back the causes of those that it has as links to elsewhere alone, by path.
    """
    path = folder / archive.path
    if not path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise ArchiveError(f"{path} is none of .zip, .tar, .tar.gz, .tgz; unpack it by hand")
    if not archive.hash:
        raise ArchiveError(f"what is in a tar has no checksums: {path} is used only where its hash is known")
    fetch([archive], folder, f"{name}, {archive.path}")
    try:
        with tarfile.open(path) as tar:
            files: dict[str, tarfile.TarInfo | None] = {}  # of a name that was added again the last
            for member in tar:
                if member.isreg():
                    files[member.name] = member
                elif member.islnk():  # how GNU tar writes a file with two names; the first came before
                    files[member.name] = files.get(member.linkname) or files.get(f"./{member.linkname}")
                elif member.issym():
                    files[member.name] = None
            real = {own: member for own, member in files.items() if member}
            wanted = sorted(_take(real, left, names, lambda members: _hashes(tar, members), path.name),
                            key=lambda one: one[0].offset_data)  # fmt: skip
            check_room(folder, sum(member.size for member, _ in wanted), f"what {path.name} holds needs")
            for member, target in tqdm(wanted, f"unpacking {path.name}"):
                with _whole_or_absent(folder / target) as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise ArchiveError(f"{path} cannot be unpacked: {error}") from None
    links = dict.fromkeys(own for own, member in files.items() if member is None)
    found = _take(links, set(left), names, dict.fromkeys, path.name)
    return {target: f"a link in {path.name}, not a file" for _, target in found}


def _hashes(tar: tarfile.TarFile, members: Iterable[tarfile.TarInfo]) -> dict[tarfile.TarInfo, bytes]:
    """What members hold, read in their order, since a packed tar is read anew for each step back."""
    inside = sorted(members, key=lambda member: member.offset_data)
    return {member: hashlib.sha256(tar.extractfile(member).read()).digest() for member in inside}


# ---- what both share


def _safe_name(name: str, where: str) -> str:
    """A path, if it stays below a folder on every operating system."""
    path = PurePosixPath(name.replace("\\", "/"))  # programs on Windows write backslashes
    if (
        not name.strip("/. ")
        or re.search(r"[\x00-\x1f]", name)
        or path.is_absolute()
        or PureWindowsPath(name).drive
        or ".." in path.parts
    ):
        raise ArchiveError(f"{where} names a file {name!r}: it leads out of its folder or is no path, and is not used")
    return str(path)


@contextmanager
def _whole_or_absent(target: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its own name at the end, if nothing went wrong."""
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "wb") as out:
            yield out
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
