import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lessons
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from zoobook import simulation, trees, votes
from zoobook.images.decals import colour
from zoobook.simulation import galaxy, profiles, survey, volunteers

galsim = pytest.importorskip("galsim")
TREE = trees.load("decals_dr5")
ORACLE = [f"{column}_oracle" for column in TREE.label_columns]


@pytest.fixture(scope="module")
def truth():
    return simulation.draw_truth(3000, seed=4)


@pytest.fixture(scope="module")
def voted(truth):
    return simulation.vote(truth, seed=4)


@pytest.fixture()
def plain():
    """A row of truth without any structure, 60 arcsec wide."""
    absent = ("bulge_fraction disk_break_arcsec bar_fraction flocculence knot_fraction dust companion_ratio "
              "tail_strength asymmetry overlap_ratio offset_x_arcsec offset_y_arcsec nucleus_fraction disk_dust "
              "lens_contrast arm_irregularity ring_patchiness ring_ellipticity ring_opening")
    return simulation.draw_truth(1, seed=0).iloc[0].to_dict() | {f"true_{name}": 0.0 for name in absent.split()} | of(
        type="lenticular", frame_arcsec=60.0, r50_arcsec=5.0, mag_r=16.0, pa_deg=30.0, disk_scale_arcsec=3.0,
        arm_count=0, knots=0, ring_kind="none", seeing_arcsec=1.2, bulge_boxiness=2.0, g_r=0.7, r_z=0.6)


def of(**truth):
    """Columns of truth."""
    return {f"true_{name}": value for name, value in truth.items()}


def galsim_psf(fwhm):
    sigma = fwhm / profiles._fwhm_per_sigma()
    wing = galsim.Gaussian(sigma=sigma * profiles.WING_WIDTH, flux=profiles.WING_LIGHT)
    return galsim.Gaussian(sigma=sigma, flux=1 - profiles.WING_LIGHT) + wing


def moment_axis_ratio(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - (image.shape[0] - 1) / 2
    weight = image * (np.hypot(x, y) < 0.45 * len(image))
    covariance = np.array([[(weight * a * b).sum() for a in (x, y)] for b in (x, y)])
    low, high = np.linalg.eigvalsh(covariance)
    return np.sqrt(low / high)


# ------------------------------------------------------------------------------------------------ light, against GalSim


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("q", [1.0, 0.6, 0.35])
def test_sersic_galaxies_are_those_of_galsim(plain, index, q):
    plain |= of(type="elliptical", bulge_fraction=1.0, r50_arcsec=4.0, bulge_sersic=index, bulge_q=q)
    ours = simulation.noise_free(plain, 128)[1]
    flux = 10 ** (-0.4 * (16.0 - 22.5))
    model = galsim.Sersic(index, half_light_radius=4.0 * np.sqrt(q), flux=flux).shear(q=q, beta=30 * galsim.degrees)
    theirs = galsim.Convolve(model, galsim_psf(1.2)).drawImage(nx=128, ny=128, scale=60 / 128).array
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.005)
    assert np.abs(ours - theirs).max() < 0.02 * theirs.max()
    # The ellipse of the half-light radius holds half of the total light, the PSF apart.
    image = profiles.sersic(grid := profiles.Grid(256, 60.0), 1.0, 4.0, index, q, 30.0) * grid.step**2
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    ellipse = np.hypot(grid.x * c + grid.y * s, (grid.y * c - grid.x * s) / q) < 4.0
    assert image[ellipse].sum() == pytest.approx(0.5, abs=0.012)


@pytest.mark.parametrize("fwhm", [0.9, 1.2, 1.8])
def test_point_sources_have_the_width_and_light_of_the_psf(fwhm):
    psf = galsim_psf(fwhm)
    assert psf.xValue(fwhm / 2, 0) / psf.xValue(0, 0) == pytest.approx(0.5, rel=1e-3)
    grid = profiles.Grid(64, 20.0)
    ours = profiles.point_sources([(0.37, -1.21, np.ones(3))], grid, [fwhm] * 3)[1] * grid.step**2
    theirs = psf.shift(0.37, -1.21).drawImage(nx=grid.side, ny=grid.side, scale=grid.step).array
    assert ours.sum() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.max()


@pytest.mark.parametrize("kind, inclination, thickness, tolerance", [
    ("lenticular", 0.0, 0.12, 0.06), ("lenticular", 45.0, 0.12, 0.06), ("lenticular", 65.0, 0.12, 0.06),
    ("edge-on", 90.0, 0.15, 0.03)])
def test_inclined_disks_are_those_of_galsim(plain, kind, inclination, thickness, tolerance):
    plain |= of(type=kind, inclination_deg=inclination, disk_thickness=thickness)
    ours = simulation.noise_free(plain, 128)[1]
    model = galsim.InclinedExponential(inclination * galsim.degrees, scale_radius=3.0, scale_h_over_r=thickness)
    model = model.withFlux(10 ** (-0.4 * (16.0 - 22.5))).rotate(30 * galsim.degrees)
    theirs = galsim.Convolve(model, galsim_psf(1.2)).drawImage(nx=128, ny=128, scale=60 / 128).array
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.01)
    assert moment_axis_ratio(ours) == pytest.approx(moment_axis_ratio(theirs), rel=0.03)
    assert np.abs(ours - theirs).max() < tolerance * theirs.max()


def test_arms_and_rings_do_what_the_truth_says(plain):
    plain |= of(inclination_deg=0.0, pa_deg=0.0, frame_arcsec=40.0, seeing_arcsec=0.5)
    smooth = simulation.noise_free(plain, 160)[0]
    y, x = np.mgrid[:160, :160] - 79.5
    radius, angle = np.hypot(x, y) * 0.25, np.arctan2(y, x)
    for arms in (2, 3, 5):
        spiral = plain | of(type="spiral", arm_count=arms, arm_pitch_deg=18.0, arm_contrast=2.0)
        spiral = simulation.noise_free(spiral, 160)[0]
        annulus = (radius > 4.5) & (radius < 5.0)
        power = [abs((spiral[annulus] * np.exp(1j * m * angle[annulus])).sum()) for m in range(1, 8)]
        assert int(np.argmax(power)) + 1 == arms
        assert spiral.sum() == pytest.approx(smooth.sum(), rel=0.1)
    ring = of(ring_kind="outer", ring_radius_arcsec=7.0, ring_width_arcsec=0.8, ring_contrast=1.5, ring_gap=0.3)
    ring = simulation.noise_free(plain | ring, 160)[0]
    bins = np.arange(3, 11, 0.5)
    annuli = [(radius >= r) & (radius < r + 0.5) for r in bins]
    excess = [np.median(ring[annulus] / smooth[annulus]) for annulus in annuli]
    assert bins[int(np.argmax(excess))] + 0.25 == pytest.approx(7.0, abs=0.6)
    assert max(excess) == pytest.approx(2.5, rel=0.15)


def test_bars_stand_out_as_much_as_volunteers_believe(plain):
    barred = plain | of(
        inclination_deg=0.0, pa_deg=0.0, frame_arcsec=40.0, seeing_arcsec=0.3, bulge_fraction=0.15,
        bulge_r50_arcsec=0.6, bulge_sersic=1.5, bulge_q=1.0, bar_length_arcsec=4.0, bar_q=0.4, bar_angle_deg=0.0,
        bar_flatness=3.0, bar_boxiness=2.5, bar_ansae=0.0, bar_gap=0.0)
    for fraction in (0.05, 0.15):
        row = barred | {"true_bar_fraction": fraction}
        light = simulation.noise_free(row, 321)[1]
        at = int(round(160 + 0.6 * 4.0 / (40.0 / 321)))
        measured = light[160, at] / light[at, 160] - 1  # along the bar, over across it
        columns = {key.removeprefix("true_"): np.array([value]) for key, value in row.items()}
        assert volunteers._bar_contrast(columns)[0] == pytest.approx(measured, rel=0.1)


def test_the_centre_lies_where_the_truth_says(plain):
    plain |= of(offset_x_arcsec=0.9, offset_y_arcsec=-0.4, inclination_deg=20.0)
    light = simulation.noise_free(plain, 96)[1]
    y, x = (np.mgrid[:96, :96] - 47.5) * 60 / 96
    assert (light * x).sum() / light.sum() == pytest.approx(0.9, abs=0.05)
    assert (light * y).sum() / light.sum() == pytest.approx(-0.4, abs=0.05)
    assert light.min() > -1e-4 * light.max()  # moved without ringing


def test_the_texture_of_disks_has_the_same_strength_everywhere():
    x = np.arange(600, dtype=np.float32)
    field = profiles.texture(x[None, :], x[:, None], np.random.default_rng(3))
    assert abs(field[:512, :512].mean()) < 1e-3 and field[:512, :512].std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(field[512:], field[:88], atol=1e-3)  # periodic: nowhere a seam
    half = profiles.texture(x[None, :] / 2, x[:, None] / 2, np.random.default_rng(3))
    np.testing.assert_allclose(half[::2, ::2], field[:300, :300], atol=1e-3)


def test_a_noisier_survey_hides_features_from_volunteers(truth, monkeypatch):
    quiet = simulation.visibility(truth)
    monkeypatch.setattr(volunteers, "SKY_NOISE", 4 * volunteers.SKY_NOISE)
    noisy = simulation.visibility(truth)
    for feature in ("arms", "bar", "ring"):
        assert (noisy[feature] <= quiet[feature]).all() and noisy[feature].mean() < 0.9 * quiet[feature].mean()


def test_late_types_are_blue_and_nearly_bulgeless(truth):
    spirals = truth[truth["true_type"] == "spiral"]
    for column, sign in (("g_r", -1), ("bulge_fraction", -1), ("arm_pitch_deg", 1), ("knot_fraction", 1)):
        assert sign * spirals["true_stage"].corr(spirals[f"true_{column}"], method="spearman") > 0.3
    bars = truth["true_bar_fraction"] > 0
    length = truth["true_bar_over_disk"]
    assert length[bars].between(0.05, 1).all() and not length[~bars].any()


def test_the_scene_is_the_same_at_every_image_size(truth):
    rows = truth[truth["true_artifact"] == "none"].head(6).to_dict("records")
    for row in rows:
        small = simulation.noise_free(row, 64, seed=4, clutter=True)
        large = simulation.noise_free(row, 192, seed=4, clutter=True)
        shrunk = large.reshape(3, 64, 3, 64, 3).sum((2, 4))
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.99
        inner = np.s_[:, 16:48, 16:48]
        assert small[inner].sum() == pytest.approx(shrunk[inner].sum(), rel=0.03)


# --------------------------------------------------------------------------------------------------------- colour


def test_grey_light_is_stretched_as_astropy_does():
    from astropy.visualization import make_lupton_rgb

    light = np.linspace(0.01, 250, 4096, dtype=np.float32).reshape(64, 64)
    ours = colour(np.stack([light * s for s in (0.008, 0.014, 0.019)]))
    assert np.ptp(ours, axis=2).max() <= 1  # grey stays grey
    # Parameters that make astropy's mapping arcsinh(I) / span; the survey adds its black point and a little contrast.
    black, span = np.arcsinh(-0.5), np.arcsinh(300.0) - np.arcsinh(-0.5)
    q = 10 * np.sinh(0.1 * span)
    lupton = make_lupton_rgb(light, light, light, minimum=0, stretch=q, Q=q)[..., 0] / 255
    value = lupton - black / span
    weight = np.sin((1 - 1 / 2.5) * np.pi / 2)
    expected = np.clip(value * (1 + (1 - weight) ** 2 * value), 0, 1) * 255
    assert np.abs(ours[..., 0] - expected).max() < 2.1  # both cut to whole levels


def test_blue_light_is_blue_and_empty_sky_is_dark_grey():
    bands = np.zeros((3, 16, 16), np.float32)
    assert colour(bands).max() < 20
    bands[0, 8, 8], bands[2, 4, 4] = 1.0, 1.0
    picture = colour(bands)
    assert picture[8, 8].argmax() == 2 and picture[4, 4].argmax() == 0


# ----------------------------------------------------------------------------------------------------- randomness


def test_a_galaxy_depends_on_its_seed_and_number_alone(truth):
    part = simulation.draw_truth(20, seed=4, start=100)
    pd.testing.assert_frame_equal(part, truth.iloc[100:120].reset_index(drop=True))
    shuffled = truth.head(50).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        simulation.vote(shuffled, 4).sort_index(), simulation.vote(truth.head(50), 4))
    row = truth.iloc[3]
    for i in range(40):  # to the last bit, however the row is given
        record = truth.iloc[i : i + 1].to_dict("records")[0]
        np.testing.assert_array_equal(simulation.noise_free(truth.iloc[i], 24), simulation.noise_free(record, 24))
    assert (simulation.render(row, 48, 5) != simulation.render(row, 48, 4)).mean() > 0.3
    assert simulation.draw_truth(1, seed=5)["true_ra"][0] != truth["true_ra"][0]


def fingerprints(catalog):
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in catalog["file_loc"]]


def test_same_survey_however_it_is_made(tmp_path):
    whole = simulation.make_survey(tmp_path / "a", 130, image_size=24, seed=3, workers=2)
    simulation.make_survey(tmp_path / "b", 7, image_size=24, seed=3)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*.png")}
    grown = simulation.make_survey(tmp_path / "b", 130, image_size=24, seed=3, workers=1)
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())  # finished images were not made again
    assert fingerprints(whole) == fingerprints(grown)
    pd.testing.assert_frame_equal(whole.drop(columns="file_loc"), grown.drop(columns="file_loc"))
    fewer = simulation.make_survey(tmp_path / "b", 9, image_size=24, seed=3)
    pd.testing.assert_frame_equal(fewer, grown.head(9))
    assert whole["id_str"].is_unique and whole["iauname"].is_unique and whole["id_str"][7] == "sim3-0000007"
    assert Image.open(whole["file_loc"][0]).size == (24, 24) and Path(whole["file_loc"][0]).is_absolute()


def test_a_killed_run_goes_on_without_loss(tmp_path):
    code = "from zoobook import simulation; simulation.make_survey({!r}, {}, image_size=24, seed=6, workers=1)"
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(str(tmp_path), 5000)], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.png"))) < 130 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    assert len(made) >= 130 and process.returncode == -signal.SIGKILL
    count = 100 * (len(made) // 100 + 1)
    catalog = simulation.make_survey(tmp_path, count, image_size=24, seed=6, workers=1)
    assert all(p.stat().st_mtime_ns == t for p, t in made.items())
    assert not list(tmp_path.rglob("*.part")) and len(catalog) == count
    for i in (0, len(made) - 1, count - 1):
        row = simulation.draw_truth(1, seed=6, start=i).iloc[0]
        np.testing.assert_array_equal(np.asarray(Image.open(catalog["file_loc"][i])), simulation.render(row, 24, 6))


# ----------------------------------------------------------------------------------------------------- volunteers


FIRST = TREE.label_columns[:3]  # the answers to the first question


def share(voted, column, total):
    """Share of the people asked, which other columns add up to, who said so."""
    return voted[column] / voted[total].sum(axis=1).clip(lower=1)


def test_every_answer_occurs_and_every_question_is_asked(voted):
    assert (voted[TREE.label_columns].sum() > 0).all()
    for question, (start, stop) in zip(TREE.questions, TREE.index_groups, strict=True):
        total = voted[TREE.label_columns[start:stop]].sum(axis=1)
        assert (total > 0).mean() >= 0.03 and (total >= 10).mean() >= 0.03, question.name
        if question.asked_after:
            assert (total == voted[list(question.asked_after)].sum(axis=1)).all()
        else:
            assert total.between(20, 60).all()


def test_vote_fractions_resemble_gz_decals(voted):
    for question, answer, low, high in (
        ("smooth-or-featured", "smooth", 0.48, 0.62), ("smooth-or-featured", "featured-or-disk", 0.30, 0.44),
        ("smooth-or-featured", "artifact", 0.04, 0.11), ("disk-edge-on", "yes", 0.14, 0.24),
        ("has-spiral-arms", "yes", 0.40, 0.70), ("merging", "merger", 0.02, 0.09),
    ):
        columns = [a.column for a in TREE.question(question).answers]
        given = voted[f"{question}-dr5_{answer}"].sum() / voted[columns].to_numpy().sum()
        assert low < given < high, (question, answer)


def test_both_ring_rules_have_something_to_work_with(voted):
    ring = share(voted, "rare-features-dr5_ring", ["rare-features-dr5_total-votes"])
    first = voted[FIRST].sum(axis=1)
    usable = (share(voted, "smooth-or-featured-dr5_featured-or-disk", FIRST) > 0.25) & (
        share(voted, "disk-edge-on-dr5_no", ["disk-edge-on-dr5_yes", "disk-edge-on-dr5_no"]) > 0.75)
    assert (usable & (ring > 0.25)).mean() > 0.03
    assert (usable & (ring < 0.05)).mean() > 0.15
    assert (voted["rare-features-dr5_total-votes"] == first - voted["smooth-or-featured-dr5_artifact"]).all()


def test_concentrations_are_reachable_by_a_model(truth, voted):
    alpha = simulation.concentrations(truth, TREE)
    assert alpha.min() > 1.0 and alpha.max() < 101.0
    np.testing.assert_array_equal(alpha, voted[ORACLE].to_numpy())


def test_votes_scatter_as_the_dirichlet_multinomial_says(voted):
    counts, alpha = voted[TREE.label_columns].to_numpy(float), voted[ORACLE].to_numpy()
    for start, stop in TREE.index_groups:
        k, a = counts[:, start:stop], alpha[:, start:stop]
        n, total = k.sum(axis=1, keepdims=True), a.sum(axis=1, keepdims=True)
        p = a / total
        asked = n[:, 0] > 0
        variance = n * p * (1 - p) * (n + total) / (1 + total)
        z = ((k - n * p)[asked] / np.sqrt(variance[asked]))
        assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(asked.sum())
        # The mean square of z is one; its own scatter is taken from the sample.
        square = z**2
        assert (np.abs(square.mean(axis=0) - 1) < 5 * square.std(axis=0) / np.sqrt(asked.sum())).all()


def test_the_oracle_beats_the_best_constant_on_every_question(voted):
    counts = voted[TREE.label_columns].to_numpy(float)
    constant = np.tile(votes.fit_constant(counts, TREE), (len(counts), 1))
    gain = votes.nll(constant, counts, TREE) - votes.nll(voted[ORACLE].to_numpy(), counts, TREE)
    assert (gain.mean(axis=0) > 0.02).all()


def test_fractions_follow_what_is_visible(truth, voted):
    ring = share(voted, "rare-features-dr5_ring", ["rare-features-dr5_total-votes"])
    assert ring[simulation.visibility(truth)["ring"] > 0.5].mean() > 0.3
    assert ring[truth["true_ring_kind"] == "none"].mean() < 0.03
    artifact = share(voted, "smooth-or-featured-dr5_artifact", FIRST)
    assert artifact[truth["true_artifact_severity"] > 0.6].mean() > 0.6
    assert artifact[truth["true_artifact"] == "none"].mean() < 0.06


# ------------------------------------------------------------------------------------------------ the real survey


def summary(pictures):
    """Sky, noise, centre, colour, size and radial profile of pictures [N, 128, 128, 3]."""
    pictures = pictures.astype(float)
    y, x = np.mgrid[:128, :128] - 63.5
    radius = np.hypot(x, y) / 128
    corner = pictures[:, radius > 0.58]
    rough = pictures[:, 1:24, 1:24].mean(axis=3)
    rough = rough - (pictures[:, :23, 1:24] + pictures[:, 2:25, 1:24] + pictures[:, 1:24, :23]
                     + pictures[:, 1:24, 2:25]).mean(axis=3) / 4
    edges = np.arange(0, 0.5, 0.025)
    annuli = [(radius >= a) & (radius < a + 0.025) for a in edges]
    profile = np.stack([np.median(pictures[:, annulus], axis=1) for annulus in annuli], axis=1)
    sky = np.median(corner, axis=1)
    light = np.clip(profile.mean(axis=2) - sky.mean(axis=1)[:, None], 0, None) * (edges + 0.0125)
    growth = np.cumsum(light, axis=1) / np.maximum(light.sum(axis=1), 1e-9)[:, None]
    return {
        "sky": np.median(sky, axis=0),
        "noise": np.median(1.4826 * np.median(np.abs(rough).reshape(len(rough), -1), axis=1)),
        "channel noise": np.median(
            1.4826 * np.median(np.abs(corner - sky[:, None]), axis=1), axis=0),
        "centre": np.median(pictures[:, radius < 0.028].mean(axis=1), axis=0),
        "red over blue": np.median(profile[:, 4, 0] / profile[:, 4, 2]),
        "half light": np.median([np.interp(0.5, g, edges + 0.0125) for g in growth]),
        "profile": np.median(profile.mean(axis=2), axis=0),
    }


def test_pictures_measure_as_the_real_ones(shared, voted, truth):
    """Tolerances are in levels of 255: sky 2, noise 25 per cent, centre 15, size 20 per cent, profile 12."""
    files = sorted((shared / "real" / "rings" / "images").glob("*.jpg"))
    real = summary(np.stack([np.asarray(Image.open(f).resize((128, 128), Image.Resampling.BOX)) for f in files]))
    # The real galaxies were chosen as featured, not edge-on and without spiral arms.
    alike = (share(voted, "smooth-or-featured-dr5_featured-or-disk", FIRST) > 0.4) & (
        truth["true_artifact"] == "none") & (truth["true_inclination_deg"] < 72) & (
        truth["true_arm_contrast"] < 0.9) & truth["true_type"].isin(["lenticular", "spiral", "irregular"])
    chosen = truth[alike].head(220).to_dict("records")
    sim = summary(np.stack([simulation.render(row, 128, 4) for row in chosen]))
    assert np.abs(sim["sky"] - real["sky"]).max() <= 2
    assert sim["noise"] == pytest.approx(real["noise"], rel=0.25)
    assert np.abs(sim["channel noise"] - real["channel noise"]).max() < 2
    assert np.abs(sim["centre"] - real["centre"]).max() < 15
    assert sim["red over blue"] == pytest.approx(real["red over blue"], abs=0.1)
    assert sim["half light"] == pytest.approx(real["half light"], rel=0.2)
    assert np.abs(sim["profile"] - real["profile"]).max() < 12


# --------------------------------------------------------------------------------------------------------- errors


def test_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        save(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left on device.*What is finished is kept"):
        simulation.make_survey(tmp_path, 9, image_size=16)
    monkeypatch.setattr(Image.Image, "save", save)
    assert len(list(tmp_path.rglob("*.png"))) == 4
    assert len(simulation.make_survey(tmp_path, 9, image_size=16)) == 9


COUNT, SEED = (0, -1, 2.5, np.nan, "3", True, None, 10**12), (-1, 0.5, np.nan, None, 2**32)
WRONG = {
    "n_galaxies": COUNT, "image_size": (8, *COUNT), "seed": SEED, "start": (*SEED[:-1], 10**12),
    "workers": (0, -1, 1.5, 10**12), "pixel_arcsec": (0, -1.0, np.nan, "1", 1e-9, 1e9), "noise": (-1.0, np.nan, 1e9),
}


@pytest.mark.parametrize("function, names", [
    ("draw_truth", "n_galaxies start seed"), ("vote", "seed"), ("render", "image_size seed"),
    ("noise_free", "image_size seed"), ("make_survey", "n_galaxies image_size seed workers"),
    ("make_mosaic", "n_galaxies pixel_arcsec noise seed workers")])
def test_senseless_numbers_are_refused_by_name(tmp_path, truth, function, names):
    options = {
        "draw_truth": {"n_galaxies": 3}, "vote": {"truth": truth.head(2)}, "render": {"galaxy": truth.iloc[0]},
        "noise_free": {"galaxy": truth.iloc[0]}, "make_survey": {"root": tmp_path, "n_galaxies": 5, "image_size": 24},
        "make_mosaic": {"path": tmp_path, "n_galaxies": 1},
    }[function]
    for name in names.split():
        for value in WRONG[name]:
            with pytest.raises(ValueError, match=f"^{name} must be "):
                getattr(simulation, function)(**options | {name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", ["visibility", "concentrations", "rare_probabilities", "vote", "render",
                                      "noise_free", "add_lessons"])
def test_a_galaxy_with_something_missing_is_refused(truth, function):
    call = getattr(lessons if function == "add_lessons" else simulation, function)
    one = function in ("render", "noise_free")

    def given(table):
        return table.iloc[0] if one else table

    two = truth.head(2)
    with pytest.raises(ValueError, match="true_mag_r is missing.*draw_truth"):
        call(given(two.drop(columns="true_mag_r")))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="true_mag_r must hold finite numbers"):
            call(given(two.assign(true_mag_r=value)))
    with pytest.raises(ValueError, match="must be a (row|table) of simulation.draw_truth"):
        call(two if one else two.iloc[0])
    for name in ("true_frame_arcsec", "true_seeing_arcsec") if one else ():
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            call(two.iloc[0].to_dict() | {name: 0})


def test_what_is_not_of_the_survey_is_refused(truth):
    with pytest.raises(ValueError, match="the table lacks rare-features-dr5_dust-lane.*make_survey"):
        lessons.add_lessons(truth)
    with pytest.raises(ValueError, match="decals_dr5"):
        simulation.concentrations(truth, trees.load("gz2"))


def test_a_mosaic_needs_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 100))
    with pytest.raises(OSError, match="the mosaic needs .* bytes more in .*, which has 100 free"):
        simulation.make_mosaic(tmp_path, 1)


def test_names_are_positions():
    from astropy.coordinates import SkyCoord

    table = simulation.draw_truth(50, seed=9)
    names = survey.iau_names(table["true_ra"].to_numpy(), table["true_dec"].to_numpy())
    for name, ra, dec in zip(names, table["true_ra"], table["true_dec"], strict=True):
        there = SkyCoord(f"{name[1:3]}h{name[3:5]}m{name[5:10]}s {name[10:13]}d{name[13:15]}m{name[15:]}s")
        assert there.separation(SkyCoord(ra, dec, unit="deg")).arcsec < 0.2


def test_light_of_the_bands_follows_the_colours():
    g, r, z = galaxy.fluxes(16.0, 0.7, 0.6)
    assert -2.5 * np.log10(g / r) == pytest.approx(0.7, abs=1e-5)
    assert 22.5 - 2.5 * np.log10(r) == pytest.approx(16.0, abs=1e-5)
    assert 2.5 * np.log10(z / r) == pytest.approx(0.6, abs=1e-5)


def test_lessons_are_what_is_known(truth, voted):
    catalog = pd.concat([truth, voted], axis=1)
    tree, taught = lessons.lesson_tree(), lessons.add_lessons(catalog)
    assert tree.label_columns[:34] == TREE.label_columns and (taught[tree.label_columns] >= 0).all(axis=None)
    assert taught[catalog.columns].equals(catalog)
    asked = taught["rare-features-dr5_total-votes"]
    assert (taught["ring-dr5_yes"] == taught["rare-features-dr5_ring"]).all()
    assert (taught["ring-dr5_yes"] + taught["ring-dr5_no"] == asked).all()
    late, early = taught["hubble-stage-dr5_late"], taught["hubble-stage-dr5_early"]
    clear = taught["true_artifact_severity"] < 0.5
    assert ((late + early) == np.where(clear, 20, 0)).all()
    stage = 15 * late[clear] / 20 - 5
    assert (abs(stage - taught["true_stage"][clear]) <= 15 / 40 + 1e-9).all()
    edge_on = clear & (taught["true_type"] == "edge-on")
    assert (taught.loc[edge_on, "inclination-dr5_edge-on"] == 20).all() and edge_on.sum() > 100
    elliptical = taught["true_type"] == "elliptical"
    of_disks = ["inclination-dr5_face-on", "inclination-dr5_edge-on", "bar-length-dr5_long", "bar-length-dr5_absent"]
    assert (taught.loc[elliptical, of_disks] == 0).all(None)
    barred = clear & (taught["true_bar_length_arcsec"] > 0) & (taught["true_type"] != "edge-on")
    assert (taught.loc[barred, "bar-length-dr5_long"] > 0).mean() > 0.9


def test_what_is_missing_of_a_survey_is_made_again(tmp_path):
    made = simulation.make_survey(tmp_path, 3, 16)
    first, table = Path(made["file_loc"][0]), next(tmp_path.rglob("*.parquet"))
    pixels, rows = first.read_bytes(), table.read_bytes()
    first.unlink()
    assert simulation.make_survey(tmp_path, 1, 16).equals(made.head(1))
    assert first.read_bytes() == pixels and table.read_bytes() == rows  # of three galaxies still
    middle = len(rows) // 3
    for damaged in (b"", rows[:-9], *(rows[:at] + b"\xa5\x5a" + rows[at + 2 :] for at in (9, middle, 2 * middle))):
        table.write_bytes(damaged)
        assert simulation.make_survey(tmp_path, 3, 16).equals(made)
