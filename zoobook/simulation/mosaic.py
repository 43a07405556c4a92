"""A simulated picture of the sky, of which everything is known: the survey's galaxies, stars, background, faults."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import fft
from tqdm import tqdm

from zoobook import arguments, parallel
from zoobook.files import check_room, ensure_writable_dir, replacing
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, ZERO_POINT
from zoobook.simulation import artifacts, scene
from zoobook.simulation.profiles import Grid, point_sources, psf_transform
from zoobook.simulation.truth import ARTIFACTS, MOST_GALAXIES, Truth, checked_seed, draw_truth
from zoobook.simulation.volunteers import vote

BANDS = "grz"
SEEING = 1.2  # full width of the PSF at half maximum in r [arcsec], the same everywhere
SKY = np.array((0.02, 0.04, 0.08), np.float32)  # nobody has subtracted it [nanomaggies per native pixel]
BLOCK = 512  # pixels of the pieces in which background, stars and noise are added
APART = 0.35  # least distance of two galaxies, over the sum of their frames
ROOM = 1.2  # area of the sky over that of all frames
REACH = 1.7  # how far a galaxy's light is drawn, over its frame; it fades out in the last quarter
CENTRE = (150.0, 2.0)  # ra, dec of the middle [deg]


class SimulatedSky(NamedTuple):
    """What :func:`make_mosaic` gives."""

    files: list[Path]  # FITS, one for each of g, r and z, in nanomaggies
    galaxies: pd.DataFrame  # the survey's galaxies: a catalogue with truth, votes and position
    objects: pd.DataFrame  # everything there is: kind, id_str, x, y, ra, dec, mag_r


def make_mosaic(
    path: str | os.PathLike, n_galaxies: int, pixel_arcsec: float = NATIVE_ARCSEC, noise: float = 1.0, seed: int = 0,
    workers: int | None = None,
) -> SimulatedSky:  # fmt: skip
    """Make a mosaic of the sky with galaxies of the simulated survey.

    They lie at random, none nearer to another than a third of their frames: 20 times as densely as in the real sky.
    Between them are faint galaxies, stars and saturated stars, as in the survey's stamps, and on some of them the
    artifacts that a camera makes. PSF and noise are the same everywhere; truth and votes are those of the survey's
    galaxies seen through this telescope.

    Args:
        path: folder to write to: ``sky_g.fits``, ``sky_r.fits``, ``sky_z.fits``.
        n_galaxies: how many galaxies of the survey.
        pixel_arcsec: side of a pixel, from 0.05 to 4 [arcsec].
        noise: of the sky, from 0 to 1000, over the survey's typical one.
        seed: seed of the survey, and of the sky.
        workers: processes; all processor cores by default.

    Returns:
        SimulatedSky: files, the galaxies (with :func:`~zoobook.simulation.vote` and ``x``, ``y`` in pixels from 0, row
        0 the lowest) and all objects; their ``kind`` is survey, companion, background, star, or bright star.

    >>> import tempfile
    >>> sky = make_mosaic(tempfile.mkdtemp(), n_galaxies=2, pixel_arcsec=0.8, workers=1)
    >>> [file.name for file in sky.files]
    ['sky_g.fits', 'sky_r.fits', 'sky_z.fits']
    """
    n_galaxies, seed = arguments.whole("n_galaxies", n_galaxies, 1, MOST_GALAXIES), checked_seed(seed)
    step = arguments.real("pixel_arcsec", pixel_arcsec, lambda number: 0.05 <= number <= 4, "from 0.05 to 4 arcsec")
    noise = arguments.real("noise", noise, lambda number: 0 <= number <= 1000, "a number from 0 to 1000")
    workers = parallel.check_workers(workers)
    folder = ensure_writable_dir(path)
    truth = _seen_here(draw_truth(n_galaxies, seed), max(noise, 0.05))
    side = int(np.ceil(np.sqrt(ROOM * np.sum(truth["true_frame_arcsec"] ** 2)) / step / BLOCK) * BLOCK)
    x, y = _places(truth["true_frame_arcsec"].to_numpy() / step, side, np.random.default_rng([seed, 7]))
    files = [folder / f"sky_{band}.fits" for band in BANDS]
    check_room(folder, 4 * len(BANDS) * side**2, "the mosaic needs", "another folder")
    with ExitStack() as stack:
        parts = [stack.enter_context(replacing(file)) for file in files]
        canvas = [_create(part, band, side, step) for part, band in zip(parts, BANDS, strict=True)]
        _paint_galaxies(canvas, truth, x, y, step, seed, workers)
        others = [*_companions(truth, x, y, step), *_paint_sky(canvas, step, noise, seed)]
        for place, galaxy in zip(np.stack([x, y], axis=1), truth.to_dict("records"), strict=True):
            others += _spoil(canvas, place, Truth(galaxy), step, seed)
        while canvas:
            canvas.pop().flush()  # and closed, without which Windows renames no file

    ids = [f"sky{seed}-{index:07d}" for index in truth["true_index"]]
    x, y = x + truth["true_offset_x_arcsec"].to_numpy() / step, y + truth["true_offset_y_arcsec"].to_numpy() / step
    survey = [("survey", *row) for row in zip(ids, x, y, truth["true_mag_r"], strict=True)]
    objects = _table_of_objects([*survey, *others], side, step)
    found = objects.head(n_galaxies).drop(columns=["kind", "mag_r"])
    galaxies = pd.concat([found, vote(truth, seed), truth.drop(columns=["true_ra", "true_dec"])], axis=1)
    return SimulatedSky(files, galaxies, objects)


def _table_of_objects(rows: list[tuple], side: int, step: float) -> pd.DataFrame:
    """Rows of kind, id_str, x, y (from the uppermost row) and mag_r, with ra and dec, and y from the lowest row."""
    objects = pd.DataFrame(rows, columns=["kind", "id_str", "x", "y", "mag_r"])
    objects["y"] = side - 1 - objects["y"]
    ra, dec = _wcs(side, step).all_pix2world(objects["x"], objects["y"], 0)
    objects.insert(4, "ra", ra)
    objects.insert(5, "dec", dec)
    return objects


def _seen_here(truth: pd.DataFrame, noise: float) -> pd.DataFrame:
    """The galaxies through this telescope; a mosaic has no wrong radii, lost strips or bands calibrated alone."""
    clean = ~truth["true_artifact"].isin(["star", "trail", "bleed", "bad-columns"])
    truth.loc[clean, "true_artifact"], truth.loc[clean, "true_artifact_severity"] = ARTIFACTS[0], 0.0
    return truth.assign(true_seeing_arcsec=SEEING, true_noise=noise)


def _places(frames: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the galaxies in whole pixels of the picture, the largest placed first."""
    place, placed = np.zeros((len(frames), 2)), np.zeros(len(frames), bool)
    for i in np.argsort(-frames):
        edge = min(0.5 * frames[i], 0.45 * side)
        for _ in range(2000):
            place[i] = np.round(rng.uniform(edge, side - 1 - edge, 2))
            near = APART * (frames[i] + frames[placed])
            if (np.hypot(*(place[placed] - place[i]).T) > near).all():
                break
        placed[i] = True
    return place[:, 0], place[:, 1]


def _wcs(side: int, step: float):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval = ((side + 1) / 2,) * 2, CENTRE
    wcs.wcs.cdelt, wcs.wcs.ctype = (-step / 3600, step / 3600), ("RA---TAN", "DEC--TAN")
    return wcs


def _create(file: Path, band: str, side: int, step: float) -> np.ndarray:
    """An empty FITS file and its pixels, memory-mapped, the uppermost row first."""
    from astropy.io import fits

    header = fits.PrimaryHDU(np.zeros((1, 1), ">f4")).header
    header["NAXIS1"] = header["NAXIS2"] = side
    header.update(_wcs(side, step).to_header())
    header["BAND"], header["BUNIT"] = band, "nanomaggy"
    header["MAGZERO"] = ZERO_POINT, "magnitude of one unit"
    text = header.tostring().encode()
    with open(file, "wb") as out:
        out.write(text)
        out.truncate(-(-(len(text) + 4 * side * side) // 2880) * 2880)
    return np.memmap(file, ">f4", "r+", len(text), (side, side))[::-1]


def _add(canvas: list, light: np.ndarray, left: int, top: int) -> None:
    """Add light to the part of the picture that it covers."""
    side, (height, width) = len(canvas[0]), light.shape[1:]
    rows, columns = slice(max(top, 0), min(top + height, side)), slice(max(left, 0), min(left + width, side))
    for plane, band in zip(canvas, light, strict=True):
        plane[rows, columns] += band[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _paint_galaxies(
    canvas: list, truth: pd.DataFrame, x: np.ndarray, y: np.ndarray, step: float, seed: int, workers: int | None
) -> None:
    from threadpoolctl import threadpool_limits

    sizes = [2 * int(REACH * frame / step / 2) + 1 for frame in truth["true_frame_arcsec"]]
    rows = [row | {"true_frame_arcsec": size * step} for row, size in zip(truth.to_dict("records"), sizes, strict=True)]
    light = parallel.each(scene.noise_free, [(*task, seed) for task in zip(rows, sizes, strict=True)], workers)
    with threadpool_limits(1):
        for i, bands in enumerate(tqdm(light, "galaxies", len(rows))):
            axis = np.linspace(-1, 1, sizes[i], dtype=np.float32)
            fade = np.clip((1 - np.hypot(axis, axis[:, None])) * 4, 0, 1)
            _add(canvas, bands * fade, int(x[i]) - sizes[i] // 2, int(y[i]) - sizes[i] // 2)


def _companions(truth: pd.DataFrame, x: np.ndarray, y: np.ndarray, step: float) -> list[tuple]:
    """The galaxies that belong to, or overlap, one of the survey: no pieces of it."""
    found = []
    for name in ("companion", "overlap"):
        rows = np.flatnonzero(truth[f"true_{name}_ratio"] > 0)
        t = truth.iloc[rows]
        turn, far = np.deg2rad(t[f"true_{name}_pa_deg"]), t[f"true_{name}_arcsec"]
        column = x[rows] + (t["true_offset_x_arcsec"] + far * np.cos(turn)) / step
        row = y[rows] + (t["true_offset_y_arcsec"] + far * np.sin(turn)) / step
        magnitude = t["true_mag_r"] - 2.5 * np.log10(t[f"true_{name}_ratio"])
        found += [("companion", "", *values) for values in zip(column, row, magnitude, strict=True)]
    return found


def _paint_sky(canvas: list, step: float, noise: float, seed: int) -> list[tuple]:
    """Add all else, block by block: faint galaxies, stars, saturated stars, sky and its noise; returns the objects."""
    side, objects = len(canvas[0]), []
    seeing = [SEEING * factor for factor in scene.SEEING]
    grid = Grid(BLOCK, BLOCK * step, margin=int(np.ceil(15 / step)))
    transform = psf_transform(grid.side, step, seeing)
    for number, (top, left) in enumerate(np.ndindex(side // BLOCK, side // BLOCK)):
        rng = np.random.default_rng([seed, 8, number])
        x0, y0 = left * BLOCK + (BLOCK - 1) / 2, top * BLOCK + (BLOCK - 1) / 2
        bands = np.zeros((3, grid.side, grid.side), np.float32)
        faint = scene.add_background_galaxies(bands, BLOCK * step / 2, grid, rng)
        stars = scene.foreground_stars(BLOCK * step / 2, rng)
        bands = fft.irfft2(fft.rfft2(bands) * transform, s=bands.shape[1:]) + point_sources(stars, grid, seeing)
        _add(canvas, bands * np.float32(step**2), left * BLOCK - grid.margin, top * BLOCK - grid.margin)
        objects += [("background", "", x0 + x / step, y0 + y / step, mag) for x, y, mag in zip(*faint, strict=True)]
        objects += [("star", "", x0 + x / step, y0 + y / step, ZERO_POINT - 2.5 * np.log10(light[1]))
                    for x, y, light in stars]  # fmt: skip
        for _ in range(rng.poisson(artifacts.STARS * (BLOCK * step / 60) ** 2)):
            place = rng.integers(0, BLOCK, 2) + (left * BLOCK, top * BLOCK)
            objects.append(_paint_star(canvas, place, artifacts.bright_star_magnitude(rng), step, rng))
        level = rng.standard_normal((3, BLOCK, BLOCK), dtype=np.float32)
        level *= (SKY_NOISE * np.float32(noise * step / NATIVE_ARCSEC))[:, None, None]
        level += (SKY * np.float32((step / NATIVE_ARCSEC) ** 2))[:, None, None]
        _add(canvas, level, left * BLOCK, top * BLOCK)
    return objects


def _paint_star(canvas: list, place: np.ndarray, magnitude: float, step: float, rng: np.random.Generator) -> tuple:
    """Add a saturated star in the middle of a pixel; returns its row of the table."""
    size = 2 * int(50 / step) + 1
    star = np.zeros((3, size, size), np.float32)
    grid = Grid(size, size * step, margin=0)
    artifacts.add_bright_star(star, (0.0, 0.0), magnitude, SEEING, grid, rng, rng.uniform(-1, 1, 3))
    _add(canvas, star * np.float32((step / NATIVE_ARCSEC) ** 2), *(place - size // 2))
    return "bright star", "", *place.astype(float), magnitude


def _spoil(canvas: list, place: np.ndarray, t: Truth, step: float, seed: int) -> list[tuple]:
    """Add the artifact of a galaxy, within its frame; returns the star, if it is one."""
    rng, size = np.random.default_rng([seed, 9, t["index"]]), int(t["frame_arcsec"] / step)
    if t["artifact"] == "star":
        turn, away = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.03, 0.2)
        near = place + np.round(away * np.array((np.cos(turn), np.sin(turn))))
        return [_paint_star(canvas, near.astype(int), artifacts.star_magnitude(t), step, rng)]
    bands = artifacts.add_artifact(np.zeros((3, size, size), np.float32), t, rng)
    _add(canvas, bands * np.float32((step / NATIVE_ARCSEC) ** 2), *(place.astype(int) - size // 2))
    return []
