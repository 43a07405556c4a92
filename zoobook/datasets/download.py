"""Downloads: files of known address, several at a time, each whole or absent, going on where they stopped.

`requests` asks, `filelock` keeps two processes apart, `pooch` hashes. What none of them does is here: going on in the
middle of a file, and never taking a piece of another version of it for one of this. What may pass is tried four times,
in ``Web.first_that_works``.
"""
from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pooch
import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from zoobook import arguments
from zoobook.files import atomic_write, check_room, ensure_writable_dir, explain_full_disk

_AT_ONCE = 8  # files fetched at the same time
_TRIES = 4  # of an address that fails in a way that may pass
_PAUSE = 0.5  # seconds, doubled from try to try
_LONGEST_PAUSE = 120  # seconds, whatever a server asks for
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may be better a moment later
_PIECE = 1 << 15  # bytes; of a connection that breaks, what came of the last piece is lost
_SHOWN = 20  # files named in a message
_RECORD = ".verified.json"

_T = TypeVar("_T")


class DownloadError(OSError):
    """Files could not be fetched; the message names one, its cause and what to do."""


class TransientError(Exception):
    """A failure that may pass.

    Attributes:
        discard: whether the piece of the file that is here is of no use.
        pause: how long the server asks to wait [s].
        progress: whether something was gained all the same, so that the tries are counted anew.
    """

    def __init__(self, problem: str, discard: bool = False, pause: float = 0):
        super().__init__(problem)
        self.discard, self.pause, self.progress = discard, pause, False


class PermanentError(Exception):
    """A failure that this server would repeat, so that only another mirror can help."""


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

    def __post_init__(self):
        if self.hash is not None and not re.fullmatch("(sha256|md5):[0-9a-fA-F]+", str(self.hash)):
            raise ValueError(f"{self.path}: a hash is written 'sha256:…' or 'md5:…', not {self.hash!r}")
        if self.bytes is not None:
            arguments.whole(f"{self.path}: the length in bytes", self.bytes, 0)
        if not self.urls:
            raise ValueError(f"{self.path}: give an address, or several, from which it can be fetched")

    def may_have(self, size: int) -> bool:
        """Whether it may have so many bytes; of an unknown length and hash, an empty one is a server's failure."""
        return size == self.bytes if self.bytes is not None else bool(size or self.hash)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses, the best first."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)


# ---- what is on disk


def offline() -> bool:
    """Whether ``$ZOOBOOK_OFFLINE`` forbids the network (any value but empty, ``0``, ``false`` or ``no``)."""
    return os.environ.get("ZOOBOOK_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def missing(files: list[RemoteFile], folder: Path, thorough: bool = False) -> list[RemoteFile]:
    """Which of the files are not in the folder, whole and with the right content.

    A file that was right once, and whose length and time of change are still the same, is read again only if
    ``thorough``.
    """
    record = folder / _RECORD
    before = {} if thorough else _read_json(record)
    known = dict(before)

    def is_right(file: RemoteFile) -> bool:
        path = folder / file.path
        if not path.is_file() or not file.may_have(path.stat().st_size):
            return False
        seen = path.stat()
        mark = [seen.st_size, seen.st_mtime_ns, file.hash]
        if file.hash is None or known.get(file.path) == mark:
            return True
        if not _same_hash(_hash_of(path, file.hash), file.hash):
            return False
        if time.time() - seen.st_mtime > 2:  # or else a change at the same tick of the clock would pass unseen
            known[file.path] = mark
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        right = list(pool.map(is_right, files))
    if known != before:
        try:
            atomic_write(record, json.dumps(known))
        except OSError:
            pass  # a folder that may only be read: the next start hashes again
    return [file for file, there in zip(files, right, strict=True) if not there]


def require(files: list[RemoteFile], folder: Path, name: str, by_hand: str | None = None) -> None:
    """Check that all files of the data set ``name`` are in the folder, without the network.

    Otherwise it is a FileNotFoundError, which says where each belongs and where it can be had, or how ``by_hand``
    brings all of them.
    """
    lacking = missing(files, folder)
    if not lacking:
        return
    lines = []
    for file in lacking[:_SHOWN]:
        length = "length unknown" if file.bytes is None else f"{file.bytes:,} bytes"
        lines.append(f"\n  {folder / file.path}  ({length}, {file.hash or 'hash unknown'})  from {file.urls[0]}")
    if len(lacking) > _SHOWN:
        lines.append(f"\n  … and {len(lacking) - _SHOWN} more")
    raise FileNotFoundError(
        f"{len(lacking)} of the {len(files)} files of {name!r} are missing or damaged in {folder}. "
        + ("The network is not to be used ($ZOOBOOK_OFFLINE): put" if offline() else "Allow the download, or put")
        + f" each into its place{f', or all at once: {by_hand}' if by_hand else ''}:{''.join(lines)}"
    )


@contextmanager
def folder_lock(folder: Path, what: str, lock: str = ".download.lock") -> Iterator[None]:
    """Hold a folder, so that no other process works in it; wait for the one that does."""
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


# ---- asking servers


class Answer:
    """What a server sends for a file or a part of it.

    Attributes:
        start: the byte of the file at which it begins.
        length: of the whole file, in bytes, or ``None`` if the server does not tell.
        partial: whether it is a part of the file.
        bounded: whether a connection that breaks before the end would be noticed.
        validator: what the server calls this version of the file, or ``None``.
    """

    def __init__(self, response: requests.Response, stop: threading.Event):
        self._raw, self._stop, headers = response.raw, stop, response.headers
        coding = headers.get("Content-Encoding", "identity").lower()
        self._coded = coding != "identity"  # some servers compress although they are asked not to
        if coding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise PermanentError(f"the server sends it in a coding that was not asked for ({coding})")
        sent = headers.get("Content-Length", "")
        self.partial = response.status_code == 206
        self.start, self.length = 0, int(sent) if sent.isdigit() and not self._coded else None
        if self.partial:
            if self._coded:
                raise TransientError("the server sends a part of something compressed", discard=True)
            part = re.match(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if not part:
                raise PermanentError("the server sends a part of it without telling which")
            self.start, self.length = int(part[1]), None if part[2] == "*" else int(part[2])
        self.bounded = sent.isdigit() or self.length is not None
        tag = headers.get("ETag")
        self.validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")

    def pieces(self) -> Iterator[bytes]:
        """The content as it arrives; a TransientError if it breaks off or the download is stopped."""
        try:
            for piece in self._raw.stream(_PIECE, decode_content=self._coded):
                yield piece
                if self._stop.is_set():
                    raise TransientError("stopped")
        except (urllib3.exceptions.HTTPError, OSError):
            raise TransientError("the connection broke") from None


def _asked_pause(response: requests.Response) -> float:
    """How long a server asks to wait [s]."""
    try:
        return min(urllib3.Retry().get_retry_after(response.raw) or 0, _LONGEST_PAUSE)
    except urllib3.exceptions.InvalidHeader:
        return 0


class Web:
    """Asks servers, from several threads; leaving it (``with Web() as web``) stops what they are doing."""

    def __init__(self):
        self.stop, self._session = threading.Event(), requests.Session()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self._session.close()

    @contextmanager
    def ask(self, url: str, start: int = 0, stop: int | None = None, validator: str | None = None) -> Iterator[Answer]:
        """Ask a server for a file, or for its bytes from ``start`` up to but not including ``stop``.

        If the file is another version by now than ``validator`` says, a good server sends all of it.
        """
        headers = {"Accept-Encoding": "identity"}  # or else the bytes that arrive are not those of the file
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if validator:
                headers["If-Range"] = validator
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
        except ValueError as error:  # among what requests raises, only of a malformed address
            raise PermanentError(f"this is no address: {error}") from None
        except requests.RequestException as error:
            reason = str(error).split("(Caused by ")[-1].rstrip(")")[:200] or type(error).__name__
            raise TransientError(f"the connection failed: {reason}") from None
        with response:
            problem = f"the server answers {response.status_code} {response.reason}"
            if response.status_code == 416:
                raise TransientError("the server does not have the rest of it", discard=True)
            if response.status_code in _BUSY:
                raise TransientError(problem, pause=_asked_pause(response))
            if response.status_code not in (200, 206):
                raise PermanentError(problem)
            yield Answer(response, self.stop)

    def first_that_works(self, urls: tuple[str, ...], attempt: Callable[[str], _T]) -> _T:
        """What ``attempt`` gives for the first mirror that works; each is tried as long as its failure may pass."""
        problems = []
        for url in urls:
            failures = 0
            while failures < _TRIES:
                try:
                    return attempt(url)
                except PermanentError as error:
                    problem = str(error)
                    break
                except TransientError as error:
                    if self.stop.is_set():
                        raise
                    failures = 1 if error.progress else failures + 1  # a long file may take many pieces
                    problem = f"{error}; tried {failures} times"
                    if failures < _TRIES:
                        self.stop.wait(max(error.pause, _PAUSE * 2 ** (failures - 1)))
            problems.append(f"{url}: {problem}")
        raise DownloadError("; then from the next mirror, ".join(problems))


# ---- fetching files


def fetch(
    files: list[RemoteFile], folder: Path, name: str, by_hand: str | None = None, download: bool = True
) -> None:
    """Bring the files that are not there yet into a folder, with one progress bar.

    A file is written as ``….part`` and gets its own name once its length and hash are right. After an interruption
    the next call asks only for what is missing, of a half-fetched file too, unless it has changed on the server.
    Failures that may pass are tried four times, then the next mirror. Of several processes that want the same folder
    one fetches and the others wait for it.

    Args:
        files: what should be there.
        folder: where.
        name: of the data set, for messages.
        by_hand: how to fetch the files without this function, for messages.
        download: whether the network may be used; ``$ZOOBOOK_OFFLINE`` forbids it too.

    Raises:
        DownloadError: the network, the server or a wrong hash; finished files are kept.
        FileNotFoundError: files are missing and the network may not be used, see :func:`require`.
    """
    folder = arguments.path(folder)
    if not missing(files, folder):
        return
    if offline() or not download:
        require(files, folder, name, by_hand)
    with folder_lock(folder, f"fetching {name}"):
        lacking = missing(files, folder)  # another process may just have fetched them
        need = sum(max(0, (file.bytes or 0) - size_of(_part(folder, file))) for file in lacking)
        check_room(folder, need, f"the data set {name!r} needs")
        try:
            with explain_full_disk(folder):
                _Fetch(files, lacking, folder, name).run()
        except DownloadError as error:
            finished = len(files) - len(missing(lacking, folder))
            raise DownloadError(
                f"{error}. {finished} of {len(files)} files of {name!r} are finished and kept in {folder}. Run again "
                "and it goes on from there, or fetch the files by hand: "
                f"{by_hand or f'put each into its place below {folder}'}."
            ) from None


class _Fetch:
    """One call of :func:`fetch`: what its threads share."""

    def __init__(self, files: list[RemoteFile], lacking: list[RemoteFile], folder: Path, name: str):
        self.lacking, self.folder, self.web = lacking, folder, Web()
        self.lock, self.lengths, self.sizes = threading.Lock(), {}, {}  # lengths and sizes that the bar counts
        self.bar = tqdm(total=0, unit="B", unit_scale=True, desc=f"fetching {name}")
        for file in files:
            if file.bytes is not None:
                self.show(file, size_of(_part(folder, file)) if file in lacking else file.bytes, file.bytes)

    def show(self, file: RemoteFile, size: int, length: int | None = None) -> None:
        """Tell the bar how much of a file is here, and its length once that is known."""
        with self.lock:
            if length is not None:
                self.bar.total += length - self.lengths.get(file.path, 0)
                self.lengths[file.path] = length
            self.bar.update(size - self.sizes.get(file.path, 0))
            self.sizes[file.path] = size

    def run(self) -> None:
        with self.bar, ThreadPoolExecutor(_AT_ONCE) as pool, self.web:  # an interruption stops the threads first
            list(pool.map(self.one, self.lacking))

    def one(self, file: RemoteFile) -> None:
        try:
            if not self.web.stop.is_set():
                self.web.first_that_works(file.urls, lambda url: self.attempt(file, url))
        except TransientError:  # stopped, because of another file
            pass
        except OSError:
            self.web.stop.set()  # whatever it was, the other files would most likely meet it too
            raise

    def attempt(self, file: RemoteFile, url: str) -> None:
        """Bring one file to its end from one address, or raise what is in the way."""
        part = _part(self.folder, file)
        start = size_of(part)
        try:
            if start != (file.bytes or _read_json(_note(part)).get("length")):
                self.go_on(file, url, part)
            got = _hash_of(part, file.hash) if file.hash else None
            if not file.may_have(size_of(part)) or not _same_hash(got, file.hash):
                wanted = file.hash or ("a file" if file.bytes else "a file that is not empty")
                wanted += f" ({file.bytes:,} bytes)" if file.bytes else ""
                problem = f"its content is wrong: expected {wanted}, got {got or 'one'} ({size_of(part):,} bytes)"
                if start:  # an older piece may be to blame
                    raise TransientError(problem, discard=True)
                self.forget(file, part)
                raise PermanentError(f"{problem}; the bad copy is deleted")
        except TransientError as error:
            if error.discard:
                self.forget(file, part)
            error.progress = size_of(part) > start
            raise
        os.replace(part, self.folder / file.path)
        _note(part).unlink(missing_ok=True)

    def go_on(self, file: RemoteFile, url: str, part: Path) -> None:
        """Ask for what is missing of the partial file, or for all where the old piece is of no use."""
        note = _read_json(_note(part))
        known = note.get("validator") if note.get("url") == url else None
        if not known and not file.hash:
            self.forget(file, part)  # nothing would show that the piece is of another version of the file
        start = size_of(part)
        with self.web.ask(url, start, validator=known) as answer:
            if not answer.bounded and not file.hash:
                raise PermanentError(
                    "the server does not tell its length, and no hash is known: its end would not be seen"
                )
            if file.bytes is not None and answer.length not in (file.bytes, None):
                raise PermanentError(f"the server has {answer.length:,} bytes, where {file.bytes:,} are expected")
            if answer.start not in (0, start) or (answer.start and known and answer.validator not in (known, None)):
                raise TransientError("it has changed on the server since its first part was fetched", discard=True)
            if answer.start != start:  # the server sends all of it
                self.forget(file, part)
            self.write(file, answer, part, {"url": url, "validator": answer.validator, "length": answer.length})

    def write(self, file: RemoteFile, answer: Answer, part: Path, note: dict) -> None:
        """Add an answer to the partial file, and note beside it where it is from."""
        size = size_of(part)
        if answer.length is not None:
            check_room(self.folder, answer.length - size, f"{file.path} needs")
            self.show(file, size, answer.length)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(_note(part), json.dumps(note))
            with open(part, "ab") as out:
                for piece in answer.pieces():
                    out.write(piece)
                    size += len(piece)
                    self.show(file, size)
                out.flush()
                os.fsync(out.fileno())  # or else a power cut after the renaming could leave an empty file
        except TransientError as broken:
            of = "" if answer.length is None else f" of {answer.length:,}"
            raise TransientError(f"{broken} after {size:,}{of} bytes") from None

    def forget(self, file: RemoteFile, part: Path) -> None:
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)
        self.show(file, 0)


def size_of(path: Path) -> int:
    """Length of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _hash_of(path: Path, like: str) -> str:
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


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text("utf8")))
    except (OSError, ValueError, TypeError):
        return {}
