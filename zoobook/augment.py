"""How a galaxy's image is looked at: the order of a pass over the galaxies, and each one's random view.

A view is one affine map, [2, 3], from the pixels that the model sees to the stored image, both in coordinates from
-1 to 1 (left to right, top to bottom, 0 in the centre). So a flip, any rotation, a zoom and a shift cost one
resampling. Everything random is drawn here, from the seed and the epoch alone: both frameworks see the very same
galaxies in the same order, and a run that was interrupted goes on as if it had not been.
"""
from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

ZOOM = (0.80, 0.93)  # side of a training view as a share of the stored side: about Zoobot's 70-80 % of the area
CENTRE = 0.865  # the same at evaluation: the mean of the above
SHIFT = 0.03  # largest displacement of a training view, as a share of the stored side


def order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch goes through the galaxies.

    Args:
        n: how many galaxies.
        seed: seed of the run.
        epoch: which epoch, from 0.

    Returns:
        ndarray: int64 [N], a permutation.
    """
    return np.random.default_rng([seed, epoch, 0]).permutation(n)


def batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into batches of nearly equal size, none above ``batch_size``.

    Nothing is dropped, and no small remainder upsets the batch statistics.

    Args:
        order: int64 [N].
        batch_size: largest size of a batch.

    Returns:
        list[ndarray]: the batches; each is sorted, so that the disk is read forwards.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return [np.sort(part) for part in np.array_split(order, max(1, -(-len(order) // batch_size)))]


def views(n: int, seed: int, epoch: int) -> np.ndarray:
    """A random view of each galaxy for one epoch: flip, rotation by any angle, zoom, small shift.

    Galaxies have no preferred direction on the sky, so each of these leaves the votes as they are.

    Args:
        n: how many galaxies.
        seed: seed of the run.
        epoch: which epoch, from 0.

    Returns:
        ndarray: float32 [N, 2, 3].
    """
    rng = np.random.default_rng([seed, epoch, 1])
    angle = rng.uniform(0, 2 * np.pi, n)
    side = rng.uniform(*ZOOM, n)
    flip = rng.choice([-1.0, 1.0], n)
    shift = rng.uniform(-2 * SHIFT, 2 * SHIFT, (n, 2))  # coordinates run from -1 to 1: twice the share of the side
    maps = np.empty((n, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = side * np.cos(angle) * flip, -side * np.sin(angle)
    maps[:, 1, 0], maps[:, 1, 1] = side * np.sin(angle) * flip, side * np.cos(angle)
    maps[:, :, 2] = shift
    return maps


def centre_views(n: int) -> np.ndarray:
    """The view at evaluation: upright and central, as wide as the mean training view.

    Args:
        n: how many galaxies.

    Returns:
        ndarray: float32 [N, 2, 3].
    """
    return np.tile(np.float32([[CENTRE, 0, 0], [0, CENTRE, 0]]), (n, 1, 1))


def shrinking(stored: int, wanted: int) -> int:
    """By which whole factor to average pixels before a view is resampled, so that fine detail does not alias.

    Args:
        stored: side of the stored images, in pixels.
        wanted: side of the view, in pixels.

    Returns:
        int: 1 where the view needs fewer than two stored pixels for each of its own.
    """
    return max(1, int(stored * CENTRE / wanted))


def look(images: np.ndarray, views: np.ndarray, channels: int, image_size: int) -> np.ndarray:
    """What a model on a CPU sees of stored images: on all cores, one image at a time so that it stays in the cache.

    It is what the ``look`` of either framework computes on a GPU, several times faster than either does on a CPU.

    Args:
        images: uint8 [N, H, W, 3].
        views: float32 [N, 2, 3].
        channels: 1 for grey (the plain mean of the colours), 3 for colour.
        image_size: side of the result, in pixels.

    Returns:
        ndarray: float32 [N, image_size, image_size, channels], from 0 to 1.
    """
    import cv2

    factor = shrinking(images.shape[1], image_size)
    side = images.shape[1] // factor
    margin = images.shape[1] % factor // 2  # what does not fill a whole block is left off on both sides
    weights = np.full((1, 3), 1 / 3, np.float32)
    maps = _between_pixels(views, side, image_size)
    seen = np.empty((len(images), image_size, image_size, channels), np.float32)

    def one(i: int) -> None:
        image = images[i, margin : margin + side * factor, margin : margin + side * factor].astype(np.float32)
        if channels == 1:
            image = cv2.transform(image, weights)
        if factor > 1:
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REFLECT}
        warped = cv2.warpAffine(image, maps[i], (image_size, image_size), **how)
        np.multiply(warped.reshape(seen.shape[1:]), np.float32(1 / 255), out=seen[i])

    list(_workers().map(one, range(len(images))))
    return seen


def _between_pixels(views: np.ndarray, stored: int, wanted: int) -> np.ndarray:
    """Views, whose coordinates run from -1 to 1, as maps between pixels counted from 0: float64 [N, 2, 3]."""
    linear = views[:, :, :2].astype(float)
    maps = np.empty((len(views), 2, 3))
    maps[:, :, :2] = linear * stored / wanted
    maps[:, :, 2] = ((linear.sum(2) * (1 / wanted - 1) + views[:, :, 2] + 1) * stored - 1) / 2
    return maps


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="look")
