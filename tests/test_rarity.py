"""Samples at the true rarity: intervals that hold, and the number of galaxies to look at."""
import numpy as np
import pytest
from scipy import stats

from zoobook import rarity

RARE = 0.02


def validation(rng, distance=3.0, positives=300, negatives=700):
    labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
    return labels, rng.normal(distance * labels, 1)


def true_purity(threshold, distance=3.0):
    right, wrong = stats.norm.sf(threshold - distance), stats.norm.sf(threshold)
    return RARE * right / (RARE * right + (1 - RARE) * wrong)


@pytest.mark.parametrize("asked", [{"threshold": 2.3}, {"purity": 0.5}])
def test_intervals_hold_the_truth_as_often_as_they_say(asked):
    rng, held, reached = np.random.default_rng(0), [], []
    for _ in range(40):
        found = rarity.sample(*validation(rng), RARE, **asked)
        truth = true_purity(found["threshold"])
        held.append(found["purity_low"] <= truth <= found["purity_high"])
        reached.append(truth)
    assert np.mean(held) >= 0.875
    if "purity" in asked:
        assert np.mean(reached) == pytest.approx(0.5, abs=0.05)


def test_numbers_are_those_of_a_survey_of_true_rarity():
    rng = np.random.default_rng(1)
    found = rarity.sample(*validation(rng, positives=3000, negatives=30000), RARE, threshold=2.0, survey=50_000)
    labels = rng.random(50_000) < RARE
    taken = rng.normal(3.0 * labels, 1) >= 2.0
    assert found["number_low"] <= taken.sum() <= found["number_high"]
    assert found["purity_low"] <= labels[taken].mean() <= found["purity_high"]
    assert found["completeness"] == pytest.approx(stats.norm.sf(-1), abs=0.02)


def test_a_curve_has_the_exact_intervals_and_never_runs_backwards():
    labels, scores = validation(np.random.default_rng(5), positives=40, negatives=60)
    table = rarity.curve(labels, scores, RARE)
    assert (np.diff(table[["completeness", "completeness_low", "completeness_high", "number"]], axis=0) >= 0).all()
    above = np.array([(scores[labels == 1] >= at).sum() for at in table["threshold"]])
    for name, share in (("completeness_low", 0.025), ("completeness", 0.5), ("completeness_high", 0.975)):
        assert table[name].to_numpy() == pytest.approx(stats.beta.ppf(share, above + 0.5, 40.5 - above), abs=0.02)


def test_an_uncertain_rarity_widens_the_interval():
    labels, scores = validation(np.random.default_rng(2))
    sure, unsure = (rarity.sample(labels, scores, share, threshold=2.3) for share in (RARE, (4, 200)))
    assert unsure["purity_high"] - unsure["purity_low"] > 1.3 * (sure["purity_high"] - sure["purity_low"])
    assert (rarity.sample(labels, scores, np.array([4, 200]), threshold=2.3) == unsure).all()
    assert unsure["completeness"] == pytest.approx(sure["completeness"], abs=0.01)


def test_how_many_to_look_at():
    for purity in (0.5, 0.8, 0.95):
        looks = rarity.checks_needed(purity)
        interval = stats.binomtest(round(looks * purity), looks).proportion_ci(method="wilson")
        assert (interval.high - interval.low) / 2 == pytest.approx(0.05, abs=0.001)
    assert rarity.checks_needed(0.9, number=60) <= 60
    assert rarity.checks_needed(0.9, within=0.02) > 800


def test_the_figure_marks_the_rarity():
    labels, scores = validation(np.random.default_rng(3))
    axis = rarity.plot(labels, scores, RARE, rarity.sample(labels, scores, RARE, purity=0.6)).axes[0]
    names = axis.get_legend_handles_labels()[1]
    assert "in the survey (one in 50)" in names and "drawn at random: the rarity" in names
    rarity.plot((labels == 1).astype(object), scores, np.array(RARE))  # as pandas and NumPy may hold them
    assert axis.get_xlabel() == "completeness" and axis.get_ylabel() == "purity"


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": [1, 1, 1]}, "both classes"),
    ({"scores": [1, np.nan, 2]}, "1 of 3 scores are not finite"),
    ({"scores": [1, 2]}, "same length"),
    ({"rarity": 2}, "rarity must be between 0 and 1"),
    ({"rarity": (0, 10)}, "found in rarity must be a whole number, from 1 to 10"),
    ({"purity": 0.999}, "no threshold gives a purity of 0.999"),
    ({"purity": 0.5, "threshold": 1}, "either `threshold` or `purity`"),
])  # fmt: skip
def test_what_makes_no_sense_is_said(change, message):
    given = {"labels": [0, 0, 1], "scores": [0, 1, 2], "rarity": RARE, "purity": 0.5} | change
    with pytest.raises(ValueError, match=message):
        rarity.sample(given.pop("labels"), given.pop("scores"), given.pop("rarity"), **given)


def test_scores_that_are_no_numbers():
    with pytest.raises(ValueError, match="1 of 3 scores are not finite"):
        rarity.curve([0, 1, 1], ["0.1", "0.2", "high"], RARE)
