"""Decoding of single image files: JPEG, PNG and FITS, each to 8-bit RGB, or a plain word on what is wrong with it."""

import contextlib
import os
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from zoobook import arguments
from zoobook.images.checks import LARGEST, MOST_BLANK, Unusable, blank_share, check_shape, naming
from zoobook.images.fits import decode_fits, is_fits

_BITS, _COMPRESSION, _WHITE_OR_BLACK, _PLANES = 258, 259, 262, 284  # tags of TIFF: in the third, 0 is white


def read_image(path: str | os.PathLike, max_blank: float = MOST_BLANK) -> np.ndarray:
    """Decode one image file.

    JPEG, PNG and whatever else Pillow reads: grey is repeated in three channels, 16-bit values are scaled to 8 bits
    (65535 becomes 255; a warning says where they use no more than 12 of the bits), a palette is looked up, transparent
    pixels are laid over black, as the sky is, and an image whose EXIF notes say that it is turned is put upright.

    FITS: the first HDU with an image. Three planes are taken as g, r, z in one flux unit per pixel, as the Legacy
    Surveys deliver them; so are three HDUs of one plane each and of the same size, without names or named after their
    bands (``EXTNAME``, ``BAND`` or ``FILTER``; then in any order). Two axes make a grey image, treated as r. They
    become a picture as those of Galaxy Zoo DECaLS (:func:`zoobook.images.decals.colour`), whatever their unit: sky and
    noise are the median and its absolute deviation in a frame along the edges, a tenth of the side wide, and the planes
    are scaled so that their noise is on average that of the survey at the same size of pixel, which comes from the
    header (if it has none: the survey's own). Without any noise, the brightest pixel becomes nearly white. NaN counts
    as sky, as does what stands for no observation: whole numbers that the header declares undefined (``BLANK``), all
    beyond 1e25, -999, -9999, -32768 … far below all others, a value far below all others (or beyond 1e20) that many
    pixels have, and exact zeros amid noise. HDUs named after weights, noise, masks or models are left out. The lowest
    row of a FITS image is its first, so rows are turned round.

    Args:
        path: the file.
        max_blank: share of the image that may be NaN, or in rows or columns of one single value.

    Returns:
        ndarray: [H, W, 3] uint8, red first.

    Raises:
        BadImage: the file is missing, empty, truncated or no image; its shorter side is under 8 pixels, or it has more
            than 100 million; it is CMYK, animated or of several pages; more of it is blank than ``max_blank``; it is
            FITS and a whole plane is NaN, or all pixels have the same value.
    """
    path, max_blank = arguments.path(path), arguments.share("max_blank", max_blank)
    with naming(path):
        with open(path, "rb") as file:
            begin = file.read(12)
            if not begin:
                raise Unusable("the file is empty (0 bytes)")
            file.seek(0)
            image = decode_fits(file, begin, max_blank) if is_fits(path, begin) else _decode(file, begin)
        blank = blank_share(image)
        if blank > max_blank:
            raise Unusable(f"{blank:.0%} of it is blank (rows or columns of one single value; max_blank={max_blank})")
    return image


def _decode(file: BinaryIO, begin: bytes) -> np.ndarray:
    """Decode what Pillow can; see :func:`read_image`."""
    try:
        image = Image.open(file)
    except Image.DecompressionBombError:
        raise Unusable(f"it claims to have more than {LARGEST:,} pixels") from None
    except Exception:  # UnidentifiedImageError, and whatever a broken header makes a decoder raise
        raise Unusable(f"it is no image file, or its beginning is damaged (it begins with {begin!r})") from None
    if isinstance(image, ImageFile.StubImageFile):  # HDF5, GRIB …, which Pillow knows by name alone
        raise Unusable(f"it is {image.format}, which holds no picture")
    check_shape(image.height, image.width)
    if image.mode == "CMYK":
        raise Unusable("it is a CMYK image, made for printing; save it as RGB")
    try:
        frames, format, tags = getattr(image, "n_frames", 1), image.format, getattr(image, "tag_v2", {})
        raw = str([tile[3] for tile in getattr(image, "tile", ())])  # how its pixels are written, such as "I;16B"
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error …
        raise Unusable(f"it is truncated or damaged ({str(error) or type(error).__name__})") from None
    with contextlib.suppress(Exception):  # notes that are damaged say nothing
        image = ImageOps.exif_transpose(image)  # upright, as it is shown by everything else
    if frames > 1 and format != "MPO":  # which holds its small preview too
        raise Unusable(f"it has {frames} frames or pages; save the one that is meant by itself")
    if image.mode == "I" and format not in ("PNG", "PPM"):  # in which older versions of Pillow have 16 bits so
        raise Unusable("its pixels are 32-bit numbers without a stated range; save it as 8 or 16 bit, or as FITS")
    sixteen = ";16" in raw
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey, most = np.asarray(image).astype(np.float64), 4095 if ";12" in raw else 65535
        grey[grey == image.info.get("transparency")] = 0
        grey = most - grey if tags.get(_WHITE_OR_BLACK) == 0 else grey
        return _told(np.repeat(np.round(grey * (255 / most)).astype(np.uint8)[:, :, None], 3, axis=2), sixteen)
    if tags.get(_PLANES) == 2 and tags.get(_COMPRESSION, 1) == 1 and np.max(tags.get(_BITS, 8)) == 16:
        raise Unusable("its 16-bit colours are written one after the other, which Pillow misreads; save it compressed")
    if image.mode == "F":
        raise Unusable("its pixels are floating-point numbers without a stated range; save it as FITS")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return _told(np.asarray(image.convert("RGB")), sixteen)


def _told(image: np.ndarray, sixteen: bool) -> np.ndarray:
    """An image, uint8 [H, W, 3], with a warning where it had ``sixteen`` bits, of which it used 12 at most."""
    if sixteen and image.max() <= 16:
        warnings.warn("a 16-bit image has no value above 4095 of 65535, so it is almost black. If it holds 10 or 12 "
                      "bits, as cameras write them, multiply its values by 64 or 16", stacklevel=3)  # fmt: skip
    return image
