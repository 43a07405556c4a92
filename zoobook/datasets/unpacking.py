"""Archives on disk, unpacked safely: nothing outside the folder, no links, no bombs, nothing half-written."""
from __future__ import annotations

import errno
import gzip
import json
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from tqdm import tqdm

from zoobook import arguments
from zoobook.datasets.download import alone, check_room
from zoobook.files import atomic_write, ensure_writable_dir

_PIECE = 1 << 18  # bytes written at a time
_RATIO, _SLACK = 100, 100_000_000  # an archive may grow 100-fold when unpacked, or to 100 MB; images hardly grow
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError)
_GO_ON = "Finished files are kept. Run again and it goes on from there."

LOCK = ".unpack.lock"  # held by whoever unpacks into a folder
Job = tuple[zipfile.ZipInfo, str]  # a member of a zip, and the path it is written to, below the folder


class ArchiveError(ValueError):
    """An archive is damaged, or not to be trusted; the message says where and what to do."""


def extract(archive: str | os.PathLike, folder: str | os.PathLike) -> list[Path]:
    """Unpack an archive (``.zip``, ``.tar``, ``.tar.gz``) below a folder.

    Each member appears under its own name once it is whole and, in a zip, its checksum is right. After an
    interruption the next call goes on. A finished archive is noted in the folder, and not even opened the next time:
    it may then be deleted.

    Args:
        archive: the file.
        folder: where to; made if need be.

    Returns:
        list[Path]: the files, in the order of the archive.

    Raises:
        FileNotFoundError: there is no such archive.
        ArchiveError: the archive is damaged; or it holds a link, a path that leads out of the folder, or far more
            than its size allows. Nothing is written outside the folder, and no damaged file is kept.
        OSError: the folder cannot be written to, or the disk is full; finished files are kept.
    """
    archive, folder = arguments.path(archive), arguments.path(folder)
    note = folder / f".{archive.name}.extracted"
    if (names := _noted(note, archive)) is not None:
        return [folder / name for name in names]
    if not archive.is_file():
        raise FileNotFoundError(f"there is no archive {archive}")
    with alone(ensure_writable_dir(folder), f"extracting {archive.name}", LOCK):
        if (names := _noted(note, archive)) is None:  # another process may just have done it
            before = archive.stat()
            names = _extract_zip(archive, folder) if is_zip(archive) else extract_tar(archive, folder, str)
            atomic_write(note, json.dumps({"bytes": before.st_size, "changed": before.st_mtime_ns, "names": names}))
    return [folder / name for name in names]


def _noted(note: Path, archive: Path) -> list[str] | None:
    """The members of an archive that was extracted completely, if they are still there."""
    try:
        noted = json.loads(note.read_text("utf8"))
        now = archive.stat() if archive.is_file() else None
        if now and (now.st_size, now.st_mtime_ns) != (noted["bytes"], noted["changed"]):
            return None
        names = noted["names"]
    except (OSError, ValueError, KeyError):
        return None
    return names if all((note.parent / name).is_file() for name in names) else None


# ---- zips


class Zip:
    """A zip on disk.

    Args:
        path: the file.

    Attributes:
        label: what to call it.
        members: its files, by name, in the order of the archive.

    Raises:
        ArchiveError: it is damaged, or would grow absurdly.
    """

    def __init__(self, path: Path):
        self.label = path.name
        self.read_list(path, path.stat().st_size, f"Delete {path} and fetch it again.")

    def read_list(self, file: Path | BinaryIO, length: int, do: str) -> None:
        """Read the list of members.

        Args:
            file: the zip.
            length: of it, in bytes.
            do: what to do if it is damaged, for the message.
        """
        try:
            self.zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise ArchiveError(f"{self.label} is damaged, or is no zip: {error}. {do}") from None
        for info in self.zip.infolist():
            info.filename = _slashes(info.filename)
        self.infos = [info for info in self.zip.infolist() if not info.is_dir()]
        self.members = {info.filename: info for info in self.infos}
        _check_size(sum(info.file_size for info in self.infos), length, self.label)

    def unpack(self, jobs: list[Job], folder: Path, bar: tqdm) -> dict[str, str]:
        """Write members to a folder.

        Args:
            jobs: which, and where to.
            folder: the folder.
            bar: told the bytes that are written.

        Returns:
            dict: the causes of those that are damaged, by path; none of them is written.

        Raises:
            OSError: they could not be written.
        """
        causes = {path: self._one(info, folder / path, bar) for info, path in jobs}
        return {path: cause for path, cause in causes.items() if cause}

    def _one(self, info: zipfile.ZipInfo, target: Path, bar: tqdm) -> str | None:
        if is_link(info):
            return f"a link in {self.label}, not a file"
        if info.flag_bits & 1:
            return f"encrypted in {self.label}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"packed in {self.label} by a method that is not supported ({info.compress_type})"
        try:
            with self.zip.open(info) as source:
                _write(source, target, info.file_size, bar)
        except _DAMAGE as error:
            return f"damaged in {self.label}: {error or type(error).__name__}"
        return None


def _extract_zip(path: Path, folder: Path) -> list[str]:
    source = Zip(path)
    if len(source.members) < len(source.infos):
        raise ArchiveError(f"{path} holds two members of the same name; it is not extracted")
    for member, info in source.members.items():
        safe_name(member, str(path))
        if is_link(info):
            raise ArchiveError(f"{path} holds a link, {member!r}; it is not extracted")
    jobs = [(info, member) for member, info in source.members.items() if not is_right(folder / member, info)]
    need = sum(info.file_size for info, _ in jobs)
    check_room(folder, need, f"extracting {path.name}")
    with tqdm(total=need, unit="B", unit_scale=True, desc=f"extracting {path.name}") as bar:
        causes = source.unpack(jobs, folder, bar)
    if causes:
        raise ArchiveError(
            f"{path}: {len(causes)} of {len(source.members)} members could not be extracted, such as "
            f"{next(iter(causes))!r}, {next(iter(causes.values()))}. The others are in {folder}. "
            "Delete the archive and fetch it again."
        )
    return list(source.members)


def is_right(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file on disk is that member of a zip, by its length and checksum.

    Args:
        path: the file.
        info: the member.
    """
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc == info.CRC


def is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a member of a zip is something else than a file, such as a symbolic link.

    Args:
        info: the member.
    """
    return stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)


def is_zip(path: str | os.PathLike) -> bool:
    """Whether a file is a zip, going by its name.

    Args:
        path: the file.
    """
    return str(path).lower().endswith(_ZIP)


# ---- tars


def extract_tar(path: Path, folder: Path, place: Callable[[str], str | None]) -> list[str]:
    """Write members of a tar to a folder, in one way through it.

    Args:
        path: the tar.
        folder: where to.
        place: gives a path below the folder for the name of a member, or ``None`` for one that is not wanted.

    Returns:
        list[str]: the paths, in the order of the archive.

    Raises:
        ArchiveError: the archive is damaged or not to be trusted; of a damaged one nothing is kept.
        OSError: the folder cannot be written to, or the disk is full.
    """
    if not str(path).lower().endswith(_TAR):
        raise ArchiveError(f"{path} is none of {', '.join(_ZIP + _TAR)}; unpack it by hand")
    names: dict[str, None] = {}
    end = 0
    try:
        with (
            open(path, "rb") as packed,
            (packed if str(path).lower().endswith(".tar") else gzip.open(packed)) as unpacked,
            tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=f"extracting {path.name}") as bar,
        ):
            bounded = _Bounded(unpacked, path)
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                for member in tar:
                    end = member.offset_data + member.size
                    if not member.isdir():
                        _one_of_tar(tar, member, path, folder, place, names)
                    bar.update(packed.tell() - bar.n)
            bounded.check_end(end)
    except _DAMAGE as error:
        for name in names:  # members of a tar have no checksums: none of them can be trusted
            (folder / name).unlink(missing_ok=True)
        raise ArchiveError(
            f"{path} is damaged or not whole ({error or type(error).__name__}); nothing of it is kept. "
            "Delete it and fetch it again."
        ) from None
    return list(names)


def _one_of_tar(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, folder: Path, place, names: dict) -> None:
    member_name = safe_name(_slashes(member.name).removeprefix("./"), str(path))
    if not member.isreg() or member.issparse():  # a sparse file may claim any length
        raise ArchiveError(f"{path} holds {member.name!r}, a link, device or sparse file; it is not extracted")
    name = place(member_name)
    if name is None:
        return
    if name in names:
        raise ArchiveError(f"{path} holds {name!r} twice; it is not extracted")
    names[name] = None
    target = folder / name
    if not target.is_file() or target.stat().st_size != member.size:
        check_room(folder, member.size, f"extracting {path.name}")
        _write(tar.extractfile(member), target, member.size)


class _Bounded:
    """What comes out of a packed tar, as long as it is not absurdly more than went in."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path, self.packed = file, path, path.stat().st_size
        self.count, self.last = 0, b""

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        self.last = (self.last + data)[-512:]
        _check_size(self.count, self.packed, str(self.path))
        return data

    def check_end(self, data_end: int) -> None:
        """A tar ends with a block of zeros; without it, members may be missing, which `tarfile` does not tell."""
        while self.read(1 << 16):  # up to the checksum of the packed file
            pass
        data_end = -(-data_end // 512) * 512
        if self.count < data_end + 512 or self.last.strip(b"\0"):
            raise EOFError("its end is missing")


# ---- what both share


def _slashes(name: str) -> str:
    """The path of a member as it is meant: programs on Windows write backslashes."""
    return name.replace("\\", "/")


def safe_name(name: str, where: str) -> str:
    """The path of a member, if it stays below a folder on every operating system.

    Args:
        name: the path.
        where: it comes from, for the message.

    Raises:
        ArchiveError: it leads out of the folder, or is no path.
    """
    name = _slashes(name)
    if (
        not name.strip("/. ")
        or re.search(r"[\x00-\x1f]", name)
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in PurePosixPath(name).parts
    ):
        raise ArchiveError(f"{where} names a file {name!r}: it leads out of its folder or is no path, and is not used")
    return name


def _write(source: BinaryIO, target: Path, length: int, bar: tqdm | None = None) -> None:
    part, written = target.with_name(target.name + ".part"), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as out:
            while piece := source.read(_PIECE):
                out.write(piece)
                written += len(piece)
                if bar is not None:
                    bar.update(len(piece))
        if written != length:
            raise EOFError(f"it has {written:,} of {length:,} bytes")
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, _DAMAGE):
            what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise OSError(error.errno, f"cannot write {target}: {what}. {_GO_ON}") from None
        raise


def _check_size(unpacked: int, packed: int, label: str) -> None:
    if unpacked > max(_SLACK, _RATIO * packed):
        raise ArchiveError(
            f"{label} would grow from {packed:,} to {unpacked:,} bytes or more when unpacked, as no archive of images "
            "does. It is not extracted."
        )
