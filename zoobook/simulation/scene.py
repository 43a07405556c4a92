"""Pictures of simulated galaxies: light in g, r and z, blurred, with neighbours, stars, noise and artifacts."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import fft, ndimage

from zoobook import arguments
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, colour
from zoobook.simulation.artifacts import add_artifact, add_bright_stars
from zoobook.simulation.galaxy import fluxes, galaxy_light
from zoobook.simulation.profiles import Grid, point_sources, psf_transform
from zoobook.simulation.truth import CLUTTER, NOISE, generator

SMALLEST = 16  # pixels along a side, below which nothing can be seen
# The sky is not subtracted perfectly; on average a little too much.
SKY_OFFSET = np.array((0.00025, 0.0004, 0.0006), np.float32)
SKY_BIAS = np.array((-1.3, -1.3, -0.8))  # in units of SKY_OFFSET
# The survey desaturated cutouts of 424 pixels and then shrank them, which leaves the bands' noise correlated.
NOISE_IN_COMMON = 0.7
SEEING = (1.12, 1.0, 0.93)  # PSF width over that in r
GALAXIES, STARS = 8.5, 2.0  # in the background and foreground, per square arcmin


def render(galaxy: Mapping, image_size: int = 128, seed: int = 0) -> np.ndarray:
    """Draw one galaxy as volunteers see it.

    Args:
        galaxy: a row of :func:`~zoobook.simulation.draw_truth` (a Series or a dictionary).
        image_size: pixels along a side. The scene is the same at every size; only sampling and noise differ.
        seed: seed of the survey.

    Returns:
        ndarray: uint8 [image_size, image_size, 3].

    Raises:
        ValueError: ``image_size`` or ``seed`` makes no sense.

    >>> from zoobook import simulation
    >>> simulation.render(simulation.draw_truth(1).iloc[0], image_size=64).shape
    (64, 64, 3)
    """
    bands, grid = _observe(galaxy, image_size, seed)
    rng = generator(seed, int(galaxy["true_index"]), NOISE)
    bands += _sky_noise(grid, galaxy["true_noise"], rng)
    bands += ((rng.normal() + rng.normal(0.0, 0.7, 3) + SKY_BIAS).astype(np.float32) * SKY_OFFSET)[:, None, None]
    return colour(add_artifact(bands, galaxy, rng))


def noise_free(galaxy: Mapping, image_size: int = 128, seed: int = 0, clutter: bool = False) -> np.ndarray:
    """Light of one galaxy in g, r and z, blurred by the PSF but without noise or artifacts.

    Args:
        galaxy: a row of :func:`~zoobook.simulation.draw_truth`.
        image_size: pixels along a side.
        seed: seed of the survey.
        clutter: with neighbours, background galaxies and stars.

    Returns:
        ndarray: float32 [3, image_size, image_size], nanomaggies per pixel.

    Raises:
        ValueError: ``image_size`` or ``seed`` makes no sense.
    """
    bands, grid = _observe(galaxy, image_size, seed, clutter)
    return bands * np.float32((grid.step / NATIVE_ARCSEC) ** 2)


def _observe(galaxy: Mapping, image_size: int, seed: int, clutter: bool = True) -> tuple[np.ndarray, Grid]:
    """The blurred scene, [3, H, W] in nanomaggies per native pixel, and its grid."""
    image_size, seed = arguments.whole("image_size", image_size, SMALLEST), arguments.whole("seed", seed, 0)
    grid = Grid(image_size, float(galaxy["true_frame_arcsec"]))
    rng = generator(seed, int(galaxy["true_index"]), CLUTTER)
    bands, points = galaxy_light(galaxy, grid, rng)
    x0, y0 = (float(galaxy[f"true_offset_{axis}_arcsec"]) for axis in "xy")
    points = [(x + x0, y + y0, light) for x, y, light in points]
    if clutter:
        half = 0.5 * galaxy["true_frame_arcsec"] + 2.0
        _add_background_galaxies(bands, half, grid, rng)
        points += _foreground_stars(half, rng)
    seeing = [float(galaxy["true_seeing_arcsec"]) * factor for factor in SEEING]
    transform = fft.rfft2(bands) * psf_transform(grid.side, grid.step, seeing, (x0, y0))
    bands = fft.irfft2(transform, s=(grid.side, grid.side)) + point_sources(points, grid, seeing)
    bands = grid.crop(bands) * np.float32(NATIVE_ARCSEC**2)
    if clutter:
        add_bright_stars(bands, galaxy, grid, rng)
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


def _add_background_galaxies(bands: np.ndarray, half: float, grid: Grid, rng: np.random.Generator) -> tuple:
    """Add exponential disks, most of them small and faint, up to ``half`` [arcsec] from the middle: x, y, r mag."""
    count = min(int(rng.poisson(GALAXIES * (2 * half / 60.0) ** 2)), 150)
    magnitude = 17.5 + 6.2 * rng.uniform(0, 1, count) ** 0.36
    x, y = rng.uniform(-half, half, (2, count))
    size = np.clip(0.75 * 10 ** (-0.13 * (magnitude - 21.0)) * np.exp(0.3 * rng.normal(size=count)), 0.25, 4.0)
    q, pa = rng.uniform(0.3, 1.0, count), rng.uniform(0, np.pi, count)
    tint = np.clip(rng.normal(0.95, 0.38, count), 0.1, 1.8)
    for i in np.argsort(magnitude, kind="stable"):
        reach = int(np.ceil(3.2 * size[i] / grid.step)) + 1
        column, row = int(round(float(grid.pixel(x[i])))), int(round(float(grid.pixel(y[i]))))
        if size[i] < 0.6 * grid.step:  # smaller than a pixel: as good as a point, but a pixel wide
            reach = 1
        window = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        dx, dy = grid.x[:, window[1]] - np.float32(x[i]), grid.y[window[0]] - np.float32(y[i])
        if dx.size == 0 or dy.size == 0:
            continue
        cos, sin = np.cos(pa[i]), np.sin(pa[i])
        stretch = np.float32(max(size[i], 0.45 * grid.step))
        r2 = ((dx * cos + dy * sin) ** 2 + ((dy * cos - dx * sin) / q[i]) ** 2) / stretch**2
        stamp = np.exp(-1.68 * np.sqrt(r2)).astype(np.float32)
        # Normalised on the full plane, not on the window, which the frame may cut.
        stamp *= np.float32(1.68**2 / (2 * np.pi * stretch**2 * q[i]))
        bands[(slice(None), *window)] += stamp * fluxes(magnitude[i], tint[i], 0.75 * tint[i])[:, None, None]
    return x, y, magnitude


def _foreground_stars(half: float, rng: np.random.Generator) -> list:
    """Faint stars, red dwarfs and bluer ones: x, y [arcsec] and fluxes [nanomaggies, 3]."""
    count = min(int(rng.poisson(STARS * (2 * half / 60.0) ** 2 * rng.lognormal(0, 0.6))), 150)
    magnitude = 17.0 + 6.0 * rng.uniform(0, 1, count) ** 0.7
    tint = np.where(rng.uniform(size=count) < 0.45, rng.normal(1.4, 0.12, count), rng.normal(0.55, 0.18, count))
    tint = np.clip(tint, 0.1, 1.8)
    x, y = rng.uniform(-half, half, (2, count))
    return [(x[i], y[i], fluxes(magnitude[i], tint[i], 1.05 * tint[i] ** 1.4)) for i in range(count)]
