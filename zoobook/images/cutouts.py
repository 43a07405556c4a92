"""Sources and stamps from a mosaic: what is in a picture of the sky, how large it is, and stamps framed to its size.

Needs the extra ``sky`` (sep, the library of SExtractor) to find and measure; to cut at known radii nothing more.
"""
from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from zoobook import arguments
from zoobook.catalogs.columns import check_ids, listed, numbers
from zoobook.files import check_room, ensure_writable_dir, fingerprint, replacing, state
from zoobook.images.checks import MOST_BLANK, SMALLEST, BadImage, Unusable
from zoobook.images.decals import DECALS_FRAMING, NATIVE_ARCSEC
from zoobook.images.fits import stretch
from zoobook.images.mosaics import Mosaic, around, check_mosaic, each_section, unseen_bands
from zoobook.images.sources import find_sources, measure_sources, petrosian
from zoobook.images.store import ImageStore
from zoobook.images.store_file import PIXELS_AT, complete, store_path

__all__ = ["Mosaic", "cut_stamps", "find_sources", "frame_arcsec", "measure_sources", "petrosian", "picture",
           "save_stamps"]  # fmt: skip

STAMP_PIXELS = 424  # of a GZ DECaLS stamp, each max(min(0.04 R50, 0.02 R90), 0.1) arcsec (Walmsley et al. 2022)
WIDEST = 10_000  # [pixels of the mosaic] side of a stamp, at most
LONGEST = 220  # [bytes] name of a PNG file; that under which it is written has more, and 255 at most
LARGEST = 1024  # [pixels] side of the stamps that are cut from a section in memory; larger ones are read one by one


def frame_arcsec(r50: np.ndarray, r90: np.ndarray | float = np.inf) -> np.ndarray:
    """Side of a stamp as GZ DECaLS made it: 424 pixels of max(min(0.04 R50, 0.02 R90), 0.1) arcsec, usually 17 R50.

    Args:
        r50: radius of half the Petrosian flux [arcsec].
        r90: that of 90 % of it [arcsec].

    >>> float(frame_arcsec(4.0, 12.0))
    67.84
    """
    return STAMP_PIXELS * np.maximum(np.fmin(0.04 * np.asarray(r50, float), 0.02 * np.asarray(r90, float)), 0.1)


def cut_stamps(
    mosaic: Mosaic,
    catalog: pd.DataFrame,
    path: str | os.PathLike,
    size: int = 128,
    bad: str = "error",
    factor: float = 1.0,
    max_blank: float = MOST_BLANK,
    workers: int | None = None,
) -> ImageStore:
    """Cut stamps framed and stretched as those that the networks of Galaxy Zoo DECaLS were trained on.

    The side follows the radii, see :func:`frame_arcsec` (without known size of a pixel: 17 R50). A mosaic with zero
    points is stretched as the survey was, others by their noise as :func:`~zoobook.images.read_image` does, and a
    picture keeps its own stretch. The sky is the median along the stamp's edges.

    Args:
        mosaic: the picture of the sky.
        catalog: ``id_str``; ``x`` and ``y`` or ``ra`` and ``dec``; ``r50_arcsec`` and, if known, ``r90_arcsec``
            (without known size of a pixel: ``r50_pixels``).
        path: the store, such as ``stamps.arrow``.
        size: side of the stored stamps in pixels.
        bad: a source that cannot be cut is an error (``"error"``), or is listed in the store's quarantine
            (``"quarantine"``).
        factor: cut so many times wider.
        max_blank: share of a stamp that may lie beyond the edge or be unobserved.
        workers: processes; all processor cores by default.

    Returns:
        ImageStore: the stamps, in the catalogue's order.

    Raises:
        BadImage: sources cannot be cut: outside, without radius or with an absurd one (of which a side would have less
            than 8 or more than 10,000 pixels of the mosaic), or mostly blank.
        ValueError: an argument or column makes no sense, or there are no sources.
    """
    check_mosaic(mosaic)
    bad, size = arguments.choice("bad", bad, ("error", "quarantine")), arguments.whole("size", size, SMALLEST)
    factor = arguments.real("factor", factor, lambda number: 0.01 <= number <= 50, "a number from 0.01 to 50")
    max_blank = arguments.share("max_blank", max_blank)
    ids, path = check_ids(catalog), store_path(path)
    if not len(ids):
        raise ValueError("the table has no sources, so there is nothing to cut")
    places = np.stack([*mosaic.pixels(catalog), factor * _sides(mosaic, catalog)], axis=1)
    files = [(str(file), *state(file)) for file in mosaic.files]
    brightness = (mosaic.units, mosaic.calibrated, mosaic.pixel_arcsec)  # that decides the stretch
    key = fingerprint("cutouts 4", files, brightness, ids.tolist(), places, factor, size, max_blank)
    store = ImageStore.finished(path, key)  # looked at without a lock: it may be in a read-only folder
    if store is None:
        ensure_writable_dir(path.parent)
        about = {"key": key, "size": size, "framing": factor * DECALS_FRAMING}
        with FileLock(path.with_name(f".{path.name}.lock")):  # against another process
            store = ImageStore.finished(path, key)  # which may just have cut the same
            if store is None:
                _cut(mosaic, ids, places, path, about, bad, max_blank, workers)
                store = ImageStore.open(path)
    _refuse(store.quarantine, len(ids), path, bad)
    return store


def save_stamps(store: ImageStore, folder: str | os.PathLike) -> pd.DataFrame:
    """Write the stamps of a store as PNG files, for other programs; returns ``id_str`` and ``file_loc`` of each."""
    folder = ensure_writable_dir(folder)
    files = [folder / (re.sub(r"[^-+.\w]", "_", name) + ".png") for name in store.ids]
    long = [name for name, file in zip(store.ids, files, strict=True) if len(os.fsencode(file.name)) > LONGEST]
    if long:
        raise ValueError(f"{len(long)} ids are too long for the name of a file, such as {long[0][:60]}…; rename them")
    if len(set(files)) < len(files):
        raise ValueError("some ids differ only in characters that cannot be in the name of a file; rename them")
    for file, pixels in zip(files, store.pixels, strict=True):
        with replacing(file) as part:
            Image.fromarray(pixels).save(part, "png")
    return pd.DataFrame({"id_str": store.ids, "file_loc": [str(file) for file in files]})


def _cut(mosaic, ids, places, path: Path, about: dict, bad: str, max_blank: float, workers: int | None) -> None:
    """Cut all stamps into a file, and make a store of it; see :func:`cut_stamps`."""
    shape, part = (len(ids), about["size"], about["size"], 3), path.with_name(f"{path.name}.cut.part")
    check_room(path.parent, int(np.prod(shape)), f"{len(ids)} stamps need", "another folder or a smaller size")
    try:
        pixels = np.memmap(part, np.uint8, "w+", PIXELS_AT, shape)
        outside = ~mosaic.contains(places[:, 0], places[:, 1])
        causes = dict.fromkeys(np.flatnonzero(outside), "its position is outside the mosaic")
        causes |= dict.fromkeys(np.flatnonzero(np.isnan(places[:, :2]).any(1)), "it has no position near the mosaic")
        causes |= dict.fromkeys(np.flatnonzero(~np.isfinite(places[:, 2])), "it has no radius (zero, negative or NaN)")
        for row in np.flatnonzero((places[:, 2] > WIDEST) | (places[:, 2] < SMALLEST)):
            limit = f"more than {WIDEST:,}" if places[row, 2] > WIDEST else f"less than {SMALLEST}"
            causes[row] = f"its radius asks for {places[row, 2]:.4g} pixels of the mosaic, {limit} across"
        good = np.setdiff1d(np.arange(len(ids)), list(causes))
        options = {"file": part, "shape": shape, "max_blank": max_blank}
        for found in each_section(mosaic, _cut_section, workers, "cutting stamps", places, good, **options):
            causes |= found
        rows = sorted(causes)
        why = [causes[row] for row in rows]
        left_out = pd.DataFrame({"id_str": ids[rows], "file_loc": str(mosaic.files[0]), "cause": why})
        _refuse(left_out, len(ids), path, bad)
        good = np.setdiff1d(np.arange(len(ids)), rows)
        for new, old in enumerate(good):  # moved up in place: memory does not grow with the stamps
            if new != old:
                pixels[new] = pixels[old]
        del pixels
        complete(part, path, ids[good], left_out, about)
    finally:
        part.unlink(missing_ok=True)


def _refuse(left_out: pd.DataFrame, total: int, path: Path, bad: str) -> None:
    if len(left_out) and (bad == "error" or len(left_out) == total):
        shown = "\n".join(f"  {row.id_str}: {row.cause}" for row in left_out.head(5).itertuples())
        raise BadImage(f"{len(left_out)} of {total} sources cannot be cut, such as\n{shown}\nDrop these rows, "
                                f"or leave them out of {path.name} with bad='quarantine'.")  # fmt: skip


def _sides(mosaic: Mosaic, catalog: pd.DataFrame) -> np.ndarray:
    """Sides of the stamps [pixels of the mosaic], NaN where a radius makes no sense."""
    known = np.isfinite(mosaic.pixel_arcsec)
    unit = "arcsec" if known else "pixels"
    if f"r50_{unit}" not in catalog:
        raise ValueError(f"the table has no column `r50_{unit}` with the half-light radii"
                         + (" (the mosaic does not tell the size of its pixels)" if not known else ""))  # fmt: skip
    r50 = numbers(catalog, f"r50_{unit}", "the table")
    r90 = numbers(catalog, f"r90_{unit}", "the table") if f"r90_{unit}" in catalog else np.full(len(r50), np.inf)
    sides = frame_arcsec(r50, r90) / mosaic.pixel_arcsec if known else STAMP_PIXELS * np.fmin(0.04 * r50, 0.02 * r90)
    return np.where((r50 > 0) & np.isfinite(r50) & ~(r90 <= 0), sides, np.nan)


def _cut_section(
    mosaic: Mosaic, core: tuple, places: np.ndarray, rows: np.ndarray, file: Path, shape: tuple, max_blank: float
) -> dict[int, str]:
    """Cut the stamps whose middle lies in a section into their rows of a file; returns why some cannot be."""
    pixels, causes = np.memmap(file, np.uint8, "r+", PIXELS_AT, shape), {}
    sides = places[:, 2]
    shared = sides <= LARGEST
    section = around(mosaic, core, int(sides[shared].max() / 2) + 3 if shared.any() else 0)
    corner = np.array((section[1].start, section[0].start))
    whole = mosaic.read(*section) if shared.any() else None
    for place, row, at_hand in zip(places, rows, shared, strict=True):
        size = int(np.ceil(place[2])) + 2
        left, top = np.floor(place[:2] + 0.5 - place[2] / 2).astype(int)
        window = mosaic.window(left, top, size, whole, corner) if at_hand else mosaic.window(left, top, size)
        try:
            seen = picture(mosaic, window, max_blank)
        except Unusable as error:
            causes[int(row)] = str(error)
            continue
        x, y = place[:2] + 0.5 - place[2] / 2 - (left, top)
        box = (x, y, x + place[2], y + place[2])
        stamp = Image.fromarray(seen).resize(shape[1:3], Image.Resampling.BILINEAR, box)
        pixels[row] = stamp if mosaic.picture is not None else np.asarray(stamp)[::-1]  # FITS: lowest row first
    return causes


def picture(mosaic: Mosaic, planes: np.ndarray, max_blank: float = 1.0) -> np.ndarray:
    """A section of a mosaic as one sees it on the stamps: in colour, stretched if it is not a picture already.

    Args:
        mosaic: where the section is from.
        planes: [bands, H, W] of :meth:`Mosaic.cutout` or :meth:`Mosaic.read`.
        max_blank: share that may be unobserved or beyond the edge.

    Returns:
        ndarray: uint8 [H, W, 3], the lowest row first (of a picture: the uppermost).

    Raises:
        zoobook.images.checks.Unusable: more than that is blank.
    """
    if np.ndim(planes) != 3 or len(planes) not in (1, 3):
        raise ValueError(f"planes must be [bands, H, W], as Mosaic.cutout gives them, not {list(np.shape(planes))}")
    max_blank = arguments.share("max_blank", max_blank)
    if mosaic.picture is None:
        if unseen := unseen_bands(mosaic, np.isfinite(planes).any(axis=(1, 2))):
            raise Unusable(f"nothing of it was observed in {listed(unseen)}")
        known = mosaic.pixel_arcsec if np.isfinite(mosaic.pixel_arcsec) else NATIVE_ARCSEC
        unit = (known / NATIVE_ARCSEC) ** 2 if mosaic.calibrated else None
        return stretch(planes.astype(np.float64), known, max_blank, unit)
    beyond = ~np.isfinite(planes[0])
    if beyond.mean() > max_blank:
        raise Unusable(f"{beyond.mean():.0%} of it lies beyond the picture (max_blank={max_blank})")
    planes = np.where(beyond, np.nanmedian(planes, axis=(1, 2), keepdims=True), planes)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)).astype(np.uint8)
