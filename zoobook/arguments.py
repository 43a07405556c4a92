"""Arguments as people give them: paths, whole and real numbers (NumPy's too), and what of them JSON can hold.

Each check takes the name of the argument and gives Python's own type back, or raises a ``ValueError`` that names it.
"""

import difflib
import math
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(https?|ftp|s3|gs|file):/")  # Path makes one slash of two; not C:/


def path(value: str | os.PathLike) -> Path:
    """An absolute path, in which ``~`` is the home folder; a relative one counts from the current folder."""
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip() or "\0" in str(value):
        shown = repr(value) if isinstance(value, (str, bytes, Real, type(None))) else f"this {type(value).__name__}"
        raise ValueError(f"{shown} is no path")
    if ADDRESS.match(str(value)):
        raise ValueError(f"{value} is no path, but an address: fetch it first, and give the file")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def whole(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """A whole number from ``least`` to ``most``.

    >>> whole("epochs", np.int64(3))
    3
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number, {bounds}, not {value!r}")
    return number


def real(
    name: str, value: Any, accepted: Callable[[float], bool] = lambda number: number > 0,
    meaning: str = "a positive number",
) -> float:  # fmt: skip
    """A finite real number that ``accepted`` finds sensible; ``meaning`` says in words what it accepts."""
    value = value[()] if isinstance(value, np.ndarray) else value
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not accepted(number):
        raise ValueError(f"{name} must be {meaning}, not {value!r}")
    return number


def seed(value: Any) -> int:
    """The seed of random numbers: a whole number of 32 bits, as all the libraries take it."""
    return whole("seed", value, 0, 2**32 - 1)


def share(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    return real(name, value, lambda number: 0 <= number <= 1, "a share from 0 to 1")


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """A question with the most similar of the known names, after a blank; nothing where none is similar.

    >>> did_you_mean("resnet5", ["resnet50", "efficientnet_b0"])
    " Did you mean 'resnet50'?"
    """
    folded = {str(one).strip().lower(): one for one in known}
    close = difflib.get_close_matches(str(name).strip().lower(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def choice(name: str, value: Any, known: Collection[str]) -> str:
    """One of the known words.

    >>> choice("bad", "error", ("error", "quarantine"))
    'error'
    """
    if not isinstance(value, str) or value not in known:
        *others, last = map(repr, known)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")
    return value


def names(name: str, value: Any) -> list[str]:
    """Several names, such as of columns or questions, as a list.

    >>> names("questions", ("bar", "ring"))
    ['bar', 'ring']
    """
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [None]
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"`{name}` must be a list of names, such as ['bar'], not {value!r:.60}")
    return found


def truth(name: str, value: Any) -> bool:
    """True or false, and nothing that Python takes for it, such as the text "no"; else a ``ValueError``."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def plain(value: Any) -> Any:
    """The ``default`` of ``json.dumps``: what it writes in place of a NumPy array or number, a path, a set …"""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytes) or not isinstance(value, Collection) or hasattr(value, "columns"):
        raise ValueError(f"a {type(value).__name__} cannot be noted: give text, numbers, or lists of them")
    return list(value)
