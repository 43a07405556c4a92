"""Decoding of single image files: JPEG, PNG and FITS, each to 8-bit RGB, or a plain word on what is wrong with it."""
from __future__ import annotations

import os
import re
from typing import BinaryIO

import numpy as np
from PIL import Image

from zoobook import arguments
from zoobook.catalogs.tables import FITS_NAME
from zoobook.images.decals import NATIVE_ARCSEC, SCALES, SKY_NOISE, colour

SMALLEST = 8  # pixels of the shorter side
LARGEST = 100_000_000  # pixels in all
MOST_BLANK = 0.75  # share of the pixels, unless one says otherwise
_BANDS = "ugrizy"  # in the order of their wavelengths


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


def read_image(path: str | os.PathLike, max_blank: float = MOST_BLANK) -> np.ndarray:
    """Decode one image file.

    JPEG, PNG and whatever else Pillow reads: grey is repeated in three channels, 16-bit values are scaled to 8 bits
    (65535 becomes 255), a palette is looked up, transparent pixels are laid over black, as the sky is.

    FITS: the first HDU with an image. Three planes are taken as g, r, z in one flux unit per pixel, as the Legacy
    Surveys deliver them; so are three HDUs of one plane each and of the same size, without names or named after their
    bands (``EXTNAME``, ``BAND`` or ``FILTER``; then they may be in any order). Two axes make a grey image, treated as
    r. They become a picture as those of Galaxy Zoo DECaLS
    (:func:`zoobook.images.decals.colour`), whatever their unit: sky and noise are the median and its absolute deviation
    in a frame along the edges, a tenth of the side wide, and the planes are scaled so that their noise is on average
    that of the DECaLS survey at the same size of pixel, which comes from the header (if it has none: the survey's own).
    Without any noise, the brightest pixel becomes nearly white. NaN counts as sky, as do whole numbers that the header
    declares undefined (``BLANK``). The lowest row of a FITS image is its first, so rows are turned round.

    Args:
        path: the file.
        max_blank: share of the image that may be NaN, or in rows or columns of one single value.

    Returns:
        ndarray: [H, W, 3] uint8, red first.

    Raises:
        BadImage: the file is missing, empty, truncated or no image; its shorter side is under 8 pixels, or it has more
            than 100 million; it is CMYK; more of it is blank than ``max_blank``; it is FITS and a whole plane is NaN,
            or all pixels have the same value.
    """
    path = arguments.path(path)
    try:
        with open(path, "rb") as file:
            begin = file.read(12)
            if not begin:
                raise Unusable("the file is empty (0 bytes)")
            file.seek(0)
            fits = FITS_NAME.search(path.name) or begin.startswith(b"SIMPLE  =")
            image = _decode_fits(file, begin, max_blank) if fits else _decode(file, begin)
        blank = _blank_share(image)
        if blank > max_blank:
            raise Unusable(f"{blank:.0%} of it is blank (rows or columns of one single value; max_blank={max_blank})")
        return image
    except FileNotFoundError:
        cause = "the file is missing"
    except OSError as error:
        cause = f"the file cannot be read ({error.strerror or error})"
    except Unusable as error:
        cause = str(error)
    raise BadImage(f"{path}: {cause}", cause)


def _decode(file: BinaryIO, begin: bytes) -> np.ndarray:
    """Decode what Pillow can; see :func:`read_image`."""
    try:
        image = Image.open(file)
    except Image.DecompressionBombError:
        raise Unusable(f"it claims to have more than {LARGEST:,} pixels") from None
    except Exception:  # UnidentifiedImageError, and whatever a broken header makes a decoder raise
        raise Unusable(f"it is no image file, or its beginning is damaged (it begins with {begin!r})") from None
    _check_shape(image.height, image.width)
    if image.mode == "CMYK":
        raise Unusable("it is a CMYK image, made for printing; save it as RGB")
    try:
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error …
        raise Unusable(f"it is truncated or damaged ({str(error) or type(error).__name__})") from None
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64)
        if grey.min() < 0 or grey.max() > 65535:
            raise Unusable("its pixels are 32-bit numbers without a stated range; save it as 8 or 16 bit, or as FITS")
        return _grey(np.round(grey / 257).astype(np.uint8))
    if image.mode == "F":
        raise Unusable("its pixels are floating-point numbers without a stated range; save it as FITS")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("RGB"))


def _decode_fits(file: BinaryIO, begin: bytes, max_blank: float) -> np.ndarray:
    """Decode and stretch a FITS image; see :func:`read_image`."""
    from astropy.io import fits

    if not begin.startswith((b"SIMPLE", b"\x1f\x8b")):
        raise Unusable(f"it is not a FITS file (it begins with {begin!r})")
    try:
        with fits.open(file, memmap=False, do_not_scale_image_data=True) as hdus:
            chosen = image_hdus(hdus)
            _check_shape(*chosen[0].shape[-2:])
            planes = np.concatenate([_planes(hdu) for hdu in chosen])
            pixel = _pixel_arcsec(chosen[0].header)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"it is not a whole FITS file ({(str(error) or repr(error)).splitlines()[0]})") from None
    return stretch(planes, pixel, max_blank)[::-1].copy()


def stretch(planes: np.ndarray, pixel: float, max_blank: float, unit: float | None = None) -> np.ndarray:
    """The colour picture of one plane (as r) or three (g, r, z), as :func:`read_image` makes it.

    Args:
        planes: float64 [1 or 3, H, W] in one flux unit per pixel, NaN where nothing was observed; is changed.
        pixel: side of a pixel [arcsec].
        max_blank: share of the pixels that may be NaN or infinite.
        unit: of the planes, for one nanomaggie per native pixel; by default told from the noise.

    Returns:
        ndarray: uint8 [H, W, 3].
    """
    blank = ~np.isfinite(planes)
    if blank.mean() > max_blank:
        raise Unusable(f"{blank.mean():.0%} of its pixels are blank (NaN or infinite; max_blank={max_blank})")
    edge = min(planes.shape[1:]) // 10 + 1
    frame = np.ones(planes.shape[1:], dtype=bool)
    frame[edge:-edge, edge:-edge] = False
    deviations = []
    for plane, gaps in zip(planes, blank, strict=True):
        if gaps.all():
            raise Unusable("one of its planes is blank (NaN or infinite)")
        sky = plane[frame & ~gaps] if (frame & ~gaps).any() else plane[~gaps]
        plane -= np.median(sky)
        deviations.append(1.4826 * np.median(np.abs(sky - np.median(sky))))
        plane[gaps] = 0
    if not planes.any():
        raise Unusable("it is blank: all pixels have the same value")
    usual = SKY_NOISE * min(1, NATIVE_ARCSEC / pixel)  # smaller pixels are interpolated, which does not add noise
    units = deviations / (usual if len(planes) == 3 else usual[1])  # of the file, per nanomaggie
    units = units[units > 0]
    scales = SCALES[::-1, None, None]
    if unit is None:
        unit = units.mean() if len(units) else np.abs(planes / scales).max() / 250  # then the peak is nearly white
    if len(planes) == 1:
        planes = planes * scales / scales[1]
    light = np.clip(planes / unit, -1e30, 1e30).astype(np.float32)  # gaps may be marked by huge numbers
    return colour(light)


def image_hdus(hdus) -> list:
    """The HDU with the image, or the three with its colours, once it is clear that they can be shown."""
    images = [hdu for hdu in hdus if hdu.is_image and len(hdu.shape) >= 2]
    if not images:
        raise Unusable("it is a FITS file without an image")
    first = images[0]
    planes = [n for n in first.shape[:-2] if n > 1]
    if planes not in ([], [3]):
        shape = (*planes, *first.shape[-2:])
        raise Unusable(f"its image has the shape {shape}; one plane, or three (g, r, z), can be shown")
    alike = [hdu for hdu in images if hdu.shape == first.shape]
    bands = {band_of(hdu.header): hdu for hdu in alike}
    if planes or len(alike) < 3:
        return [first]
    if {"g", "r", "z"} <= bands.keys():
        return [bands[band] for band in "grz"]
    if len(alike) == 3 and len(bands) == 3 and bands.keys() <= set(_BANDS):
        return [bands[band] for band in _BANDS if band in bands]
    return alike if len(alike) == len(images) == 3 and bands.keys() == {""} else [first]


def band_of(header) -> str:
    """The band that an HDU names: a letter, empty where it has no name at all."""
    name = next((str(header[key]) for key in ("BAND", "FILTER", "EXTNAME") if str(header.get(key, "")).strip()), "")
    words = re.findall("[a-z0-9]+", name.lower())
    return next((word for word in words if len(word) == 1 and word in _BANDS), name)


def _planes(hdu) -> np.ndarray:
    """Float64 [planes, H, W], NaN where a pixel is undefined.

    Astropy would not see the undefined ones among unsigned whole numbers, which FITS stores with an offset.
    """
    header, stored = hdu.header, hdu.data
    scale, zero, undefined = header.get("BSCALE", 1), header.get("BZERO", 0), header.get("BLANK", header.get("ZBLANK"))
    planes = stored.astype(np.float64) * scale + zero
    if stored.dtype.kind in "iu" and undefined is not None:
        planes[stored == undefined] = np.nan
    return planes.reshape(-1, *planes.shape[-2:])


def _pixel_arcsec(header) -> float:
    """Side of a pixel by the header's sky coordinates; without sensible ones, that of the DECaLS camera."""
    from astropy.wcs import WCSSUB_CELESTIAL, Wcsprm

    try:  # not `WCS`, whose warnings about odd headers cannot be silenced in one thread alone
        sky = Wcsprm(header=header.tostring(endcard=False, padding=False).encode()).sub([WCSSUB_CELESTIAL])
        sky.set()
        sides = 3600 * np.linalg.norm(np.diag(sky.get_cdelt()) @ sky.get_pc(), axis=0)
    except Exception:  # what astropy raises for odd headers has no common class
        return NATIVE_ARCSEC
    sensible = len(sides) == 2 and 1e-3 < sides.mean() < 60  # a header without scale means one degree
    return float(sides.mean()) if sensible else NATIVE_ARCSEC


def _grey(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _check_shape(height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise Unusable(f"it is too small: {width} × {height} pixels, where {SMALLEST} is the least")
    if height * width > LARGEST:
        raise Unusable(f"it is too large: {width} × {height} pixels, where {LARGEST:,} in all is the most")


def _blank_share(image: np.ndarray) -> float:
    """Share of the pixels that lie in whole rows or columns of one single value, as beyond a survey's edge."""
    flat = image.reshape(len(image), -1)  # comparing long runs of bytes is ten times faster than pixel by pixel
    rows = (flat[:, 3:] == flat[:, :-3]).all(axis=1)
    columns = (flat[1:] == flat[:-1]).all(axis=0).reshape(-1, 3).all(axis=1)
    if rows.any() or columns.any():
        values, counts = np.unique(np.concatenate([image[rows, 0], image[0, columns]]), axis=0, return_counts=True)
        value = values[np.argmax(counts)]  # of them, those of the commonest value: a ramp is not blank
        rows, columns = rows & (image[:, 0] == value).all(axis=1), columns & (image[0] == value).all(axis=1)
    return 1 - (1 - rows.mean()) * (1 - columns.mean())
