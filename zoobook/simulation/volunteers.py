"""Simulated volunteers: what can be seen of each galaxy, and how people vote on it.

The numbers here were chosen by hand, not measured: so that what is drawn shows as the eye finds it in the pictures,
vote fractions resemble those of GZ DECaLS (Walmsley et al. 2022), and every answer and rare feature occurs often enough
to be learned. The tests of the simulation hold them to that.
"""

import numpy as np
import pandas as pd
from scipy.special import gamma, gammaincinv

from zoobook import trees, votes
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, ZERO_POINT
from zoobook.simulation.galaxy import BAR_EDGE
from zoobook.simulation.truth import VOTES, Truth, checked_seed, generator, truth_table

RARE_QUESTION = "rare-features-dr5"
RARE_FEATURES = ("ring", "irregular", "dust-lane", "overlapping")
RARE_STRENGTH = 30.0  # sum of the two concentrations of a rare feature, as of a fairly clear question of the tree
LOWEST = 1.02  # concentration of an answer that nobody should give: a model's output, 1 + 100 sigmoid(x), reaches it
FEWEST, MOST = 20, 60  # volunteers who look at a galaxy; about 40 did in the first campaigns of GZ DECaLS

BRIGHTNESS_AT = 1.8  # scale lengths, where arms and rings lie, and where the disk's brightness counts
HALF_WAY = {"arms": 0.35, "ring": 0.4, "bar": 0.45, "patches": 0.25}  # contrast of which half shows
ENOUGH_SIGNAL = 6.0  # signal-to-noise at which half shows: the limit of detection is at about 5 (Rose 1948)


def visibility(truth: pd.DataFrame) -> pd.DataFrame:
    """How clearly each feature shows, from 0 (hidden or absent) to 1 (obvious).

    A feature of contrast c, size s [arcsec] and signal-to-noise n shows as

        c / (c + c0) * 1 / (1 + (0.7 FWHM / s)^2) * n / (n + 6) * clip((cos i - 0.12) / 0.4, 0, 1)

    with FWHM that of the PSF, n the brightness of the disk at 1.8 scale lengths, averaged over a seeing disk, over its
    noise, and i the inclination. The half-way contrasts c0 are 0.35 for arms, 0.4 for rings, 0.45 for bars and 0.25 (in
    ln brightness) for patches. The contrast of a bar is its brightness over that of disk, lens and bulge at 0.6 of its
    length. Sizes are the distance between arms, 2.2 ring widths, half the bar's length as projected, half a scale
    length. Bulges, warps and patchiness drown rings, and what opens is no ring: c is 1 - 1.5 opening times smaller.
    What an artifact hides cannot be seen: all are multiplied by 1 - severity.

    Args:
        truth: rows of :func:`~zoobook.simulation.draw_truth`.

    Returns:
        DataFrame: columns ``arms``, ``ring``, ``bar``, ``patches``, ``disturbance``, ``edge_on``, ``bulge``, ``dust``,
        ``overlap``, ``artifact``, ``roundness`` (apparent axis ratio).
    """
    t = truth_table(truth)
    scale, fwhm, clean = t["disk_scale_arcsec"], t["seeing_arcsec"], 1.0 - t["artifact_severity"]
    elliptical, cos_i = t["type"].astype(str) == "elliptical", np.cos(np.deg2rad(t["inclination_deg"]))
    seen = {
        "arms": _shows(t, "arms", t["arm_contrast"], _arm_spacing(t)),
        "ring": _ring_shows(t),
        "bar": _shows(t, "bar", _bar_contrast(t), _projected_bar(t)),
        "patches": _shows(t, "patches", np.maximum(t["flocculence"] - 0.05, 0) + t["knot_fraction"], 0.5 * scale),
    }
    disturbed = 0.7 * t["companion_ratio"] ** 0.5 + 0.12 * t["tail_strength"]
    seen["disturbance"] = clean * np.clip(disturbed + 0.9 * np.maximum(t["asymmetry"] - 0.08, 0), 0, 1)
    flat = np.where(elliptical, t["bulge_q"], np.hypot(cos_i, t["disk_thickness"]))
    bulge = np.clip(1.3 * t["bulge_fraction"], 0, 1)  # what of the outline the bulge makes
    round_disk = flat * (1 - bulge) + bulge * (0.35 * flat + 0.65 * t["bulge_q"])
    seen["roundness"] = np.where(elliptical, t["bulge_q"], round_disk)
    thin = np.where(elliptical, 0.5, 1.0) / (1 + np.exp((flat - 0.27) / 0.035))
    seen["edge_on"] = thin * (1 - 0.5 * t["bulge_fraction"]) * clean
    seen["bulge"] = np.where(elliptical, 0.85, t["bulge_fraction"] ** 0.5 * (1 + 0.25 * seen["bar"]))
    lane = 0.6 * scale * t["disk_thickness"]
    seen["dust"] = t["dust"] / (t["dust"] + 0.4) / (1 + (0.25 * fwhm / np.maximum(lane, 1e-3)) ** 2) * clean
    seen["overlap"] = np.minimum(t["overlap_ratio"] / 0.4, 1.0) * clean
    seen["artifact"] = t["artifact_severity"]
    return pd.DataFrame(seen, index=truth.index)


def _shows(t: Truth, feature: str, contrast: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How clearly a feature of the disk of this contrast and size [arcsec] shows: the formula of `visibility`."""
    scale, fwhm = t["disk_scale_arcsec"], t["seeing_arcsec"]
    flux = 10 ** (-0.4 * (t["mag_r"] - ZERO_POINT)) * (1 - t["bulge_fraction"])
    brightness = flux / (2 * np.pi * scale**2) * np.exp(-BRIGHTNESS_AT) * NATIVE_ARCSEC**2
    signal = brightness / (SKY_NOISE[1] * t["noise"]) * fwhm / NATIVE_ARCSEC
    face_on = np.clip((np.cos(np.deg2rad(t["inclination_deg"])) - 0.12) / 0.4, 0, 1)
    resolved = 1 / (1 + (0.7 * fwhm / np.maximum(size, 1e-3)) ** 2)
    disky = np.isin(t["type"].astype(str), ("lenticular", "spiral", "irregular"))
    shown = contrast / (contrast + HALF_WAY[feature]) * resolved * signal / (signal + ENOUGH_SIGNAL)
    return shown * face_on * (1.0 - t["artifact_severity"]) * disky


def _arm_spacing(t: Truth) -> np.ndarray:
    """Distance between logarithmic arms [arcsec]."""
    turn = 2 * np.pi * BRIGHTNESS_AT * t["disk_scale_arcsec"] * np.tan(np.deg2rad(t["arm_pitch_deg"]))
    return turn / np.maximum(t["arm_count"], 1)


def _ring_shows(t: Truth) -> np.ndarray:
    contrast = t["ring_contrast"] * (0.7 + 0.6 * t["ring_gap"]) * (1 - 1.5 * t["ring_opening"])
    shown = _shows(t, "ring", contrast, 2.2 * t["ring_width_arcsec"]) * (1 - 0.9 * t["bulge_fraction"]) ** 0.5
    return shown * np.clip(1.3 - 2.5 * t["asymmetry"], 0, 1) * (1 - 0.4 * t["ring_patchiness"])


def _projected_bar(t: Truth) -> np.ndarray:
    """Half the length of each bar as we see it [arcsec]."""
    turn, cos_i = np.deg2rad(t["bar_angle_deg"]), np.cos(np.deg2rad(t["inclination_deg"]))
    return 0.5 * t["bar_length_arcsec"] * np.hypot(np.cos(turn), np.sin(turn) * cos_i)


def _bar_contrast(t: Truth) -> np.ndarray:
    """Brightness of each bar over that of disk, lens and bulge, at 0.6 of its length along its axis, face-on."""
    length, flat, box = np.maximum(t["bar_length_arcsec"], 1e-3), t["bar_flatness"], t["bar_boxiness"]
    at, scale = 0.6 * length, t["disk_scale_arcsec"]
    # The integral of exp(-BAR_EDGE s^flatness) over superellipses of radius s.
    area = 4 * gamma(1 + 1 / box) ** 2 / gamma(1 + 2 / box) * gamma(1 + 2 / flat) * BAR_EDGE ** (-2 / flat)
    bar = t["bar_fraction"] / (area * length**2 * t["bar_q"]) * np.exp(-BAR_EDGE * 0.6**flat)
    disk = (1 - t["bulge_fraction"] - t["bar_fraction"]) / (2 * np.pi * scale**2) * np.exp(-at / scale)
    disk *= 1 + t["lens_contrast"] * (at < t["lens_radius_arcsec"])
    index, half = t["bulge_sersic"], t["bulge_r50_arcsec"]
    b = gammaincinv(2 * index, 0.5)
    bulge = t["bulge_fraction"] * b ** (2 * index) / (2 * np.pi * index * half**2 * gamma(2 * index))
    return bar / (disk + bulge * np.exp(-b * (at / half) ** (1 / index)))


def concentrations(truth: pd.DataFrame, tree: trees.DecisionTree | None = None) -> np.ndarray:
    """Dirichlet concentrations from which volunteers' answers on the GZ DECaLS DR5 tree are drawn.

    Each question has expected shares p of its answers, functions of :func:`visibility` alone (for winding and arm count
    also of pitch angle and count), and a strength s, larger where the case is clear; the concentrations are 1.02 + s p.

    Args:
        truth: rows of :func:`~zoobook.simulation.draw_truth`.
        tree: the DR5 tree; its column order is used.

    Returns:
        ndarray: float64 [N, 34], between 1 and 101.
    """
    tree = tree or trees.load("decals_dr5")
    t, seen = truth_table(truth), visibility(truth)
    v = {name: seen[name].to_numpy() for name in seen.columns}
    result = np.empty((len(truth), len(tree.label_columns)))
    for question, (start, stop) in zip(tree.questions, tree.index_groups, strict=True):
        answered = _QUESTIONS.get(question.name.removesuffix(tree.suffix))
        if answered is None:
            raise ValueError(f"simulated volunteers answer the questions of decals_dr5, and {question.name} is none")
        shares, strength = answered(t, v)
        if {answer.name for answer in question.answers} != shares.keys():
            raise ValueError(f"the answers to {question.name} must be {', '.join(shares)}, as in decals_dr5")
        total = sum(shares.values())
        share = np.stack([shares[answer.name] / total for answer in question.answers], axis=1)
        result[:, start:stop] = LOWEST + share * np.broadcast_to(strength, len(truth))[:, None]
    return result


# For each question the expected shares of its answers, not normalised, and the strength: how much volunteers agree.
# t is the truth, v what is visible.


def _step(x, middle, width):
    """A rise from 0 to 1."""
    return 1 / (1 + np.exp(-(x - middle) / width))


def _near(x, middle, width):
    """A bump of height 1 around the middle."""
    return np.exp(-0.5 * ((x - middle) / width) ** 2) + 1e-9


def _nearest(x, width, **middles):
    """Shares of the answers, the larger the nearer x is to an answer's middle."""
    return {name.replace("_", "-"): _near(x, middle, width) for name, middle in middles.items()}


def _yes_no(yes, doubtful: float, clear: float) -> tuple:
    """Two answers, with the strength where they are equal, and what is added to it where one is certain."""
    return {"yes": yes, "no": 1 - yes}, doubtful + clear * abs(2 * yes - 1)


def _smooth_or_featured(t, v) -> tuple:
    inclined = np.where(t["type"] == "lenticular", 1 - v["roundness"], 0.0)
    evidence = 1 - ((1 - 0.95 * v["arms"]) * (1 - 0.9 * v["ring"]) * (1 - 0.65 * v["bar"]) * (1 - 0.95 * v["edge_on"])
                    * (1 - 0.75 * v["patches"]) * (1 - 0.45 * v["disturbance"]) * (1 - 0.4 * inclined))  # fmt: skip
    featured = 0.02 + 0.95 * _step(evidence, 0.5, 0.1)
    artifact = 0.005 + 0.93 * np.sqrt(v["artifact"])
    shares = {"smooth": (1 - featured) * (1 - artifact), "featured-or-disk": featured * (1 - artifact)}
    return shares | {"artifact": artifact}, 15 + 45 * abs(2 * featured - 1)


def _bar(t, v) -> tuple:
    bar = 0.04 + 0.93 * _step(v["bar"], 0.24, 0.05)
    strong = _step(v["bar"] + t["bar_over_disk"], 0.68, 0.06)
    return {"strong": bar * strong, "weak": bar * (1 - strong), "no": 1 - bar}, 14 + 30 * abs(2 * bar - 1)


def _edge_on_bulge(t, v) -> tuple:
    shape, there = t["bulge_shape"], _step(v["bulge"], 0.2, 0.06)
    rounded = np.select([shape == "none", shape == "boxy"], [0.12, 0.35], 0.85) * there + 0.03
    boxy = np.where(shape == "boxy", 0.75, 0.04) * there + 0.01
    return {"boxy": boxy, "rounded": rounded, "none": 1 - there + 0.02}, 25.0


def _spiral_winding(t, v) -> tuple:
    middles, log_pitch = {"tight": 9.0, "medium": 16.5, "loose": 29.0}, np.log(np.maximum(t["arm_pitch_deg"], 4))
    clear = _step(v["arms"], 0.36, 0.06)  # whether the arms can be followed
    shares = {name: clear * _near(log_pitch, np.log(middle), 0.3) + 0.5 * (1 - clear)
              for name, middle in middles.items()}  # fmt: skip
    return shares, 8 + 22 * v["arms"]


def _arm_count(t, v) -> tuple:
    count = t["arm_count"]
    lost = 0.02 + 0.6 * t["flocculence"] + 0.35 * (1 - v["arms"]) + 0.05 * np.maximum(count - 3, 0)
    lost = np.clip(lost, 0.05, 0.9)
    shares = {
        str(k): np.where(count == k, 1.0, np.where(abs(count - k) == 1, 0.1, 0.02)) * (1 - lost) for k in (1, 2, 3, 4)
    }
    shares["more-than-4"] = np.where(count > 4, 1.0, np.where(count == 4, 0.12, 0.02)) * (1 - lost)
    return shares | {"cant-tell": lost * 1.1}, 10 + 25 * v["arms"]


def _merging(t, v) -> tuple:
    stages = [t["merger"] == "merger", t["merger"] == "major"]
    mess = v["disturbance"] * np.where(t["merger"] == "none", 0.55, 0.9)
    calm = np.clip(1 - 1.5 * mess, 0.03, 1)
    shares = {
        "none": calm,
        "minor-disturbance": (1 - calm) * np.select(stages, [0.12, 0.25], 0.75),
        "major-disturbance": (1 - calm) * np.select(stages, [0.25, 0.6], 0.17),
        "merger": (1 - calm) * np.select(stages, [0.75, 0.25], 0.12) + 0.12 * v["overlap"],
    }
    return shares, 15 + 40 * abs(2 * calm - 1)


_QUESTIONS = {
    "smooth-or-featured": _smooth_or_featured,
    "disk-edge-on": lambda t, v: _yes_no(0.01 + 0.97 * v["edge_on"], 15, 55),
    "has-spiral-arms": lambda t, v: _yes_no(0.03 + 0.95 * _step(v["arms"] + 0.2 * v["patches"], 0.36, 0.07), 12, 48),
    "bar": _bar,
    "bulge-size": lambda t, v: (
        _nearest(v["bulge"], 0.11, dominant=0.92, large=0.66, moderate=0.46, small=0.25, none=0.03), 25.0),
    "how-rounded": lambda t, v: (
        _nearest(v["roundness"], 0.13, round=0.96, in_between=0.64, cigar_shaped=0.24), 40.0),
    "edge-on-bulge": _edge_on_bulge,
    "spiral-winding": _spiral_winding,
    "spiral-arm-count": _arm_count,
    "merging": _merging,
}  # fmt: skip


def rare_probabilities(truth: pd.DataFrame) -> pd.DataFrame:
    """Expected share of volunteers who tick each rare feature.

    Args:
        truth: rows of :func:`~zoobook.simulation.draw_truth`.

    Returns:
        DataFrame: columns ring, irregular, dust-lane and overlapping, between 0 and 1.
    """
    seen = visibility(truth)
    irregular = truth_table(truth)["type"] == "irregular"
    return pd.DataFrame({
        "ring": 0.006 + 0.9 * seen["ring"] ** 1.3,
        "irregular": 0.006 + 0.6 * irregular * seen["patches"] ** 0.5 + 0.1 * seen["disturbance"],
        "dust-lane": 0.006 + 0.85 * seen["dust"],
        "overlapping": 0.01 + 0.7 * seen["overlap"],
    }, index=truth.index).clip(0.004, 0.95)  # fmt: skip


def vote(truth: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Let volunteers look at simulated galaxies and walk the DR5 tree.

    Between 20 and 60 people see each galaxy. Those who call it no artifact are also asked to tick rare features; how
    many tick one is beta-binomial with mean :func:`rare_probabilities` and concentrations that sum to 30.

    Args:
        truth: rows of :func:`~zoobook.simulation.draw_truth`.
        seed: seed of the survey.

    Returns:
        DataFrame: vote counts, 34 columns, and those of ``rare-features-dr5_ring`` and the other rare features with
        ``rare-features-dr5_total-votes``, the number of people asked; then the generating concentrations,
        ``{label column}_oracle``, and the expected shares of the rare features, ``rare-features-dr5_{feature}_oracle``.
    """
    tree, seed = trees.load("decals_dr5"), checked_seed(seed)
    alpha, rare = concentrations(truth, tree), rare_probabilities(truth)
    chances = rare[list(RARE_FEATURES)].to_numpy()
    counts, ticks, able = [], [], []
    first = tree.label_columns.index("smooth-or-featured-dr5_artifact")
    for row, index in enumerate(truth_table(truth)["index"]):
        rng = generator(seed, int(index), VOTES)
        people = int(rng.integers(FEWEST, MOST + 1))
        counts.append(votes.sample(alpha[row : row + 1], people, tree, rng)[0])
        able.append(people - counts[-1][first])
        share = rng.beta(RARE_STRENGTH * chances[row], RARE_STRENGTH * (1 - chances[row]))
        ticks.append(rng.binomial(able[-1], share))
    columns = [f"{RARE_QUESTION}_{feature}" for feature in RARE_FEATURES]
    parts = [
        pd.DataFrame(np.reshape(counts, (-1, len(tree.label_columns))), columns=tree.label_columns),
        pd.DataFrame(np.reshape(ticks, (-1, len(columns))), columns=columns),
        pd.DataFrame({tree.total_column(RARE_QUESTION): np.array(able, np.int64)}),
        pd.DataFrame(alpha, columns=[f"{column}_oracle" for column in tree.label_columns]),
        pd.DataFrame(chances, columns=[f"{column}_oracle" for column in columns]),
    ]
    return pd.concat(parts, axis=1).set_axis(truth.index, axis=0)
