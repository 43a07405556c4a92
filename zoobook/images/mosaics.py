"""Mosaics: pictures of the sky in one band or several, larger than memory, read section by section."""
from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from zoobook import arguments, parallel
from zoobook.catalogs.columns import listed, numbers
from zoobook.catalogs.fits_votable import FITS_NAME
from zoobook.images import fits
from zoobook.images.checks import naming, unobserved
from zoobook.images.decals import ZERO_POINT
from zoobook.images.decoding import read_image

SECTION = 2048  # pixels: what is read at a time


class Mosaic:
    """A picture of the sky, one band or several, read section by section.

    A FITS mosaic is one file of one plane or of three (or three HDUs), or several files, one for each band, all on one
    grid of pixels. Of bands that include g, r and z, these are used. Pixels that are NaN, infinite, beyond 1e25
    or exactly 0 count as not observed, and so do -999, -9999, -32768 … far below all others. Anything else that
    :func:`~zoobook.images.read_image` reads is a picture with a stretch of its own, which is kept: sizes measured on it
    depend on that.

    Args:
        files: one file or several.
        zero_points: AB magnitude of one unit, for all bands or by band; by default from the headers. Without it,
            brightness is in the file's unit, and stamps are stretched by their noise.
        pixel_arcsec: side of a pixel; by default from the header.

    Attributes:
        shape: height and width [pixels].
        bands: names of the bands, in the order of their planes; of a picture, none.
        wcs: astropy's sky coordinates of the pixels, or None.
        pixel_arcsec: side of a pixel, NaN if unknown.
        calibrated: whether planes are in nanomaggies.

    Raises:
        ValueError: bands have different shapes, sky coordinates or zero points, or there are neither one nor three.
        BadImage: a file is missing or no image.
    """

    def __init__(
        self,
        files: str | os.PathLike | Sequence[str | os.PathLike],
        zero_points: float | Mapping[str, float] | None = None,
        pixel_arcsec: float | None = None,
    ):
        if isinstance(files, (str, os.PathLike)) or not isinstance(files, Iterable):
            files = [files]
        self.files = [arguments.path(file) for file in files]
        if not self.files:
            raise ValueError("a mosaic needs one file at least")
        first = self.files[0]
        stem = FITS_NAME.sub("", first.name) if FITS_NAME.search(first.name) else first.stem
        self.name = re.sub(r"[-_.][ugrizy]$", "", stem)
        self.picture, self.wcs, self.calibrated, self.bands, self.units, self._planes = None, None, False, (), [], []
        self.pixel_arcsec = np.nan
        begin = b""
        with contextlib.suppress(OSError), open(first, "rb") as file:  # whatever is wrong with it is said later
            begin = file.read(9)
        if not fits.is_fits(first, begin):
            if len(self.files) > 1:
                raise ValueError(f"a mosaic of several files is made of FITS files, which {first} is not; a picture is "
                                 "one file")  # fmt: skip
            if zero_points is not None:
                raise ValueError(f"{first} is a picture, whose brightness has no unit: leave out zero_points")
            self.picture = read_image(first, max_blank=1.0)
            self.shape = self.picture.shape[:2]
        else:
            self._open(zero_points)
        if pixel_arcsec is not None:
            self.pixel_arcsec = arguments.real("pixel_arcsec", pixel_arcsec)

    def _open(self, zero_points) -> None:
        """Learn from the headers what planes there are."""
        found, headers = [], []
        for file in self.files:
            with naming(file), fits.opened(file) as hdus:
                chosen = fits.image_hdus(hdus)
                left = [hdu.name or str(n) for n, hdu in enumerate(hdus) if fits.is_image(hdu) and hdu not in chosen]
                if left:
                    taken = listed(f"{hdus.index_of(hdu)} {hdu.name}".strip() for hdu in chosen)
                    warnings.warn(f"{file.name} holds several images: HDU {taken} is taken, not {listed(left)}",
                                  stacklevel=4)  # fmt: skip
                for hdu in chosen:
                    count = int(np.prod(hdu.shape[:-2]))
                    band = fits.band_of(hdu.header)
                    band = band if band in fits.BANDS else _band_in_name(file) or band
                    names = [band] if count == 1 else list("grz")
                    index = hdus.index_of(hdu)
                    found += [(name, file, index, i, hdu.shape) for i, name in enumerate(names)]
                    headers += [hdu.header] * count
        names = [name for name, *_ in found]
        twice = [f"{name} {file}" for name, file, *_ in found if names.count(name) > 1 and name in fits.BANDS]
        twice += [str(file) for file in self.files if self.files.count(file) > 1]
        if twice:
            raise ValueError(f"each band must be given once, but these are of the same: {listed(twice)}")
        if {"g", "r", "z"} <= set(names):
            keep = [names.index(band) for band in "grz"]
        elif len(found) in (1, 3):  # from blue to red, if that is known
            lettered = set(names) <= set(fits.BANDS)
            keep = sorted(range(len(found)), key=lambda n: fits.BANDS.index(names[n]) if lettered else n)
        else:
            raise ValueError(f"a mosaic has one band, or three (g, r, z), not {len(found)}: {listed(names)}")
        found, headers = [found[i] for i in keep], [headers[i] for i in keep]
        self.bands = tuple(names[i] for i in keep)
        self.shape = found[0][-1][-2:]
        for name, file, *_, shape in found:
            if shape[-2:] != self.shape:
                raise ValueError(f"the bands must lie on one grid of pixels: {file.name} ({name}) has {shape[-2:]} "
                                 f"pixels, {found[0][1].name} has {self.shape}. Resample one of them.")  # fmt: skip
        frames = [_celestial(header) for header in headers]
        self.wcs, self.pixel_arcsec = frames[0], fits.pixel_arcsec(headers[0])
        for (name, file, *_), frame in zip(found[1:], frames[1:], strict=True):
            if not _same_sky(frame, self.wcs, self.shape):
                raise ValueError(f"the bands must show the same sky: {file.name} ({name}) has other sky coordinates "
                                 f"than {found[0][1].name}. Resample one of them.")  # fmt: skip
        known = [_zero_point(header, name, zero_points) for header, name in zip(headers, self.bands, strict=True)]
        if None in known and set(known) != {None}:
            by_band = dict(zip(self.bands, known, strict=True))
            raise ValueError(f"some bands have a zero point and others none: {by_band}. Give `zero_points`.")
        self.calibrated = None not in known
        self.units = [10 ** (0.4 * (ZERO_POINT - zero)) if self.calibrated else 1.0 for zero in known]
        self._planes = [(*where[1:4], unit) for where, unit in zip(found, self.units, strict=True)]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """A section, [bands, H, W], NaN where nothing was observed; of a picture, red, green, blue.

        It is float32; of pixels with more digits, such as 32-bit integers, float64. Rows count from the lowest (of a
        picture: the uppermost).
        """
        if self.picture is not None:
            return self.picture[rows, columns].transpose(2, 0, 1).astype(np.float32)
        planes = []
        for file, number, plane, unit in self._planes:
            with naming(file), fits.opened(file) as hdus:
                hdu = hdus[number]
                place = np.unravel_index(plane, hdu.shape[:-2])  # among the axes before rows and columns; none: ()
                where = (*place, rows, columns)
                cut = _lazy(hdu, file)[where]
                kind = np.result_type(np.float32, cut.dtype)
                cut = fits.physical(hdu.header, cut)[0].astype(kind)
            planes.append(np.where(unobserved(cut) | (cut == 0), np.nan, cut * kind.type(unit)))
        return np.stack(planes)

    def pixels(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Where the sources of a table are: its ``x`` and ``y``, or its ``ra`` and ``dec`` [deg] as pixels from 0."""
        known = {name: numbers(table, name, "the table") for name in ("x", "y", "ra", "dec") if name in table}
        on_sky = {"ra", "dec"} <= set(known)
        if {"x", "y"} <= set(known):
            if on_sky and self.wcs is not None:
                self._same_places(table, known)
            return known["x"], known["y"]
        if not on_sky:
            raise ValueError("the table has neither `x` and `y` [pixels from 0] nor `ra` and `dec` [deg]; there are: "
                             f"{listed(table.columns)}. Rename them.")  # fmt: skip
        if self.wcs is None:
            raise ValueError(f"{self.files[0]} has no sky coordinates: give the positions as `x` and `y` in pixels")
        from astropy.coordinates import SkyCoord
        from astropy.wcs.utils import wcs_to_celestial_frame

        sky = SkyCoord(known["ra"], np.where(np.abs(known["dec"]) <= 90, known["dec"], np.nan), unit="deg")
        sky = sky.transform_to(wcs_to_celestial_frame(self.wcs)).spherical
        x, y = self.wcs.all_world2pix(sky.lon.deg, sky.lat.deg, 0, quiet=True)
        return np.where(np.abs(x) < 1e9, x, np.nan), np.where(np.abs(y) < 1e9, y, np.nan)

    def _same_places(self, table: pd.DataFrame, known: Mapping[str, np.ndarray]) -> None:
        """Refuse a table whose pixels are those of another mosaic, which its places on the sky tell."""
        x, y = self.pixels(table[["ra", "dec"]])
        off = np.nan_to_num(np.hypot(known["x"] - x, known["y"] - y), nan=np.inf)
        off = off[np.isfinite(known["x"] + known["y"] + known["ra"] + known["dec"])]
        if len(off) and np.median(off) > 3:
            raise ValueError(f"`x`, `y` and `ra`, `dec` of the table differ by {np.median(off):.1f} pixels on "
                             f"{self.name}: are they of another mosaic? Drop those that are not of this.")  # fmt: skip

    def sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Right ascension and declination [deg, ICRS] of pixels from 0, whatever coordinates the mosaic has, or NaN."""
        if self.wcs is None:
            return np.nan, np.nan
        sky = self.wcs.pixel_to_world(np.asarray(x), np.asarray(y)).icrs
        return sky.ra.deg, sky.dec.deg

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether positions [pixels from 0] are on the mosaic; NaN is not."""
        height, width = self.shape
        return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)

    def cutout(self, x: float, y: float, side: float) -> tuple[np.ndarray, object]:
        """The square around a position, in whole pixels.

        Args:
            x: column of its middle, from 0.
            y: row of its middle, from 0.
            side: in pixels.

        Returns:
            tuple: [bands, side, side] as of :meth:`read`, NaN beyond the mosaic's edge; sky coordinates (WCS), or None.

        Raises:
            ValueError: the position is outside the mosaic, or the side makes no sense.

        >>> import numpy as np, tempfile
        >>> from PIL import Image
        >>> file = f"{tempfile.mkdtemp()}/sky.png"
        >>> Image.fromarray(np.eye(64, dtype=np.uint8)).save(file)
        >>> Mosaic(file).cutout(20, 20, 16)[0].shape
        (3, 16, 16)
        """
        x, y = (arguments.real(name, at, lambda pixel: True, "a pixel") for name, at in (("x", x), ("y", y)))
        if not self.contains(x, y):
            raise ValueError(f"it is outside the mosaic, at x = {x:.1f}, y = {y:.1f}")
        size = round(arguments.real("side", side, lambda pixels: 1 <= pixels <= 1e5, "from 1 to 100,000 pixels"))
        left, top = (int(np.floor(middle - size / 2 + 1)) for middle in (x, y))
        part = self.window(left, top, size)
        if self.wcs is None:
            return part, None
        from astropy.nddata import Cutout2D

        middle = left + (size - 1) / 2, top + (size - 1) / 2
        return part, Cutout2D(np.broadcast_to(False, self.shape), middle, size, self.wcs, "partial", False).wcs

    def window(
        self,
        left: int,
        top: int,
        size: int,
        section: np.ndarray | None = None,
        corner: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """A square of pixels, [bands, size, size], NaN beyond the mosaic, or beyond the section it is cut from.

        ``left`` and ``top`` are its first column and row, ``section`` is [bands, H, W] that was read already, and
        ``corner`` its first column and row.
        """
        shape = self.shape if section is None else section.shape[1:]
        starts = (top - corner[1], left - corner[0])
        rows, columns = (slice(min(max(start, 0), most), min(max(start + size, 0), most))
                         for start, most in zip(starts, shape, strict=True))  # fmt: skip
        part = self.read(rows, columns) if section is None else section[:, rows, columns]
        whole = np.full((len(part), size, size), np.nan, part.dtype)
        top, left = rows.start - starts[0], columns.start - starts[1]
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return whole


def check_mosaic(mosaic: Mosaic) -> None:
    """Refuse what is no mosaic, such as the path of one."""
    if not isinstance(mosaic, Mosaic):
        raise ValueError(f"mosaic must be a Mosaic, such as Mosaic('sky.fits'), not {type(mosaic).__name__}")


def unseen_bands(mosaic: Mosaic, seen: np.ndarray) -> list[str]:
    """The bands of which nothing was observed, where others were; ``seen``, bool [bands], is whether anything was."""
    names = [band or f"plane {number}" for number, band in enumerate(mosaic.bands, 1)]
    return [name for name, known in zip(names, seen, strict=False) if seen.any() and not known]


def each_section(
    mosaic: Mosaic,
    work: Callable,
    workers: int | None,
    text: str,
    places: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    **options,
) -> list:
    """What a function gives for each section of a mosaic, on several cores.

    ``work`` gets the mosaic, a section without margin (top, bottom, left, right), the places in it, their rows, and the
    options. With ``places``, [N, …] whose first columns are x and y, and of which ``rows`` count, only sections with
    some of them are gone through. ``text`` says what is done, beside the progress bar.
    """
    workers, tasks = parallel.check_workers(workers), []
    for top in range(0, mosaic.shape[0], SECTION):
        for left in range(0, mosaic.shape[1], SECTION):
            core = (top, min(top + SECTION, mosaic.shape[0]), left, min(left + SECTION, mosaic.shape[1]))
            if places is None:
                tasks.append((mosaic, core, None, None))
                continue
            x, y = np.round(places[rows, :2]).T
            mine = rows[(y >= core[0]) & (y < core[1]) & (x >= core[2]) & (x < core[3])]
            if len(mine):
                tasks.append((mosaic, core, places[mine], mine))
    return list(tqdm(parallel.each(work, tasks, workers, **options), text, len(tasks), unit="section"))


def around(mosaic: Mosaic, core: tuple, margin: int) -> tuple[slice, slice]:
    """Rows and columns of a section (top, bottom, left, right) with a margin, as far as the mosaic reaches."""
    top, bottom, left, right = core
    return (slice(max(top - margin, 0), min(bottom + margin, mosaic.shape[0])),
            slice(max(left - margin, 0), min(right + margin, mosaic.shape[1])))  # fmt: skip


def _lazy(hdu, file: Path):
    """Pixels that are read when they are sliced: mapped into memory where they are not packed, as that is faster."""
    packed = type(hdu).__name__ == "CompImageHDU" or file.suffix.lower() in (".gz", ".fz")
    return hdu.section if packed else hdu.data


def _celestial(header):
    """Sky coordinates of a header, or None: where there are none, no scale or no place."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import wcs_to_celestial_frame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends odd headers, and says so
        try:
            wcs = WCS(header).celestial
            wcs_to_celestial_frame(wcs)
            placed = {"CRVAL1", "CRVAL2"} <= set(header)  # else astropy takes the origin of the sky
            return wcs if placed and np.isfinite(fits.pixel_arcsec(header)) else None
        except Exception:  # what astropy raises for odd headers has no common class
            return None


def _same_sky(one, other, shape: tuple[int, int]) -> bool:
    """Whether pixels all over both are less than half a pixel apart, or beyond the sky on both, as on all-sky maps."""
    if one is None or other is None:
        return one is other
    x, y = np.meshgrid(*(np.linspace(0, side - 1, 5) for side in shape[::-1]))
    skies = [frame.all_pix2world(x, y, 0) for frame in (one, other)]
    back = other.all_world2pix(*skies[0], 0, quiet=True)
    return bool(((np.hypot(back[0] - x, back[1] - y) < 0.5) | np.isnan(skies).all(axis=(0, 1))).all())


def _zero_point(header, band: str, given: float | Mapping[str, float] | None) -> float | None:
    if isinstance(given, Mapping):
        if band not in given:
            raise ValueError(f"zero_points has none for the band {band!r}: {dict(given)}")
        given = given[band]
    if given is not None:
        return arguments.real("zero_points", given, _is_zero_point, "a magnitude from -60 to 60")
    written = [header[key] for key in fits.ZERO_POINT_KEYS if type(header.get(key)) in (int, float, str)]
    values = pd.to_numeric(pd.Series(written, dtype=object), errors="coerce").dropna().tolist()  # '22.5' is one, too
    in_nanomaggies = str(header.get("BUNIT", "")).strip().lower() in ("nanomaggy", "nanomaggies", "nmgy")
    values = [value for value in values if _is_zero_point(value)]
    return float(values[0]) if values else ZERO_POINT if in_nanomaggies else None


def _is_zero_point(value: float) -> bool:
    return abs(value) <= 60  # -48.6 is that of erg / s / cm² / Hz; -99, 99 and -9999 stand for none


def _band_in_name(file: Path) -> str:
    """The band that a file's name ends with, such as ``field-0000_g.fits``."""
    found = re.search(r"[-_.]([ugrizy])$", FITS_NAME.sub("", file.name))
    return found[1] if found else ""
