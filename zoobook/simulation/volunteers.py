"""Simulated volunteers: what can be seen of each galaxy, and how people vote on it."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import gamma, gammaincinv

from zoobook import trees, votes
from zoobook.images.decals import NATIVE_ARCSEC, SKY_NOISE, ZERO_POINT
from zoobook.simulation.galaxy import BAR_EDGE
from zoobook.simulation.truth import VOTES, generator

RARE_QUESTION = "rare-features-dr5"
RARE_FEATURES = ("ring", "irregular", "dust-lane", "overlapping")
RARE_STRENGTH = 30.0  # sum of the two concentrations of a rare feature
LOWEST = 1.02  # concentration of an answer that nobody should give: a model's output, 1 + 100 sigmoid(x), reaches it
FEWEST, MOST = 20, 60  # volunteers who look at a galaxy


@lru_cache(maxsize=1)
def _dr5() -> trees.DecisionTree:
    """The tree, read once: a survey is voted on in many small pieces."""
    return trees.load("decals_dr5")


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
    t = {name.removeprefix("true_"): truth[name].to_numpy() for name in truth.columns}
    kind, scale, fwhm = t["type"].astype(str), t["disk_scale_arcsec"], t["seeing_arcsec"]
    cos_i = np.cos(np.deg2rad(t["inclination_deg"]))
    disky = np.isin(kind, ("lenticular", "spiral", "irregular"))
    clean = 1.0 - t["artifact_severity"]

    flux = 10 ** (-0.4 * (t["mag_r"] - ZERO_POINT)) * (1 - t["bulge_fraction"])
    brightness = flux / (2 * np.pi * scale**2) * np.exp(-1.8) * NATIVE_ARCSEC**2
    signal = brightness / (SKY_NOISE[1] * t["noise"]) * fwhm / NATIVE_ARCSEC
    face_on = np.clip((cos_i - 0.12) / 0.4, 0, 1)

    def shows(contrast, half_way, size):
        resolved = 1 / (1 + (0.7 * fwhm / np.maximum(size, 1e-3)) ** 2)
        return contrast / (contrast + half_way) * resolved * signal / (signal + 6) * face_on * clean * disky

    spacing = 2 * np.pi * 1.8 * scale * np.tan(np.deg2rad(t["arm_pitch_deg"])) / np.maximum(t["arm_count"], 1)
    seen = {
        "arms": shows(t["arm_contrast"], 0.35, spacing),
        "ring": shows(t["ring_contrast"] * (0.7 + 0.6 * t["ring_gap"]) * (1 - 1.5 * t["ring_opening"]), 0.4,
                      2.2 * t["ring_width_arcsec"])
        * (1 - 0.9 * t["bulge_fraction"]) ** 0.5 * np.clip(1.3 - 2.5 * t["asymmetry"], 0, 1)
        * (1 - 0.4 * t["ring_patchiness"]),
        "bar": shows(_bar_contrast(t), 0.45, 0.5 * t["bar_length_arcsec"] * np.hypot(
            np.cos(np.deg2rad(t["bar_angle_deg"])), np.sin(np.deg2rad(t["bar_angle_deg"])) * cos_i)),
        "patches": shows(np.maximum(t["flocculence"] - 0.05, 0) + t["knot_fraction"], 0.25, 0.5 * scale),
    }
    seen["disturbance"] = clean * np.clip(
        0.7 * t["companion_ratio"] ** 0.5 + 0.12 * t["tail_strength"] + 0.9 * np.maximum(t["asymmetry"] - 0.08, 0),
        0, 1)
    flat = np.where(kind == "elliptical", t["bulge_q"], np.hypot(cos_i, t["disk_thickness"]))
    round_part = np.clip(1.3 * t["bulge_fraction"], 0, 1)
    seen["roundness"] = np.where(kind == "elliptical", t["bulge_q"], flat * (1 - round_part) + round_part * (
        0.35 * flat + 0.65 * t["bulge_q"]))
    thin = np.where(kind == "elliptical", 0.5, 1.0) / (1 + np.exp((flat - 0.27) / 0.035))
    seen["edge_on"] = thin * (1 - 0.5 * t["bulge_fraction"]) * clean
    seen["bulge"] = np.where(kind == "elliptical", 0.85, t["bulge_fraction"] ** 0.5 * (1 + 0.25 * seen["bar"]))
    lane = 0.6 * scale * t["disk_thickness"]
    seen["dust"] = t["dust"] / (t["dust"] + 0.4) / (1 + (0.25 * fwhm / np.maximum(lane, 1e-3)) ** 2) * clean
    seen["overlap"] = np.minimum(t["overlap_ratio"] / 0.4, 1.0) * clean
    seen["artifact"] = t["artifact_severity"]
    return pd.DataFrame(seen, index=truth.index)


def _bar_contrast(t: dict) -> np.ndarray:
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
    tree = tree or _dr5()
    seen = visibility(truth)
    asked = {q.name.removesuffix(tree.suffix): i for i, q in enumerate(tree.questions)}
    result = np.empty((len(truth), len(tree.label_columns)))
    for question, (shares, strength) in _shares(truth, seen).items():
        start, stop = tree.index_groups[asked[question]]
        total = sum(shares.values())
        order = [answer.name for answer in tree.questions[asked[question]].answers]
        share = np.stack([shares[name] / total for name in order], axis=1)
        result[:, start:stop] = LOWEST + share * np.broadcast_to(strength, len(truth))[:, None]
    return result


def _shares(truth: pd.DataFrame, seen: pd.DataFrame) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Expected shares of the answers (not normalised) and strength, for each question of the tree."""
    v = {name: seen[name].to_numpy() for name in seen.columns}
    pitch, count = truth["true_arm_pitch_deg"].to_numpy(), truth["true_arm_count"].to_numpy()
    shape, stage = truth["true_bulge_shape"].to_numpy(), truth["true_merger"].to_numpy()
    inclined = np.where(truth["true_type"].to_numpy() == "lenticular", 1 - v["roundness"], 0.0)
    flocculence = truth["true_flocculence"].to_numpy()

    def step(x, middle, width):
        return 1 / (1 + np.exp(-(x - middle) / width))

    def near(x, middle, width):
        return np.exp(-0.5 * ((x - middle) / width) ** 2) + 1e-9

    evidence = 1 - ((1 - 0.95 * v["arms"]) * (1 - 0.9 * v["ring"]) * (1 - 0.65 * v["bar"]) * (1 - 0.95 * v["edge_on"])
                    * (1 - 0.75 * v["patches"]) * (1 - 0.45 * v["disturbance"]) * (1 - 0.4 * inclined))
    featured = 0.02 + 0.95 * step(evidence, 0.5, 0.1)
    artifact = 0.005 + 0.93 * np.sqrt(v["artifact"])
    first = {"smooth": (1 - featured) * (1 - artifact), "featured-or-disk": featured * (1 - artifact),
             "artifact": artifact}

    edge = 0.01 + 0.97 * v["edge_on"]
    arms = 0.03 + 0.95 * step(v["arms"] + 0.2 * v["patches"], 0.36, 0.07)
    bar = 0.04 + 0.93 * step(v["bar"], 0.24, 0.05)
    strong = step(v["bar"] + truth["true_bar_over_disk"].to_numpy(), 0.68, 0.06)
    x = v["bulge"]
    q = v["roundness"]
    rounded = np.select([shape == "none", shape == "boxy"], [0.12, 0.35], 0.85) * step(x, 0.2, 0.06) + 0.03
    boxy = np.where(shape == "boxy", 0.75, 0.04) * step(x, 0.2, 0.06) + 0.01
    clear = step(v["arms"], 0.36, 0.06)  # whether the arms can be followed
    lost = np.clip(0.02 + 0.6 * flocculence + 0.35 * (1 - v["arms"]) + 0.05 * np.maximum(count - 3, 0), 0.05, 0.9)
    number = {
        str(k): np.where(count == k, 1.0, np.where(abs(count - k) == 1, 0.1, 0.02)) * (1 - lost) for k in (1, 2, 3, 4)
    }
    number["more-than-4"] = np.where(count > 4, 1.0, np.where(count == 4, 0.12, 0.02)) * (1 - lost)
    number["cant-tell"] = lost * 1.1
    d = v["disturbance"]
    mess = d * np.select([stage == "merger", stage == "major", stage == "minor"], [0.9, 0.9, 0.9], 0.55)
    calm = np.clip(1 - 1.5 * mess, 0.03, 1)
    merging = {
        "none": calm,
        "minor-disturbance": (1 - calm) * np.select([stage == "merger", stage == "major"], [0.12, 0.25], 0.75),
        "major-disturbance": (1 - calm) * np.select([stage == "merger", stage == "major"], [0.25, 0.6], 0.17),
        "merger": (1 - calm) * np.select([stage == "merger", stage == "major"], [0.75, 0.25], 0.12)
        + 0.12 * v["overlap"],
    }
    return {
        "smooth-or-featured": (first, 15 + 45 * abs(2 * featured - 1)),
        "disk-edge-on": ({"yes": edge, "no": 1 - edge}, 15 + 55 * abs(2 * edge - 1)),
        "has-spiral-arms": ({"yes": arms, "no": 1 - arms}, 12 + 48 * abs(2 * arms - 1)),
        "bar": ({"strong": bar * strong, "weak": bar * (1 - strong), "no": 1 - bar}, 14 + 30 * abs(2 * bar - 1)),
        "bulge-size": ({"dominant": near(x, 0.92, 0.11), "large": near(x, 0.66, 0.11), "moderate": near(x, 0.46, 0.11),
                        "small": near(x, 0.25, 0.11), "none": near(x, 0.03, 0.11)}, 25.0),
        "how-rounded": ({"round": near(q, 0.96, 0.13), "in-between": near(q, 0.64, 0.13),
                         "cigar-shaped": near(q, 0.24, 0.13)}, 40.0),
        "edge-on-bulge": ({"boxy": boxy, "rounded": rounded, "none": 1 - step(x, 0.2, 0.06) + 0.02}, 25.0),
        "spiral-winding": ({name: clear * near(np.log(np.maximum(pitch, 4)), np.log(middle), 0.3) + 0.5 * (1 - clear)
                            for name, middle in (("tight", 9.0), ("medium", 16.5), ("loose", 29.0))},
                           8 + 22 * v["arms"]),
        "spiral-arm-count": (number, 10 + 25 * v["arms"]),
        "merging": (merging, 15 + 40 * abs(2 * calm - 1)),
    }


def rare_probabilities(truth: pd.DataFrame) -> pd.DataFrame:
    """Expected share of volunteers who tick each rare feature.

    Args:
        truth: rows of :func:`~zoobook.simulation.draw_truth`.

    Returns:
        DataFrame: columns ring, irregular, dust-lane and overlapping, between 0 and 1.
    """
    seen = visibility(truth)
    irregular = (truth["true_type"] == "irregular").to_numpy()
    return pd.DataFrame({
        "ring": 0.006 + 0.9 * seen["ring"] ** 1.3,
        "irregular": 0.006 + 0.6 * irregular * seen["patches"] ** 0.5 + 0.1 * seen["disturbance"],
        "dust-lane": 0.006 + 0.85 * seen["dust"],
        "overlapping": 0.01 + 0.7 * seen["overlap"],
    }, index=truth.index).clip(0.004, 0.95)


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
    tree = _dr5()
    alpha, rare = concentrations(truth, tree), rare_probabilities(truth)
    chances = rare[list(RARE_FEATURES)].to_numpy()
    counts, ticks, able = [], [], []
    first = tree.label_columns.index("smooth-or-featured-dr5_artifact")
    for row, index in enumerate(truth["true_index"]):
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
    table = pd.concat(parts, axis=1)
    table.index = truth.index
    return table
