"""Samples cut out of catalogues."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoobook import catalogs, trees, votes
from zoobook.catalogs import samples

TREE = trees.load("decals_dr5")


@pytest.fixture(scope="module")
def catalog():
    """300 galaxies on which volunteers walked the tree; on some nobody voted."""
    rng = np.random.default_rng(3)
    counts = votes.sample(rng.uniform(1.01, 12, (300, 34)), rng.integers(0, 60, 300), TREE, rng)
    counts[:5] = 0
    frame = pd.DataFrame(counts, columns=TREE.label_columns)
    frame.insert(0, "id_str", np.arange(300).astype(str))
    return frame


def everybody(catalog):
    return catalog[TREE.label_columns[:3]].sum(axis=1).to_numpy()


def test_fractions_down_the_tree_are_shares_of_everybody(catalog):
    """Volunteers who walk the tree lose nobody on the way, so products of fractions are plain ratios of counts."""
    people = everybody(catalog)
    for column in TREE.label_columns:
        joint = samples.joint_fraction(catalog, TREE, column.replace("-dr5", ""))
        np.testing.assert_allclose(joint[people > 0], (catalog[column] / people)[people > 0], atol=1e-12)
    assert np.isnan(samples.fraction(catalog, TREE, "bar_no")[0])
    assert (samples.asked_fraction(catalog, TREE, "smooth-or-featured") == 1).all()


def test_votes_and_published_fractions_agree(catalog):
    published = catalogs.add_fractions(catalog, TREE).filter(regex="id_str|_fraction$")
    no_suffix = published.rename(columns=lambda name: name.replace("-dr5_", "_"))
    for answer in ("bar_strong", "merging_none", "spiral-arm-count_2"):
        expected = samples.joint_fraction(catalog, TREE, answer)
        np.testing.assert_array_equal(samples.joint_fraction(published, TREE, answer), expected)
        np.testing.assert_array_equal(samples.joint_fraction(no_suffix, trees.load("desi"), answer), expected)


@settings(max_examples=40, deadline=None)
@given(edge=st.floats(0, 1), arms=st.floats(0, 1), fewest=st.integers(0, 40))
def test_face_on_spirals_with_votes_on_the_bar(catalog, edge, arms, fewest):
    wanted = {"disk-edge-on_no": edge, "has-spiral-arms_yes": arms}
    chosen = samples.select(catalog, TREE, wanted, {"bar": fewest})
    kept = []
    for row in catalog.to_dict("records"):
        def share(question, answer, row=row):
            total = sum(row[a.column] for a in TREE.question(question).answers)
            return row[f"{question}-dr5_{answer}"] / total if total else -1

        asked = row["bar-dr5_strong"] + row["bar-dr5_weak"] + row["bar-dr5_no"]
        if asked >= fewest and share("disk-edge-on", "no") > edge and share("has-spiral-arms", "yes") > arms:
            kept.append(row["id_str"])
    assert chosen["id_str"].tolist() == kept
    left = samples.cuts(chosen)["galaxies"]
    assert left.is_monotonic_decreasing and left.iloc[-1] == len(kept)
    assert left.index[1] == f"at least {fewest} votes on bar"


def test_a_missing_count_makes_no_fraction(catalog):
    column = TREE.label_columns[0]
    some = catalog.assign(**{column: catalog[column].astype(float).where(catalog.index != 200)})
    assert np.isnan(samples.total_votes(some, TREE, "smooth-or-featured")[200])
    for answer in ("smooth", "featured-or-disk", "artifact"):
        assert np.isnan(samples.fraction(some, TREE, f"smooth-or-featured_{answer}")[200])
    assert samples.classes(some, TREE, "smooth-or-featured")[200] is None


def test_classes(catalog):
    label = samples.classes(catalog, TREE, "smooth-or-featured", above=0.6, votes=20)
    fractions = catalogs.add_fractions(catalog, TREE)
    for name in ("smooth", "featured-or-disk", "artifact"):
        sure = (fractions[f"smooth-or-featured-dr5_{name}_fraction"] > 0.6) & (everybody(catalog) >= 20)
        assert ((label == name) == sure).all()
    assert label.isna()[:5].all() and label.name == "smooth-or-featured"
    assert set(samples.classes(catalog, TREE, "bar", above=0).dropna()) == {"strong", "weak", "no"}


def test_debiased_only_where_it_holds():
    frame = pd.DataFrame({"redshift": [0.05, 0.02, 0.15, 0.05, 0.05, 0.05, np.nan]})
    frame["elpetro_absmag_r"] = [-22, -22, -22, -23, -21.5, -22, -22]
    frame["smooth-or-featured-dr5_total-votes"] = [30, 40, 40, 40, 40, 29, 40]
    for column in TREE.label_columns:
        frame[f"{column}_debiased"] = 0.25
    table = samples.debiased(frame, TREE)
    assert list(table.columns) == TREE.label_columns
    assert table.notna().all(axis=1).tolist() == [True] + 6 * [False] and (table.iloc[0] == 0.25).all()
    with pytest.raises(ValueError, match="no column 'elpetro_absmag_r';.*Only the volunteers' tables"):
        samples.debiased(frame.drop(columns="elpetro_absmag_r"), TREE)


def test_what_is_unknown(catalog):
    with pytest.raises(ValueError, match="no question 'bars'. Known: smooth-or-featured-dr5"):
        samples.select(catalog, TREE, votes={"bars": 20})
    with pytest.raises(ValueError, match="the question 'bar' has no answer 'yes'; its answers are strong, weak, no"):
        samples.fraction(catalog, TREE, "bar_yes")
    predicted = catalogs.add_fractions(catalog, TREE).filter(regex="_fraction$")
    with pytest.raises(ValueError, match="no votes on 'bar': .*'bar-dr5_total-votes'.*cut on `asked_fraction` instead"):
        samples.select(predicted, TREE, votes={"bar": 20})
    with pytest.raises(ValueError, match="neither the column 'bar-dr5_no'"):
        samples.fraction(catalog.drop(columns="bar-dr5_no"), TREE, "bar_no")
    with pytest.raises(ValueError, match="no list of cuts"):
        samples.cuts(catalog)


def test_questions_with_underscores_in_their_names():
    tree = trees.DecisionTree.from_dict({"name": "own", "suffix": "-x", "questions": [
        {"name": "has_arms", "answers": ["a_few", "none"]},
        {"name": "tight", "answers": ["yes", "no"], "asked_after": ["has_arms_a_few", "has_arms_a_few"]},
    ]})  # fmt: skip
    row = pd.DataFrame({"has_arms-x_a_few": [3], "has_arms-x_none": [1], "tight-x_yes": [1], "tight-x_no": [2]})
    assert samples.fraction(row, tree, "has_arms_a_few") == samples.fraction(row, tree, "has_arms-x_a_few") == 0.75
    assert samples.classes(row, tree, "has_arms").tolist() == ["a_few"]
    assert samples.joint_fraction(row, tree, "has_arms_a_few") == samples.asked_fraction(row, tree, "tight") == 0.75
    with pytest.raises(ValueError, match="'has_arms' has no answer 'few'; its answers are a_few, none"):
        samples.fraction(row, tree, "has_arms_few")


def test_answers_are_found_by_their_columns_and_not_by_where_a_name_might_part():
    tree = trees.DecisionTree.from_dict({"name": "t", "questions": [
        {"name": "a", "answers": ["b_c", "x"]}, {"name": "a_b", "answers": ["d", "y"], "asked_after": ["a_b_c"]},
    ]})  # fmt: skip
    votes = pd.DataFrame({"a_b_c": [3], "a_x": [1], "a_b_d": [1], "a_b_y": [2]})
    assert samples.asked_fraction(votes, tree, "a_b") == [0.75] and samples.classes(votes, tree, "a")[0] == "b_c"
    assert samples.joint_fraction(votes, tree, "a_b_d") == [0.25]


@pytest.mark.parametrize("column", ["bar-dr5_no", "bar-dr5_total-votes"])
def test_infinite_votes_have_no_share(catalog, column):
    with pytest.raises(ValueError, match=f"{column!r} is infinite in 1 rows .counted from 0.: 2"):
        samples.fraction(catalog.assign(**{column: np.where(catalog.index == 2, np.inf, 60)}), TREE, "bar_no")
