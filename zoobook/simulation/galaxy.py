"""The light of a galaxy before the atmosphere blurs it: bulge, disk, bar, arms, ring, dust, companion, tails."""

import numpy as np
from scipy.special import i0e

from zoobook.images.decals import ZERO_POINT
from zoobook.simulation.profiles import Grid, edge_on_disk, sersic, texture
from zoobook.simulation.truth import Truth

FINE_ENOUGH = 0.8  # arcsec; disks are computed with pixels no larger, then averaged
TWO_PI = 2.0 * np.pi
TILE = 48.0  # pixels of the random texture to a scale length
BAR_EDGE = 2.2  # how far a bar's light has fallen, in e-foldings, where the bar ends
EXTINCTION = np.array((1.0, 0.72, 0.42), np.float32)  # in g, r, z, over that in g


def fluxes(magnitude: float, g_r: float, r_z: float) -> np.ndarray:
    """Fluxes in g, r, z [nanomaggies, float32] of an r magnitude and two colours."""
    return (10.0 ** (-0.4 * (np.array((magnitude + g_r, magnitude, magnitude - r_z)) - ZERO_POINT))).astype(np.float32)


def galaxy_light(t: Truth, grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """Light of the galaxy, its companion and the galaxy that overlaps it.

    Returns:
        tuple: [3, side, side] float32, g, r, z in nanomaggies per arcsec2; and point sources (the nucleus and
        star-forming knots), a list of x, y [arcsec] and fluxes [nanomaggies, 3].
    """
    light = _elliptical if t["type"] == "elliptical" else _disk_galaxy
    bands, points, old, young = light(t, grid, rng)
    if t["nucleus_fraction"] > 0:
        points.append((0.0, 0.0, old * t["nucleus_fraction"]))
    for name, tone in (("companion", (old + young) / 2), ("overlap", old)):
        if t[f"{name}_ratio"] > 0:
            bands += tone[:, None, None] * _neighbour(t, name, grid, rng)
    return bands, points


def _elliptical(t: Truth, grid: Grid, rng: np.random.Generator) -> tuple:
    """Bands, point sources, and the fluxes of old and young stars of an elliptical galaxy."""
    tone = fluxes(t["mag_r"], t["g_r"], t["r_z"])
    light = sersic(grid, 1.0, t["r50_arcsec"], t["bulge_sersic"], t["bulge_q"], t["pa_deg"],
                   boxiness=t["bulge_boxiness"])  # fmt: skip
    if t["tail_strength"] > 0:
        light *= 1 + _shells(t, grid, rng)
    return light * tone[:, None, None], [], tone, tone


def _disk_galaxy(t: Truth, grid: Grid, rng: np.random.Generator) -> tuple:
    """The same of a galaxy with a disk, whose old stars are redder than the galaxy as a whole, and its arms bluer."""
    magnitude, g_r, r_z = t["mag_r"], t["g_r"], t["r_z"]
    old = fluxes(magnitude, min(max(g_r + 0.13, 0.62), 0.94), r_z + 0.1)
    young = fluxes(magnitude, g_r - 0.04, r_z - 0.04)
    blue = fluxes(magnitude, g_r - 0.32, r_z - 0.32)
    times = int(np.ceil(grid.step / FINE_ENOUGH))
    *maps, knots = _disk(t, grid.finer(times) if times > 1 else grid, rng)
    old_light, disk, arms, dust = (_shrink(light, times) for light in maps)
    if t["bulge_fraction"] > 0.003:
        old_light = old_light + sersic(
            grid, t["bulge_fraction"], t["bulge_r50_arcsec"], t["bulge_sersic"], t["bulge_q"], t["pa_deg"],
            boxiness=t["bulge_boxiness"],
        )  # fmt: skip
    bands = disk * young[:, None, None] + arms * blue[:, None, None] + old_light * old[:, None, None]
    if dust is not None:
        bands *= np.exp(-dust * EXTINCTION[:, None, None])
    return bands, [(x, y, blue * np.float32(share)) for x, y, share in knots], old, young


def _neighbour(t: Truth, name: str, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Light of the companion, or of the galaxy that overlaps by chance, over that of the galaxy."""
    ratio, distance, where = t[f"{name}_ratio"], t[f"{name}_arcsec"], np.deg2rad(t[f"{name}_pa_deg"])
    size, index = t["r50_arcsec"] * ratio**0.45 * rng.uniform(0.5, 0.9), rng.uniform(0.9, 3.5)
    return sersic(grid, ratio, size, index, rng.uniform(0.35, 0.95), rng.uniform(0, 180),
                  distance * np.cos(where), distance * np.sin(where))  # fmt: skip


def _shrink(image, times: int):
    """Mean over blocks of pixels; leaves numbers and None alone."""
    if times == 1 or np.ndim(image) < 2:
        return image
    side = len(image) // times
    return image.reshape(side, times, side, times).mean(axis=(1, 3))


def _disk(t: Truth, grid: Grid, rng: np.random.Generator) -> tuple:
    """All but the bulge of a disk galaxy of unit flux: old, young and blue light, dust or None, knots."""
    scale, light = t["disk_scale_arcsec"], 1.0 - t["bulge_fraction"] - t["bar_fraction"] - t["knot_fraction"]
    major, minor = _disk_axes(t, grid, rng)
    if t["type"] == "edge-on":
        return _edge_on(t, major, minor, light, rng)
    cos_i = np.cos(np.deg2rad(t["inclination_deg"]))
    q = np.float32(np.hypot(cos_i, 0.6 * t["disk_thickness"] * np.sqrt(1 - cos_i**2)))
    near_side, minor = minor / (0.5 * scale), minor / q
    plane = _Plane(t, major, minor, rng)
    peak = np.float32(light / (TWO_PI * scale**2)) / q
    disk = peak * np.exp(-_fall(t, plane))
    blue, dust = np.zeros_like(disk), np.zeros_like(disk)

    arms_start = max(t["bar_length_arcsec"] * 0.95, 0.45 * scale)
    first_arm = rng.uniform(0, TWO_PI)
    if t["bar_fraction"] > 0:  # arms begin at the ends of the bar
        first_arm = np.deg2rad(t["bar_angle_deg"]) + rng.normal(0, 0.12)
        disk = disk * _beside_bar(t, plane)
    if t["lens_contrast"] > 0:
        disk = disk * _lens(t, plane)
    if t["flocculence"] > 0.05:
        disk, blue = _patches(t, disk, blue, plane.field(rng))
    if t["arm_count"]:
        disk, blue, dust = _arms(t, disk, blue, plane, first_arm, arms_start, rng)
    if t["ring_kind"] != "none":
        disk, blue = _ring(t, disk, blue, plane, rng)
    if t["tail_strength"] > 0:
        disk = disk + _tails(t, major, minor, rng) * peak
    bar = _bar(t, grid, major, minor) if t["bar_fraction"] > 0 else np.float32(0)
    dust = _dust(t, dust, plane, near_side, cos_i, rng) if t["disk_dust"] > 0 else None
    return bar, disk, blue, dust, _knots(t, first_arm, arms_start, rng)


def _disk_axes(t: Truth, grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the disk's major and minor axes, slowly warped: disturbed galaxies are bent."""
    bend = np.float32(t["asymmetry"] * t["r50_arcsec"])
    phases, waves = rng.uniform(0, TWO_PI, 2).astype(np.float32), rng.uniform(0.6, 1.3, 2) / t["r50_arcsec"]
    x = grid.x + bend * (np.sin(np.float32(waves[0]) * grid.y + phases[0]) - np.sin(phases[0]))
    y = grid.y + bend * (np.sin(np.float32(waves[1]) * grid.x + phases[1]) - np.sin(phases[1]))
    cos, sin = (np.float32(f(np.deg2rad(t["pa_deg"]))) for f in (np.cos, np.sin))
    return x * cos + y * sin, y * cos - x * sin


class _Plane:
    """Polar coordinates in the plane of a disk: radius [arcsec], angle, and the ln of radius over scale length."""

    def __init__(self, t: Truth, major, minor, rng: np.random.Generator):
        scale = t["disk_scale_arcsec"]
        radius, self.angle = np.hypot(major, minor) + 1e-3, np.arctan2(minor, major)
        # Stars on one side lie farther out than on the other, in the outskirts more.
        lopsided = 1.5 * t["asymmetry"] * np.cos(self.angle - rng.uniform(0, TWO_PI))
        self.radius = radius * (1 - lopsided * np.minimum(radius / (2 * scale), 1))
        self.log_radius = np.log(self.radius / scale)
        # Differential rotation winds patches up.
        pitch = max(t["arm_pitch_deg"], 14.0)
        shear = {"spiral": 0.7 / np.tan(np.deg2rad(pitch)), "irregular": 0.3}.get(t["type"], 1.0)
        turned = self.angle - np.float32(shear * t["winding"]) * self.log_radius
        reach = self.radius * (TILE / scale)
        self._sheared = reach * np.cos(turned), reach * np.sin(turned)

    def field(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a random field over the disk, of zero mean and unit variance."""
        return texture(*self._sheared, rng)


def _fall(t: Truth, plane: _Plane) -> np.ndarray:
    """E-foldings by which an exponential disk has faded, more or fewer beyond its break."""
    scale = t["disk_scale_arcsec"]
    fall = plane.radius / scale
    if t["disk_break_arcsec"]:
        beyond = np.maximum(plane.radius - t["disk_break_arcsec"], 0)
        fall = fall + t["disk_bend"] / scale * beyond
    return fall


def _edge_on(t: Truth, major, minor, light: float, rng: np.random.Generator) -> tuple:
    """The parts that :func:`_disk` returns, of a disk seen from the side."""
    scale, tilt = t["disk_scale_arcsec"], np.cos(np.deg2rad(t["inclination_deg"]))
    height = scale * np.hypot(t["disk_thickness"], 0.8 * tilt)
    per_scale = TILE / scale
    clumps = texture(major * per_scale, 2 * minor * per_scale, rng)
    disk = edge_on_disk(major, minor, light, scale, height).astype(np.float32)
    if t["disk_break_arcsec"]:
        disk *= np.exp(-t["disk_bend"] / scale * np.maximum(abs(major) - t["disk_break_arcsec"], 0))
    dust = None
    if t["dust"] > 0:
        lane = (minor - np.float32(0.6 * tilt * scale)) / np.float32(0.38 * height + 0.03 * scale)
        dust = t["dust"] * np.exp(-0.5 * lane**2 - (major / (2.6 * scale)) ** 2)
        dust *= np.exp(0.35 * clumps)
    blue = disk * np.maximum(t["flocculence"] * clumps, 0)
    return np.float32(0), disk - 0.7 * blue, blue, dust, []


def _patches(t: Truth, disk, blue, field) -> tuple[np.ndarray, np.ndarray]:
    """Make the disk patchy, and the brighter patches blue."""
    sigma = t["flocculence"]
    factor = np.exp(sigma * field - sigma**2 / 2)
    extra = disk * np.maximum(factor - 1, 0)
    return disk * np.minimum(factor, 1) + 0.5 * extra, blue + 0.5 * extra


def _arms(t: Truth, disk, blue, plane: _Plane, first, starts, rng: np.random.Generator) -> tuple:
    """Wind nearly logarithmic arms into the disk; with the light comes the dust along their inner edges."""
    m, kappa, contrast = t["arm_count"], t["arm_sharpness"], np.float32(t["arm_contrast"])
    radius, angle = plane.radius, plane.angle
    k = np.float32(t["winding"] / np.tan(np.deg2rad(t["arm_pitch_deg"])))
    turned = plane.log_radius - np.float32(np.log(starts / t["disk_scale_arcsec"]))
    curved = turned * (1 + rng.uniform(-0.15, 0.15) * turned)
    ragged = np.float32(t["arm_irregularity"])
    psi = m * (angle - k * curved - np.float32(first)) + ragged * plane.field(rng)
    # One arm is often longer or brighter than the other, and every arm is patchy.
    unequal = 1 + np.float32(0.5) * ragged * np.cos(angle - k * curved - rng.uniform(0, TWO_PI))
    patchy = np.exp(np.float32(0.7) * ragged * plane.field(rng) - np.float32(0.25) * ragged**2) * unequal
    envelope = 1 / (1 + np.exp((starts - radius) / (0.12 * starts)))
    envelope *= np.exp(-((radius / (t["arm_reach"] * t["disk_scale_arcsec"])) ** 4))
    crest = np.exp(kappa * (np.cos(psi) - 1)) * patchy
    # Arms rise above the disk and the light between them sinks, so that the mean over azimuth stays.
    scale = 1 + contrast * np.float32(i0e(kappa))
    young = disk * envelope * (np.float32(0.4) * contrast / scale) * crest
    smooth = disk * (1 + envelope * ((1 + contrast * crest) / scale - 1)) - young
    lane = np.exp(3.0 * kappa * (np.cos(psi + 0.9 * t["winding"]) - 1)) * envelope
    return smooth, blue + young, lane * patchy


def _ring(t: Truth, disk, blue, plane: _Plane, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add a ring to the disk, and the dark gap inside it; a pseudo-ring opens like tightly wound arms."""
    centre, width = np.float32(t["ring_radius_arcsec"]), np.float32(t["ring_width_arcsec"])
    along = np.deg2rad(t["bar_angle_deg"]) if t["bar_fraction"] > 0 else rng.uniform(0, TWO_PI)
    turned = plane.angle - np.float32(along)
    # Inner rings are drawn out along the bar; the two halves of a pseudo-ring do not meet.
    stretch = (t["ring_ellipticity"] if t["ring_kind"] == "inner" else -t["ring_ellipticity"]) * np.cos(2 * turned)
    opening = np.mod(turned * np.float32(t["winding"] / np.pi), 1) - 0.5
    radius = plane.radius / (1 + stretch + t["ring_opening"] * opening)
    patchy = np.float32(t["ring_patchiness"])
    uneven = np.exp(patchy * plane.field(rng) - patchy**2 / 2) * (
        1 + np.float32(0.6) * patchy * np.cos(plane.angle - rng.uniform(0, TWO_PI)))
    bump = t["ring_contrast"] * disk * np.exp(-0.5 * ((radius - centre) / width) ** 2) * uneven
    gap = np.exp(-0.5 * ((radius / centre - 0.68) / 0.16) ** 2)
    share = np.float32(0.15 if t["type"] == "lenticular" else 0.5)
    return disk * (1 - t["ring_gap"] * gap) + (1 - share) * bump, blue + share * bump


def _lens(t: Truth, plane: _Plane) -> np.ndarray:
    """The plateau of a lens, over the disk."""
    edge = (plane.radius / t["lens_radius_arcsec"] - 1) / 0.07
    return 1 + t["lens_contrast"] / (1 + np.exp(np.clip(edge, -30, 30)))


def _dust(t: Truth, lanes, plane: _Plane, near_side, cos_i: float, rng: np.random.Generator) -> np.ndarray:
    """Optical depth: lanes along the arms, filaments between them, a screen before the side that is nearer to us."""
    screen = np.float32(0.35 * (1 - cos_i) / max(cos_i, 0.3)) * (1 + np.tanh(near_side))
    depth = lanes + 0.35 * np.maximum(plane.field(rng), 0) + screen
    depth = depth * np.exp(-plane.radius / (1.8 * t["disk_scale_arcsec"]))
    return depth * t["disk_dust"]


def _beside_bar(t: Truth, plane: _Plane) -> np.ndarray:
    """What is left of the disk on both sides of a bar, which has swept it up."""
    across = np.sin(plane.angle - np.float32(np.deg2rad(t["bar_angle_deg"]))) ** 2
    inside = np.exp(-((plane.radius / (0.95 * t["bar_length_arcsec"])) ** 6))
    return 1 - t["bar_gap"] * across * inside


def _bar(t: Truth, grid: Grid, major, minor) -> np.ndarray:
    """A bar: boxy, flat along most of its length, in some galaxies with a blob at either end."""
    turn, length, box = np.deg2rad(t["bar_angle_deg"]), t["bar_length_arcsec"], np.float32(t["bar_boxiness"])
    cos, sin = np.cos(turn), np.sin(turn)
    along = np.abs(major * np.float32(cos / length) + minor * np.float32(sin / length))
    across = np.abs(minor * np.float32(cos / length) - major * np.float32(sin / length)) / t["bar_q"]
    reach = np.minimum(along**box + across**box, 1e4)
    shape = np.exp(-BAR_EDGE * reach ** np.float32(t["bar_flatness"] / box))
    if t["bar_ansae"] > 0:
        shape += t["bar_ansae"] * np.exp(-((along - 0.88) / 0.16) ** 2 - across**2)
    return shape * (t["bar_fraction"] / max(float(shape.sum()) * grid.step**2, 1e-6))


def _tails(t: Truth, major, minor, rng: np.random.Generator) -> np.ndarray:
    """Two open tidal arms beyond the disk, over the disk's central brightness."""
    scale, radius = t["disk_scale_arcsec"], np.hypot(major, minor) + 1e-3
    open_angle, kappa = np.deg2rad(rng.uniform(28, 60)), np.float32(rng.uniform(6, 16))
    psi = np.arctan2(minor, major) - rng.uniform(0, TWO_PI)
    psi -= np.log(radius / scale) * np.float32(t["winding"] / np.tan(open_angle))
    wave = kappa * np.cos(psi)
    arm = np.exp(wave - kappa) + rng.uniform(0.0, 0.8) * np.exp(-wave - kappa)
    inside = 1 / (1 + np.exp((1.6 * scale - radius) / (0.25 * scale)))
    return 0.1 * t["tail_strength"] * arm * inside * np.exp(-radius / (rng.uniform(2, 3) * scale))


def _shells(t: Truth, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Sharp-edged arcs around an elliptical galaxy that swallowed another one, over its local light."""
    turn = np.deg2rad(t["pa_deg"]) + rng.normal(0, 0.3)
    radius = np.hypot(grid.x, grid.y) / t["r50_arcsec"] + 1e-3
    angle = np.arctan2(grid.y, grid.x) - np.float32(turn)
    side = np.cos(angle)
    # Shells on one side lie between those on the other.
    phase = np.log(radius) * rng.uniform(1.6, 3.0) + np.where(side > 0, 0.0, 0.5).astype(np.float32)
    wedge = np.exp(rng.uniform(3, 8) * (np.abs(side) - 1))
    outside = 1 / (1 + np.exp((0.9 - radius) / 0.15))
    return 0.45 * t["tail_strength"] * np.mod(phase, 1) ** 3 * wedge * outside


def _knots(t: Truth, first: float, starts: float, rng: np.random.Generator) -> list:
    """Star-forming knots, strewn along the arms or in heaps: (x, y [arcsec], share of the light)."""
    count, scale = int(t["knots"]), t["disk_scale_arcsec"]
    if not count:
        return []
    radius = np.clip(rng.gamma(2.5, 0.6 * scale, count), 0.2 * scale, 3.0 * scale)
    angle = rng.uniform(0, TWO_PI, count)
    if t["arm_count"]:
        radius = np.maximum(radius, starts)
        k = t["winding"] / np.tan(np.deg2rad(t["arm_pitch_deg"]))
        arm = rng.integers(0, t["arm_count"], count) * TWO_PI / t["arm_count"]
        angle = first + k * np.log(radius / starts) + arm + rng.normal(0, 0.2 + 0.3 * t["arm_irregularity"], count)
    major, minor = radius * np.cos(angle), radius * np.sin(angle)
    if t["type"] == "irregular":
        heap = rng.integers(0, min(4, count), count)
        major, minor = (0.8 * axis[heap] + rng.normal(0, 0.3 * scale, count) for axis in (major, minor))
    share = np.minimum(rng.pareto(1.7, count), 8) + 0.3
    share *= t["knot_fraction"] / share.sum()
    minor = minor * np.cos(np.deg2rad(t["inclination_deg"]))
    pa = np.deg2rad(t["pa_deg"])
    x, y = major * np.cos(pa) - minor * np.sin(pa), major * np.sin(pa) + minor * np.cos(pa)
    return list(zip(x, y, share, strict=True))
