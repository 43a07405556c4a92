"""The Dirichlet-multinomial against SciPy and mpmath, and volunteers who walk the tree."""
import mpmath
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from zoobook import trees, votes

TREE = trees.load("decals_dr5")
PAIR = trees.DecisionTree.from_dict({"name": "pair", "questions": [{"name": "ring", "answers": ["yes", "no"]}]})


def random_case(rng, rows=20, most=60):
    concentrations = 1 + 100 * rng.beta(0.5, 3, (rows, 34))
    counts = rng.integers(0, most, (rows, 34))
    counts[rng.random(counts.shape) < 0.4] = 0
    return concentrations, counts


def test_nll_is_scipys():
    concentrations, counts = random_case(np.random.default_rng(0))
    counts[3, slice(*TREE.index_groups[2])] = 0
    ours = votes.nll(concentrations, counts, TREE)
    for q, (start, stop) in enumerate(TREE.index_groups):
        k, a = counts[:, start:stop], concentrations[:, start:stop]
        asked = k.sum(1) > 0  # older versions of SciPy refuse 0
        theirs = -stats.dirichlet_multinomial.logpmf(k[asked], a[asked], k[asked].sum(1))
        np.testing.assert_allclose(ours[asked, q], theirs, rtol=1e-9, atol=1e-11)
    assert ours[3, 2] == 0


@pytest.mark.parametrize("total", [1, 10**3, 10**6])
@pytest.mark.parametrize("alpha", [(1.0, 1.0), (1.0001, 100.9), (101.0, 101.0), (3.7, 22.0)])
def test_nll_against_fifty_digits(total, alpha):
    with mpmath.workdps(50):
        for yes in {0, 1, total // 3, total}:
            k, a = [yes, total - yes], [mpmath.mpf(x) for x in alpha]
            exact = -(mpmath.loggamma(total + 1) + mpmath.loggamma(sum(a)) - mpmath.loggamma(total + sum(a))
                      + sum(mpmath.loggamma(x + n) - mpmath.loggamma(x) - mpmath.loggamma(n + 1)
                            for x, n in zip(a, k, strict=True)))
            ours = votes.nll(np.array([alpha]), np.array([k]), PAIR)[0, 0]
            assert ours == pytest.approx(float(exact), rel=1e-8, abs=1e-9)


def test_proportion_asked_by_hand():
    fractions = np.full((1, 34), np.nan)
    for start, stop in TREE.index_groups:
        fractions[0, start:stop] = 1 / (stop - start)
    fractions[0, :3] = [0.5, 0.3, 0.2]
    fractions[0, 3:5] = [0.25, 0.75]
    fractions[0, 5:7] = [0.9, 0.1]
    asked = dict(zip([q.name for q in TREE.questions], votes.proportion_asked(fractions, TREE)[0], strict=True))
    assert asked["smooth-or-featured-dr5"] == 1
    assert asked["disk-edge-on-dr5"] == pytest.approx(0.3)
    assert asked["bar-dr5"] == pytest.approx(0.3 * 0.75)
    assert asked["spiral-winding-dr5"] == pytest.approx(0.3 * 0.75 * 0.9)
    assert asked["merging-dr5"] == pytest.approx(0.8)  # two parents: smooth and featured


@pytest.mark.parametrize("name", ["decals_dr5", "gz2_hart16", "euclid"])
def test_everybody_who_is_asked_answers(name):
    tree = trees.load(name)
    rng = np.random.default_rng(1)
    cast = votes.sample(1 + 20 * rng.random((300, len(tree.label_columns))), 40, tree, rng)
    by_column = dict(zip(tree.label_columns, cast.T, strict=True))
    for question in tree.questions:
        asked = sum(by_column[c] for c in question.asked_after) if question.asked_after else 40
        assert (sum(by_column[a.column] for a in question.answers) == asked).all()
    expected = votes.proportion_asked(votes.expected_fractions(np.ones((1, len(tree.label_columns))), tree), tree)
    assert (expected > 0).all() and (expected <= 1 + 1e-12).all()


def test_sample_has_the_moments_of_the_dirichlet_multinomial():
    rng = np.random.default_rng(2)
    alpha, n = np.array([3.0, 9.0]), 40
    cast = votes.sample(np.tile(alpha, (40_000, 1)), n, PAIR, rng)[:, 0]
    exact = stats.betabinom(n, *alpha)
    assert cast.mean() == pytest.approx(exact.mean(), abs=5 * exact.std() / 200)
    assert cast.var() == pytest.approx(exact.var(), rel=0.05)


def test_interval_is_the_beta_distribution():
    concentrations, _ = random_case(np.random.default_rng(3))
    low, high = votes.interval(concentrations, TREE, 0.8)
    a = concentrations[:, 0]
    b = concentrations[:, :3].sum(1) - a
    np.testing.assert_allclose(low[:, 0], stats.beta.ppf(0.1, a, b), rtol=1e-6)
    np.testing.assert_allclose(high[:, 0], stats.beta.ppf(0.9, a, b), rtol=1e-6)


def test_fit_constant_finds_the_truth():
    rng = np.random.default_rng(4)
    alpha = np.array([4.0, 12.0])
    found = votes.fit_constant(votes.sample(np.tile(alpha, (20_000, 1)), 40, PAIR, rng), PAIR)
    np.testing.assert_allclose(found, alpha, rtol=0.05)


def test_no_constant_is_better_than_the_best():
    rng = np.random.default_rng(5)
    concentrations, _ = random_case(rng, rows=500)
    cast = votes.sample(concentrations, 40, TREE, rng)
    best = votes.fit_constant(cast, TREE)
    assert (best >= 1).all() and (best <= 101).all()
    least = votes.nll(np.tile(best, (500, 1)), cast, TREE).sum(0)
    for scale in (0.9, 1.1):
        other = np.clip(best * rng.uniform(min(scale, 1), max(scale, 1), 34), 1, 101)
        assert (votes.nll(np.tile(other, (500, 1)), cast, TREE).sum(0) >= least - 1e-6).all()


def test_prediction_table_round_trip():
    rng = np.random.default_rng(6)
    concentrations = (1 + 100 * rng.random((4, 34, 3))).astype(np.float32)
    table = votes.prediction_table(list("abcd"), concentrations, TREE)
    np.testing.assert_array_equal(votes.predicted_concentrations(table, TREE), concentrations)
    shares = table[[f"{c}_fraction" for c in TREE.label_columns]].to_numpy()
    np.testing.assert_allclose(shares[:, :3].sum(1), 1, rtol=1e-5)
    assert (table["smooth-or-featured-dr5_proportion_volunteers_asked"] == 1).all()
    with pytest.raises(ValueError, match="ring_yes_concentration"):
        votes.predicted_concentrations(table, PAIR.from_dict({**PAIR.to_dict(), "suffix": ""}))
    hidden = [np.ma.array([2.0, 99.0], mask=[0, 1])]
    gapped = pd.DataFrame({f"{column}_concentration": hidden for column in PAIR.label_columns})
    np.testing.assert_array_equal(votes.predicted_concentrations(gapped, PAIR), [[[2, np.nan]] * 2])


@pytest.mark.parametrize(("concentrations", "counts", "message"), [
    (np.ones((2, 3)), np.ones((2, 2)), "shape"),
    ([[1.0, np.nan]], [[1, 2]], "row 0, column 'ring_no'"),
    ([[1.0, 0.0]], [[1, 2]], "above 0"),
    ([[1.0, 1.0]], [[1, -2]], "0 or more"),
])
def test_bad_values_are_refused(concentrations, counts, message):
    with pytest.raises(ValueError, match=message):
        votes.nll(np.asarray(concentrations), np.asarray(counts), PAIR)
