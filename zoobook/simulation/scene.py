"""Pictures of simulated galaxies: light in g, r and z, blurred, with neighbours, stars, noise and artifacts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import fft, ndimage

from zoobook import arguments
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, colour
from zoobook.simulation.artifacts import add_artifact, add_bright_stars
from zoobook.simulation.galaxy import fluxes, galaxy_light
from zoobook.simulation.profiles import Grid, point_sources, psf_transform
from zoobook.simulation.truth import CLUTTER, NOISE, Truth, checked_seed, generator, truth_row

SMALLEST, LARGEST = 16, 16384  # pixels along a side: below, nothing can be seen; above, it takes many GB
# The sky is not subtracted perfectly; on average a little too much.
SKY_OFFSET = np.array((0.00025, 0.0004, 0.0006), np.float32)
SKY_BIAS = np.array((-1.3, -1.3, -0.8))  # in units of SKY_OFFSET
# The survey desaturated cutouts of 424 pixels and then shrank them, which leaves the bands' noise correlated.
NOISE_IN_COMMON = 0.7
SEEING = (1.12, 1.0, 0.93)  # PSF width over that in r
GALAXIES, STARS = 8.5, 2.0  # in the background and foreground, per square arcmin


def render(galaxy: Mapping | pd.Series, image_size: int = 128, seed: int = 0) -> np.ndarray:
    """Draw one galaxy as volunteers see it.

    Args:
        galaxy: a row of :func:`~zoobook.simulation.draw_truth` (a Series or a dictionary).
        image_size: pixels along a side. The scene is the same at every size; only sampling and noise differ.
        seed: seed of the survey.

    Returns:
        ndarray: uint8 [image_size, image_size, 3].

    >>> from zoobook import simulation
    >>> simulation.render(simulation.draw_truth(1).iloc[0], image_size=64).shape
    (64, 64, 3)
    """
    t, seed = truth_row(galaxy), checked_seed(seed)
    bands, grid = _observe(t, image_size, seed)
    rng = generator(seed, int(t["index"]), NOISE)
    bands += _sky_noise(grid, t["noise"], rng)
    bands += ((rng.normal() + rng.normal(0.0, 0.7, 3) + SKY_BIAS).astype(np.float32) * SKY_OFFSET)[:, None, None]
    return colour(add_artifact(bands, t, rng))


def noise_free(
    galaxy: Mapping | pd.Series, image_size: int = 128, seed: int = 0, clutter: bool = False
) -> np.ndarray:
    """Light of one galaxy in g, r and z, blurred by the PSF but without noise or artifacts.

    Args:
        galaxy, image_size, seed: see :func:`render`.
        clutter: with neighbours, background galaxies and stars.

    Returns:
        ndarray: float32 [3, image_size, image_size], nanomaggies per pixel.
    """
    bands, grid = _observe(truth_row(galaxy), image_size, checked_seed(seed), clutter)
    return bands * np.float32((grid.step / NATIVE_ARCSEC) ** 2)


def _observe(t: Truth, image_size: int, seed: int, clutter: bool = True) -> tuple[np.ndarray, Grid]:
    """The blurred scene, [3, H, W] in nanomaggies per native pixel, and its grid."""
    grid = Grid(arguments.whole("image_size", image_size, SMALLEST, LARGEST), float(t["frame_arcsec"]))
    rng = generator(seed, int(t["index"]), CLUTTER)
    bands, points = galaxy_light(t, grid, rng)
    x0, y0 = float(t["offset_x_arcsec"]), float(t["offset_y_arcsec"])
    points = [(x + x0, y + y0, light) for x, y, light in points]
    if clutter:
        half = 0.5 * t["frame_arcsec"] + 2.0
        add_background_galaxies(bands, half, grid, rng)
        points += foreground_stars(half, rng)
    seeing = [float(t["seeing_arcsec"]) * factor for factor in SEEING]
    transform = fft.rfft2(bands) * psf_transform(grid.side, grid.step, seeing, (x0, y0))
    bands = fft.irfft2(transform, s=(grid.side, grid.side)) + point_sources(points, grid, seeing)
    bands = grid.crop(bands) * np.float32(NATIVE_ARCSEC**2)
    if clutter:
        add_bright_stars(bands, t, grid, rng)
    return np.ascontiguousarray(bands, np.float32), grid


def _sky_noise(grid: Grid, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of the sky, [3, H, W] in nanomaggies per native pixel."""
    noise = rng.standard_normal((3, grid.size, grid.size), dtype=np.float32)
    # The survey's own pixels are averaged into large ones, and interpolated, hence correlated, in small ones.
    per_native = NATIVE_ARCSEC / grid.step
    if per_native > 0.8:
        width = 0.42 * per_native
        noise = ndimage.gaussian_filter(noise, (0, width, width), mode="wrap")
        noise /= noise.std()
    else:
        noise *= np.float32(per_native)
    own, common = np.sqrt(1 - NOISE_IN_COMMON), np.sqrt(1 + 2 * NOISE_IN_COMMON)
    noise = np.float32(own) * noise + np.float32((common - own) / 3) * noise.sum(axis=0)
    return noise * (SKY_NOISE * np.float32(strength))[:, None, None]


def add_background_galaxies(bands: np.ndarray, half: float, grid: Grid, rng: np.random.Generator) -> tuple:
    """Add exponential disks, most of them small and faint, up to ``half`` [arcsec] from the middle: x, y, r mag."""
    count = min(int(rng.poisson(GALAXIES * (2 * half / 60.0) ** 2)), 150)
    magnitude = 17.5 + 6.2 * rng.uniform(0, 1, count) ** 0.36
    x, y = rng.uniform(-half, half, (2, count))
    size = np.clip(0.75 * 10 ** (-0.13 * (magnitude - 21.0)) * np.exp(0.3 * rng.normal(size=count)), 0.25, 4.0)
    q, pa = rng.uniform(0.3, 1.0, count), rng.uniform(0, np.pi, count)
    tint = np.clip(rng.normal(0.95, 0.38, count), 0.1, 1.8)
    for i in np.argsort(magnitude, kind="stable"):
        light = fluxes(magnitude[i], tint[i], 0.75 * tint[i])
        _add_small_disk(bands, grid, light, (x[i], y[i]), size[i], q[i], pa[i])
    return x, y, magnitude


def _add_small_disk(bands: np.ndarray, grid: Grid, light: np.ndarray, place: tuple, r50: float, q: float, pa: float):
    """Add an exponential disk of this half-light radius [arcsec], axis ratio and position angle [rad]."""
    column, row = (int(round(float(grid.pixel(arcsec)))) for arcsec in place)
    # One that is smaller than a pixel is as good as a point, but a pixel wide.
    reach = 1 if r50 < 0.6 * grid.step else int(np.ceil(3.2 * r50 / grid.step)) + 1
    rows = slice(max(row - reach, 0), row + reach + 1)
    columns = slice(max(column - reach, 0), column + reach + 1)
    dx, dy = grid.x[:, columns] - np.float32(place[0]), grid.y[rows] - np.float32(place[1])
    cos, sin, width = np.cos(pa), np.sin(pa), np.float32(max(r50, 0.45 * grid.step))
    r2 = ((dx * cos + dy * sin) ** 2 + ((dy * cos - dx * sin) / q) ** 2) / width**2
    stamp = np.exp(-1.68 * np.sqrt(r2)).astype(np.float32)
    # Normalised on the full plane, not on the window, which the frame may cut.
    stamp *= np.float32(1.68**2 / (2 * np.pi * width**2 * q))
    bands[:, rows, columns] += stamp * light[:, None, None]


def foreground_stars(half: float, rng: np.random.Generator) -> list:
    """Faint stars, red dwarfs and bluer ones: x, y [arcsec] and fluxes [nanomaggies, 3]."""
    count = min(int(rng.poisson(STARS * (2 * half / 60.0) ** 2 * rng.lognormal(0, 0.6))), 150)
    magnitude = 17.0 + 6.0 * rng.uniform(0, 1, count) ** 0.7
    tint = np.where(rng.uniform(size=count) < 0.45, rng.normal(1.4, 0.12, count), rng.normal(0.55, 0.18, count))
    tint = np.clip(tint, 0.1, 1.8)
    x, y = rng.uniform(-half, half, (2, count))
    return [(x[i], y[i], fluxes(magnitude[i], tint[i], 1.05 * tint[i] ** 1.4)) for i in range(count)]
