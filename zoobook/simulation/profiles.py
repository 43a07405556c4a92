"""Brightness profiles of galaxies on a pixel grid, and the point spread function."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import fft
from scipy.special import erf, gamma, gammaincinv, k1

# The PSF: a core and a wing, both Gaussian, which has the shape of a Moffat profile out to three FWHM, and
# factorises into rows and columns, so that blurring and point sources are cheap and exact.
WING_LIGHT, WING_WIDTH = 0.22, 2.1


class Grid:
    """Pixel centres of a square frame with a margin around it, in arcsec from the middle.

    Args:
        size: pixels along a side of the frame, without the margin.
        frame_arcsec: the side of the frame [arcsec].
        margin: pixels around the frame, where light from outside comes in and the Fourier transform wraps.
    """

    def __init__(self, size: int, frame_arcsec: float, margin: int | None = None):
        self.size, self.step = size, frame_arcsec / size
        self.margin = max(4, size // 16) if margin is None else margin
        self.side = size + 2 * self.margin
        axis = (np.arange(self.side, dtype=np.float32) - np.float32((self.side - 1) / 2)) * np.float32(self.step)
        self.x, self.y = axis[None, :], axis[:, None]

    def pixel(self, arcsec: float | Sequence[float]) -> np.ndarray:
        """Pixel coordinate, margin included, of a position in arcsec."""
        return np.asarray(arcsec) / self.step + (self.side - 1) / 2

    def finer(self, times: int) -> Grid:
        """The same area with ``times`` as many pixels along a side."""
        return Grid(self.size * times, self.step * self.size, self.margin * times)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Cut the margin off an image."""
        return image[..., self.margin : self.margin + self.size, self.margin : self.margin + self.size]


def sersic(
    grid: Grid, flux: float, r50: float, index: float, q: float = 1.0, pa_deg: float = 0.0, x0: float = 0.0,
    y0: float = 0.0, boxiness: float = 2.0,
) -> np.ndarray:  # fmt: skip
    """Sérsic profile (Sérsic 1963), float32 [side, side] in flux per square arcsec, the steep pixels integrated.

    It has a total flux, a half-light radius ``r50`` along the major axis [arcsec], the Sérsic ``index`` n (0.5 to 6),
    an axis ratio q, the position angle ``pa_deg`` of the major axis, from the x axis towards y, and its centre at x0,
    y0 [arcsec]. The ``boxiness`` is the exponent of the isophotes: 2 makes ellipses, more makes boxes.
    """
    b = gammaincinv(2.0 * index, 0.5)
    area = 4.0 * gamma(1.0 + 1.0 / boxiness) ** 2 / gamma(1.0 + 2.0 / boxiness)
    peak = flux / (2.0 * area * index * r50**2 * q * b ** (-2.0 * index) * gamma(2.0 * index))
    cos, sin = np.float32(np.cos(np.deg2rad(pa_deg))), np.float32(np.sin(np.deg2rad(pa_deg)))

    def brightness(x, y):
        major, minor = (x * cos + y * sin) / np.float32(r50), (y * cos - x * sin) / np.float32(r50 * q)
        if boxiness == 2.0:
            power = np.float32(0.5 / index)
            radius = major * major + minor * minor
        else:
            power = np.float32(1.0 / (boxiness * index))
            radius = np.abs(major) ** np.float32(boxiness) + np.abs(minor) ** np.float32(boxiness)
        return np.float32(peak) * np.exp(np.float32(-b) * radius**power)

    image = brightness(grid.x - np.float32(x0), grid.y - np.float32(y0))
    column, row = int(round(float(grid.pixel(x0)))), int(round(float(grid.pixel(y0))))
    # A cusp is far from constant over a pixel: sub-sample the middle, and the very middle more.
    for half, times in ((8, 4), (1, 15)):
        if half <= column < grid.side - half and half <= row < grid.side - half:
            count = 2 * half + 1
            samples = ((np.arange(count * times, dtype=np.float32) + 0.5) / times - count / 2).astype(np.float32)
            offsets = samples * np.float32(grid.step)
            x, y = grid.x[0, column] - np.float32(x0), grid.y[row, 0] - np.float32(y0)
            fine = brightness(x + offsets[None, :], y + offsets[:, None])
            window = np.s_[row - half : row + half + 1, column - half : column + half + 1]
            image[window] = fine.reshape(count, times, count, times).mean(axis=(1, 3))
    return image


def edge_on_disk(major: np.ndarray, minor: np.ndarray, flux: float, scale: float, height: float) -> np.ndarray:
    """Transparent exponential disk seen edge-on (van der Kruit & Searle 1981), in flux per square arcsec.

    It has an exponential scale length and a sech2 scale height [arcsec]; ``major`` and ``minor`` are the distances
    along it and above it [arcsec].
    """
    along = np.maximum(np.abs(major) / scale, 1e-3)
    above = np.cosh(np.minimum(np.abs(minor) / height, 30.0)) ** -2
    return (flux / (2.0 * np.pi * scale * height)) * (along * k1(along)) * above


@cache
def _tile() -> np.ndarray:
    """A periodic Gaussian random field of unit variance, [512, 512] float32, the same for all galaxies."""
    frequency = np.hypot(fft.fftfreq(512)[:, None], fft.rfftfreq(512)[None, :]) * 512
    # Structure of all sizes, the larger the stronger, from a quarter of the tile down to eight pixels.
    strength = np.where((frequency >= 4) & (frequency <= 64), np.maximum(frequency, 1) ** -1.7, 0)
    white = np.random.default_rng(20040116).standard_normal((512, 512))
    tile = fft.irfft2(fft.rfft2(white) * strength, s=(512, 512))
    return (tile / tile.std()).astype(np.float32)


def texture(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random field of zero mean and unit variance, such as the patches of a disk, float32.

    Structures are 8 to 128 long in the coordinates. Which piece of the field is taken is drawn.
    """
    tile, (x0, y0) = _tile(), rng.uniform(0, 512, 2).astype(np.float32)
    x, y = x + x0, y + y0
    column, row = np.floor(x), np.floor(y)
    x, y = x - column, y - row
    column, row = column.astype(np.int32) & 511, row.astype(np.int32) & 511
    below = ((row + 1) & 511) * 512
    row, right, flat = row * 512, (column + 1) & 511, tile.ravel()
    upper = flat[row + column] * (1 - x) + flat[row + right] * x
    return upper * (1 - y) + (flat[below + column] * (1 - x) + flat[below + right] * x) * y


def psf_transform(
    side: int, step: float, fwhm: Sequence[float], middle: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Fourier transform of the PSF on the pixel grid, complex64 [3, side, side // 2 + 1], ordered as by `rfft2`.

    Args:
        side: pixels along a side.
        step: side of a pixel [arcsec].
        fwhm: full width at half maximum in each band [arcsec], [3].
        middle: x, y of the PSF's middle [arcsec], by which it moves what it blurs.
    """
    # The images to be blurred are means over pixels already: take a pixel's variance off, then integrate over
    # pixels, which stays positive (no ringing) however coarse the pixels are.
    sigma = np.sqrt(np.maximum(_sigmas(fwhm, step) ** 2 - 1.0 / 12.0, 0.04))
    first = -(side // 2) - np.array(middle[::-1]) / step
    lines = fft.ifftshift(pixel_share(first, side, sigma), axes=2)
    lines = fft.fft(lines / lines.sum(axis=2, keepdims=True)).reshape(3, 2, 2, side)
    rows, columns = lines[:, :, 0] * np.array(((1.0 - WING_LIGHT,), (WING_LIGHT,)), np.float32), lines[:, :, 1]
    return rows.transpose(0, 2, 1) @ columns[..., : side // 2 + 1]


def point_sources(points: list, grid: Grid, fwhm: Sequence[float]) -> np.ndarray:
    """Blurred point sources, exact at any sub-pixel position: float32 [3, side, side], flux per square arcsec.

    Args:
        points: x, y [arcsec] and fluxes [3] of each.
        grid: the pixels.
        fwhm: full width of the PSF at half maximum in each band [arcsec], [3].
    """
    if not points:
        return np.zeros((3, grid.side, grid.side), np.float32)
    x, y = -grid.pixel([p[0] for p in points]), -grid.pixel([p[1] for p in points])
    light = np.array([p[2] for p in points], np.float32).T / np.float32(grid.step**2)
    sigma = _sigmas(fwhm, grid.step)
    shape = (3, 2 * len(points), grid.side)  # in each band the cores, then the wings
    shares = np.array(((1.0 - WING_LIGHT,), (WING_LIGHT,)), np.float32)
    rows = pixel_share(y, grid.side, sigma) * (light[:, None] * shares).reshape(6, -1, 1)
    return rows.reshape(shape).transpose(0, 2, 1) @ pixel_share(x, grid.side, sigma).reshape(shape)


def pixel_share(first: np.ndarray, count: int, sigma: np.ndarray) -> np.ndarray:
    """Share of one-dimensional Gaussians that falls into each of a row of pixels, float32 [S, K, count].

    Args:
        first: distance of the middle of the first pixel from each Gaussian's middle [pixels], [K].
        count: how many pixels.
        sigma: widths of the Gaussians [pixels], [S].
    """
    first, sigma = np.asarray(first, np.float32), np.asarray(sigma, np.float32)
    # Six widths hold all the light there is in single precision: elsewhere the answer is zero.
    window = min(2 * int(np.ceil(6 * sigma.max())) + 2, count)
    start = np.clip(np.round(-first).astype(int) - window // 2, 0, count - window)
    edges = (first + start)[:, None] + (np.arange(window + 1, dtype=np.float32) - np.float32(0.5))
    integral = erf(edges * (np.float32(np.sqrt(0.5)) / sigma)[:, None, None])
    share = np.zeros((len(sigma), len(first), count), np.float32)
    columns = np.broadcast_to(start[:, None] + np.arange(window), (len(sigma), len(first), window))
    np.put_along_axis(share, columns, (integral[..., 1:] - integral[..., :-1]) * np.float32(0.5), axis=2)
    return share


def _sigmas(fwhm: Sequence[float], step: float) -> np.ndarray:
    """Widths of core and wing in each band, in pixels, [6]."""
    core = np.array(fwhm) / _fwhm_per_sigma() / step
    return np.stack([core, WING_WIDTH * core], axis=1).ravel()


@cache
def _fwhm_per_sigma() -> float:
    """Full width at half maximum over the width of the core, a little wider for the wing."""
    r = np.linspace(1.0, 1.5, 100001)
    wing = WING_LIGHT / WING_WIDTH**2
    profile = (1.0 - WING_LIGHT) * np.exp(-(r**2) / 2) + wing * np.exp(-(r**2) / (2 * WING_WIDTH**2))
    return 2.0 * float(np.interp(-(1.0 - WING_LIGHT + wing) / 2, -profile, r))
