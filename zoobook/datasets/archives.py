"""Images out of archives on a server, without fetching the whole.

A zip keeps the list of its members at its end. With that list (a few megabytes of a 26 GB archive) a server can be
asked for just the bytes of the images that a catalogue needs. The list is kept on disk, as are the images.
"""
from __future__ import annotations

import io
import json
import os
import string
import threading
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from zoobook import arguments
from zoobook.datasets.download import RemoteFile, alone, check_room, fetch, missing, offline, require
from zoobook.datasets.unpacking import LOCK, ArchiveError, Job, Zip, extract_tar, is_right, is_zip, safe_name
from zoobook.datasets.web import DownloadError, Passing, Refused, ask, patiently
from zoobook.files import atomic_write, ensure_writable_dir

_AT_ONCE = 4
_END = 1 << 17  # bytes of a zip's end that are asked for first; the longest comment after its list is half of that
_GAP = 1 << 20  # bytes: members nearer than this are asked for together, since servers count requests
_RUN = 1 << 24  # bytes asked for at once, apart from single larger members
_LONGEST_LIST = 1 << 30  # bytes
_NO_PARTS = "the server serves no parts of files; fetch whole archives (`whole=True`)"


# ---- the ways in


def images_for(
    catalog: pd.DataFrame,
    archives: list[RemoteFile],
    folder: str | os.PathLike,
    image: str = "{iauname:.4}/{iauname}.png",
    name: str = "images",
    download: bool = True,
    whole: bool = False,
    verify: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring the images of a catalogue to disk, out of archives on a server, fetching only what is not there yet.

    Of a zip only the list of its members and the images themselves are fetched; an archive that lies whole in the
    folder is used without the network. For a catalogue that needs most of an archive ``whole`` is faster, since many
    servers count requests. Images are written as ``folder/{image}``, each whole or absent, with checksums verified.
    After an interruption the next call goes on.

    Args:
        catalog: the galaxies.
        archives: zips, or tars (those are always fetched whole), in which to look.
        folder: where to put the images, and archives that are fetched whole.
        image: how the path of an image follows from the columns of the catalogue, as a format; in an archive any
            folders may come before it. By default that of Galaxy Zoo DECaLS, ``J000/J000001.85+004309.3.png``.
        name: what to call them in messages.
        download: whether the network may be used; ``$ZOOBOOK_OFFLINE`` forbids it too.
        whole: fetch each archive that holds a wanted image completely.
        verify: compare images that are there already with the checksums in the archives, and fetch damaged ones anew.

    Returns:
        (DataFrame, DataFrame): the rows of the catalogue that have an image, with its path as ``file_loc``; and the
        others: ``id_str`` (if the catalogue has it), ``image``, ``cause``.

    Raises:
        ValueError: the catalogue lacks a column of the format, or has a value that makes no path.
        ArchiveError: an archive is damaged or not to be trusted.
        DownloadError: the network or the server; finished images are kept.
        FileNotFoundError: images are missing and the network may not be used.
        OSError: the folder cannot be written to, or the disk is full; finished images are kept.
    """
    folder, names = arguments.path(folder), _image_names(catalog, image)
    causes = _gather(names, archives, folder, name, download, whole, verify)
    found = ~names.isin(causes).to_numpy()
    have = catalog.loc[found].assign(file_loc=[str(folder / path) for path in names[found]])
    lacking = catalog.loc[~found, [column for column in ("id_str",) if column in catalog]]
    lacking = lacking.assign(image=names[~found].to_numpy(), cause=[causes[path] for path in names[~found]])
    return have.reset_index(drop=True), lacking.reset_index(drop=True)


def fetch_members(archive: RemoteFile, folder: str | os.PathLike, members: Iterable[str]) -> dict[str, str]:
    """Bring some members of a remote zip to disk, without fetching the rest.

    Args:
        archive: the zip.
        folder: where to; a member is written as ``folder/{its name}``, and one that is there is not fetched.
        members: their names; folders that come before them in the archive may be left out.

    Returns:
        dict: for each member that could not be had, the cause.

    Raises:
        ArchiveError: the archive is damaged or not to be trusted, or a name leads out of the folder.
        DownloadError: the network or the server; finished members are kept.
        FileNotFoundError: members are missing and ``$ZOOBOOK_OFFLINE`` is set.
        OSError: the folder cannot be written to, or the disk is full; finished members are kept.
    """
    names = [safe_name(member, archive.path) for member in members]
    return _gather(names, [archive], arguments.path(folder), archive.path)


def _image_names(catalog: pd.DataFrame, image: str) -> pd.Series:
    columns = [field for _, field, _, _ in string.Formatter().parse(image) if field]
    if lacking := [column for column in columns if column not in catalog.columns]:
        raise ValueError(
            f"the path of an image, {image!r}, needs the column `{lacking[0]}`; the catalogue has: "
            f"{', '.join(map(str, catalog.columns))}"
        )
    names = []
    for row, values in enumerate(zip(*(catalog[column].astype(str) for column in columns), strict=True)):
        try:
            names.append(safe_name(image.format(**dict(zip(columns, values, strict=True))), "the catalogue"))
        except ArchiveError as error:
            raise ValueError(f"row {row} (counted from 0): {error}") from None
    return pd.Series(names, dtype=object)


# ---- one search through archives


def _gather(
    names: Iterable[str],
    archives: list[RemoteFile],
    folder: Path,
    name: str,
    download: bool = True,
    whole: bool = False,
    verify: bool = False,
) -> dict[str, str]:
    """Bring files out of archives into a folder; the cause of each that could not be had."""

    def lacking() -> set[str]:
        return {path for path in names if verify or not (folder / path).is_file()}

    if not lacking():
        return {}
    with alone(ensure_writable_dir(folder), name, LOCK):
        for again in (True, False):
            try:
                return _Search(lacking(), archives, folder, name, download and not offline(), whole).run()
            except _Changed as error:
                if not again:
                    raise DownloadError(f"{error} is being changed on the server; try again later") from None
    raise AssertionError("not reached")


class _Search:
    """First where everything is, and whether there is room; then the work."""

    def __init__(
        self, names: set[str], archives: list[RemoteFile], folder: Path, name: str, network: bool, whole: bool
    ):
        self.archives, self.folder, self.name, self.network, self.whole = archives, folder, name, network, whole
        self.left = set(names)  # paths of which no archive has been found yet
        self.depths = sorted({path.count("/") + 1 for path in names})
        self.plan: list[tuple[Zip, list[Job]]] = []

    def run(self) -> dict[str, str]:
        absent = missing(self.archives, self.folder)
        for archive in sorted(self.archives, key=lambda archive: archive in absent):  # what is on disk first
            if self.left and archive not in absent:
                self.look_into(archive)
            elif self.left and self.network:
                self.look_on_server(archive)
        if absent and not self.network and (nowhere := self.not_on_disk()):
            require(self.archives, self.folder, f"{self.name} ({len(nowhere):,} are not on disk)")
        causes = self.unpack()
        where = self.archives[0].path if len(self.archives) == 1 else f"any of the {len(self.archives)} archives"
        return causes | {path: f"not in {where}" for path in self.not_on_disk()}

    def not_on_disk(self) -> list[str]:
        return [path for path in self.left if not (self.folder / path).is_file()]

    def match(self, member: str) -> str | None:
        """The wanted path that a member is: its own path ends like that."""
        parts = member.split("/")
        ends = ("/".join(parts[-depth:]) for depth in self.depths)
        return next((end for end in ends if end in self.left), None)

    def look_into(self, archive: RemoteFile) -> None:
        """Of an archive on disk."""
        path = self.folder / archive.path
        if is_zip(path):
            self.add(Zip(path))
        else:  # a tar has no list of members: one way through it
            self.left -= set(extract_tar(path, self.folder, self.match))

    def look_on_server(self, archive: RemoteFile) -> None:
        remote = None
        if is_zip(archive.path):
            try:
                remote = _RemoteZip(archive, self.folder)
            except DownloadError:
                if not self.whole:
                    raise
        if remote is not None and not self.whole:
            self.add(remote)
        elif remote is None or any(map(self.match, remote.members)):
            fetch([archive], self.folder, f"{self.name}, {archive.path}")
            self.look_into(archive)

    def add(self, source: Zip) -> None:
        """Plan what is to be taken from an archive."""
        jobs = []
        for member, info in source.members.items():
            if (path := self.match(member)) is not None:
                self.left.discard(path)
                if not is_right(self.folder / path, info):
                    jobs.append((info, path))
        if jobs:
            self.plan.append((source, jobs))

    def unpack(self) -> dict[str, str]:
        need = sum(info.file_size for _, jobs in self.plan for info, _ in jobs)
        total = sum(len(jobs) for _, jobs in self.plan)
        check_room(self.folder, need, f"{self.name} ({total:,})")
        causes: dict[str, str] = {}
        with tqdm(total=need, unit="B", unit_scale=True, desc=self.name, disable=not total) as bar:
            for source, jobs in self.plan:
                try:
                    causes |= source.unpack(jobs, self.folder, bar)
                except DownloadError as error:
                    raise DownloadError(f"{error}. Finished images are kept: run again and it goes on.") from None
        return causes


# ---- zips on a server


class _Changed(Exception):
    """The archive on the server is no longer the one whose list of members is here."""


class _RemoteZip(Zip):
    """A zip on a server, of which only the list of members is fetched at first, and kept on disk for the next time."""

    def __init__(self, archive: RemoteFile, folder: Path):
        self.label, self.archive = archive.path, archive
        self.kept = folder / f"{archive.path}.list"
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.length, self.versions, end = self._kept_list()
        if not end:
            self.length = archive.bytes or patiently(archive.urls, self._ask_length, self.stop)
            end = self.get(max(0, self.length - _END), self.length)
        self.file = _Parts(self.length, end, self.get)
        self.read_list(self.file, self.length, "Fetch it from elsewhere.")
        directory = self.zip.start_dir
        self.starts = [*sorted(info.header_offset for info in self.zip.infolist()), directory]
        if self.starts != sorted(self.starts):
            raise ArchiveError(f"{self.label} is damaged: its list names members that come after it")
        self.file.keep(min(directory, max(0, self.length - _END)))
        about = json.dumps({"length": self.length, "versions": self.versions})
        ensure_writable_dir(self.kept.parent)
        atomic_write(self.kept, about.encode() + b"\n" + self.file.end)

    def _kept_list(self) -> tuple[int, dict, bytes]:
        try:
            about, end = self.kept.read_bytes().split(b"\n", 1)
            about = json.loads(about)
            return about["length"], about["versions"], end
        except (OSError, ValueError, KeyError):
            return 0, {}, b""

    def _ask_length(self, url: str) -> int:
        with ask(url, 0, 1) as answer:
            if not answer.partial or answer.length is None:
                raise Refused(_NO_PARTS)
            return answer.length

    def get(self, start: int, stop: int) -> bytes:
        """Some bytes of the archive, from whichever mirror has them."""
        return patiently(self.archive.urls, lambda url: self._ask(url, start, stop), self.stop)

    def _ask(self, url: str, start: int, stop: int) -> bytes:
        known = self.versions.get(url)
        with ask(url, start, stop, known) as answer:
            if known and (answer.validator not in (known, None) or answer.length != self.length):
                self.kept.unlink(missing_ok=True)
                raise _Changed(self.label)
            if not answer.partial or answer.start != start:
                raise Refused(_NO_PARTS)
            if answer.length != self.length:
                raise Refused(f"the server has {answer.length or 0:,} bytes, where {self.length:,} are expected")
            data = b"".join(answer.pieces())
        if len(data) != stop - start:
            raise Passing(f"the connection broke after {len(data):,} of {stop - start:,} bytes")
        self.versions[url] = answer.validator
        return data

    def unpack(self, jobs: list[Job], folder: Path, bar: tqdm) -> dict[str, str]:
        """Fetch members and write them to a folder, as :meth:`Zip.unpack`."""
        causes: dict[str, str] = {}

        def one(run: list[Job]) -> None:
            if self.stop.is_set():
                return
            start, stop = run[0][0].header_offset, self.end_of(run[-1][0])
            try:
                data = self.get(start, stop)
                with self.lock:  # of `zipfile`, which is fed with one part at a time
                    self.file.part = start, data
                    causes.update(Zip.unpack(self, run, folder, bar))
            except Passing:  # stopped, because of another run
                return
            except BaseException:
                self.stop.set()  # whatever it was, the other runs would most likely meet it too
                raise

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                list(pool.map(one, self.runs(jobs)))
            finally:
                self.stop.set()  # an interruption too ends the other threads
        return causes

    def runs(self, jobs: list[Job]) -> list[list[Job]]:
        """Members that lie near each other, to be asked for together."""
        runs: list[list[Job]] = []
        for job in sorted(jobs, key=lambda job: job[0].header_offset):
            if runs:
                first, last = runs[-1][0][0], runs[-1][-1][0]
                near = job[0].header_offset - self.end_of(last) <= _GAP
                if near and self.end_of(job[0]) - first.header_offset <= _RUN:
                    runs[-1].append(job)
                    continue
            runs.append([job])
        return runs

    def end_of(self, info: zipfile.ZipInfo) -> int:
        """Where the next member begins: the list does not tell how long a member's own header is."""
        return self.starts[bisect_right(self.starts, info.header_offset)]


class _Parts(io.RawIOBase):
    """A remote file for ``zipfile`` to read: its end, and one part at a time of what comes before.

    Attributes:
        end: the last bytes of the file. While the list of members is read, more is asked for where need be.
        part: first byte of a part, and its content.
    """

    def __init__(self, length: int, end: bytes, get: Callable[[int, int], bytes] | None):
        self.length, self.end, self.get, self.part, self.at = length, end, get, (0, b""), 0

    def keep(self, start: int) -> None:
        """Keep of the end only what begins at ``start``, and ask for no more."""
        self.end, self.get = self.end[start - self.length :], None

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence])
        return self.at

    def read(self, size: int = -1) -> bytes:
        stop = self.length if size < 0 else min(self.at + size, self.length)
        end_start = self.length - len(self.end)
        if self.at < end_start and self.get is not None:
            if end_start - self.at > _LONGEST_LIST:
                raise zipfile.BadZipFile("its list of members is impossibly long")
            self.end = self.get(self.at, end_start) + self.end
            end_start = self.at
        start, data = (end_start, self.end) if self.at >= end_start else self.part
        piece = data[self.at - start : stop - start] if self.at >= start else b""
        self.at += len(piece)
        return piece
