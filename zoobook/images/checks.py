"""What makes an image file unusable: too small, too large, blank; and the errors that say so."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SMALLEST = 8  # pixels of the shorter side
LARGEST = 100_000_000  # pixels in all
UNSEEN = 1e25  # no light is so bright
STAND_INS = np.array([-99, -999, -9999, -99999, -999999, -32767, -32768, -(2**31)], float)  # for no observation
MANY = 0.01  # share of the pixels with one value
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


def unobserved(plane: np.ndarray) -> np.ndarray:
    """Which pixels, float [H, W], hold no light but a sign that there is none, whatever part of an image they are of.

    Such are NaN, what is infinite or beyond 1e25, as SExtractor's 1e30, and -999, -9999, -32768 … far below all others.
    """
    blank = ~(np.abs(plane) < UNSEEN)
    usual = np.isin(plane, STAND_INS)
    if usual.any():
        others = plane[~(usual | blank)]
        blank[usual] = _far_below(plane[usual], others, 0.0) if len(others) else True
    return blank


def find_gaps(plane: np.ndarray) -> np.ndarray:
    """Which pixels of a whole image, float [H, W], are unobserved, or have the value that stands for that in it.

    Such a value is one that many pixels have, and that lies far below all others, or beyond 1e20; and zero among noise
    of both signs where no other value repeats as it does. Where most pixels are zero, these must lie along the edges no
    more than elsewhere: around a segmented galaxy they do, and are its sky.
    """
    blank = unobserved(plane)
    for sign, least in ((1, 0.0), (-1, 1e20)):  # the brightest may be saturated, which is light
        value = many_far_below(sign * plane[~blank])
        if value is not None and abs(value) >= least:
            blank |= plane == sign * value
    zeros = (plane == 0) & ~blank
    edges = np.concatenate([zeros[[0, -1]].ravel(), zeros[:, [0, -1]].ravel()])
    if MANY < zeros.mean() <= (MOST_BLANK if edges.mean() <= zeros.mean() else 0.5):
        others = plane[~(zeros | blank)]
        if min((others < 0).mean(), (others > 0).mean()) > 0.1:
            commonest = np.unique(others, return_counts=True)[1].max()  # zero is a level of a sky of whole numbers
            if zeros.sum() > 10 * commonest:
                blank |= zeros
    return blank


def many_far_below(pixels: np.ndarray) -> float | None:
    """The least value of pixels [N], if a good many have it and all others lie far above it."""
    if not len(pixels):
        return None
    least = pixels.min()
    share = np.mean(pixels == least)
    if not MANY < share < 1:
        return None
    others = pixels[pixels > least]
    above = others[others > others.min()]
    step = above.min() - others.min() if len(above) else np.inf  # counts of few photons have no value far from others
    return least if _far_below(least, others, step) else None


def _far_below(values: np.ndarray, others: np.ndarray, step: float) -> np.ndarray:
    """Whether values lie further below all others than ten times as far as these reach below their median, or step."""
    least = others.min()
    return least - values > 10 * max(np.median(others) - least, step)
