"""Scores against SciPy, and against what a perfect and an ignorant model must get."""
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from zoobook import evaluation, plots, trees, votes

TREE = trees.load("decals_dr5")


@pytest.fixture(scope="module")
def survey():
    rng = np.random.default_rng(0)
    truth = 1 + 60 * rng.beta(0.6, 2, (3000, 34))
    cast = votes.sample(truth, 40, TREE, rng)
    catalog = pd.DataFrame(cast, columns=TREE.label_columns).assign(id_str=[f"g{i}" for i in range(3000)])
    oracle = pd.DataFrame(truth, columns=[f"{c}_oracle" for c in TREE.label_columns])
    return pd.concat([catalog, oracle], axis=1), truth, cast


def test_the_oracle_captures_everything_and_the_constant_nothing(survey):
    catalog, truth, cast = survey
    perfect = evaluation.evaluate(votes.prediction_table(catalog["id_str"], truth, TREE), catalog, TREE)
    assert perfect["information_captured"].to_numpy() == pytest.approx(1, abs=1e-4)
    for level in (50, 80, 90, 95):
        assert perfect[f"coverage_{level}"].dropna().to_numpy() == pytest.approx(level / 100, abs=0.025)
    constant = np.tile(votes.fit_constant(cast, TREE), (len(cast), 1))
    ignorant = evaluation.evaluate(votes.prediction_table(catalog["id_str"], constant, TREE), catalog, TREE)
    assert ignorant["information_captured"].to_numpy() == pytest.approx(0, abs=1e-4)
    assert perfect.loc["all", "nll"] == pytest.approx(votes.nll(truth, cast, TREE).sum(1).mean(), rel=1e-5)
    assert (perfect["accuracy"].dropna() > ignorant["accuracy"].dropna()).all()


def test_order_of_the_catalogue_does_not_matter(survey):
    catalog, truth, _ = survey
    table = votes.prediction_table(catalog["id_str"], truth, TREE).iloc[:500]
    shuffled = catalog.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        evaluation.evaluate(table, catalog, TREE), evaluation.evaluate(table, shuffled, TREE)
    )


def test_several_passes_are_a_mixture(survey):
    catalog, truth, cast = survey
    same = np.repeat(truth[:50, :, None], 3, axis=2)
    one = evaluation.evaluate(votes.prediction_table(catalog["id_str"][:50], truth[:50], TREE), catalog, TREE)
    three = evaluation.evaluate(votes.prediction_table(catalog["id_str"][:50], same, TREE), catalog, TREE)
    pd.testing.assert_frame_equal(one, three)


def test_count_distribution_is_scipys_betabinom(survey):
    _, truth, cast = survey
    alpha, counts = truth[:40, :3], cast[:40, :3]
    below, upto = evaluation._count_distribution(alpha[:, :, None], counts)
    exact = stats.betabinom(counts.sum(1)[:, None], alpha, alpha.sum(1, keepdims=True) - alpha)
    np.testing.assert_allclose(upto, exact.cdf(counts), rtol=1e-8)
    np.testing.assert_allclose(below, exact.cdf(counts - 1), rtol=1e-8, atol=1e-12)


def test_roc_auc():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = labels + rng.normal(0, 1.5, 400)
    found = evaluation.roc_auc(labels, scores)
    rank_sum = stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert found["auc"] == pytest.approx(rank_sum / ((labels == 1).sum() * (labels == 0).sum()))
    assert found["low"] < found["auc"] < found["high"] < found["low"] + 0.15
    with pytest.raises(ValueError, match="not finite"):
        evaluation.roc_auc(labels, scores * np.nan)


def test_radial_profiles_see_a_ring():
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(x, y)
    disk = np.repeat((200 * np.exp(-radius / 12))[..., None], 3, 2)
    ringed = disk + 60 * np.exp(-0.5 * ((radius - 20) / 2) ** 2)[..., None]
    profiles = evaluation.radial_profiles(np.stack([disk, ringed]).astype(np.uint8)).reshape(2, 4, 16)
    difference = profiles[1, 0] - profiles[0, 0]
    assert difference.argmax() in (9, 10)  # radius 20 of 32, in 16 bins
    np.testing.assert_allclose(profiles[:, 2:], 0, atol=1e-6)  # grey has no colour
    with pytest.raises(ValueError, match="8 by 8 pixels are too small for 16 rings"):
        evaluation.radial_profiles(np.zeros((1, 8, 8, 3), np.uint8))


SMALL = trees.DecisionTree.from_dict({"name": "toy", "questions": [{"name": "shape", "answers": ["round", "flat"]}]})


def answers(ids, passes: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return votes.prediction_table(ids, 1 + rng.random((len(ids), 2, passes)), SMALL)


def test_a_galaxy_with_two_rows_is_refused_by_name():
    ids = [f"g{i}" for i in range(6)]
    catalog = pd.DataFrame({"id_str": ids, "shape_round": [3, 4, 5, 6, 7, 8], "shape_flat": 2})
    twice = pd.DataFrame({"id_str": [*ids, "g4 "], "shape_round": 3, "shape_flat": 2})
    for table, votes_of in ((answers([*ids, "g4"]), catalog), (answers(ids), twice)):
        with pytest.raises(ValueError, match="'g4' in rows 4, 6"):
            evaluation.evaluate(table, votes_of, SMALL)
        with pytest.raises(ValueError, match="'g4' in rows 4, 6"):
            plots.fractions(table, votes_of, SMALL, ["shape_round"])


@pytest.mark.parametrize("change", [np.int64, ">i8", lambda i: f" {i}\n", str])
def test_ids_of_any_type_meet(change):
    numbers = np.arange(6) + 100
    own = numbers.astype(change) if change in (np.int64, ">i8") else [change(i) for i in numbers]
    catalog = pd.DataFrame({"id_str": own, "shape_round": np.array([3, 4, 5, 6, 7, 8], ">f8"), "shape_flat": 2})
    expected = evaluation.evaluate(answers(numbers.astype(str)), catalog.assign(id_str=numbers.astype(str)), SMALL)
    pd.testing.assert_frame_equal(evaluation.evaluate(answers(numbers.astype(str)), catalog, SMALL), expected)
    plots.fractions(answers(numbers.astype(str)), catalog, SMALL, ["shape_round"])
    with pytest.raises(ValueError, match="floating-point"):
        evaluation.evaluate(answers(numbers.astype(str)), catalog.assign(id_str=numbers.astype(float)), SMALL)


@pytest.mark.parametrize("passes", [1, 3])
def test_answers_that_went_through_a_csv(tmp_path, passes):
    ids = [f"g{i}" for i in range(6)]
    catalog, table = pd.DataFrame({"id_str": ids, "shape_round": 3, "shape_flat": 2}), answers(ids, passes)
    table.to_csv(tmp_path / "p.csv", index=False)
    commas = table.assign(**{c: table[c].map(lambda v: str(v.tolist())) for c in table if "_concentration" in c})
    for again in (pd.read_csv(tmp_path / "p.csv"), commas):
        pd.testing.assert_frame_equal(
            evaluation.evaluate(again, catalog, SMALL), evaluation.evaluate(table, catalog, SMALL), rtol=1e-6
        )
    cut = commas.assign(shape_round_concentration="[1.5, 2.5, ..., 3.5]")
    with pytest.raises(ValueError, match="shape_round_concentration.*to_parquet"):
        evaluation.evaluate(cut, catalog, SMALL)


@pytest.mark.parametrize("votes_on_round", [True, np.True_, 10**9, 1e300, pd.Timestamp("2020-01-01"), 1j, np.inf])
def test_what_is_no_number_of_votes(votes_on_round):
    ids = list("abcd")
    catalog = pd.DataFrame({"id_str": ids, "shape_round": [votes_on_round] * 4, "shape_flat": 2})
    with pytest.raises(ValueError, match="4 bad votes; each must be a whole number from 0 to 1,000,000.*galaxy 'a'"):
        evaluation.evaluate(answers(ids), catalog, SMALL)


def test_many_votes_take_little_memory(monkeypatch):
    ids = list("abcdefg")
    catalog = pd.DataFrame({"id_str": ids, "shape_round": [3, 9, 70, 0, 1, 4, 30], "shape_flat": 20})
    whole = evaluation.evaluate(answers(ids), catalog, SMALL)
    monkeypatch.setattr(evaluation, "_PROBABILITIES", 100)
    pd.testing.assert_frame_equal(evaluation.evaluate(answers(ids), catalog, SMALL), whole)


def test_what_a_masked_array_hides_is_missing():
    hidden = np.ma.array([0.0, 1, 1, 0], mask=[0, 0, 0, 1])
    with pytest.raises(ValueError, match="both classes, 0 and 1; here: 0.0, 1.0, nan"):
        evaluation.roc_auc(hidden, [1, 2, 3, 9])
    with pytest.raises(ValueError, match="1 of 4 scores are not finite"):
        evaluation.roc_auc([0, 1, 1, 0], hidden)
    with pytest.raises(ValueError, match="votes: nan in row 0"):
        votes.checked(np.ma.array(np.ones((1, 34)), mask=True), TREE, "votes")


def test_an_interval_of_few_galaxies_and_samples():
    assert evaluation.roc_auc([0, 1], [1, 2], resamples=1) == {"auc": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize("cells", [True, [True, 2.0], "[]", pd.NA, pd.Timestamp(0)], ids=str)
def test_what_is_no_concentration(survey, cells):
    catalog, truth, _ = survey
    table = votes.prediction_table(catalog["id_str"][:4], truth[:4], TREE)
    name = f"{TREE.label_columns[3]}_concentration"
    with pytest.raises(ValueError, match=f"{name}. does not hold equally many numbers"):
        evaluation.evaluate(table.assign(**{name: [cells] * 4}), catalog, TREE)


def test_whose_concentrations_are_wrong_is_said(survey):
    catalog, truth, _ = survey
    table = votes.prediction_table(catalog["id_str"], truth, TREE)
    with pytest.raises(ValueError, match="the baseline: concentrations: nan in row 0"):
        evaluation.evaluate(table, catalog, TREE, baseline=np.full(34, np.nan))
    name = f"{TREE.label_columns[0]}_oracle"
    with pytest.raises(ValueError, match="the columns …_oracle of the catalogue: .* in row 2, column .*; they must"):
        evaluation.evaluate(table, catalog.assign(**{name: catalog[name].mask(catalog.index == 2)}), TREE)


def test_where_the_oracle_loses_there_is_nothing_to_capture(survey):
    catalog, truth, cast = survey
    for count in (2, 3, 4, 5):
        few = catalog.tail(count)
        scores = evaluation.evaluate(votes.prediction_table(few["id_str"], truth[:count], TREE), few, TREE)
        lost = scores["nll_oracle"] >= scores["nll_constant"]
        assert scores.loc[lost, ["information_captured", "information_captured_error"]].isna().all(axis=None)
        assert scores.loc[lost].index.size and (scores["nll"] > 0).any()


def test_labels_as_text():
    scores = [0.1, 0.4, 0.35, 0.8]
    for labels in (["0", "0", "1", "1"], np.array([b"0", b"0", b"1", b"1"]), [False, False, True, True]):
        assert evaluation.roc_auc(labels, scores) == evaluation.roc_auc([0, 0, 1, 1], scores)


def test_a_belief_with_two_peaks_can_be_seen():
    """Its density is infinite at both ends of the frame; that of a single peak is shown whole."""
    from matplotlib import pyplot as plt

    alpha = np.full(34, 2.0)
    alpha[:3], alpha[3:5] = (0.4, 0.3, 0.06), (60, 1)
    asked = ["smooth-or-featured", "disk-edge-on"]
    figure = plots.belief(np.zeros((8, 8, 3), np.uint8), alpha, np.ones(34), TREE, asked)
    two_peaks, one_peak = (axis.get_ylim()[1] for axis in figure.axes[1:])
    assert 1 < two_peaks < 6 < 55 < one_peak < 65  # 60 is the density of the share 1
    plt.close(figure)
