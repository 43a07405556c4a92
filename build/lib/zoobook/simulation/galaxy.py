"""The light of a galaxy before the atmosphere blurs it: bulge, disk, bar, arms, ring, dust, companion, tails."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import i0e

from zoobook.simulation.profiles import Grid, edge_on_disk, sersic

ZERO_POINT = 22.5  # magnitude of one nanomaggie
FINE_ENOUGH = 0.8  # arcsec; disks are computed with pixels no larger, then averaged
TWO_PI = 2.0 * np.pi
EXTINCTION = np.array((1.0, 0.72, 0.42), np.float32)  # in g, r, z, over that in g


def fluxes(magnitude: float, g_r: float, r_z: float) -> np.ndarray:
    """Fluxes in g, r, z [nanomaggies, float32] of an r magnitude and two colours."""
    return (10.0 ** (-0.4 * (np.array((magnitude + g_r, magnitude, magnitude - r_z)) - ZERO_POINT))).astype(np.float32)


def galaxy_light(galaxy: Mapping, grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """Light of the galaxy, its companion and the galaxy that overlaps it.

    Args:
        galaxy: a row of truth.
        grid: the pixels.
        rng: random numbers of the scene.

    Returns:
        tuple: [3, side, side] float32, g, r, z in nanomaggies per arcsec2; and point sources (star-forming knots), a
        list of x, y [arcsec] and fluxes [nanomaggies, 3].
    """
    t = {key.removeprefix("true_"): value for key, value in galaxy.items()}
    magnitude, g_r, r_z, r50, bulge = t["mag_r"], t["g_r"], t["r_z"], t["r50_arcsec"], t["bulge_fraction"]
    points: list = []
    if t["type"] == "elliptical":
        old = young = fluxes(magnitude, g_r, r_z)
        light = sersic(grid, 1.0, r50, t["bulge_sersic"], t["bulge_q"], t["pa_deg"], boxiness=t["bulge_boxiness"])
        if t["tail_strength"] > 0:  # stars thrown out of an elliptical spread into fans
            x, y = np.broadcast_arrays(0.8 * grid.x, grid.y)
            light += _tails(t, x, y, 0.45 * r50, rng) * np.float32(0.25 / (TWO_PI * (0.9 * r50) ** 2))
        bands = light * old[:, None, None]
    else:
        # Old stars are redder than the galaxy as a whole, arms bluer.
        old = fluxes(magnitude, min(g_r + 0.1, 0.92), r_z + 0.05)
        young = fluxes(magnitude, g_r - 0.03, r_z - 0.03)
        blue = fluxes(magnitude, g_r - 0.28, r_z - 0.28)
        times = int(np.ceil(grid.step / FINE_ENOUGH))
        *maps, knots = _disk(t, grid.finer(times) if times > 1 else grid, rng)
        old_light, disk, arms, dust = (_shrink(light, times) for light in maps)
        if bulge > 0.003:
            old_light = old_light + sersic(grid, bulge, t["bulge_r50_arcsec"], t["bulge_sersic"], t["bulge_q"],
                                           t["pa_deg"], boxiness=t["bulge_boxiness"])
        bands = disk * young[:, None, None] + arms * blue[:, None, None] + old_light * old[:, None, None]
        if dust is not None:
            bands *= np.exp(-dust * EXTINCTION[:, None, None])
        points = [(x, y, blue * np.float32(share)) for x, y, share in knots]

    for name, tone in (("companion", (old + young) / 2), ("overlap", old)):
        ratio, distance, where = t[f"{name}_ratio"], t[f"{name}_arcsec"], np.deg2rad(t[f"{name}_pa_deg"])
        if ratio > 0:
            size, index = r50 * ratio**0.45 * rng.uniform(0.55, 0.95), rng.uniform(0.9, 3.5)
            bands += tone[:, None, None] * sersic(
                grid, ratio, size, index, rng.uniform(0.35, 0.95), rng.uniform(0, 180),
                distance * np.cos(where), distance * np.sin(where))
    return bands, points


def _shrink(image, times: int):
    """Mean over blocks of pixels; leaves numbers and None alone."""
    if times == 1 or np.ndim(image) < 2:
        return image
    side = len(image) // times
    return image.reshape(side, times, side, times).mean(axis=(1, 3))


def _disk(t: dict, grid: Grid, rng: np.random.Generator) -> tuple:
    """All but the bulge of a disk galaxy of unit flux: old, young and blue light, dust or None, knots."""
    scale, light = t["disk_scale_arcsec"], 1.0 - t["bulge_fraction"] - t["bar_fraction"] - t["knot_fraction"]
    major, minor = _disk_plane(t, grid, rng)
    nothing = np.float32(0)
    if t["type"] == "edge-on":
        tilt = np.cos(np.deg2rad(t["inclination_deg"]))
        height = scale * np.hypot(t["disk_thickness"], 0.8 * tilt)
        dust = None
        if t["dust"] > 0:
            lane = (minor - np.float32(0.6 * tilt * scale)) / np.float32(0.38 * height + 0.03 * scale)
            dust = np.float32(t["dust"]) * np.exp(-0.5 * lane**2 - (major / np.float32(2.6 * scale)) ** 2)
        return nothing, edge_on_disk(major, minor, light, scale, height).astype(np.float32), nothing, dust, []

    cos_i = np.cos(np.deg2rad(t["inclination_deg"]))
    q = np.float32(np.hypot(cos_i, 0.6 * t["disk_thickness"] * np.sqrt(1 - cos_i**2)))
    minor = minor / q
    radius, angle = np.hypot(major, minor) + np.float32(1e-3), np.arctan2(minor, major)
    fall = radius / np.float32(scale)
    log_radius = np.log(fall)
    if t["disk_break_arcsec"]:
        fall = fall + np.float32(1.5 / scale) * np.maximum(radius - np.float32(t["disk_break_arcsec"]), 0)
    peak = np.float32(light / (TWO_PI * scale**2)) / q
    disk = peak * np.exp(-fall)
    blue = np.zeros_like(disk)

    first, starts = rng.uniform(0, TWO_PI), max(t["bar_length_arcsec"] * 0.85, 0.45 * scale)
    if t["flocculence"] > 0.05:
        disk, blue = _patches(t, disk, blue, log_radius, angle, rng)
    if t["arm_count"]:
        disk, blue = _arms(t, disk, blue, radius, log_radius, angle, first, starts, rng)
    if t["ring_kind"] != "none":
        disk, blue = _ring(t, disk, blue, radius, angle, rng)
    if t["tail_strength"] > 0:
        disk = disk + _tails(t, major, minor, scale, rng) * peak
    bar = _bar(t, grid, major, minor) if t["bar_fraction"] > 0 else nothing
    return bar, disk, blue, None, _knots(t, first, starts, rng)


def _disk_plane(t: dict, grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the disk's major and minor axes, slowly warped: galaxies are lopsided, disturbed ones bent."""
    bend = np.float32(t["asymmetry"] * t["r50_arcsec"])
    phases, waves = rng.uniform(0, TWO_PI, 2).astype(np.float32), rng.uniform(0.8, 1.7, 2) / t["r50_arcsec"]
    x = grid.x + bend * (np.sin(np.float32(waves[0]) * grid.y + phases[0]) - np.sin(phases[0]))
    y = grid.y + bend * (np.sin(np.float32(waves[1]) * grid.x + phases[1]) - np.sin(phases[1]))
    cos, sin = (np.float32(f(np.deg2rad(t["pa_deg"]))) for f in (np.cos, np.sin))
    return x * cos + y * sin, y * cos - x * sin


def _patches(t: dict, disk, blue, log_radius, angle, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make the disk patchy: random waves in log radius and angle, sheared as the arms are."""
    shear = 1.0 / np.tan(np.deg2rad(max(t["arm_pitch_deg"], 16.0))) if t["type"] == "spiral" else 0.6
    waves = np.zeros_like(disk)
    for _ in range(7):
        m = int(rng.integers(1, 8))
        k = m * shear * t["winding"] + rng.normal(0.0, 4.0)
        waves += np.cos(np.float32(m) * angle - np.float32(k) * log_radius + np.float32(rng.uniform(0, TWO_PI)))
    sigma = t["flocculence"]
    factor = np.exp(waves * np.float32(sigma / np.sqrt(3.5)) - np.float32(sigma**2 / 2))
    extra = disk * np.maximum(factor - 1, 0)
    return disk * np.minimum(factor, 1) + np.float32(0.4) * extra, blue + np.float32(0.6) * extra


def _arms(t: dict, disk, blue, radius, log_radius, angle, first, starts, rng) -> tuple[np.ndarray, np.ndarray]:
    """Wind logarithmic arms of von Mises profile into the disk, with dust along their inner edges."""
    m, kappa, contrast = t["arm_count"], t["arm_sharpness"], np.float32(t["arm_contrast"])
    k = np.float32(t["winding"] / np.tan(np.deg2rad(t["arm_pitch_deg"])))
    wobble = np.float32(0.25) * np.sin(np.float32(2.3) * log_radius + np.float32(rng.uniform(0, TWO_PI)))
    turned = log_radius - np.float32(np.log(starts / t["disk_scale_arcsec"]))
    psi = np.float32(m) * (angle - k * turned - np.float32(first)) + wobble
    envelope = 1 / (1 + np.exp((np.float32(starts) - radius) / np.float32(0.12 * starts)))
    envelope *= np.exp(-((radius / np.float32(4.2 * t["disk_scale_arcsec"])) ** 4))
    crest = np.exp(np.float32(kappa) * (np.cos(psi) - 1))
    # Arms rise above the disk and the light between them sinks, so that the mean over azimuth stays.
    scale = 1 + contrast * np.float32(i0e(kappa))
    young = disk * envelope * (np.float32(0.35) * contrast / scale) * crest
    smooth = disk * (1 + envelope * ((1 + contrast * crest) / scale - 1)) - young
    lane = np.exp(np.float32(3.0 * kappa) * (np.cos(psi + np.float32(0.9 * t["winding"])) - 1)) * envelope
    return smooth * (1 - np.float32(0.16 * min(contrast, 1.5)) * lane), blue + young


def _ring(t: dict, disk, blue, radius, angle, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add a ring to the disk, and the dark gap inside it."""
    centre, width = np.float32(t["ring_radius_arcsec"]), np.float32(t["ring_width_arcsec"])
    uneven = 1 + np.float32(rng.uniform(0, 0.35)) * np.cos(2 * angle - np.float32(rng.uniform(0, TWO_PI)))
    bump = np.float32(t["ring_contrast"]) * disk * np.exp(-0.5 * ((radius - centre) / width) ** 2) * uneven
    gap = np.exp(-0.5 * ((radius / centre - np.float32(0.64)) / np.float32(0.19)) ** 2)
    return disk * (1 - np.float32(t["ring_gap"]) * gap) + np.float32(0.7) * bump, blue + np.float32(0.3) * bump


def _bar(t: dict, grid: Grid, major, minor) -> np.ndarray:
    """A bar: light that falls off faster than a Gaussian along its length."""
    turn, length = np.deg2rad(t["bar_angle_deg"]), t["bar_length_arcsec"]
    cos, sin = np.cos(turn), np.sin(turn)
    along = major * np.float32(cos / length) + minor * np.float32(sin / length)
    across = (minor * np.float32(cos / length) - major * np.float32(sin / length)) / np.float32(t["bar_q"])
    shape = np.exp(np.float32(-2.2) * (np.abs(along) ** np.float32(2.6) + across**2))
    return shape * np.float32(t["bar_fraction"] / max(float(shape.sum()) * grid.step**2, 1e-6))


def _tails(t: dict, major, minor, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Two open tidal arms beyond the disk, over the disk's central brightness."""
    radius = np.hypot(major, minor) + np.float32(1e-3)
    open_angle = np.deg2rad(rng.uniform(30, 55))
    psi = np.arctan2(minor, major) - np.float32(rng.uniform(0, TWO_PI))
    psi -= np.log(radius / np.float32(scale)) * np.float32(t["winding"] / np.tan(open_angle))
    wave = 5 * np.cos(psi)
    arm = np.exp(wave - 5) + np.float32(rng.uniform(0.1, 0.9)) * np.exp(-wave - 5)
    inside = 1 / (1 + np.exp((np.float32(1.6 * scale) - radius) / np.float32(0.25 * scale)))
    return np.float32(0.13 * t["tail_strength"]) * arm * inside * np.exp(-radius / np.float32(2.6 * scale))


def _knots(t: dict, first: float, starts: float, rng: np.random.Generator) -> list:
    """Star-forming knots, strewn along the arms: (x, y [arcsec], share of the light)."""
    count, scale = int(t["knots"]), t["disk_scale_arcsec"]
    if not count:
        return []
    radius = np.clip(rng.gamma(3.0, 0.62 * scale, count), 0.3 * scale, 4.5 * scale)
    angle = rng.uniform(0, TWO_PI, count)
    if t["arm_count"]:
        radius = np.maximum(radius, starts)
        k = t["winding"] / np.tan(np.deg2rad(t["arm_pitch_deg"]))
        arm = rng.integers(0, t["arm_count"], count) * TWO_PI / t["arm_count"]
        angle = first + k * np.log(radius / starts) + arm + rng.normal(0, 0.25, count)
    share = rng.pareto(1.7, count) + 0.3
    share *= t["knot_fraction"] / share.sum()
    q, pa = np.cos(np.deg2rad(t["inclination_deg"])), np.deg2rad(t["pa_deg"])
    major, minor = radius * np.cos(angle), radius * np.sin(angle) * q
    x, y = major * np.cos(pa) - minor * np.sin(pa), major * np.sin(pa) + minor * np.cos(pa)
    return list(zip(x, y, share, strict=True))
