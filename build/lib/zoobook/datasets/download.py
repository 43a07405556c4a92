"""Downloads: files of known size and hash, several at a time, each whole or absent, going on where they stopped."""
from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock
from tqdm import tqdm

from zoobook.runs import own_folder

_AT_ONCE = 8
_TRIES = 4
_PAUSE = 0.5  # seconds before the second try; doubled before each further one
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of the answer
_PIECE = 1 << 15  # bytes; of a connection that breaks, what came of the last piece is lost
_BUSY = {408, 429, 500, 502, 503, 504}  # answers of a server that may be better a moment later


class DownloadError(OSError):
    """Files could not be fetched; the message names one, its cause and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch.

    Attributes:
        url: its address.
        path: where it goes, below the folder of the data set.
        bytes: its length.
        hash: ``"sha256:…"`` or ``"md5:…"``, in hexadecimal.
    """

    url: str
    path: str
    bytes: int
    hash: str


def missing(files: list[RemoteFile], folder: Path) -> list[RemoteFile]:
    """Which of the files are not in the folder, whole and with the right content.

    Args:
        files: what should be there.
        folder: where.

    Returns:
        list[RemoteFile]: the others.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        right = pool.map(lambda file: _matches(folder / file.path, file), files)
        return [file for file, there in zip(files, right, strict=True) if not there]


def fetch(files: list[RemoteFile], folder: Path, name: str, by_hand: str) -> None:
    """Bring the files that are not there yet into a folder, with a progress bar.

    A file is written as ``….part`` and gets its own name once its hash is right. After an interruption the next call
    asks only for what is missing, of a half-fetched file too. Failures that may pass are tried four times.

    Args:
        files: what should be there.
        folder: where.
        name: of the data set, for messages.
        by_hand: how to fetch the files without this function.

    Raises:
        DownloadError: the network, the server or a wrong hash; finished files are kept.
        OSError: the folder cannot be written to, or the disk is full; finished files are kept.
    """
    lacking = missing(files, folder)
    if not lacking:
        return
    own_folder(folder)
    with FileLock(folder / ".download.lock"):
        lacking = missing(lacking, folder)  # another process may just have fetched them
        need = sum(file.bytes - size_of(_part(folder, file)) for file in lacking)
        free = shutil.disk_usage(folder).free
        if need > free:
            raise OSError(
                errno.ENOSPC,
                f"data set {name!r}: {need:,} bytes are still to be fetched into {folder}, which has {free:,} free. "
                "Free some space or choose another folder (`root=`, or $ZOOBOOK_HOME).",
            )
        _Fetcher(files, lacking, folder, name, by_hand).run()


class _Fetcher:
    """One call of :func:`fetch`: what its threads share."""

    def __init__(self, files: list[RemoteFile], lacking: list[RemoteFile], folder: Path, name: str, by_hand: str):
        self.lacking, self.folder, self.name, self.by_hand = lacking, folder, name, by_hand
        self.total, self.finished = len(files), len(files) - len(lacking)
        self.stop, self.lock, self.local = threading.Event(), threading.Lock(), threading.local()
        everything = sum(file.bytes for file in files)
        have = everything - sum(file.bytes - size_of(_part(folder, file)) for file in lacking)
        self.bar = tqdm(total=everything, initial=have, unit="B", unit_scale=True, desc=f"fetching {name}")

    def run(self) -> None:
        errors: list[OSError] = []
        with self.bar, ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for error in pool.map(self.one, self.lacking):
                    if error is not None:
                        errors.append(error)
            finally:
                self.stop.set()  # an interruption too ends the other threads at their next piece
        if errors:
            kept = f"{self.finished} of {self.total} files of {self.name!r} are finished and kept in {self.folder}"
            if errors[0].errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, f"{errors[0].strerror}. {kept}. Free some space and run again: it goes on.")
            raise DownloadError(
                f"{errors[0].strerror or errors[0]}. {kept}. Run again and it goes on from there, or fetch the files "
                f"by hand: {self.by_hand}."
            )

    def one(self, file: RemoteFile) -> OSError | None:
        """Fetch one file; the error, if it did not work."""
        if self.stop.is_set():
            return None
        try:
            self.with_patience(file)
        except _Passing:  # stopped, because of another file
            return None
        except OSError as error:
            self.stop.set()  # whatever it was, the other files would most likely meet it too
            return error
        with self.lock:
            self.finished += 1
        return None

    def with_patience(self, file: RemoteFile) -> None:
        part, problem, failures = _part(self.folder, file), "", 0
        while failures < _TRIES:
            if failures and self.stop.wait(_PAUSE * 2 ** (failures - 1)):
                raise _Passing("stopped")
            start = size_of(part)
            try:
                if start < file.bytes:
                    self.pieces(file, part, start)
            except (requests.RequestException, _Passing) as error:
                problem = str(error) if isinstance(error, _Passing) else f"the connection failed: {_reason(error)}"
                failures = 1 if size_of(part) > start else failures + 1  # a long file may take many pieces
                continue
            if _matches(part, file):
                os.replace(part, self.folder / file.path)
                return
            failures += 1
            length, got = size_of(part), _hash(part, file)
            self.forget(part)
            problem = f"its content is wrong: expected {file.hash} ({file.bytes:,} bytes), got {got} ({length:,} bytes)"
            if not start:  # a whole fresh copy is wrong; after an older piece, a fresh start may be better
                raise DownloadError(f"{file.url}: {problem}; the bad copy is deleted")
        raise DownloadError(f"{file.url}: {problem}; tried {_TRIES} times")

    def pieces(self, file: RemoteFile, part: Path, start: int) -> None:
        """Add what is missing to the partial file."""
        headers = {"Accept-Encoding": "identity"}  # or else the bytes that arrive are not those of the file
        if start:
            headers["Range"] = f"bytes={start}-"
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        with self.local.session.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code in _BUSY:
                raise _Passing(f"the server answers {answer.status_code} {answer.reason}")
            if answer.status_code == 416:
                self.forget(part)
                raise _Passing("the server does not have the rest of it")
            if answer.status_code not in (200, 206):
                raise DownloadError(f"{file.url}: the server answers {answer.status_code} {answer.reason}")
            if start and answer.status_code == 200:  # it sends the whole file again
                self.forget(part)
            try:
                part.parent.mkdir(parents=True, exist_ok=True)
                with open(part, "ab") as out:
                    for piece in answer.iter_content(_PIECE):
                        out.write(piece)
                        with self.lock:
                            self.bar.update(len(piece))
                        if self.stop.is_set():
                            raise _Passing("stopped")
            except requests.RequestException:
                pass  # it ends too early, as the length shows
            except OSError as error:
                what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
                raise OSError(error.errno, f"cannot write {part}: {what}") from None
        if size_of(part) < file.bytes:
            raise _Passing(f"the connection broke after {size_of(part):,} of {file.bytes:,} bytes")

    def forget(self, part: Path) -> None:
        with self.lock:
            self.bar.update(-size_of(part))
        part.unlink(missing_ok=True)


class _Passing(Exception):
    """A failure that may pass."""


def _part(folder: Path, file: RemoteFile) -> Path:
    path = folder / file.path
    return path.with_name(path.name + ".part")


def size_of(path: Path) -> int:
    """Length of a file in bytes, 0 if there is none.

    Args:
        path: the file.
    """
    return path.stat().st_size if path.is_file() else 0


def _hash(path: Path, file: RemoteFile) -> str:
    algorithm = file.hash.split(":")[0]
    digest = hashlib.new(algorithm)
    with open(path, "rb") as data:
        while piece := data.read(1 << 20):
            digest.update(piece)
    return f"{algorithm}:{digest.hexdigest()}"


def _matches(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and size_of(path) == file.bytes and _hash(path, file) == file.hash


def _reason(error: Exception) -> str:
    return str(error).split("(Caused by ")[-1].rstrip(")")[:200] or type(error).__name__
