"""Sources on a mosaic: where they are, how large, and what speaks against them.

They are found by sep, the library of SExtractor (Bertin & Arnouts 1996; Barbary 2016).
"""
from __future__ import annotations

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs import check_ids
from zoobook.catalogs.columns import listed
from zoobook.images.checks import many_far_below
from zoobook.images.decals import ZERO_POINT
from zoobook.images.mosaics import Mosaic, around, check_mosaic, each_section, unseen_bands

MARGIN = 384  # pixels around a section, where large sources reach over
SKY_BOX = 256  # pixels of the boxes in which the sky is measured
OUTSKIRTS, MOST_HIDDEN = (15, 9, 5, 3, 1), 0.5  # [pixels] around sources no sky is measured; of the pixels, at most
MOST_TAKEN = 0.9  # share of the pixels that sources may cover, or that may have one value
RADII = 0.75 * 1.25 ** (np.arange(55) / 2)  # [pixels] of the curve of growth
ETA = 0.2  # brightness at the Petrosian radius over the mean within (Blanton et al. 2001)
REACH = 2.0  # largest Petrosian radius over that of the region above the threshold; beyond, it is the light of others
BRIGHT_SHARE, CLUMP_SHARE, CLUMP_WIDTH = 0.3, 0.05, 0.03  # to tell stars: of the sources; of those; of ln R50
POINT_LIKE, SMALL = 1.3, 1.6  # R50 over that of a star, up to which a source may be a star, or shows no shape
WINGS, SEEN = 1.4, 1.5  # R90 / R50 over that of a star, from which light has a galaxy's wings; seen so many R90 far out
IN_FRONT = 3.0  # the same for a star in front of a galaxy
FEWEST = 3.0  # [pixels] the same for shapes, where no stars are known
FLAT = (8, 2.8)  # pixels above 0.85 of the peak, at least; those above half of it, over them, at most: saturated
BLUR = 1.5  # [pixels] before peaks and saddles are compared
PROMINENCE = 2.0  # peak over the saddle towards a neighbour, up to which a source is a piece of that
SHARE = 0.05  # a neighbour of so much of a source's light blends with it
COLUMNS = ("flux", "magnitude", "r50_pixels", "r90_pixels", "petrosian_pixels", "r50_arcsec", "r90_arcsec",
           "petrosian_arcsec", "flag_edge", "flag_blend", "flag_small", "flag_star")  # fmt: skip


def petrosian(radii: np.ndarray, flux: np.ndarray, eta: float = ETA) -> np.ndarray:
    """Petrosian quantities of curves of growth (Petrosian 1976; as SDSS: Blanton et al. 2001, AJ 121, 2358).

    At the Petrosian radius the brightness in an annulus from 0.8 to 1.25 radii is ``eta`` of the mean within the
    radius; the Petrosian flux is that within two such radii.

    Args:
        radii: [K], each 1.25 ** 0.5 times the one before.
        flux: [N, K] light within them; NaN beyond where it was measured.
        eta: the ratio.

    Returns:
        ndarray: [N, 4] Petrosian radius, flux, R50 and R90 that hold 50 % and 90 % of it; NaN where the curve ends
        first.

    >>> radii = 1.25 ** (np.arange(40) / 2)
    >>> disk = 1 - (1 + radii / 10) * np.exp(-radii / 10)  # exponential, of scale length 10
    >>> petrosian(radii, disk[None]).round(1).tolist()
    [[35.5, 1.0, 16.7, 38.3]]
    """
    ratio = _brightness_ratio(radii, flux)
    logs, result = np.log(radii), np.full((len(flux), 4), np.nan)
    with np.errstate(all="ignore"):
        for i, below in enumerate(ratio < eta):
            at = int(np.argmax(below))
            if not below[at]:
                continue
            where = logs[2] if at == 0 else np.interp(eta, ratio[i, [at, at - 1]], logs[[at + 2, at + 1]])
            within = np.maximum.accumulate(np.maximum(flux[i], 1e-30 * np.nanmax(np.abs(flux[i]))))
            last = int(np.isfinite(within).sum())
            if where + np.log(2) > logs[last - 1]:
                continue
            grown = np.log(within[:last])
            total = np.interp(where + np.log(2), logs[:last], grown)
            halves = np.interp(total + np.log((0.5, 0.9)), grown, logs[:last])
            result[i] = np.exp([where, total, *halves])
    return result


def _brightness_ratio(radii: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Brightness from 0.8 to 1.25 of each radius but the outer two on either side, over the mean within it."""
    with np.errstate(all="ignore"):
        return (flux[:, 4:] - flux[:, :-4]) / ((1.25**2 - 0.8**2) * flux[:, 2:-2])


def find_sources(
    mosaic: Mosaic,
    threshold: float = 1.5,
    min_pixels: int = 10,
    max_magnitude: float | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Find what is on a mosaic, and measure it.

    Bands are added, weighted by their noise; sources are regions above the threshold, parted where they have several
    peaks (SExtractor's method, by sep) and joined again where these hardly rise above the saddle, as arms and knots do.
    Radii and flux are measured in circles on r (of one band: on that; of a picture: on the mean of the colours), light
    of other sources replaced by the mean at that distance.

    Args:
        mosaic: the picture of the sky.
        threshold: over the sky, in units of its noise.
        min_pixels: the least size of a source.
        max_magnitude: leave fainter ones out (of a mosaic with zero points).
        workers: processes; all processor cores by default.

    Returns:
        DataFrame: ``id_str`` (the mosaic's name and the position), ``x``, ``y`` [pixels from 0], ``ra``, ``dec`` [deg,
        NaN without sky coordinates], and what :func:`measure_sources` adds.

    Raises:
        ValueError: nothing was found, or the mosaic has no sky.
    """
    check_mosaic(mosaic)
    threshold, least = arguments.real("threshold", threshold), arguments.whole("min_pixels", min_pixels)
    if max_magnitude is not None:
        arguments.real("max_magnitude", max_magnitude, lambda number: True, "a magnitude")
        if not mosaic.calibrated:
            raise ValueError(f"{mosaic.name} has no zero point, so there are no magnitudes: leave out max_magnitude")
    parts = each_section(mosaic, _measure_section, workers, "finding sources", threshold=threshold, least=least)
    parts = [part for part in parts if len(part)]
    if not parts:
        seen = np.any(each_section(mosaic, _seen, workers, "looking for empty bands"), axis=0)
        if unseen := unseen_bands(mosaic, seen):
            raise ValueError(f"nothing was observed on {mosaic.name} in {listed(unseen)}, and sources are sought where "
                             "all bands were: give one of the others alone")  # fmt: skip
        raise ValueError(f"no sources found on {mosaic.name} above {threshold:g} times the noise of its sky, {least} "
                         "pixels or more. Is anything on it? A lower threshold finds more.")  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    table["flag_small"], table["flag_star"] = _like_stars(table, mosaic.picture is not None)
    if max_magnitude is not None:
        bright = table["magnitude"] <= max_magnitude
        if not bright.any():
            raise ValueError(f"of {len(table)} sources on {mosaic.name} none is brighter than max_magnitude="
                             f"{max_magnitude:g}; the brightest has {table['magnitude'].min():.2f}")  # fmt: skip
        table = table[bright].reset_index(drop=True)
    name = f"{mosaic.name}-" if mosaic.name else ""
    places = zip(table["x"].round().astype(int), table["y"].round().astype(int), strict=True)
    table.insert(0, "id_str", [f"{name}{x:05d}-{y:05d}" for x, y in places])
    table = table.drop_duplicates("id_str", ignore_index=True)
    table["ra"], table["dec"] = mosaic.sky(table["x"], table["y"])
    return table[["id_str", "x", "y", "ra", "dec", *COLUMNS]]


def measure_sources(
    mosaic: Mosaic,
    table: pd.DataFrame,
    outside: str = "error",
    threshold: float = 1.5,
    min_pixels: int = 10,
    workers: int | None = None,
) -> pd.DataFrame:
    """Measure sources at known positions.

    Args:
        mosaic: the picture of the sky.
        table: ``id_str``; ``x`` and ``y`` [pixels from 0], or ``ra`` and ``dec`` [deg].
        outside: positions outside the mosaic are an error (``"error"``) or left out (``"drop"``).
        threshold, min_pixels: see :func:`find_sources`; they decide what light belongs to other sources.
        workers: processes; all processor cores by default.

    Returns:
        DataFrame: the table with ``flux`` [nanomaggies, or the mosaic's unit] within two Petrosian radii, ``magnitude``
        [AB; NaN without zero point], ``r50_…``, ``r90_…`` (of that flux) and ``petrosian_…``, in ``…pixels`` and
        ``…arcsec``, NaN where they cannot be measured; ``flag_edge`` (the mosaic's edge or unobserved pixels lie
        within the Petrosian radius), ``flag_blend`` (another source does, or it is part of a larger one),
        ``flag_small`` (too small to show a shape), ``flag_star`` (a point, or saturated).

    Raises:
        ValueError: positions are outside, ids are bad, a column exists already, or the mosaic has no sky.
    """
    check_mosaic(mosaic)
    outside = arguments.choice("outside", outside, ("error", "drop"))
    threshold, least = arguments.real("threshold", threshold), arguments.whole("min_pixels", min_pixels)
    exist = [name for name in COLUMNS if name in table]
    if exist:
        raise ValueError(f"the table has a column `{exist[0]}` already, which would be overwritten: rename or drop it")
    ids = check_ids(table)
    if not len(ids):
        raise ValueError("the table has no sources, so there is nothing to measure")
    x, y = mosaic.pixels(table)
    inside, (height, width) = mosaic.contains(x, y), mosaic.shape
    if not inside.all() and (outside == "error" or not inside.any()):
        raise ValueError(f"{(~inside).sum()} of {len(table)} positions are outside the mosaic {mosaic.name} ({width} × "
                         f"{height} pixels), such as {ids[~inside][0]} at x = {x[~inside][0]:.1f}, "
                         f"y = {y[~inside][0]:.1f}; outside='drop' leaves them out")  # fmt: skip
    table, places = table[inside].reset_index(drop=True), np.stack([x, y], axis=1)[inside]
    rows = np.arange(len(places))
    parts = each_section(mosaic, _measure_section, workers, "measuring", places, rows, threshold=threshold, least=least)
    found = pd.concat(parts).sort_values("row", ignore_index=True)
    found["flag_small"], found["flag_star"] = _like_stars(found, mosaic.picture is not None)
    return pd.concat([table, found[list(COLUMNS)]], axis=1)


def _seen(mosaic: Mosaic, core: tuple, *_) -> np.ndarray:
    """Whether anything was observed of each band in a section."""
    return np.isfinite(mosaic.read(*around(mosaic, core, 0))).any(axis=(1, 2))


def _measure_section(mosaic: Mosaic, core: tuple, places, rows, threshold: float, least: int) -> pd.DataFrame:
    """Find the sources of a section, and measure those, or those at given places."""
    sep = _sep()
    section = around(mosaic, core, MARGIN)
    y0, x0 = section[0].start, section[1].start
    where = f"rows {y0} to {section[0].stop}, columns {x0} to {section[1].stop}"
    planes = mosaic.read(*section)
    if mosaic.picture is not None:
        planes = planes.mean(axis=0, keepdims=True)
    blank = ~np.isfinite(planes).all(axis=0)
    if np.count_nonzero(~blank) < least:  # nothing can be found or measured
        flags = {name: name == "flag_edge" for name in (*COLUMNS[-4:], "high", "half", "extent")}
        count = 0 if places is None else len(places)
        unknown = dict.fromkeys(("x", "y", *COLUMNS[:-4]), np.nan)
        return pd.DataFrame({"row": range(count) if places is None else rows} | unknown | flags, index=range(count))
    alike = [(plane[~blank] == np.median(plane[~blank])).mean() for plane in planes]
    if mosaic.picture is None and max(alike) > MOST_TAKEN:
        raise ValueError(f"{mosaic.name} has no sky whose noise could be measured in {where}: pixels are alike")
    for plane in planes:
        seen = plane[~blank]
        value = many_far_below(seen)
        if value is not None:
            raise ValueError(f"{(seen == value).mean():.0%} of the pixels of {mosaic.name} in {where} have the value "
                             f"{value:g}, far from all others. If that stands for no observation, write NaN there.")
    scale = 1.0
    if planes.dtype == np.float64:  # sep counts with the digits and the range of float32
        planes -= np.median(planes[:, ~blank], axis=1)[:, None, None]
        scale = np.abs(planes[:, ~blank]).max()
        planes = (planes / scale).astype(np.float32)
    planes[:, blank] = 0
    skies, noise = zip(*(_sky(sep, plane, blank) for plane in planes), strict=True)
    noise = np.array(noise)
    if mosaic.picture is not None:
        noise = np.maximum(noise, 1.0)  # dark pixels of a picture are often all black
    weights = noise**-2 / np.sum(noise**-2)
    light = np.zeros_like(planes[0])
    for weight, plane, sky in zip(weights, planes, skies, strict=True):
        light += np.float32(weight) * (plane - sky)
    objects, owner = _extract(sep, light, threshold * np.sum(noise**-2) ** -0.5, blank, least)
    high, half = _tops(light, owner, len(objects))
    del light
    taken = (owner > 0) & ~blank
    if taken.sum() > MOST_TAKEN * (~blank).sum():
        raise ValueError(f"{mosaic.name} has no sky: sources cover {taken.sum() / (~blank).sum():.0%} of the pixels in "
                         f"{where}. Measuring needs an image with sky around the sources.")  # fmt: skip
    band = mosaic.bands.index("r") if "r" in mosaic.bands else len(planes) // 2
    plane = planes[band]
    plane -= _sky(sep, plane, blank | _grown(taken, blank))[0]
    if places is None:
        at_home = (np.round(objects["y"]) + y0 >= core[0]) & (np.round(objects["y"]) + y0 < core[1])
        at_home &= (np.round(objects["x"]) + x0 >= core[2]) & (np.round(objects["x"]) + x0 < core[3])
        rows = np.flatnonzero(at_home)
        x, y, own = objects["x"][rows], objects["y"][rows], rows + 1
    else:
        x, y = places[:, 0] - x0, places[:, 1] - y0
        own = owner[np.round(y).astype(int), np.round(x).astype(int)]
        own = np.where(own == 0, len(objects) + 1, own)  # faint ones have light of no other source
    table = _measure(sep, mosaic, plane, scale, blank, objects, owner, x, y, own)
    return table.assign(row=rows, x=x + x0, y=y + y0, high=high[own], half=half[own])


def _sep():
    try:
        import sep
    except ImportError:
        raise ImportError("finding and measuring sources needs sep: pip install 'zoobook[sky]'") from None
    sep.set_extract_pixstack(10_000_000)
    sep.set_sub_object_limit(16_384)
    return sep


def _sky(sep, plane: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray | float, float]:
    """The sky, by place, and its noise; where no box has half of its pixels free, those of all free pixels at once."""
    free = plane[~hidden]
    step = min(np.diff(np.unique(free[:: len(free) // 100_000 + 1])), default=0)  # tiny, but of whole numbers
    # sep's histogram has many bins for a step: noise within it gives whole numbers a median between them.
    plane = plane + np.float32(step) * (np.random.default_rng(0).random(plane.shape, np.float32) - np.float32(0.5))
    sky = sep.Background(plane, mask=hidden, bw=SKY_BOX, bh=SKY_BOX)
    if (sky.globalback, sky.globalrms) != (0, 1):  # what sep says where it measured none
        return sky.back(), sky.globalrms
    sky = sep.Background(plane[~hidden][None], bw=len(free), bh=1)
    return sky.globalback, sky.globalrms


def _grown(taken: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """The sources with their faint outskirts; in a crowded sky with less of them, as sep needs half of a box free."""
    import cv2

    for width in OUTSKIRTS:
        grown = cv2.dilate(taken.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
        if grown[~blank].mean() < MOST_HIDDEN:
            break
    return grown


def _extract(sep, light: np.ndarray, level: float, blank: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions above a level (x, y, flux, npix), and to which of them each pixel belongs (from 1; 0: to none)."""
    near = np.hypot(*np.mgrid[-2:3, -2:3])
    kernel = np.exp(-0.5 * (near * 2.355 / 3) ** 2)  # three pixels wide: knots and noise do not part a galaxy
    how = {"mask": blank, "minarea": least, "filter_kernel": kernel}
    try:
        objects, owner = sep.extract(light, level, segmentation_map=True, **how)
    except Exception as error:  # sep's own errors have no common class
        raise ValueError(f"too much on the mosaic is above the threshold to be parted ({error}): raise it") from None
    whole = _join_pieces(light, owner, objects["flux"])
    parts = pd.DataFrame({name: objects[name].astype(float) for name in ("x", "y", "flux", "npix")})
    sums = parts.groupby(whole).sum()
    main = parts["flux"].groupby(whole).idxmax()
    sums[["x", "y"]] = parts.loc[main, ["x", "y"]].to_numpy()
    return sums.to_records(index=False), np.append(0, whole + 1).astype(np.int32)[owner]


def _join_pieces(light: np.ndarray, owner: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Join what hardly rises above the saddle towards a brighter neighbour, as arms and knots do: [N] new numbers."""
    import cv2
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    smooth, count = cv2.GaussianBlur(light, (0, 0), BLUR), len(flux)
    pairs = []
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        at = (owner[one] != owner[other]) & (owner[one] > 0) & (owner[other] > 0)
        height = np.minimum(smooth[one][at], smooth[other][at])
        pairs += [(owner[one][at], owner[other][at], height), (owner[other][at], owner[one][at], height)]
    source, neighbour, height = (np.concatenate(part) for part in zip(*pairs, strict=True))
    order = np.lexsort((height, source))
    last = order[np.diff(source[order], append=0) != 0]  # the highest saddle of each
    low = _peaks(smooth, owner, count)[source[last]] < PROMINENCE * height[last]
    low &= flux[source[last] - 1] < flux[neighbour[last] - 1]  # not a faint galaxy to the bright star in front of it
    links = coo_array((np.ones(low.sum()), (source[last][low], neighbour[last][low])), shape=(count + 1, count + 1))
    return np.unique(connected_components(links, directed=False)[1][1:], return_inverse=True)[1]


def _peaks(light: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Brightest pixel of each source, [count + 1]; of none: 0."""
    peaks, at = np.zeros(count + 1, np.float32), owner > 0
    np.maximum.at(peaks, owner[at], light[at])
    return peaks


def _measure(sep, mosaic, plane, scale, blank, objects, owner, x, y, own) -> pd.DataFrame:
    """Radii, flux and flags of sources at x, y [pixels of the section]."""
    extent = np.append(np.sqrt(objects["npix"] / np.pi), np.nan)[np.minimum(own - 1, len(objects))]
    sizes = petrosian(RADII, _growth(sep, plane, blank, owner, x, y, own))
    sizes[sizes[:, 0] > REACH * extent] = np.nan
    radius, flux, r50, r90 = sizes.T
    flux = scale * flux
    reach = np.nan_to_num(radius, nan=1.0)
    unseen = np.pad(blank.astype(np.float32), 1, constant_values=1)
    magnitude = ZERO_POINT - 2.5 * np.log10(flux) if mosaic.calibrated else np.full(len(flux), np.nan)
    table = {"flux": flux, "magnitude": magnitude}
    for name, pixels in (("r50", r50), ("r90", r90), ("petrosian", radius)):
        table |= {f"{name}_pixels": pixels, f"{name}_arcsec": pixels * mosaic.pixel_arcsec}
    table["flag_edge"] = sep.sum_circle(unseen, x + 1, y + 1, reach)[0] > 0
    table["flag_blend"] = _blended(objects, x, y, own, reach)
    return pd.DataFrame(table | {"extent": extent})


def _growth(sep, plane, blank, owner, x, y, own) -> np.ndarray:
    """Curves of growth, as far as each source needs: [N, K] light within RADII, NaN beyond."""
    total, growth = np.zeros(len(x)), np.full((len(x), len(RADII)), np.nan)
    last = np.full(len(x), len(RADII) - 1)
    for k, radius in enumerate(RADII[RADII < MARGIN]):
        on = np.flatnonzero(last >= k)
        if not len(on):
            break
        how = {"mask": blank, "segmap": owner, "seg_id": own[on], "subpix": 5 if radius < 20 else 1}
        light = sep.sum_circann(plane, x[on], y[on], RADII[k - 1] if k else 0, radius, **how)[0]
        total[on] += np.nan_to_num(light, posinf=0, neginf=0)  # of a ring that others hide altogether, nothing is known
        growth[on, k] = total[on]
        if k >= 4:
            below = _brightness_ratio(RADII[k - 4 : k + 1], growth[on, k - 4 : k + 1])[:, 0] < ETA
            last[on[below]] = np.minimum(last[on[below]], k + 6)  # two Petrosian radii are seven steps further than one
    return growth


def _blended(objects, x, y, own, reach) -> np.ndarray:
    """Whether another source lies within reach, not much fainter, or the source lies within a brighter one."""
    blended = np.zeros(len(x), bool)
    if not len(objects):
        return blended
    from scipy.spatial import cKDTree

    flux = np.append(objects["flux"], 0)[np.minimum(own - 1, len(objects))]
    everything, asked = cKDTree(np.stack([objects["x"], objects["y"]], axis=1)), cKDTree(np.stack([x, y], axis=1))
    for i, near in enumerate(everything.query_ball_point(asked.data, reach)):
        near = [j for j in near if j != own[i] - 1]
        blended[i] = (objects["flux"][near] > SHARE * flux[i]).any()
    size = np.sqrt(objects["npix"] / np.pi)
    for j, near in enumerate(asked.query_ball_point(everything.data, size)):
        near = [i for i in near if own[i] != j + 1]
        blended[near] |= flux[near] < objects["flux"][j]
    return blended


def _tops(light: np.ndarray, owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each source above 0.85 and above half of its peak, [count + 2] each."""
    peak = _peaks(light, owner, count)[owner]
    return tuple(np.bincount(owner[(owner > 0) & (light > np.float32(share) * peak)], minlength=count + 2)
                 for share in (0.85, 0.5))  # fmt: skip


def _like_stars(table: pd.DataFrame, picture: bool) -> tuple[np.ndarray, np.ndarray]:
    """Flags: too small to show a shape; a star.

    Stars all have one size, so the brighter sources that lie closest together in size, at the lower end, are stars. One
    in front of a galaxy seems larger, but has a star's narrow peak; a saturated one is flat in its middle and steep at
    the edge, as no galaxy is (a picture's stretch makes galaxies so, too). A galaxy of concentrated light has an R50
    hardly larger than a star's, but wings: a larger R90 for its R50, where it is above the threshold. It is not small.
    """
    r50 = table["r50_pixels"].to_numpy(float)
    usable = table["flux"].notna() & ~table["flag_blend"] & ~table["flag_edge"]
    bright = usable & (table["flux"] >= table["flux"][usable].quantile(1 - BRIGHT_SHARE))
    sizes, count = np.sort(np.log(r50[bright])), max(8, int(CLUMP_SHARE * bright.sum()))
    star, narrowest = np.nan, np.inf
    if len(sizes) > count:
        widths = sizes[count:] - sizes[:-count]
        narrowest, first = widths.min(), int(np.argmin(widths))
        if narrowest < CLUMP_WIDTH and sizes[first] <= np.median(sizes):
            star = np.exp(np.median(sizes[first : first + count + 1]))
    high, half = table["high"].to_numpy(float), table["half"].to_numpy(float)
    saturated = (high >= FLAT[0]) & (half < FLAT[1] * high) & (not picture)
    compact = half <= POINT_LIKE * np.median(half[r50 < POINT_LIKE * star]) if np.isfinite(star) else False
    in_front = table["flag_blend"].to_numpy(bool) & compact & (r50 < IN_FRONT * star)
    small = r50 < (SMALL * star if np.isfinite(star) else FEWEST)
    if np.isfinite(star):
        r90 = table["r90_pixels"].to_numpy(float)
        usual = np.median((r90 / r50)[bright & (r50 < POINT_LIKE * star)])
        small &= ~((r90 > WINGS * usual * r50) & (table["extent"].to_numpy(float) > SEEN * r90))
    return small, (r50 < POINT_LIKE * star) | saturated | in_front
