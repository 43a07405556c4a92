"""The truth of the simulated survey: what each galaxy physically is, before anybody looks at it."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from zoobook import arguments

# Independent random streams of one galaxy, so that drawing more from one never shifts another.
TRUTH, CLUTTER, NOISE, VOTES = range(4)

CUTOUT_PIXELS = 424  # the side of a GZ DECaLS cutout, which sets the frame in arcsec (Walmsley et al. 2022)
TYPES = {"elliptical": 0.32, "lenticular": 0.16, "spiral": 0.35, "edge-on": 0.09, "irregular": 0.08}  # how often
MERGERS = {  # how often; bounds of the companion's light and distance [r50] and of the tails; median warp
    "none": (0.87, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 0.025),
    "minor": (0.06, (0.05, 0.25), (1.6, 3.2), (0.0, 1.2), 0.06),
    "major": (0.03, (0.2, 0.6), (1.6, 3.4), (0.5, 2.5), 0.11),
    "merger": (0.04, (0.35, 1.0), (0.7, 2.2), (0.5, 3.5), 0.13),
}
ARTIFACTS = ("none", "star", "trail", "bleed", "bad-columns", "blank", "zoom", "off-band")
MOST_GALAXIES = 10**8  # what numbers of galaxies may be asked for; their table would fill 100 GB
LARGEST_SEED = 2**32 - 1  # with more bits, a galaxy could get the random numbers of another seed's


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one aspect (`TRUTH` …) of galaxy ``index``, which depend on nothing else in the survey."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, stream])))


def checked_seed(seed: int) -> int:
    """The seed of a survey, or a ValueError."""
    return arguments.whole("seed", seed, 0, LARGEST_SEED)


class Truth(dict):
    """What :func:`draw_truth` gives, by names without ``true_``: the numbers of one galaxy, or arrays of many."""

    def __init__(self, truth: Mapping | pd.Series | pd.DataFrame):
        for name, value in truth.items():
            if not str(name).startswith("true_"):
                continue
            values = np.asarray(value)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{name} must hold finite numbers only")
            if not isinstance(truth, pd.DataFrame):  # Python's own numbers leave float32 arrays float32
                values = value.item() if isinstance(value, np.generic) else value
            self[name.removeprefix("true_")] = values

    def __missing__(self, name: str):
        raise ValueError(f"true_{name} is missing: give what simulation.draw_truth gives, with all its columns")


def truth_row(galaxy: Mapping | pd.Series) -> Truth:
    """One galaxy, checked."""
    if not isinstance(galaxy, (Mapping, pd.Series)):
        raise ValueError(f"galaxy must be a row of simulation.draw_truth, not {type(galaxy).__name__}")
    t = Truth(galaxy)
    arguments.whole("true_index", t["index"], 0)
    for name in ("frame_arcsec", "r50_arcsec", "disk_scale_arcsec", "seeing_arcsec"):
        arguments.real(f"true_{name}", t[name])
    arguments.real("true_noise", t["noise"], lambda number: number >= 0, "zero or a positive number")
    return t


def truth_table(truth: pd.DataFrame) -> Truth:
    """A table of galaxies, checked."""
    if not isinstance(truth, pd.DataFrame):
        raise ValueError(f"truth must be a table of simulation.draw_truth, not {type(truth).__name__}")
    return Truth(truth)


def draw_truth(n_galaxies: int, seed: int = 0, start: int = 0) -> pd.DataFrame:
    """Draw the physical parameters of simulated galaxies.

    Galaxy i is the same whatever ``n_galaxies`` and ``start`` are. All columns begin with ``true_``:

    - ``index`` number in the survey; ``ra``, ``dec`` sky position [deg];
    - ``type`` one of elliptical, lenticular, spiral, edge-on, irregular; ``stage`` Hubble stage T, from -5 (elliptical)
      over -2 (lenticular) and 3 (Sb) to 10 (irregular), which the bulge, colour, arms and knots follow with scatter;
    - ``frame_arcsec`` side of the cutout [arcsec]; ``r50_arcsec`` nominal half-light radius, major axis [arcsec];
      ``mag_r`` r-band magnitude of bulge, disk and bar, without rings, lenses and dust [AB]; ``mu50`` mean r surface
      brightness inside the half-light ellipse [mag/arcsec2, face-on]; ``g_r``, ``r_z`` overall colours [mag];
      ``pa_deg`` position angle [deg]; ``offset_x_arcsec``, ``offset_y_arcsec`` of the centre from the frame's [arcsec];
    - ``bulge_fraction`` of light; ``bulge_sersic`` index; ``bulge_r50_arcsec`` [arcsec]; ``bulge_q`` axis ratio;
      ``bulge_boxiness`` exponent of the isophotes, 2 = ellipses; ``bulge_shape`` rounded, boxy or none;
      ``nucleus_fraction`` light of a point source in the centre, over the galaxy's (0 = none);
    - ``disk_scale_arcsec`` exponential scale length [arcsec]; ``disk_break_arcsec`` radius beyond which the inverse
      scale length is 1 + ``disk_bend`` times that inside [arcsec, 0 = none]; ``inclination_deg`` [deg, 90 = edge-on];
      ``disk_thickness`` sech2 scale height over scale length; ``disk_dust`` optical depth in g of lanes and of the
      near side, of a disk that is not edge-on;
    - ``lens_contrast`` of a plateau of radius ``lens_radius_arcsec`` [arcsec] over the disk (0 = none);
    - ``bar_fraction`` of light; ``bar_length_arcsec`` semi-major axis in the disk plane [arcsec]; ``bar_over_disk``
      that over 3.2 scale lengths, where a disk fades; ``bar_q`` axis ratio; ``bar_angle_deg`` from the line of nodes,
      in the plane [deg]; ``bar_flatness`` exponent with which its light falls, ``bar_boxiness`` of its isophotes;
      ``bar_ansae`` brightness of blobs at its ends over its own; ``bar_gap`` depth of the dark gaps beside it (0 to 1);
    - ``arm_count`` (0 = none); ``arm_pitch_deg`` [deg]; ``arm_contrast`` peak over inter-arm minus one;
      ``arm_sharpness`` von Mises kappa of their profile; ``arm_reach`` where they end [scale lengths];
      ``arm_irregularity`` r.m.s. of their wandering in phase [rad], and of their patchiness; ``winding`` +1 or -1;
    - ``flocculence`` r.m.s. of ln brightness in patches; ``knots`` number of star-forming knots and
      ``knot_fraction`` their share of the light;
    - ``ring_kind`` none, inner or outer; ``ring_radius_arcsec``, ``ring_width_arcsec`` [arcsec, in the plane];
      ``ring_contrast`` peak over the local disk; ``ring_gap`` depth of the dark gap inside it (0 to 1);
      ``ring_patchiness`` r.m.s. of its ln brightness; ``ring_ellipticity`` half the relative difference of its axes;
      ``ring_opening`` relative step between the halves of a pseudo-ring (0 = closed);
    - ``dust`` optical depth in g of the lane of an edge-on disk;
    - ``merger`` none, minor, major or merger; ``companion_ratio`` of light; ``companion_arcsec`` separation,
      ``companion_pa_deg``; ``tail_strength`` over the local disk, of shells in ellipticals; ``asymmetry`` amplitude of
      the warp over r50;
    - ``overlap_ratio`` light of an unrelated overlapping galaxy (0 = none); ``overlap_arcsec``, ``overlap_pa_deg``;
    - ``artifact`` none, star, trail, bleed, bad-columns, blank, zoom or off-band; ``artifact_severity`` 0 to 1;
    - ``seeing_arcsec`` r-band PSF FWHM [arcsec]; ``noise`` sky noise over the survey's typical one.

    Args:
        n_galaxies: how many.
        seed: seed of the survey.
        start: number of the first galaxy.

    Returns:
        DataFrame: one row a galaxy.

    >>> draw_truth(2, seed=1, start=5)["true_index"].tolist()
    [5, 6]
    """
    n_galaxies = arguments.whole("n_galaxies", n_galaxies, 1, MOST_GALAXIES)
    start, seed = arguments.whole("start", start, 0, MOST_GALAXIES), checked_seed(seed)
    rows = [_draw(generator(seed, index, TRUTH), index) for index in range(start, start + n_galaxies)]
    return pd.DataFrame(rows).add_prefix("true_")


class _Dice:
    """Random numbers of one galaxy, kept within believable bounds."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.uniform = rng, rng.uniform

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def clipped(self, mean, sigma, low, high) -> float:
        return min(max(self.rng.normal(mean, sigma), low), high)

    def log_normal(self, median, sigma, low, high) -> float:
        return min(max(median * math.exp(sigma * self.rng.normal()), low), high)


# The order of the draws below is part of the survey: another one gives other galaxies. So where a number depends on
# the type, one is drawn for every type.


def _draw(rng: np.random.Generator, index: int) -> dict:
    """All that is true of a galaxy."""
    dice, g = _Dice(rng), {"index": index}
    parts = (_position, _type, _size, _bulge, _colours, _disk, _patches, _bar, _lens, _arms, _ring, _merger, _overlap,
             _observation)  # fmt: skip
    for part in parts:
        part(g, dice)
    return g


def _position(g: dict, dice: _Dice) -> None:
    """Two believable stretches of the DECaLS footprint: the equator, and the northern galactic cap."""
    g["ra"] = dice.uniform(0.0, 360.0)
    south, north = (-5.0, 32.0) if 110.0 < g["ra"] < 260.0 else (-10.0, 20.0)
    g["dec"] = float(np.rad2deg(np.arcsin(dice.uniform(*np.sin(np.deg2rad((south, north)))))))


def _type(g: dict, dice: _Dice) -> None:
    g["type"] = list(TYPES)[dice.rng.choice(5, p=list(TYPES.values()))]
    g["stage"] = {
        "elliptical": -5.0,
        "lenticular": dice.uniform(-3.0, 1.0),
        "spiral": 0.5 + 8.0 * dice.rng.beta(1.8, 2.0),
        "edge-on": dice.uniform(-2.0, 9.0),
        "irregular": dice.uniform(8.5, 10.0),
    }[g["type"]]


def _size(g: dict, dice: _Dice) -> None:
    """Size and surface brightness: the SDSS main sample, r < 17.8, with half-light radii of a few arcsec."""
    kind, stage = g["type"], g["stage"]
    r50 = dice.log_normal(3.7 if kind in ("elliptical", "edge-on") else 4.0, 0.42, 1.7, 15.0)
    mu50 = {
        "elliptical": dice.clipped(20.6, 0.5, 19.2, 22.2),
        "lenticular": dice.clipped(20.95, 0.5, 19.4, 22.3),
        "spiral": dice.clipped(21.0 + 0.08 * stage, 0.5, 19.8, 22.9),
        "edge-on": dice.clipped(20.9 + 0.05 * stage, 0.5, 19.8, 22.4),
        "irregular": dice.clipped(22.2, 0.5, 20.9, 23.4),
    }[kind]
    # The cutout follows the Petrosian radius, which concentrated light makes smaller than the true one.
    petrosian = r50 * (0.72 if kind == "elliptical" else 0.85) * math.exp(0.24 * dice.rng.normal())
    g.update(frame_arcsec=CUTOUT_PIXELS * max(0.04 * petrosian, 0.1), r50_arcsec=r50, mu50=mu50)
    g["pa_deg"] = dice.uniform(0.0, 180.0)
    wander = 0.06 * r50 if kind == "irregular" else 0.1
    g["offset_x_arcsec"], g["offset_y_arcsec"] = dice.rng.normal(0.0, wander, 2)


def _bulge(g: dict, dice: _Dice) -> None:
    """The bulge, which is all of an elliptical, and the nucleus."""
    kind, r50, shape = g["type"], g["r50_arcsec"], "rounded"
    if kind == "elliptical":
        bulge, sersic, bulge_r50 = 1.0, dice.uniform(2.0, 6.0), r50
        bulge_q = dice.uniform(0.22, 0.42) if dice.chance(0.07) else min(1.0, 0.45 + 0.6 * dice.rng.beta(2.2, 1.5))
    else:
        usual = {"lenticular": 0.36, "irregular": 0.01}.get(kind, 0.36 * math.exp(-0.32 * max(g["stage"], 0.0)))
        bulge = min(usual * math.exp(0.5 * dice.rng.normal()), 0.7)
        sersic = dice.clipped(1.2 + 3.0 * bulge, 0.6, 0.8, 5.0)
        bulge_r50 = r50 * dice.log_normal(0.3 * bulge**0.5, 0.25, 0.05, 0.6)
        bulge_q = dice.clipped(0.92, 0.08, 0.6, 1.0)
    if kind == "edge-on":
        shape = "none" if bulge < 0.08 else ("boxy" if dice.chance(0.3) else "rounded")
        bulge = {"none": 0.15 * bulge, "boxy": max(bulge, 0.2)}.get(shape, max(bulge, 0.12))
        bulge_r50 *= 1.5
    boxiness = dice.uniform(3.0, 4.2) if shape == "boxy" else dice.clipped(2.0, 0.08, 1.8, 2.3)
    g.update(bulge_fraction=bulge, bulge_sersic=sersic, bulge_r50_arcsec=bulge_r50, bulge_q=bulge_q,
             bulge_boxiness=boxiness, bulge_shape=shape)  # fmt: skip
    g["nucleus_fraction"] = dice.log_normal(0.012, 0.8, 0.0, 0.08) if dice.chance(0.35) else 0.0


def _colours(g: dict, dice: _Dice) -> None:
    """Colours and magnitude: old light is red; star formation makes the disk blue."""
    kind, stage = g["type"], g["stage"]
    g["g_r"] = {
        "elliptical": dice.clipped(0.82, 0.05, 0.65, 0.98),
        "lenticular": dice.clipped(0.79, 0.07, 0.55, 0.98),
        "spiral": dice.clipped(0.75 - 0.035 * stage, 0.09, 0.25, 0.9),
        "edge-on": dice.clipped(0.82 - 0.035 * stage, 0.1, 0.3, 0.97),
        "irregular": dice.clipped(0.36, 0.09, 0.12, 0.6),
    }[kind]
    g["r_z"] = dice.clipped(0.85 * g["g_r"] + 0.03, 0.05, 0.05, 1.0)
    # The face-on mean surface brightness inside r50 fixes the total light of an inclined, transparent disk.
    q = g["bulge_q"] if kind == "elliptical" else 1.0
    g["mag_r"] = g["mu50"] - 2.5 * math.log10(2.0 * math.pi * g["r50_arcsec"] ** 2 * q)


def _disk(g: dict, dice: _Dice) -> None:
    """Size, break, inclination and dust of the disk."""
    kind = g["type"]
    # A bulge or a break pulls the half-light radius in, so such a disk is larger than r50 / 1.678.
    bend = (1.5 if dice.chance(0.7) else -0.4) if dice.chance(0.75) else 0.0
    scale = g["r50_arcsec"] / 1.678 * (1.0 + 0.65 * g["bulge_fraction"]) * (1.1 if bend > 0 else 1.0)
    inclination = dice.uniform(84.0, 90.0) if kind == "edge-on" else math.degrees(math.acos(dice.uniform(0.22, 1.0)))
    g.update(disk_scale_arcsec=scale, inclination_deg=inclination, disk_bend=bend,
             disk_thickness=dice.log_normal(0.16, 0.3, 0.07, 0.35))  # fmt: skip
    g["disk_break_arcsec"] = scale * dice.uniform(1.9, 3.6) if bend else 0.0
    g["dust"] = dice.log_normal(0.9, 0.6, 0.2, 3.0) if kind == "edge-on" and dice.chance(0.65) else 0.0
    dusty = {"spiral": 0.8, "lenticular": 0.15}.get(kind, 0.0)
    g["disk_dust"] = dice.log_normal(0.5, 0.6, 0.05, 1.6) if dice.chance(dusty) else 0.0


def _patches(g: dict, dice: _Dice) -> None:
    """Patches and knots of young stars."""
    kind, stage = g["type"], g["stage"]
    g["flocculence"] = {
        "spiral": dice.log_normal(0.13 + 0.025 * stage, 0.5, 0.05, 0.8),
        "irregular": dice.uniform(0.25, 0.7),
        "edge-on": dice.uniform(0.0, 0.1 + 0.03 * max(stage, 0.0)),
    }.get(kind, 0.04)
    knotty = {"spiral": (8, 60), "irregular": (8, 40)}.get(kind)
    g["knots"] = int(dice.rng.integers(*knotty)) if knotty else 0
    usual = 0.01 + 0.005 * stage if kind == "spiral" else 0.07
    g["knot_fraction"] = dice.log_normal(usual, 0.7, 0.0, 0.25) if knotty else 0.0


def _is_early(g: dict) -> bool:
    return g["stage"] < 3.5  # bars of early types are longer and flatter (Elmegreen & Elmegreen 1985)


def _bar(g: dict, dice: _Dice) -> None:
    scale, early = g["disk_scale_arcsec"], _is_early(g)
    barred = dice.chance({"lenticular": 0.45, "spiral": 0.5, "irregular": 0.25}.get(g["type"], 0.0))
    strong = dice.chance(0.5)
    length = scale * (dice.uniform(1.0, 1.8) if strong else dice.uniform(0.5, 1.1)) * (1.0 if early else 0.85)
    length = max(length, 1.8 * g["bulge_r50_arcsec"])
    g["bar_fraction"] = (dice.uniform(0.07, 0.17) if strong else dice.uniform(0.015, 0.06)) if barred else 0.0
    g["bar_length_arcsec"] = length if barred else 0.0
    g["bar_over_disk"] = g["bar_length_arcsec"] / (3.2 * scale)
    g["bar_q"] = dice.uniform(0.25, 0.42) if strong else dice.uniform(0.35, 0.55)
    g["bar_angle_deg"] = dice.uniform(0.0, 180.0)
    g["bar_flatness"] = dice.uniform(2.5, 6.0) if early else dice.uniform(1.5, 3.0)
    g["bar_boxiness"] = dice.uniform(2.0, 3.2)
    g["bar_ansae"] = dice.uniform(0.2, 0.8) if barred and early and dice.chance(0.3) else 0.0
    g["bar_gap"] = dice.uniform(0.1, 0.55) if strong else dice.uniform(0.0, 0.3)


def _lens(g: dict, dice: _Dice) -> None:
    """The lens that often surrounds a bar."""
    lens = dice.chance({"lenticular": 0.6, "spiral": 0.35 if _is_early(g) else 0.0}.get(g["type"], 0.0))
    g["lens_contrast"] = dice.log_normal(0.6, 0.5, 0.15, 2.0) if lens else 0.0
    barred, length, scale = g["bar_fraction"] > 0, g["bar_length_arcsec"], g["disk_scale_arcsec"]
    radius = length * dice.uniform(1.0, 1.15) if barred else scale * dice.uniform(0.9, 2.2)
    g["lens_radius_arcsec"] = radius if lens else 0.0


def _arms(g: dict, dice: _Dice) -> None:
    """Spiral arms: the later the type, the more open and ragged."""
    spiral, stage = g["type"] == "spiral", g["stage"]
    g["arm_count"] = int(dice.rng.choice([1, 2, 3, 4, 5, 6], p=(0.06, 0.58, 0.13, 0.1, 0.07, 0.06))) if spiral else 0
    g["arm_pitch_deg"] = dice.log_normal(9.0 + 2.2 * stage, 0.32, 5.0, 42.0) if spiral else 0.0
    g["arm_contrast"] = dice.log_normal(1.25, 0.55, 0.2, 5.0) if spiral else 0.0
    g["arm_sharpness"] = dice.uniform(0.8, 3.5)
    g["arm_reach"] = dice.uniform(2.2, 4.4)
    g["arm_irregularity"] = dice.uniform(0.1, 0.5) + 0.04 * max(stage, 0.0) + 0.05 * max(g["arm_count"] - 2, 0)
    g["winding"] = 1.0 if dice.chance(0.5) else -1.0


def _ring(g: dict, dice: _Dice) -> None:
    """Rings: common in early types, where they are also clearest; inner ones hug the end of a bar."""
    kind, scale, stage = g["type"], g["disk_scale_arcsec"], g["stage"]
    ringed = dice.chance({"lenticular": 0.55, "spiral": max(0.38 - 0.045 * stage, 0.05)}.get(kind, 0.0))
    inner, barred = dice.chance(0.55), g["bar_fraction"] > 0
    radius = scale * (dice.uniform(1.0, 2.1) if inner else dice.uniform(2.0, 3.3))
    if inner and barred:
        radius = min(max(g["bar_length_arcsec"] * dice.uniform(1.0, 1.15), 0.9 * scale), 2.4 * scale)
    g["ring_kind"] = ("inner" if inner else "outer") if ringed else "none"
    g["ring_radius_arcsec"] = radius if ringed else 0.0
    g["ring_width_arcsec"] = radius * dice.uniform(0.07, 0.18) if ringed else 0.0
    g["ring_contrast"] = dice.log_normal(0.65 if inner else 1.2, 0.6, 0.1, 6.0) if ringed else 0.0
    g["ring_gap"] = dice.uniform(0.05, 0.6) if ringed else 0.0
    g["ring_patchiness"] = dice.uniform(0.05, 0.3) if kind == "lenticular" else dice.uniform(0.2, 0.6)
    g["ring_ellipticity"] = dice.uniform(0.0, 0.12)
    g["ring_opening"] = dice.uniform(0.1, 0.35) if dice.chance(0.3) else 0.0
    if ringed and kind == "spiral":
        g["arm_contrast"] *= 0.6  # arms that close into a ring are weaker


def _merger(g: dict, dice: _Dice) -> None:
    """Companions, tails and warps."""
    g["merger"] = list(MERGERS)[dice.rng.choice(4, p=[chance for chance, *_ in MERGERS.values()])]
    _, ratio, distance, tails, bent = MERGERS[g["merger"]]
    bent *= {"irregular": 1.6, "edge-on": 0.5}.get(g["type"], 1.0)
    g["companion_ratio"] = dice.uniform(*ratio)
    g["companion_arcsec"] = dice.uniform(*distance) * g["r50_arcsec"]
    g["companion_pa_deg"] = dice.uniform(0.0, 360.0)
    g["tail_strength"] = dice.uniform(*tails)
    g["asymmetry"] = dice.log_normal(bent, 0.4, 0.0, 0.5)


def _overlap(g: dict, dice: _Dice) -> None:
    """An unrelated galaxy in front."""
    overlapping = g["merger"] == "none" and dice.chance(0.06)
    g["overlap_ratio"] = dice.uniform(0.15, 0.9) if overlapping else 0.0
    g["overlap_arcsec"] = g["r50_arcsec"] * dice.uniform(0.9, 2.4) if overlapping else 0.0
    g["overlap_pa_deg"] = dice.uniform(0.0, 360.0)


def _observation(g: dict, dice: _Dice) -> None:
    """What the camera and the sky do to the picture."""
    g["artifact"] = ARTIFACTS[dice.rng.integers(1, len(ARTIFACTS))] if dice.chance(0.065) else "none"
    g["artifact_severity"] = dice.uniform(0.35, 1.0) if g["artifact"] != "none" else 0.0
    g["seeing_arcsec"] = dice.log_normal(1.2, 0.14, 0.85, 1.9)
    g["noise"] = dice.log_normal(1.0, 0.25, 0.45, 3.0)
