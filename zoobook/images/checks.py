"""What makes an image file unusable: too small, too large, blank; and the errors that say so."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SMALLEST = 8  # pixels of the shorter side
LARGEST = 100_000_000  # pixels in all
MOST_BLANK = 0.75  # share of the pixels, unless one says otherwise


class BadImage(ValueError):
    """An image file, or several, that cannot be used; the message names each file and its cause.

    Attributes:
        cause: what is wrong with the one file, without its name; empty where there are several.
    """

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause


class Unusable(Exception):
    """Why some bytes make no image; becomes a BadImage with the name of the file."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where an image is read: whatever makes it unusable is a BadImage with its name."""
    try:
        yield
        return
    except FileNotFoundError:
        cause = "the file is missing"
    except OSError as error:
        cause = f"the file cannot be read ({error.strerror or error})"
    except Unusable as error:
        cause = str(error)
    raise BadImage(f"{path}: {cause}", cause)


def check_shape(height: int, width: int) -> None:
    """Refuse an image that is too small or too large, before its pixels are read."""
    if min(height, width) < SMALLEST:
        raise Unusable(f"it is too small: {width} × {height} pixels, where {SMALLEST} is the least")
    if height * width > LARGEST:
        raise Unusable(f"it is too large: {width} × {height} pixels, where {LARGEST:,} in all is the most")


def blank_share(image: np.ndarray) -> float:
    """Share of an image, uint8 [H, W, 3], in whole rows or columns of one single value, as beyond a survey's edge."""
    flat = image.reshape(len(image), -1)  # comparing long runs of bytes is ten times faster than pixel by pixel
    rows = (flat[:, 3:] == flat[:, :-3]).all(axis=1)
    columns = (flat[1:] == flat[:-1]).all(axis=0).reshape(-1, 3).all(axis=1)
    if rows.any() or columns.any():
        values, counts = np.unique(np.concatenate([image[rows, 0], image[0, columns]]), axis=0, return_counts=True)
        value = values[np.argmax(counts)]  # of them, those of the commonest value: a ramp is not blank
        rows, columns = rows & (image[:, 0] == value).all(axis=1), columns & (image[0] == value).all(axis=1)
    return 1 - (1 - rows.mean()) * (1 - columns.mean())


def stand_in(seen: np.ndarray) -> float | None:
    """The one value, far from all others, that many of the pixels [N] have, such as -9999 or 1e30; None without one."""
    for sign, least in ((1, 0.0), (-1, 1e20)):
        pixels = sign * seen
        others = pixels[pixels > pixels.min()] if len(pixels) else pixels
        if not 0 < len(others) < 0.99 * len(pixels) or abs(pixels.min()) < least:
            continue
        second = others.min()
        if second - pixels.min() > 10 * (np.median(others) - second):
            return sign * pixels.min()
    return None
