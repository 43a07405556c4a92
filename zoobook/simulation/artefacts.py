"""Bright stars, and what spoils a picture: trails, bleeding, bad columns, missing strips."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from zoobook.images.decals import NATIVE_ARCSEC, ZERO_POINT
from zoobook.simulation.profiles import Grid


def add_bright_stars(bands: np.ndarray, galaxy: Mapping, grid: Grid, rng: np.random.Generator) -> None:
    """Add saturated foreground stars in place, with the wide wings and spikes that the PSF alone lacks.

    Args:
        bands: [3, H, W] in nanomaggies per native pixel.
        galaxy: a row of truth.
        grid: the pixels.
        rng: random numbers of the scene.
    """
    area = (galaxy["true_frame_arcsec"] / 60.0) ** 2
    count = min(int(rng.poisson(0.16 * area)), 6)
    stars = [(*rng.uniform(-0.5, 0.5, 2), 16.8 - rng.exponential(1.1)) for _ in range(count)]
    if galaxy["true_artifact"] == "star":
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.2)
        stars.append((away * np.cos(turn), away * np.sin(turn), 12.5 - 4.0 * galaxy["true_artifact_severity"]))
    times = int(np.ceil(grid.step / 0.4))  # a star is far from constant over a large pixel
    size = grid.size * times
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(grid.step / times)
    for x, y, magnitude in stars:
        dx = axis[None, :] - np.float32(x * galaxy["true_frame_arcsec"])
        dy = axis[:, None] - np.float32(y * galaxy["true_frame_arcsec"])
        r2 = dx**2 + dy**2
        flux = 10 ** (-0.4 * (magnitude - ZERO_POINT)) * NATIVE_ARCSEC**2
        tint = rng.normal(0.7, 0.3)
        seeing = galaxy["true_seeing_arcsec"]
        turn, spiky = rng.uniform(0, np.pi), magnitude < 15.0
        for band, colour in enumerate((-tint, 0.0, tint)):
            alpha2 = (seeing * (1.05 - 0.05 * band) * 0.85) ** 2
            amount = flux * 10 ** (0.4 * colour)
            star = (2.2 / (np.pi * alpha2)) * (1 + r2 / alpha2) ** -3.2  # Moffat core
            star += 0.0035 / (1 + r2 / 9.0) ** 1.4  # halo
            if spiky:
                for spoke in (turn, turn + np.pi / 2):
                    along = dx * np.cos(spoke) + dy * np.sin(spoke)
                    across = dy * np.cos(spoke) - dx * np.sin(spoke)
                    width = max(0.35, 0.5 * grid.step / times)
                    star += 0.012 * np.exp(-0.5 * (across / width) ** 2 - np.abs(along) / 7.0)
            # The camera saturates at a level of its own in each band: stars get coloured rims.
            limit = (9.0, 14.0, 22.0)[band] * (1.0 + 0.3 * np.sin(x * 50 + band))
            star = np.minimum((star * amount).astype(np.float32), np.float32(limit))
            bands[band] += star.reshape(grid.size, times, grid.size, times).mean(axis=(1, 3))


def add_artefact(bands: np.ndarray, galaxy: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Spoil a picture in the way that the truth says.

    Args:
        bands: [3, H, W] in nanomaggies per native pixel, with noise.
        galaxy: a row of truth.
        rng: random numbers of the exposure.

    Returns:
        ndarray: the spoilt picture, of the same shape.
    """
    kind, severity = galaxy["true_artifact"], galaxy["true_artifact_severity"]
    size = bands.shape[1]
    u = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = u[None, :], u[:, None]
    fine = max(0.004, 0.7 / size)
    if kind == "trail":  # a satellite, in the one band that was exposed as it passed
        for _ in range(int(rng.integers(1, 3))):
            turn, offset = rng.uniform(0, np.pi), rng.normal(0, 0.1)
            across = x * np.sin(turn) - y * np.cos(turn) - offset
            bands[rng.integers(3)] += np.float32(0.15 + 2.5 * severity**2) * np.exp(-0.5 * (across / (2 * fine)) ** 2)
    elif kind == "bleed":  # charge runs along the columns from a saturated star
        for _ in range(int(rng.integers(1, 4))):
            column, start = rng.normal(0, 0.1), rng.uniform(-0.5, 0.1)
            width = fine * (1 + 4 * severity * rng.uniform())
            streak = np.exp(-0.5 * (((x - column) / width) ** 4)) * ((y > start) & (y < start + 0.3 + 0.6 * severity))
            bands += streak * (rng.uniform(0.5, 4.0, 3) * severity).astype(np.float32)[:, None, None]
    elif kind == "bad-columns":
        for _ in range(int(3 + 22 * severity)):
            at = int(np.clip(rng.normal(0.5, 0.16), 0, 0.999) * size)
            stop = min(at + max(1, int(round(rng.uniform(0.5, 2.5) * size / 128))), size)
            bands[rng.integers(3), :, at:stop] += np.float32(rng.normal(0, 0.5) * (0.2 + severity))
    elif kind == "blank":  # a chip's edge: nothing was recorded in some bands
        turn, edge = rng.choice(4) * np.pi / 2 + rng.normal(0, 0.03), 0.22 - 0.4 * severity * rng.uniform(0.5, 1)
        missing = (x * np.cos(turn) + y * np.sin(turn)) > edge
        lost = np.ones(3, bool) if rng.uniform() < 0.5 else rng.permutation([True, True, False])
        bands[lost] = np.where(missing, np.float32(-0.02), bands[lost])
    elif kind == "zoom":  # a wrong radius: the frame holds only a blown-out piece of the galaxy
        near = (u * (0.22 - 0.14 * severity) + 0.5) * size - 0.5
        where = np.meshgrid(near, near, indexing="ij")
        bands = np.stack([ndimage.map_coordinates(band, where, order=1) for band in bands])
        bands *= np.float32(1 + 3 * severity)
    elif kind == "off-band":  # one band was calibrated wrongly, or is missing
        gain = rng.permutation([1.0, 1.0 + 30 * severity**2, 0.1]).astype(np.float32)
        bands = bands * gain[:, None, None] + (rng.uniform(0, 0.12, 3) * severity).astype(np.float32)[:, None, None]
    return bands
