"""Bright stars, and what spoils a picture: trails, bleeding, bad columns, missing strips."""

import numpy as np
from scipy import ndimage

from zoobook.images.decals import NATIVE_ARCSEC, ZERO_POINT
from zoobook.simulation.profiles import Grid
from zoobook.simulation.truth import Truth

STARS = 0.16  # bright foreground stars per square arcmin
SATURATION = (9.0, 14.0, 22.0)  # of the camera in g, r, z [nanomaggies per native pixel]: stars get coloured rims


def add_bright_stars(bands: np.ndarray, t: Truth, grid: Grid, rng: np.random.Generator) -> None:
    """Add saturated foreground stars to [3, H, W], with the wide wings and spikes that the PSF alone lacks."""
    frame = t["frame_arcsec"]
    count = min(int(rng.poisson(STARS * (frame / 60.0) ** 2)), 6)
    stars = [(*rng.uniform(-0.5, 0.5, 2), bright_star_magnitude(rng)) for _ in range(count)]
    if t["artifact"] == "star":
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.2)
        stars.append((away * np.cos(turn), away * np.sin(turn), star_magnitude(t)))
    for x, y, magnitude in stars:
        place = (x * frame, y * frame)
        add_bright_star(bands, place, magnitude, t["seeing_arcsec"], grid, rng, np.sin(x * 50 + np.arange(3)))


def bright_star_magnitude(rng: np.random.Generator) -> float:
    """The r magnitude of a saturated star that is there by chance."""
    return 16.8 - rng.exponential(1.1)


def star_magnitude(t: Truth) -> float:
    """The r magnitude of a star that spoils the picture of a galaxy."""
    return 12.5 - 4.0 * t["artifact_severity"]


def add_bright_star(
    bands: np.ndarray, place: tuple, magnitude: float, seeing: float, grid: Grid, rng: np.random.Generator,
    level: np.ndarray,
) -> None:  # fmt: skip
    """Add one saturated star of this r magnitude to ``bands``, [3, H, W] in nanomaggies per native pixel.

    Its ``place`` is x, y from the middle [arcsec], the ``seeing`` the full width of the PSF at half maximum in r
    [arcsec]; colour and direction of the spikes are drawn. ``level`` [3], from -1 to 1, tells where the camera
    saturates in each band.
    """
    times = int(np.ceil(grid.step / 0.4))  # a star is far from constant over a large pixel
    size = grid.size * times
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(grid.step / times)
    dx, dy = axis[None, :] - np.float32(place[0]), axis[:, None] - np.float32(place[1])
    flux = 10 ** (-0.4 * (magnitude - ZERO_POINT)) * NATIVE_ARCSEC**2
    tint = rng.normal(0.7, 0.3)
    turn = rng.uniform(0, np.pi)
    spikes = (turn, turn + np.pi / 2) if magnitude < 15.0 else ()
    for band, colour in enumerate((-tint, 0.0, tint)):
        star = _star(dx, dy, seeing * (1.05 - 0.05 * band), spikes, grid.step / times) * (flux * 10 ** (0.4 * colour))
        star = np.minimum(star.astype(np.float32), np.float32(SATURATION[band] * (1.0 + 0.3 * level[band])))
        bands[band] += star.reshape(grid.size, times, grid.size, times).mean(axis=(1, 3))


def _star(dx: np.ndarray, dy: np.ndarray, fwhm: float, spikes: tuple, step: float) -> np.ndarray:
    """A star of unit flux: a Moffat core, a halo and diffraction spikes."""
    r2 = dx**2 + dy**2
    alpha2 = (fwhm * 0.85) ** 2
    star = (2.2 / (np.pi * alpha2)) * (1 + r2 / alpha2) ** -3.2
    star += 0.0035 / (1 + r2 / 9.0) ** 1.4
    for spike in spikes:
        along = dx * np.cos(spike) + dy * np.sin(spike)
        across = dy * np.cos(spike) - dx * np.sin(spike)
        star += 0.012 * np.exp(-0.5 * (across / max(0.35, 0.5 * step)) ** 2 - np.abs(along) / 7.0)
    return star


def add_artifact(bands: np.ndarray, t: Truth, rng: np.random.Generator) -> np.ndarray:
    """A picture with noise, [3, H, W] in nanomaggies per native pixel, spoilt in the way that the truth says."""
    spoil = _KINDS.get(t["artifact"])
    if spoil is None:
        return bands
    u = (np.arange(bands.shape[1], dtype=np.float32) + 0.5) / bands.shape[1] - 0.5
    return spoil(bands, u[None, :], u[:, None], t["artifact_severity"], rng)


def _finest(bands: np.ndarray) -> float:
    """Width of the thinnest streak that the pixels show, over the frame's side."""
    return max(0.004, 0.7 / bands.shape[1])


def _trail(bands, x, y, severity, rng) -> np.ndarray:
    """A satellite, in the one band that was exposed as it passed."""
    for _ in range(int(rng.integers(1, 3))):
        turn, offset = rng.uniform(0, np.pi), rng.normal(0, 0.1)
        across = x * np.sin(turn) - y * np.cos(turn) - offset
        streak = np.exp(-0.5 * (across / (2 * _finest(bands))) ** 2)
        bands[rng.integers(3)] += np.float32(0.15 + 2.5 * severity**2) * streak
    return bands


def _bleed(bands, x, y, severity, rng) -> np.ndarray:
    """Charge that runs along the columns from a saturated star."""
    for _ in range(int(rng.integers(1, 4))):
        column, start = rng.normal(0, 0.1), rng.uniform(-0.5, 0.1)
        width = _finest(bands) * (1 + 4 * severity * rng.uniform())
        streak = np.exp(-0.5 * (((x - column) / width) ** 4)) * ((y > start) & (y < start + 0.3 + 0.6 * severity))
        bands += streak * (rng.uniform(0.5, 4.0, 3) * severity).astype(np.float32)[:, None, None]
    return bands


def _bad_columns(bands, x, y, severity, rng) -> np.ndarray:
    """Columns of the chip that read too high or too low, in one band each."""
    size = bands.shape[1]
    for _ in range(int(3 + 22 * severity)):
        at = int(np.clip(rng.normal(0.5, 0.16), 0, 0.999) * size)
        stop = min(at + max(1, int(round(rng.uniform(0.5, 2.5) * size / 128))), size)
        bands[rng.integers(3), :, at:stop] += np.float32(rng.normal(0, 0.5) * (0.2 + severity))
    return bands


def _blank(bands, x, y, severity, rng) -> np.ndarray:
    """A chip's edge, beyond which nothing was recorded in some bands."""
    turn, edge = rng.choice(4) * np.pi / 2 + rng.normal(0, 0.03), 0.22 - 0.4 * severity * rng.uniform(0.5, 1)
    missing = (x * np.cos(turn) + y * np.sin(turn)) > edge
    lost = np.ones(3, bool) if rng.uniform() < 0.5 else rng.permutation([True, True, False])
    bands[lost] = np.where(missing, np.float32(-0.02), bands[lost])
    return bands


def _zoom(bands, x, y, severity, rng) -> np.ndarray:
    """A wrong radius: the frame holds only a blown-out piece of the galaxy."""
    near = (x[0] * (0.22 - 0.14 * severity) + 0.5) * bands.shape[1] - 0.5
    where = np.meshgrid(near, near, indexing="ij")
    bands = np.stack([ndimage.map_coordinates(band, where, order=1) for band in bands])
    return bands * np.float32(1 + 3 * severity)


def _off_band(bands, x, y, severity, rng) -> np.ndarray:
    """One band that was calibrated wrongly, or is missing."""
    gain = rng.permutation([1.0, 1.0 + 30 * severity**2, 0.1]).astype(np.float32)
    return bands * gain[:, None, None] + (rng.uniform(0, 0.12, 3) * severity).astype(np.float32)[:, None, None]


_KINDS = {
    "trail": _trail, "bleed": _bleed, "bad-columns": _bad_columns, "blank": _blank, "zoom": _zoom,
    "off-band": _off_band,
}  # fmt: skip
