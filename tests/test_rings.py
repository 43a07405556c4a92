"""Ring catalogues rebuilt from votes by their rules."""
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zoobook import catalogs, datasets, trees
from zoobook.datasets import rings


def ring_votes(rings, others, order=None):
    """A catalogue in which so many galaxies are rings, and others not, by the advanced rule; more are neither."""
    n, between = rings + others, 50
    ring = np.r_[np.full(rings, 8), np.zeros(others), np.full(between, 3)]  # of 20 votes: 0.4, 0, 0.15
    columns = {
        "rare-features-dr5_ring": ring.astype(int),
        "rare-features-dr5_total-votes": 20,
        "smooth-or-featured_featured-or-disk_fraction": 0.7,
        "disk-edge-on_no_fraction": 0.8,
        "has-spiral-arms_no_fraction": 0.9,
    }
    frame = pd.DataFrame({"id_str": np.arange(n + between).astype(str), **columns})
    return frame if order is None else frame.sample(frac=1, random_state=order)


def test_the_advanced_rule_gives_the_sizes_that_were_reported(shared):
    """6,962 different rings for training, and 69,620 rows (Walmsley et al. 2022, section 4.2)."""
    facts = yaml.safe_load((shared / "facts" / "datasets.yaml").read_text())["ring_catalogues"]
    told = facts["advanced"]["sizes_reported"]
    catalog = rings.rebuild(ring_votes(9946, 5 * 9946 + 100))
    train = catalog[catalog["subset"] == "train"]
    assert (train["ring"] == 1).sum() == told["unique_train_rings"]
    assert train["repeats"].sum() == told["train_rows_at_full_size"]


@settings(max_examples=25, deadline=None)
@given(n_rings=st.integers(4, 60), n_others=st.integers(4, 300), seed=st.integers(0, 3))
def test_the_advanced_sample_is_balanced(n_rings, n_others, seed):
    catalog = rings.rebuild(ring_votes(n_rings, n_others), seed=seed)
    assert catalog["id_str"].is_unique and set(catalog["subset"]) == {"train", "val", "test"}
    shown = catalog.loc[catalog.index.repeat(catalog["repeats"])]
    train, hidden = shown[shown["subset"] == "train"], shown[shown["subset"] != "train"]
    for part in (train, hidden):
        assert (part["ring"] == 1).sum() == (part["ring"] == 0).sum()
    used = min(n_rings, n_others)
    different = catalog[catalog["ring"] == 1]
    assert len(different) == used and (different["subset"] == "train").sum() == int(0.7 * used)
    assert (hidden["subset"] == "val").sum() == len(hidden) // 3
    assert set(different.loc[different["subset"] == "train", "repeats"]) == {n_others // used}
    assert (catalog.loc[catalog["ring"] == 0, "repeats"] == 1).all()
    assert not set(catalog["id_str"].astype(int)) & set(range(n_rings + n_others, n_rings + n_others + 50))


def test_ones_own_table_of_another_kind_is_said(tmp_path):
    (tmp_path / "rings.txt").write_text("id_str,file_loc,ring\na,a.png,1\n")
    with pytest.raises(ValueError, match="not a kind of table"):
        datasets.load("rings", tmp_path / "rings.txt", download=False)


def test_the_same_rings_in_any_order():
    def chosen(**options):
        made = rings.rebuild(**options)
        return dict(zip(made["id_str"], zip(made["subset"], made["repeats"], strict=True), strict=True))

    first = chosen(votes=ring_votes(40, 230))
    assert chosen(votes=ring_votes(40, 230, order=1)) == first
    assert chosen(votes=ring_votes(40, 230), seed=1) != first
    with pytest.raises(ValueError, match="3 rings and 230 others are too few for three balanced subsets"):
        rings.rebuild(ring_votes(3, 230))
    with pytest.raises(ValueError, match="neither the column 'rare-features-dr5_ring'"):
        rings.rebuild(ring_votes(4, 9).drop(columns="rare-features-dr5_ring"))


def test_the_basic_rule():
    votes = ring_votes(20, 90)
    votes.loc[0, "smooth-or-featured_featured-or-disk_fraction"] = 0.6
    votes.loc[1, "disk-edge-on_no_fraction"] = 0.75
    votes.loc[2, "has-spiral-arms_no_fraction"] = 0.5
    catalog = rings.rebuild(votes, rule="basic")
    assert catalog["ring"].value_counts().to_dict() == {1: 67, 0: 67}  # 17 + 50 rings pass, who have any vote at all
    assert not {"0", "1", "2"} & set(catalog["id_str"])


def test_the_published_basic_catalogue_obeys_its_rule(shared):
    published = pd.read_csv(shared / "real" / "originals" / "example_ring_catalog_basic.csv")
    assert rings.basic_cuts(published).all()
    assert published["ring"].value_counts().to_dict() == {0: 235, 1: 235}


def test_rings_of_the_simulated_survey(tmp_path):
    votes = datasets.load("simulated", root=tmp_path, n_galaxies=300, image_size=16)
    catalog = datasets.load("rings_advanced", votes=votes)
    assert {"ring", "subset", "repeats", "file_loc"} <= set(catalog.columns) and catalog.attrs["notes"]
    fraction = catalogs.vote_fraction(catalog, trees.load("decals_dr5"), "rare-features_ring")
    assert ((fraction > 0.25) == (catalog["ring"] == 1)).all() and (fraction[catalog["ring"] == 0] < 0.05).all()
