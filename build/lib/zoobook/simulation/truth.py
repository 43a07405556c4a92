"""The truth of the simulated survey: what each galaxy physically is, before anybody looks at it."""
from __future__ import annotations

import numpy as np
import pandas as pd

# Independent random streams of one galaxy, so that drawing more from one never shifts another.
TRUTH, CLUTTER, NOISE, VOTES = range(4)

CUTOUT_PIXELS = 424  # the side of a GZ DECaLS cutout, which sets the frame in arcsec (Walmsley et al. 2022)
TYPES = ("elliptical", "lenticular", "spiral", "edge-on", "irregular")
MERGER_STAGES = ("none", "minor", "major", "merger")
ARTIFACTS = ("none", "star", "trail", "bleed", "bad-columns", "blank", "zoom", "off-band")


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one galaxy, which depend on nothing else in the survey.

    Args:
        seed: seed of the survey.
        index: number of the galaxy in the survey.
        stream: which aspect of the galaxy (`TRUTH`, `CLUTTER`, `NOISE` or `VOTES`).
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, stream])))


def draw_truth(n_galaxies: int, seed: int = 0, start: int = 0) -> pd.DataFrame:
    """Draw the physical parameters of simulated galaxies.

    Galaxy i is the same whatever ``n_galaxies`` and ``start`` are. All columns begin with ``true_``:

    - ``index`` number in the survey; ``ra``, ``dec`` sky position [deg];
    - ``type`` one of elliptical, lenticular, spiral, edge-on, irregular;
    - ``frame_arcsec`` side of the cutout [arcsec]; ``r50_arcsec`` nominal half-light radius, major axis [arcsec];
      ``mag_r`` r-band magnitude of bulge, disk and bar [AB]; ``mu50`` mean r surface brightness inside the half-light
      ellipse [mag/arcsec2, face-on]; ``g_r``, ``r_z`` overall colours [mag]; ``pa_deg`` position angle [deg];
    - ``bulge_fraction`` of light; ``bulge_sersic`` index; ``bulge_r50_arcsec`` [arcsec]; ``bulge_q`` axis ratio;
      ``bulge_boxiness`` exponent of the isophotes, 2 = ellipses; ``bulge_shape`` rounded, boxy or none;
    - ``disk_scale_arcsec`` exponential scale length [arcsec]; ``disk_break_arcsec`` radius beyond which the disk falls
      2.5 times as steeply [arcsec, 0 = none]; ``inclination_deg`` [deg, 90 = edge-on];
      ``disk_thickness`` sech2 scale height over scale length;
    - ``bar_fraction`` of light; ``bar_length_arcsec`` semi-major axis in the disk plane [arcsec]; ``bar_q`` axis ratio;
      ``bar_angle_deg`` from the line of nodes, in the plane [deg];
    - ``arm_count`` (0 = none); ``arm_pitch_deg`` [deg]; ``arm_contrast`` peak over inter-arm minus one;
      ``arm_sharpness`` von Mises kappa of their profile; ``winding`` +1 or -1;
    - ``flocculence`` r.m.s. of ln brightness in patches; ``knots`` number of star-forming knots and
      ``knot_fraction`` their share of the light;
    - ``ring_kind`` none, inner or outer; ``ring_radius_arcsec``, ``ring_width_arcsec`` [arcsec, in the plane];
      ``ring_contrast`` peak over the local disk; ``ring_gap`` depth of the dark gap inside it (0 to 1);
    - ``dust`` optical depth in g of the lane of an edge-on disk;
    - ``merger`` none, minor, major or merger; ``companion_ratio`` of light; ``companion_arcsec`` separation,
      ``companion_pa_deg``; ``tail_strength`` over the local disk; ``asymmetry`` amplitude of the warp over r50;
    - ``overlap_ratio`` light of an unrelated overlapping galaxy (0 = none); ``overlap_arcsec``, ``overlap_pa_deg``;
    - ``artifact`` none, star, trail, bleed, bad-columns, blank, zoom or off-band; ``artifact_severity`` 0 to 1;
    - ``seeing_arcsec`` r-band PSF FWHM [arcsec]; ``noise`` sky noise over the survey's typical one.

    Args:
        n_galaxies: how many.
        seed: seed of the survey.
        start: number of the first galaxy.

    Returns:
        DataFrame: one row a galaxy.
    """
    rows = [_draw(generator(seed, index, TRUTH), index) for index in range(start, start + n_galaxies)]
    return pd.DataFrame(rows).add_prefix("true_")


def _draw(rng: np.random.Generator, index: int) -> dict:
    uniform, normal = rng.uniform, rng.normal

    def chance(p):
        return uniform() < p

    def clipped(mean, sigma, low, high):
        return float(np.clip(normal(mean, sigma), low, high))

    def log_normal(median, sigma, low, high):
        return float(np.clip(median * np.exp(sigma * normal()), low, high))

    g = {"index": index, "ra": uniform(0.0, 360.0)}
    # Two believable stretches of the DECaLS footprint: the equator, and the northern galactic cap.
    north = 110.0 < g["ra"] < 260.0
    g["dec"] = float(np.rad2deg(np.arcsin(uniform(*np.sin(np.deg2rad((-5.0, 32.0) if north else (-10.0, 20.0)))))))
    kind = TYPES[rng.choice(5, p=(0.32, 0.17, 0.33, 0.09, 0.09))]
    disky = kind in ("lenticular", "spiral", "irregular")

    # Size and surface brightness: the SDSS main sample, r < 17.8, with half-light radii of a few arcsec.
    r50 = log_normal(4.0 if disky else 3.7, 0.42, 1.7, 15.0)
    mu50 = {
        "elliptical": clipped(20.6, 0.5, 19.2, 22.2),
        "lenticular": clipped(20.95, 0.5, 19.4, 22.3),
        "spiral": clipped(21.32, 0.5, 19.8, 22.7),
        "edge-on": clipped(21.1, 0.5, 19.8, 22.4),
        "irregular": clipped(22.3, 0.5, 20.9, 23.4),
    }[kind]
    # The cutout follows the Petrosian radius, which concentrated light makes smaller than the true one.
    petrosian = r50 * (0.72 if kind == "elliptical" else 0.85) * np.exp(0.24 * normal())
    g.update(type=kind, frame_arcsec=CUTOUT_PIXELS * max(0.04 * petrosian, 0.1), r50_arcsec=r50, mu50=mu50)
    g["pa_deg"] = uniform(0.0, 180.0)

    # Bulge.
    if kind == "elliptical":
        bulge, sersic, bulge_r50, bulge_q = 1.0, uniform(2.0, 6.0), r50, min(1.0, 0.45 + 0.6 * rng.beta(2.2, 1.5))
        if chance(0.07):
            bulge_q = uniform(0.22, 0.42)  # cigars
    else:
        bulge = {
            "lenticular": rng.beta(4.0, 6.0), "spiral": rng.beta(1.5, 6.0), "edge-on": rng.beta(1.3, 4.5),
            "irregular": 0.04 * rng.beta(1.0, 2.0),
        }[kind]
        bulge = min(0.75, float(bulge))
        sersic = clipped(1.2 + 3.0 * bulge, 0.6, 0.8, 5.0)
        bulge_r50 = r50 * log_normal(0.20 + 0.25 * bulge, 0.22, 0.1, 0.6)
        bulge_q = clipped(0.88, 0.1, 0.6, 1.0)
    shape = "rounded"
    if kind == "edge-on":
        shape = "none" if bulge < 0.1 else ("boxy" if chance(0.3) else "rounded")
        bulge = {"none": 0.15 * bulge, "boxy": max(bulge, 0.2)}.get(shape, bulge)
        bulge_r50 *= 1.5
    boxiness = {"boxy": uniform(3.0, 4.2)}.get(shape, clipped(2.0, 0.08, 1.8, 2.3))
    g.update(bulge_fraction=bulge, bulge_sersic=sersic, bulge_r50_arcsec=bulge_r50, bulge_q=bulge_q,
             bulge_boxiness=boxiness, bulge_shape=shape)

    # Disk. A bulge or a break pulls the half-light radius in, so such a disk is larger than r50 / 1.678.
    broken = chance(0.65)
    scale = r50 / 1.678 * (1.0 + 0.65 * bulge) * (1.1 if broken else 1.0)
    if kind == "edge-on":
        inclination = uniform(84.0, 90.0)
    else:
        inclination = float(np.rad2deg(np.arccos(uniform(0.22, 1.0))))
    g.update(disk_scale_arcsec=scale, inclination_deg=inclination, disk_thickness=log_normal(0.13, 0.25, 0.07, 0.28))
    g["disk_break_arcsec"] = scale * uniform(1.9, 3.6) if broken else 0.0

    # Bar.
    barred = disky and chance({"lenticular": 0.45, "spiral": 0.5, "irregular": 0.45}[kind])
    strong = chance(0.45)
    g["bar_fraction"] = (uniform(0.1, 0.24) if strong else uniform(0.03, 0.1)) if barred else 0.0
    g["bar_length_arcsec"] = scale * uniform(0.9, 1.9) * (1.0 if strong else 0.75) if barred else 0.0
    g["bar_q"] = uniform(0.22, 0.35) if strong else uniform(0.35, 0.5)
    g["bar_angle_deg"] = uniform(0.0, 180.0)

    # Spiral arms.
    spiral = kind == "spiral"
    g["arm_count"] = int(rng.choice([1, 2, 3, 4, 5, 6], p=(0.07, 0.56, 0.13, 0.1, 0.08, 0.06))) if spiral else 0
    winding = uniform()
    pitch = uniform(7.0, 13.0) if winding < 0.38 else uniform(13.0, 21.0) if winding < 0.75 else uniform(21.0, 38.0)
    g["arm_pitch_deg"] = pitch if spiral else 0.0
    g["arm_contrast"] = log_normal(1.5, 0.55, 0.25, 5.0) if spiral else 0.0
    g["arm_sharpness"] = uniform(1.0, 3.0)
    g["winding"] = 1.0 if chance(0.5) else -1.0
    g["flocculence"] = {"spiral": log_normal(0.22, 0.6, 0.05, 0.8), "irregular": uniform(0.45, 0.95)}.get(kind, 0.04)
    knotty = {"spiral": (8, 45), "irregular": (10, 40)}.get(kind)
    g["knots"] = int(rng.integers(*knotty)) if knotty else 0
    g["knot_fraction"] = log_normal(0.04 if spiral else 0.09, 0.6, 0.0, 0.3) if knotty else 0.0

    # Rings: common in lenticulars, where they are also clearest; inner ones hug the end of a bar.
    ringed = chance({"lenticular": 0.46, "spiral": 0.17}.get(kind, 0.0))
    inner = chance(0.55)
    radius = scale * (uniform(1.2, 2.1) if inner else uniform(2.1, 3.3))
    if inner and barred:
        radius = float(np.clip(g["bar_length_arcsec"] * uniform(1.0, 1.2), 1.1 * scale, 2.4 * scale))
    g["ring_kind"] = ("inner" if inner else "outer") if ringed else "none"
    g["ring_radius_arcsec"] = radius if ringed else 0.0
    g["ring_width_arcsec"] = radius * uniform(0.09, 0.2) if ringed else 0.0
    g["ring_contrast"] = log_normal(1.4 if inner else 2.2, 0.6, 0.2, 8.0) if ringed else 0.0
    g["ring_gap"] = uniform(0.2, 0.85) if ringed else 0.0
    if ringed and spiral:
        g["arm_contrast"] *= 0.6  # arms that close into a ring are weaker

    g["dust"] = (log_normal(0.9, 0.6, 0.2, 3.0) if chance(0.65) else 0.0) if kind == "edge-on" else 0.0

    # Disturbance and mergers.
    stage = MERGER_STAGES[rng.choice(4, p=(0.84, 0.075, 0.04, 0.045))]
    none = (0.0, 0.0)
    distance = {"none": none, "minor": (1.6, 3.0), "major": (1.6, 3.2), "merger": (0.7, 1.9)}[stage]
    ratio = {"none": none, "minor": (0.05, 0.25), "major": (0.2, 0.6), "merger": (0.35, 1.0)}[stage]
    tails = {"none": none, "minor": (0.0, 1.2), "major": (0.8, 3.0), "merger": (0.8, 4.0)}[stage]
    bent = {"none": 0.04, "minor": 0.12, "major": 0.3, "merger": 0.34}[stage]
    bent *= {"irregular": 1.6, "edge-on": 0.5}.get(kind, 1.0)
    g.update(merger=stage, companion_ratio=uniform(*ratio), companion_arcsec=uniform(*distance) * r50,
             companion_pa_deg=uniform(0.0, 360.0), tail_strength=uniform(*tails),
             asymmetry=log_normal(bent, 0.3, 0.0, 0.7))

    overlapping = stage == "none" and chance(0.06)
    g["overlap_ratio"] = uniform(0.15, 0.9) if overlapping else 0.0
    g["overlap_arcsec"] = r50 * uniform(0.9, 2.4) if overlapping else 0.0
    g["overlap_pa_deg"] = uniform(0.0, 360.0)

    g["artifact"] = ARTIFACTS[rng.integers(1, len(ARTIFACTS))] if chance(0.065) else "none"
    g["artifact_severity"] = uniform(0.35, 1.0) if g["artifact"] != "none" else 0.0

    # Colours: old light is red; star formation makes the disk blue.
    g["g_r"] = {
        "elliptical": clipped(0.82, 0.05, 0.65, 0.98), "lenticular": clipped(0.79, 0.07, 0.55, 0.98),
        "spiral": clipped(0.62, 0.11, 0.3, 0.88), "edge-on": clipped(0.7, 0.12, 0.35, 0.97),
        "irregular": clipped(0.36, 0.09, 0.15, 0.6),
    }[kind]
    g["r_z"] = clipped(0.85 * g["g_r"] + 0.03, 0.05, 0.05, 1.0)
    g["seeing_arcsec"] = log_normal(1.2, 0.14, 0.85, 1.9)
    g["noise"] = log_normal(1.0, 0.22, 0.45, 3.0)

    # The face-on mean surface brightness inside r50 fixes the total light of an inclined, transparent disk.
    g["mag_r"] = mu50 - 2.5 * np.log10(2.0 * np.pi * r50**2 * (bulge_q if kind == "elliptical" else 1.0))
    return g
