"""Arguments as people give them: paths, whole and real numbers (NumPy's too), and what of them JSON can hold."""
from __future__ import annotations

import math
import operator
import os
from numbers import Real
from pathlib import Path

import numpy as np


def path(value: str | os.PathLike) -> Path:
    """A path, in which ``~`` is the home folder.

    Args:
        value: text or a Path; a relative one counts from the current folder.

    Returns:
        Path: absolute.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def whole(name: str, value, least: int = 1, most: float = math.inf) -> int:
    """A whole number.

    Args:
        name: of the argument, for the message.
        value: what was given.
        least: the smallest that makes sense.
        most: the largest.

    Returns:
        int: the same, as Python's own number.

    Raises:
        ValueError: it is none, or out of bounds.
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number, {bounds}, not {value!r}")
    return number


def real(name: str, value, accepted=lambda number: number > 0, meaning: str = "a positive number") -> float:
    """A finite real number.

    Args:
        name: of the argument, for the message.
        value: what was given.
        accepted: tells of a number whether it makes sense.
        meaning: the same in words.

    Returns:
        float: the same, as Python's own number.

    Raises:
        ValueError: it is none, or makes no sense.
    """
    fits = isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
    if not fits or not accepted(value):
        raise ValueError(f"{name} must be {meaning}, not {value!r}")
    return float(value)


def share(name: str, value) -> float:
    """A number from 0 to 1.

    Args:
        name: of the argument, for the message.
        value: what was given.

    Raises:
        ValueError: it is none.
    """
    return real(name, value, lambda number: 0 <= number <= 1, "a share from 0 to 1")


def plain(value):
    """What ``json.dumps`` shall write in place of a thing that it does not know: its ``default``.

    Args:
        value: a NumPy number or array, a path, a set …
    """
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else list(value)
