"""How a galaxy's image is seen: random views (rotation, zoom, shift, other telescopes) and the central one.

A view is one affine map, [2, 3], from the pixels that the model sees to the stored image, both in coordinates from
-1 to 1 (left to right, top to bottom, 0 in the centre): a flip, a rotation, a zoom and a shift cost one resampling.
Everything random is drawn here, from the seed and the epoch alone, so that both frameworks see the very same views.

An image set states its framing, the side of its images in units of the galaxy's half-light radius R50, and a model its
field of view, the side of what it sees in the same unit. The view joins both.
"""
from __future__ import annotations

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from zoobook import arguments
from zoobook.images.decals import DECALS_FRAMING

if TYPE_CHECKING:
    from zoobook.images.store import ImageStore

CENTRE = 0.865  # side of Zoobot's view of such a stamp at evaluation, as a share: about 75 % of its area
FIELD_OF_VIEW = CENTRE * DECALS_FRAMING  # [R50] the same, for any image: that of models which do not say otherwise

ORIENTATIONS = 8  # quarter turns and mirror images, between which no pixel has to be resampled
UNSTATED = {"field_of_view": FIELD_OF_VIEW, "framing": DECALS_FRAMING, "photometric": False}  # in files made before

# Training views. Sides are in units of the view's side at evaluation.
ZOOM = (0.80 / CENTRE, 0.93 / CENTRE)
SHIFT = 0.03 / CENTRE  # largest displacement

# Training views of other telescopes too ("photometric"). A network that has seen one survey, or a simulated one, takes
# its seeing, depth and stretch for granted; varied so far, they cover what SDSS and DECaLS differ in. In this order:
WIDE_ZOOM = (0.80, 1.24)  # in place of ZOOM: sizes are measured differently from survey to survey
BLURRED = 0.7  # share of the views with other seeing
BLUR = (0.3, 1.4)  # its sigma, in pixels of a view of 64; half of them are below 0.6
SKY = 0.2  # this quantile of a view is taken for its sky, and a random share of it, 0 to 1, is taken off
GAMMA = (0.65, 1.45)  # exponent of the stretch
BRIGHTNESS = (0.7, 1.3)
GAIN = 0.1  # by so much at most each colour is brighter or darker than the others
NOISE = 0.045  # largest sigma, on a scale from 0 to 1; half of them are below a quarter of it


def check_radii(name: str, value: Any) -> float:
    """A length in units of R50, as Python's own number; a ``ValueError`` names the argument that is none."""
    return arguments.real(name, value, lambda radii: 0.1 <= radii <= 1000,
                          "a positive number, 0.1 to 1000, in units of the galaxy's R50")  # fmt: skip


def share_seen(spec: dict, store: ImageStore) -> float:
    """Which share of the side of its images a model with this ``spec`` sees at evaluation; above 1: beyond them."""
    return spec["field_of_view"] / store.framing


def stored_size(image_size: int, field_of_view: float, framing: float) -> int:
    """How large to store images for a model, in pixels: as many for its view as where both sides are Zoobot's.

    Args:
        image_size: side of the model's view, in pixels.
        field_of_view: side of the model's view [R50].
        framing: side of the images [R50].

    Returns:
        int: side of the stored images, in pixels; 16 at least.

    >>> stored_size(64, field_of_view=8.5, framing=17)
    111
    """
    share = check_radii("field_of_view", field_of_view) / check_radii("framing", framing)
    return max(16, round(image_size * CENTRE / share))


def views(n: int, seed: int, epoch: int, share: float = CENTRE, photometric: bool = False) -> np.ndarray:
    """A random view of each galaxy for one epoch: flip, rotation by any angle, zoom, small shift.

    Galaxies have no preferred direction on the sky, so each of these leaves the votes as they are.

    Args:
        n: how many galaxies.
        seed: seed of the run.
        epoch: which epoch, from 0.
        share: side of the view at evaluation as a share of the stored side, see :func:`share_seen`.
        photometric: as if through other telescopes too.

    Returns:
        ndarray: float32 [N, 2, 3], the maps; ``photometric``: [N, 5, 3], where three rows follow: sigma of the blur
        in pixels of a view of 64, share of the sky that is taken off, exponent of the stretch; brightness, sigma
        of the noise, where in :func:`noise_pool` it begins, from 0 to 1; the gains of three colours.
    """
    rng = np.random.default_rng([seed, epoch, 1])
    angle = rng.uniform(0, 2 * np.pi, n)
    side = share * rng.uniform(*(WIDE_ZOOM if photometric else ZOOM), n)
    flip = rng.choice([-1.0, 1.0], n)
    shift = 2 * share * rng.uniform(-SHIFT, SHIFT, (n, 2))  # coordinates run from -1 to 1: twice the share of the side
    maps = np.empty((n, 5 if photometric else 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = side * np.cos(angle) * flip, -side * np.sin(angle)
    maps[:, 1, 0], maps[:, 1, 1] = side * np.sin(angle) * flip, side * np.cos(angle)
    maps[:, :2, 2] = shift
    if photometric:
        rng = np.random.default_rng([seed, epoch, 3])  # 2 seeds the dropout
        draws = rng.random((n, 7))
        blur = BLUR[0] + (BLUR[1] - BLUR[0]) * draws[:, 1] ** 2
        maps[:, 2, 0] = np.where(draws[:, 0] < BLURRED, blur, 0)
        maps[:, 2, 1] = draws[:, 2]
        maps[:, 2, 2] = GAMMA[0] + (GAMMA[1] - GAMMA[0]) * draws[:, 3]
        maps[:, 3, 0] = BRIGHTNESS[0] + (BRIGHTNESS[1] - BRIGHTNESS[0]) * draws[:, 4]
        maps[:, 3, 1] = NOISE * draws[:, 5] ** 2
        maps[:, 3, 2] = draws[:, 6]
        maps[:, 4] = rng.uniform(1 - GAIN, 1 + GAIN, (n, 3))
    return maps


def centre_views(n: int, share: float = CENTRE, orientation: int = 0) -> np.ndarray:
    """The view at evaluation, float32 [N, 2, 3]: central, and as wide as this share of the stored side.

    Orientation 0 is upright; 1, 2, 3 are turned by so many quarters, 4 to 7 are the mirror images of 0 to 3.
    """
    quarter = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), orientation % 4)
    mirror = np.diag([1 if orientation < 4 else -1, 1])
    turned = np.hstack([share * quarter @ mirror, np.zeros((2, 1))])
    return np.tile(turned.astype(np.float32), (n, 1, 1))


def shrinking(stored: int, wanted: int, share: float = CENTRE) -> tuple[int, int, int]:
    """How to average pixels before a view is resampled, so that fine detail does not alias.

    From images and to a view of so many pixels a side, the view having a ``share`` of the image's side.

    Returns:
        tuple: side of the blocks to average, how many there are along a side, and how many pixels are left before them.
    """
    factor = min(max(1, int(stored * share / wanted + 1e-6)), stored)
    return factor, stored // factor, stored % factor // 2


def apply_view(
    images: np.ndarray, views: np.ndarray, channels: int, image_size: int, share: float = CENTRE
) -> np.ndarray:
    """What a model on a CPU sees of stored images: on all cores, one image at a time so that it stays in the cache.

    On a GPU, ``apply_view`` of either framework computes the same. Beyond the image there is sky, see :func:`sky_rank`.

    Args:
        images: uint8 [N, H, W, 3].
        views: float32 [N, 2, 3] or [N, 5, 3], see :func:`views`.
        channels: 1 for grey (the plain mean of the colours), 3 for colour.
        image_size: side of the result, in pixels.
        share: side of the view at evaluation as a share of the stored side.

    Returns:
        ndarray: float32 [N, image_size, image_size, channels], from 0 to 1.
    """
    import cv2

    image_size = arguments.whole("image_size", image_size)
    if len(images) != len(views):
        raise ValueError(f"each image needs its view, but there are {len(images)} images and {len(views)} views")
    factor, side, margin = shrinking(images.shape[1], image_size, share)
    weights = np.full((1, 3), 1 / 3, np.float32)
    maps = _between_pixels(views, images.shape[1], factor, margin, image_size)
    first, last, beyond = _seen_pixels(maps, side, image_size)
    seen = np.empty((len(images), image_size, image_size, channels), np.float32)
    noise = noise_pool(seen[0].size) if views.shape[1] > 2 and len(views) else None

    def one(i: int) -> None:
        (left, top), (right, bottom) = margin + first[i] * factor, margin + last[i] * factor
        image = images[i, top:bottom, left:right].astype(np.float32)
        if channels == 1:
            image = cv2.transform(image, weights)
        if factor > 1:
            image = cv2.resize(image, tuple(map(int, last[i] - first[i])), interpolation=cv2.INTER_AREA)
        sky = _sky(images[i]).astype(float) if beyond[i] else np.zeros(3)
        warped = _warped(image, maps[i], image_size, sky if channels == 3 else sky.mean(keepdims=True))
        np.multiply(warped.reshape(seen.shape[1:]), np.float32(1 / 255), out=seen[i])
        if noise is not None:
            seen[i] = _through_another_telescope(seen[i], views[i, 2:], noise)

    list(_workers().map(one, range(len(images))))
    return seen


def preview(
    image: np.ndarray,
    n_views: int = 8,
    seed: int = 0,
    channels: int = 3,
    share: float = CENTRE,
    photometric: bool = False,
) -> np.ndarray:
    """Random views of one galaxy, as training sees them.

    Args:
        image: the galaxy, uint8 [H, H, 3].
        n_views: how many views.
        seed, share, photometric: see :func:`views`.
        channels: 1 for grey, 3 for colour.

    Returns:
        ndarray: uint8 [n_views, H, H, 3].
    """
    is_array = isinstance(image, np.ndarray)
    if not is_array or image.dtype != np.uint8 or not image.size or image.shape != (len(image), len(image), 3):
        given = f"{image.dtype} {list(image.shape)}" if is_array else f"this {type(image).__name__}"
        raise ValueError(f"image must be one square picture in colour, an array of uint8 [H, H, 3], 0 to 255, not "
                         f"{given}; read_image makes one of a file, and an image store holds them")  # fmt: skip
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 for grey or 3 for colour, not {channels!r}")
    n_views, seed, share = arguments.whole("n_views", n_views), arguments.seed(seed), arguments.real("share", share)
    images = np.repeat(image[None], n_views, axis=0)
    seen = apply_view(images, views(n_views, seed, 0, share, photometric), channels, image.shape[0], share)
    return np.broadcast_to((255 * seen).round().astype(np.uint8), (*seen.shape[:3], 3))


def sky_rank(count: int, quantile: float = 0.5) -> int:
    """Which of so many sorted pixels is the sky, counted from 0.

    What lies beyond an image is filled with the median of its outermost pixels, colour by colour: a mirror image
    would show the galaxy again. Within a view, the sky is the quantile :data:`SKY` of all its values.
    """
    return int(quantile * (count - 1))


def sky_step(image_size: int) -> int:
    """The step between the pixels of a view, row by row, that tell its sky: some four thousand of them suffice."""
    return max(1, image_size**2 // 4096)


@cache
def noise_pool(size: int) -> np.ndarray:
    """A million standard normal numbers, or twice ``size``, float32; views cut their noise out of it, to save time."""
    return np.random.default_rng(0).standard_normal(max(1 << 20, 2 * size), np.float32)


def _through_another_telescope(seen: np.ndarray, how: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A view [S, S, C] with other seeing, sky, stretch, brightness and noise, see :func:`views`."""
    import cv2

    (sigma, taken, gamma), (brightness, deviation, start), gains = how.astype(np.float32)
    size, channels = seen.shape[1:]
    if sigma > 0:
        sigma = float(sigma) * size / 64
        reach = math.ceil(4 * sigma)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).astype(np.float32)
        seen = cv2.sepFilter2D(seen, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT).reshape(seen.shape)
    some = np.sort(seen.reshape(-1, channels)[:: sky_step(size)], axis=None)  # a partition is slow where many are equal
    sky = some[sky_rank(some.size, SKY)]
    bright = cv2.pow(np.maximum(seen - taken * sky, 0), float(gamma)).reshape(seen.shape)
    bright *= brightness * gains if channels == 3 else brightness
    begin = int(start * np.float32(noise.size - seen.size))
    bright += deviation * noise[begin : begin + seen.size].reshape(seen.shape)
    return np.clip(bright, 0, 1, out=bright)


def _sky(image: np.ndarray) -> np.ndarray:
    """The median of the outermost pixels [H, W, 3] -> [3]."""
    edge = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    return np.sort(edge, axis=0)[sky_rank(len(edge))]


def _between_pixels(views: np.ndarray, stored: int, factor: int, margin: int, wanted: int) -> np.ndarray:
    """Views, whose coordinates run from -1 to 1, as maps between pixels counted from 0: float64 [N, 2, 3]."""
    views = views[:, :2].astype(float)
    maps = views * stored / wanted / factor
    corner = views[:, :, :2].sum(2) * (1 / wanted - 1) + views[:, :, 2]  # the centre of the view's first pixel
    maps[:, :, 2] = ((corner + 1) * stored / 2 - margin) / factor - 0.5
    return maps


def _warped(image: np.ndarray, pixels: np.ndarray, wanted: int, sky: np.ndarray) -> np.ndarray:
    """An image [H, W, C] or [H, W], interpolated where a map [2, 3] of pixels says, with sky [C] beyond its edge."""
    import cv2

    if int(cv2.__version__.split(".")[0]) >= 5:
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_CONSTANT}
        return cv2.warpAffine(image, pixels, (wanted, wanted), borderValue=sky.tolist(), **how)
    from scipy.ndimage import affine_transform  # OpenCV 4 rounds positions to 1/32 pixel

    planes = image.reshape(*image.shape[:2], -1)
    warped = np.empty((wanted, wanted, planes.shape[2]), np.float32)
    matrix, offset = pixels[::-1, 1::-1], pixels[::-1, 2]  # SciPy counts rows first
    how = {"output_shape": (wanted, wanted), "order": 1, "mode": "grid-constant"}
    for i, beyond in enumerate(sky):
        affine_transform(planes[..., i], matrix, offset, output=warped[..., i], cval=beyond, **how)
    return warped


def _seen_pixels(maps: np.ndarray, side: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixel that each view shows and the one after the last [N, 2], and whether it reaches beyond the image [N].

    The maps [N, 2, 3] then count from that first pixel.
    """
    middle = maps[:, :, :2].sum(2) * (wanted - 1) / 2 + maps[:, :, 2]
    reach = np.abs(maps[:, :, :2]).sum(2) * (wanted - 1) / 2
    low, high = np.floor(middle - reach).astype(int) - 1, np.ceil(middle + reach).astype(int) + 2
    first = np.clip(low, 0, side - 1)
    last = np.clip(high, first + 1, side)
    maps[:, :, 2] -= first
    return first, last, ((low < 0) | (high > side)).any(1)


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="apply_view")


def __getattr__(name: str):
    if name == "look":
        warnings.warn("look is now apply_view; the old name goes with the next version", DeprecationWarning, 2)
        return apply_view
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
