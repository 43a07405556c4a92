"""FITS images as pictures: which extension and bands, undefined pixels, gaps filled with sky, the stretch."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from zoobook.catalogs.fits_votable import FITS_NAME
from zoobook.files import unpacked
from zoobook.images.checks import Unusable, check_shape, find_gaps
from zoobook.images.decals import NATIVE_ARCSEC, SCALES, SKY_NOISE, colour

BANDS = tuple("ugrizy")  # in the order of their wavelengths
ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "PHOTZP", "ZEROPNT", "ZEROPOINT", "ZP")
_SAID_TOGETHER = (  # of which an extension inherits nothing if it says any of them: its place on the sky, its unit
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)\d|(CD|PC|PV|PS)\d+_\d+|[AB]P?_\w+|LONPOLE|LATPOLE|RADESYS|EQUINOX",
    "|".join((*ZERO_POINT_KEYS, "BUNIT")),
)
NO_LIGHT = re.compile(  # the names of what comes with an image: its weights, noise, masks, models
    "((image|data|objects?|nan|zero|cr)?(masks?(bits)?|quality|(inv|i)?var(iance)?(poisson)?|err(or)?s?|"
    "we?i?gh?ts?(image)?)|(we?i?gh?t|wht|wei|wt|err(or)?|rms|sigma|exp(osure)?)s?map|wht|wei|ivm|sigma|invsig|stat|rms|"
    "std(d?ev)?|noise|unc(ert(ainty)?)?|msk|bpm|badpix(els?)?|dq|flags?|expo?time|exposure|nexp|nimage|n?samp|"
    "cov(erage|ariance)?|depth|psf(model)?|seg(m(entation)?)?|sky|bkg|background|model|resid(ual)?s?|snr|chi2?|con|ctx)+"
)


def is_fits(file: Path, begin: bytes) -> bool:
    """Whether a file is one of FITS, by its name or its first bytes."""
    return bool(FITS_NAME.search(file.name)) or begin.startswith(b"SIMPLE  =")


@contextlib.contextmanager
def opened(file: Path | BinaryIO, unpack: Callable = contextlib.nullcontext, **how) -> Iterator:
    """An open FITS file, its numbers as they are stored; it is Unusable if it is not whole."""
    from astropy.io import fits

    try:
        with unpack(file) as whole, fits.open(whole, do_not_scale_image_data=True, **how) as hdus:
            yield hdus
    except (Unusable, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # what astropy raises for damaged files has no common class
        raise Unusable(f"it is not a whole FITS file ({(str(error) or repr(error)).splitlines()[0]})") from None


def decode_fits(file: BinaryIO, begin: bytes, max_blank: float) -> np.ndarray:
    """Decode and stretch an open FITS file, of which ``begin`` holds the first bytes; see ``read_image``."""
    if not begin.startswith((b"SIMPLE", b"\x1f\x8b")):
        raise Unusable(f"it is not a FITS file (it begins with {begin!r})")
    with opened(file, unpacked, memmap=False) as hdus:
        chosen = image_hdus(hdus)
        check_shape(*chosen[0].shape[-2:])
        planes = np.concatenate([physical(hdu.header, hdu.data) for hdu in chosen])
        pixel = pixel_arcsec(chosen[0].header)
    for plane in planes:
        plane[find_gaps(plane)] = np.nan
    return stretch(planes, pixel if np.isfinite(pixel) else NATIVE_ARCSEC, max_blank)[::-1].copy()


def stretch(planes: np.ndarray, pixel: float, max_blank: float, unit: float | None = None) -> np.ndarray:
    """The colour picture, uint8 [H, W, 3], of one plane (as r) or three (g, r, z), as that of Galaxy Zoo DECaLS.

    Args:
        planes: float64 [1 or 3, H, W] in one flux unit per pixel, NaN where nothing was observed; is changed.
        pixel: side of a pixel [arcsec].
        max_blank: see :func:`fill_gaps`.
        unit: of the planes, for one nanomaggie per native pixel; by default told from the noise.
    """
    noise = fill_gaps(planes, max_blank)
    usual = SKY_NOISE * min(1, NATIVE_ARCSEC / pixel)  # smaller pixels are interpolated, which does not add noise
    scales = SCALES[::-1, None, None]
    if unit is None:
        units = noise / (usual if len(planes) == 3 else usual[1])  # of the file, per nanomaggie
        units = units[units > 0]
        unit = units.mean() if len(units) else np.abs(planes / scales).max() / 250  # then the peak is nearly white
    if len(planes) == 1:
        planes = planes * scales / scales[1]
    light = np.clip(planes / unit, -1e30, 1e30).astype(np.float32)
    return colour(light)


def fill_gaps(planes: np.ndarray, max_blank: float) -> np.ndarray:
    """Take off the sky, in place, and fill gaps with it: both become 0. Gives back the noise of each plane, [P].

    Sky and noise are the median, and the absolute deviation from it, in a frame along the edges. Of the planes, float64
    [P, H, W], a share of ``max_blank`` may be NaN or infinite.
    """
    blank = ~np.isfinite(planes)
    if blank.mean() > max_blank:
        raise Unusable(f"{blank.mean():.0%} of its pixels are blank (NaN, infinite, or a value that stands for none; "
                       f"max_blank={max_blank})")  # fmt: skip
    edge = min(planes.shape[1:]) // 10 + 1
    frame = np.ones(planes.shape[1:], dtype=bool)
    frame[edge:-edge, edge:-edge] = False
    noise = []
    for plane, gaps in zip(planes, blank, strict=True):
        if gaps.all():
            raise Unusable("one of its planes is blank (NaN or infinite)")
        sky = plane[frame & ~gaps] if (frame & ~gaps).any() else plane[~gaps]
        plane -= np.median(sky)
        noise.append(1.4826 * np.median(np.abs(sky - np.median(sky))))
        plane[gaps] = 0
    if not planes.any():
        raise Unusable("it is blank: all pixels have the same value")
    return np.array(noise)


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds pixels in two dimensions at least."""
    return hdu.is_image and len(hdu.shape) >= 2


def image_hdus(hdus: list) -> list:
    """The HDU of an open file with the image, or the three with its colours, if they can be shown.

    Headers with ``INHERIT = T`` get what the primary one says of all images.
    """
    images = [hdu for hdu in hdus if is_image(hdu)]
    for hdu in images:
        if hdu is not hdus[0] and hdu.header.get("INHERIT") is True:
            _inherit(hdu.header, hdus[0].header.copy(strip=True))
    if not images:
        raise Unusable("it is a FITS file without an image")
    images = [hdu for hdu in images if not _is_no_light(hdu.name)] or images
    first = next((hdu for hdu in images if hdu.name in ("SCI", "IMAGE")), images[0])
    planes = [n for n in first.shape[:-2] if n > 1]
    if planes not in ([], [3]):
        shape = (*planes, *first.shape[-2:])
        raise Unusable(f"its image has the shape {shape}; one plane, or three (g, r, z), can be shown")
    alike = [hdu for hdu in images if hdu.shape == first.shape]
    bands = {band_of(hdu.header): hdu for hdu in reversed(alike)}  # the first of each
    if planes or len(alike) < 3:
        return [first]
    if {"g", "r", "z"} <= bands.keys():
        return [bands[band] for band in "grz"]
    if len(alike) == 3 and len(bands) == 3 and bands.keys() <= set(BANDS):
        return [bands[band] for band in BANDS if band in bands]
    one_kind = len({hdu.header["BITPIX"] for hdu in alike}) == 1  # or else they are an image, its weights and its mask
    return alike if len(alike) == len(images) == 3 and bands.keys() == {""} and one_kind else [first]


def _inherit(own: Any, common: Any) -> None:
    """Give a header what the ``common`` one says, and what it does not say itself, in those words or in others."""
    said = ["EXTNAME|BLANK", *(["BAND|FILTER"] if band_of(own) in BANDS else [])]
    said += [together for together in _SAID_TOGETHER if any(re.fullmatch(together, keyword) for keyword in own)]
    own.extend([card for card in common.cards if not any(re.fullmatch(one, card.keyword) for one in said)], unique=True)


def band_of(header: Mapping) -> str:
    """The band that a FITS header names: a letter, empty where it has no name at all."""
    names = (str(header.get(key) or "") for key in ("BAND", "FILTER", "EXTNAME"))  # None: a card without a value
    name = next((name for name in names if name.strip()), "")
    return next((word for word in _words(name) if word in BANDS), name)


def _is_no_light(name: str) -> bool:
    """Whether a name says of what is with an image, and of nothing else but its band, such as ``INVVAR_G``."""
    words = [word for word in _words(name) if word not in (*BANDS, "map") and not word.isdigit()]
    return bool(NO_LIGHT.fullmatch("".join(words)))


def _words(name: str) -> list[str]:
    return re.findall("[a-z0-9]+", name.lower())


def physical(header: Mapping, stored: np.ndarray) -> np.ndarray:
    """Float64 [planes, H, W], NaN where a pixel is undefined: Astropy does not see it among unsigned numbers."""
    scale, zero, undefined = header.get("BSCALE", 1), header.get("BZERO", 0), header.get("BLANK", header.get("ZBLANK"))
    try:
        scale, zero = float(scale), float(zero)  # some write '1.0'
    except (TypeError, ValueError):
        raise Unusable(f"its header has BSCALE = {scale!r} and BZERO = {zero!r}, where numbers must stand") from None
    if stored.dtype.kind == "i" and (scale, zero) == (1, 2**63):  # unsigned: more digits than a float has to add it
        planes = (stored.astype(np.int64).view(np.uint64) ^ np.uint64(2**63)).astype(np.float64)
    else:
        planes = stored.astype(np.float64) * scale + zero
    if stored.dtype.kind in "iu" and undefined is not None:
        planes[stored == pd.to_numeric(undefined, errors="coerce")] = np.nan
    return planes.reshape(-1, *planes.shape[-2:])


def pixel_arcsec(header: Any) -> float:
    """Side of a pixel by the header's sky coordinates; without sensible ones, NaN."""
    from astropy.wcs import WCSSUB_CELESTIAL, Wcsprm

    try:  # not `WCS`, whose warnings about odd headers cannot be silenced in one thread alone
        sky = Wcsprm(header=header.tostring(endcard=False, padding=False).encode()).sub([WCSSUB_CELESTIAL])
        sky.set()
        sides = 3600 * np.linalg.norm(np.diag(sky.get_cdelt()) @ sky.get_pc(), axis=0)
    except Exception:  # what astropy raises for odd headers has no common class
        return np.nan
    sensible = len(sides) == 2 and 1e-3 < sides.mean() < 60  # a header without scale means one degree
    return float(sides.mean()) if sensible else np.nan
