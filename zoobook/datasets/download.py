"""Downloads: files of known address, several at a time, each whole or absent, going on where they stopped."""
from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pooch
from filelock import FileLock, Timeout
from tqdm import tqdm

from zoobook.datasets.web import Answer, DownloadError, NoSuchPart, Passing, Refused, ask, patiently
from zoobook.files import atomic_write, ensure_writable_dir

_AT_ONCE = 8
_SHOWN = 20  # files named in a message
_RECORD = ".verified.json"


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch.

    Attributes:
        url: its address; or several, mirrors that are tried in turn.
        path: where it goes, below the folder of the data set.
        bytes: its length; ``None`` where unknown, and the server's word is taken.
        hash: ``"sha256:…"`` or ``"md5:…"``, in hexadecimal; ``None`` where unknown, and only the length is checked.
    """

    url: str | tuple[str, ...]
    path: str
    bytes: int | None = None
    hash: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses, the best first."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)


# ---- what is there


def offline() -> bool:
    """Whether ``$ZOOBOOK_OFFLINE`` forbids the network (any value but empty, ``0``, ``false`` or ``no``)."""
    return os.environ.get("ZOOBOOK_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def missing(files: list[RemoteFile], folder: Path, thorough: bool = False) -> list[RemoteFile]:
    """Which of the files are not in the folder, whole and with the right content.

    A file that was right once, and whose length and time of change are still the same, is not read again.

    Args:
        files: what should be there.
        folder: where.
        thorough: read every file again.

    Returns:
        list[RemoteFile]: the others.
    """
    record = _Record(folder, trusted=not thorough)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        right = list(pool.map(record.right, files))
    record.save()
    return [file for file, there in zip(files, right, strict=True) if not there]


def require(files: list[RemoteFile], folder: Path, name: str, by_hand: str | None = None) -> None:
    """Check that all files are in the folder, without the network.

    Args:
        files: what should be there.
        folder: where.
        name: of the data set, for messages.
        by_hand: how to fetch all of them without this package.

    Raises:
        FileNotFoundError: some are missing or damaged; the message says which, where each belongs and where it can
            be had.
    """
    if lacking := missing(files, folder):
        _say_missing(lacking, len(files), folder, name, by_hand)


def _say_missing(lacking: list[RemoteFile], of: int, folder: Path, name: str, by_hand: str | None) -> NoReturn:
    lines = []
    for file in lacking[:_SHOWN]:
        length = "length unknown" if file.bytes is None else f"{file.bytes:,} bytes"
        lines.append(f"\n  {folder / file.path}  ({length}, {file.hash or 'hash unknown'})  from {file.urls[0]}")
    if len(lacking) > _SHOWN:
        lines.append(f"\n  … and {len(lacking) - _SHOWN} more")
    raise FileNotFoundError(
        f"{len(lacking)} of the {of} files of {name!r} are missing or damaged in {folder}. "
        + ("The network is not to be used ($ZOOBOOK_OFFLINE): put" if offline() else "Allow the download, or put")
        + (" each into its place" if not by_hand else f" each into its place, or all at once: {by_hand}")
        + ":"
        + "".join(lines)
    )


class _Record:
    """Which files of a folder were found right, so that many gigabytes are not hashed at every start."""

    def __init__(self, folder: Path, trusted: bool = True):
        self.folder, self.path, self.changed = folder, folder / _RECORD, False
        try:
            self.known: dict = json.loads(self.path.read_text("utf8")) if trusted else {}
        except (OSError, ValueError):
            self.known = {}

    def right(self, file: RemoteFile) -> bool:
        path = self.folder / file.path
        if not path.is_file():
            return False
        seen = path.stat()
        if file.bytes is not None and seen.st_size != file.bytes:
            return False
        mark = [seen.st_size, seen.st_mtime_ns, file.hash]
        if file.hash is None or self.known.get(file.path) == mark:
            return True
        if not _same_hash(hash_of(path, file.hash), file.hash):
            return False
        if time.time() - seen.st_mtime > 2:  # or else a change at the same tick of the clock would pass unseen
            self.known[file.path], self.changed = mark, True
        return True

    def save(self) -> None:
        if self.changed:
            try:
                atomic_write(self.path, json.dumps(self.known))
            except OSError:
                pass  # a folder that may only be read: the next start hashes again


# ---- fetching


def fetch(files: list[RemoteFile], folder: Path, name: str, by_hand: str | None = None) -> None:
    """Bring the files that are not there yet into a folder, with one progress bar.

    A file is written as ``….part`` and gets its own name once its length and hash are right. After an interruption
    the next call asks only for what is missing, of a half-fetched file too, unless it has changed on the server.
    Failures that may pass are tried four times, then the next mirror. Of several processes that want the same folder
    one fetches and the others wait for it.

    Args:
        files: what should be there.
        folder: where.
        name: of the data set, for messages.
        by_hand: how to fetch the files without this function.

    Raises:
        DownloadError: the network, the server or a wrong hash; finished files are kept.
        FileNotFoundError: files are missing and ``$ZOOBOOK_OFFLINE`` is set; the message says which and where to.
        OSError: the folder cannot be written to, or the disk is full; finished files are kept.
    """
    lacking = missing(files, folder)
    if not lacking:
        return
    if offline():
        _say_missing(lacking, len(files), folder, name, by_hand)
    with alone(folder, f"fetching {name}"):
        lacking = missing(lacking, folder)  # another process may just have fetched them
        need = sum(max(0, (file.bytes or 0) - size_of(_part(folder, file))) for file in lacking)
        check_room(folder, need, f"data set {name!r}")
        _Fetcher(files, lacking, folder, name, by_hand).run()


@contextmanager
def alone(folder: Path, what: str, lock: str = ".download.lock") -> Iterator[None]:
    """Hold a folder, so that no other process works in it; wait for the one that does.

    The operating system lets go of a killed process' lock.

    Args:
        folder: made if need be.
        what: one is about to do, for the message to whoever waits.
        lock: the file that stands for it; work that is held by different ones may go on side by side.

    Raises:
        OSError: the folder cannot be written to.
    """
    held = FileLock(ensure_writable_dir(folder) / lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"{what}: another process is at work in {folder}; waiting for it", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def check_room(folder: Path, need: int, what: str) -> None:
    """Check that a disk has room, before anything is written.

    Args:
        folder: where to.
        need: bytes.
        what: needs them, for the message.

    Raises:
        OSError: there is too little (``errno.ENOSPC``).
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            errno.ENOSPC,
            f"{what}: {need:,} bytes are still to be fetched into {folder}, which has {free:,} free. "
            "Free some space or choose another folder (`root=`, or $ZOOBOOK_HOME).",
        )


class _Fetcher:
    """One call of :func:`fetch`: what its threads share."""

    def __init__(
        self, files: list[RemoteFile], lacking: list[RemoteFile], folder: Path, name: str, by_hand: str | None
    ):
        self.lacking, self.folder, self.name, self.by_hand = lacking, folder, name, by_hand
        self.total, self.finished = len(files), len(files) - len(lacking)
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.lengths = {file.path: file.bytes for file in files if file.bytes is not None}  # that the bar counts
        known = [file for file in lacking if file.bytes is not None]
        to_come = sum(max(0, file.bytes - size_of(_part(folder, file))) for file in known)
        total = sum(self.lengths.values())
        self.bar = tqdm(total=total, initial=total - to_come, unit="B", unit_scale=True, desc=f"fetching {name}")

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
            by_hand = self.by_hand or f"put each into its place below {self.folder}"
            raise DownloadError(
                f"{errors[0].strerror or errors[0]}. {kept}. Run again and it goes on from there, or fetch the files "
                f"by hand: {by_hand}."
            )

    def one(self, file: RemoteFile) -> OSError | None:
        """Fetch one file; the error, if it did not work."""
        if self.stop.is_set():
            return None
        try:
            patiently(file.urls, lambda url: self.attempt(file, url), self.stop)
        except Passing:  # stopped, because of another file
            return None
        except OSError as error:
            self.stop.set()  # whatever it was, the other files would most likely meet it too
            return error
        with self.lock:
            self.finished += 1
        return None

    def attempt(self, file: RemoteFile, url: str) -> None:
        """Bring one file to its end from one address, or raise what is in the way."""
        part = _part(self.folder, file)
        start = size_of(part)
        if start != (file.bytes or _read_note(part).get("length")):
            try:
                self.go_on(file, url, part)
            except Passing as error:
                if isinstance(error, NoSuchPart):
                    self.forget(file, part)
                error.progress = size_of(part) > start
                raise
        got = hash_of(part, file.hash) if file.hash else None
        if size_of(part) != (file.bytes or size_of(part)) or not _same_hash(got, file.hash):
            wanted = f"{file.hash} ({file.bytes:,} bytes)" if file.bytes else file.hash
            problem = f"its content is wrong: expected {wanted}, got {got} ({size_of(part):,} bytes)"
            self.forget(file, part)
            if start:  # an older piece may be to blame
                raise Passing(problem)
            raise Refused(f"{problem}; the bad copy is deleted")
        os.replace(part, self.folder / file.path)
        _note(part).unlink(missing_ok=True)

    def go_on(self, file: RemoteFile, url: str, part: Path) -> None:
        """Ask for what is missing of the partial file, or for all where the old piece is of no use."""
        start, note = size_of(part), _read_note(part)
        known = note.get("validator") if note.get("url") == url else None
        if start and not known and not file.hash:
            self.forget(file, part)  # nothing would show that the piece is of another version of the file
            start = 0
        with ask(url, start, validator=known) as answer:
            if not answer.bounded and not file.hash:
                raise Refused("the server does not tell its length, and no hash is known: its end would not be seen")
            if file.bytes is not None and answer.length not in (file.bytes, None):
                raise Refused(f"the server has {answer.length:,} bytes, where {file.bytes:,} are expected")
            if start and (answer.start != start or (known and answer.validator not in (known, None))):
                self.forget(file, part)
                if answer.start:
                    raise Passing("it has changed on the server since its first part was fetched")
            self.write(file, answer, part, {"url": url, "validator": answer.validator, "length": answer.length})

    def write(self, file: RemoteFile, answer: Answer, part: Path, note: dict) -> None:
        """Add an answer to the partial file, and note beside it where it is from."""
        if file.bytes is None and answer.length is not None:
            self.count_in(file, answer.length, part)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(_note(part), json.dumps(note))
            with open(part, "ab") as out:
                for piece in answer.pieces():
                    out.write(piece)
                    with self.lock:
                        self.bar.update(len(piece))
                    if self.stop.is_set():
                        raise Passing("stopped")
                out.flush()
                os.fsync(out.fileno())  # or else a power cut after the renaming could leave an empty file
            if size_of(part) < (answer.length or 0):
                raise Passing("the connection broke")
        except Passing as broken:
            of = "" if answer.length is None else f" of {answer.length:,}"
            raise Passing(f"{broken} after {size_of(part):,}{of} bytes") from None
        except OSError as error:
            what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise OSError(error.errno, f"cannot write {part}: {what}") from None

    def count_in(self, file: RemoteFile, length: int, part: Path) -> None:
        """A file whose length was unknown so far needs room, and a share of the bar."""
        check_room(self.folder, length - size_of(part), file.path)
        with self.lock:
            self.bar.total += length - self.lengths.get(file.path, 0)
            self.bar.update(0 if file.path in self.lengths else size_of(part))
            self.lengths[file.path] = length

    def forget(self, file: RemoteFile, part: Path) -> None:
        with self.lock:
            if file.path in self.lengths:
                self.bar.update(-min(size_of(part), self.lengths[file.path]))
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)


# ---- files and hashes


def size_of(path: Path) -> int:
    """Length of a file in bytes, 0 if there is none.

    Args:
        path: the file.
    """
    return path.stat().st_size if path.is_file() else 0


def hash_of(path: Path, like: str) -> str:
    """Hash of a file.

    Args:
        path: the file.
        like: a hash of the kind that is wanted, such as ``"md5:…"``.

    Returns:
        str: the hash, in the same form.
    """
    algorithm = like.split(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _same_hash(got: str | None, wanted: str | None) -> bool:
    return wanted is None or (got or "").lower() == wanted.lower()


def _part(folder: Path, file: RemoteFile) -> Path:
    path = folder / file.path
    return path.with_name(path.name + ".part")


def _note(part: Path) -> Path:
    """Beside a partial file: from where it is, and which version."""
    return part.with_name(part.name + ".json")


def _read_note(part: Path) -> dict:
    try:
        return json.loads(_note(part).read_text("utf8"))
    except (OSError, ValueError):
        return {}
