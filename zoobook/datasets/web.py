"""One request to a web server, and the patience between tries and mirrors.

Which answers may be better a moment later (:class:`Passing`) and which will not (:class:`Refused`) is told apart here.
"""
from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import requests
import urllib3

_TRIES = 4
_PAUSE = 0.5  # seconds before the second try; doubled before each further one
_LONGEST_PAUSE = 120  # seconds, whatever a server asks for
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of the answer
_PIECE = 1 << 15  # bytes; of a connection that breaks, what came of the last piece is lost
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # answers of a server that may be better a moment later

_T = TypeVar("_T")


class DownloadError(OSError):
    """Files could not be fetched; the message names one, its cause and what to do."""


class Passing(Exception):
    """A failure that may pass.

    Args:
        problem: what it was.
        after: seconds that the server asks to be left alone.

    Attributes:
        progress: whether something was gained all the same, so that the tries are counted anew.
    """

    def __init__(self, problem: str, after: float = 0.0):
        super().__init__(problem)
        self.progress, self.after = False, after


class NoSuchPart(Passing):
    """The file ends before the part that was asked for."""


class Refused(Exception):
    """A failure that this server would repeat, so that only another mirror can help."""


class Answer:
    """What a server sends back for a file or a part of it.

    Attributes:
        partial: whether it is a part of the file.
        start: the byte of the file at which it begins.
        length: of the whole file, in bytes, or ``None`` if the server does not tell.
        bounded: whether a connection that breaks before the end of the content would be noticed.
        validator: what the server calls this version of the file, or ``None``.
    """

    def __init__(self, response: requests.Response):
        self._response, headers = response, response.headers
        self.partial, self.start, self.length = response.status_code == 206, 0, None
        coding = headers.get("Content-Encoding", "identity").lower()
        self._coded = coding != "identity"
        if coding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Refused(f"the server sends it in a coding that was not asked for ({coding})")
        if self.partial and self._coded:
            raise NoSuchPart("the server sends a part of something compressed, which is no part of the file")
        sent = int(headers["Content-Length"]) if headers.get("Content-Length", "").isdigit() else None
        self._sent = sent if self._coded else None
        if self.partial:
            part = re.match(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if not part:
                raise Refused("the server sends a part of it without telling which")
            self.start, self.length = int(part[1]), None if part[2] == "*" else int(part[2])
        elif not self._coded:
            self.length = sent
        self.bounded = self.length is not None or self._sent is not None
        tag = headers.get("ETag")
        self.validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")

    def pieces(self) -> Iterator[bytes]:
        """The content, as it arrives; what is compressed on the way only (some servers do not ask) is unpacked.

        Raises:
            Passing: the connection broke before its end.
        """
        try:
            yield from self._response.raw.stream(_PIECE, decode_content=self._coded)
        except (urllib3.exceptions.HTTPError, OSError):
            raise Passing("the connection broke") from None
        if self._response.raw.tell() < (self._sent or 0):
            raise Passing("the connection broke")


@contextmanager
def ask(url: str, start: int = 0, stop: int | None = None, validator: str | None = None) -> Iterator[Answer]:
    """Ask a server for a file, or for a part of it.

    Args:
        url: the address.
        start: the first byte wanted.
        stop: the byte after the last one wanted; ``None`` for the rest.
        validator: what the server called the version of the earlier part. If it has another by now, it sends all.

    Yields:
        Answer: of a server that takes no orders for parts, the whole file.

    Raises:
        Passing: the network or the server failed in a way that may pass.
        Refused: or in a way that will not.
    """
    headers = {"Accept-Encoding": "identity"}  # or else the bytes that arrive are not those of the file
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if validator:
            headers["If-Range"] = validator
    try:
        response = _session().get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except ValueError as error:  # among what requests raises, only of a malformed address
        raise Refused(f"this is no address: {error}") from None
    except requests.RequestException as error:
        raise Passing(f"the connection failed: {_reason(error)}") from None
    with response:
        said = f"the server answers {response.status_code} {response.reason}"
        if response.status_code in _BUSY:
            after = response.headers.get("Retry-After", "")
            raise Passing(said, after=float(after) if after.isdigit() else 0.0)
        if response.status_code == 416:
            raise NoSuchPart("the server does not have the rest of it")
        if response.status_code not in (200, 206):
            raise Refused(said)
        yield Answer(response)


def patiently(urls: tuple[str, ...], attempt: Callable[[str], _T], stop: threading.Event) -> _T:
    """Try something until it works: mirrors in turn, each a few times with growing pauses.

    Args:
        urls: the addresses.
        attempt: called with one of them; it raises :class:`Passing` or :class:`Refused` where it fails.
        stop: ends the waiting.

    Returns:
        what ``attempt`` returns.

    Raises:
        DownloadError: no address works; the message names each and its cause.
        Passing: it was stopped.
    """
    problems = []
    for url in urls:
        failures, problem, after = 0, "", 0.0
        while failures < _TRIES:
            if failures and stop.wait(min(max(_PAUSE * 2 ** (failures - 1), after), _LONGEST_PAUSE)):
                raise Passing("stopped")
            try:
                return attempt(url)
            except Refused as error:
                problem = str(error)
                break
            except Passing as error:
                if stop.is_set():
                    raise
                problem, after = str(error), error.after
                failures = 1 if error.progress else failures + 1  # a long file may take many pieces
        problems.append(f"{url}: {problem}" + (f"; tried {failures} times" if failures == _TRIES else ""))
    raise DownloadError("; then from the next mirror, ".join(problems))


_local = threading.local()


def _session() -> requests.Session:
    """One for each thread: connections are kept for the next file."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session


def _reason(error: Exception) -> str:
    return str(error).split("(Caused by ")[-1].rstrip(")")[:200] or type(error).__name__
