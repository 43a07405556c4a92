"""Catalogues: reading, checking, splitting, labelling."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import write_table

from zoobook import catalogs, trees

GZ2_IDS = ["588017703996096547", "587738569780428805", "587735695913320507", "588018090547020096"]  # 18 digits
TREE = trees.DecisionTree.from_dict(
    {
        "name": "small",
        "questions": [
            {"name": "shape", "answers": ["round", "flat"]},
            {"name": "bar", "answers": ["yes", "no"], "asked_after": ["shape_flat"]},
        ],
    }
)


def table(**columns):
    votes = {"shape_round": [3, 0, 7], "shape_flat": [5, 9, 0], "bar_yes": [5, 1, 0], "bar_no": [0, 8, 0]}
    return pd.DataFrame({"id_str": ["a", "b", "c"], **votes, **columns})


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".fits", ".fits.gz"])
@pytest.mark.parametrize("kind", ["text", "integer"])
def test_every_format_keeps_18_digits(tmp_path, ending, kind):
    ids = pd.Series(GZ2_IDS[:3])
    frame = table(id_str=ids if kind == "text" else ids.astype("int64"), file_loc=["x/1.png", "/abs/2.png", "3.png"])
    catalog = catalogs.read(write_table(frame, tmp_path / f"c{ending}"), TREE)
    assert catalog["id_str"].tolist() == GZ2_IDS[:3]
    assert catalog["file_loc"].tolist() == [f"{tmp_path}/x/1.png", "/abs/2.png", f"{tmp_path}/3.png"]
    assert (catalog[TREE.label_columns].to_numpy() == frame[TREE.label_columns].to_numpy()).all()
    assert set(catalog.dtypes[TREE.label_columns]) == {np.dtype("int64")}


ANY_ID = st.integers(10**17, 9 * 10**17).map(str) | st.from_regex(r"[A-Za-z]{2}[A-Za-z0-9+_-]{1,12}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(ANY_ID, min_size=1, max_size=12, unique=True))
def test_any_id_comes_back_as_it_was_written(ids, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    for name in ("c.csv", "c.parquet"):
        assert catalogs.read(write_table(pd.DataFrame({"id_str": ids}), folder / name))["id_str"].tolist() == ids


def test_awkward_ids_stay(tmp_path):
    (tmp_path / "c.csv").write_text("iauname,x\n007,1\n5e,2\n J000411.19+020924.0 ,\n")
    assert catalogs.read(tmp_path / "c.csv")["id_str"].tolist() == ["007", "5e", "J000411.19+020924.0"]


def test_a_frame_is_not_changed():
    frame = table()
    before = frame.copy()
    catalogs.read(frame, TREE)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("source", ["frame", "csv", "scientific", "parquet", "object"])
def test_float_ids_are_refused(tmp_path, source):
    floats = pd.Series(GZ2_IDS[:3]).astype("int64").astype("float64")
    frame = table(id_str={"csv": [f"{v:.1f}" for v in floats], "object": ["a", floats[1], "c"]}.get(source, floats))
    if source in ("csv", "scientific", "parquet"):
        frame = write_table(frame, tmp_path / ("c.parquet" if source == "parquet" else "c.csv"))
    assert source != "scientific" or "e+17" in frame.read_text()
    with pytest.raises(ValueError, match=r"`id_str` are floating-point.*lost their last ones.*as text"):
        catalogs.read(frame)


def test_repeated_and_missing_ids_name_their_rows(tmp_path):
    with pytest.raises(ValueError, match=r"1 ids of `id_str` occur more than once.*'a' in rows 0, 2"):
        catalogs.read(table(id_str=["a", "b", "a"]))
    with pytest.raises(ValueError, match=r"`id_str` is empty in 1 rows.*: 1\."):
        catalogs.read(table(id_str=["a", None, "c"]))
    with pytest.raises(ValueError, match=r"neither `id_str` nor `iauname`.*dr7objid"):
        catalogs.read(pd.DataFrame({"dr7objid": [1]}))
    (tmp_path / "c.csv").write_text("id_str,file_loc\na,1.png\nb,\n")
    with pytest.raises(ValueError, match=r"c\.csv: `file_loc` is empty for 1 galaxies: 'b' \(row 1\)"):
        catalogs.read(tmp_path / "c.csv")


def test_what_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no table at"):
        catalogs.read(tmp_path / "no.csv")
    for name in ("c.parquet", "c.fits", "c.csv"):
        (tmp_path / name).write_bytes(b"" if name == "c.csv" else b"hello")
        with pytest.raises(ValueError, match=rf"{name} could not be read as a table"):
            catalogs.read(tmp_path / name)
    (tmp_path / "c.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"use \.csv"):
        catalogs.read(tmp_path / "c.xlsx")


def test_missing_label_column_names_the_closest():
    with pytest.raises(ValueError, match=r"the catalogue has no column 'shape_flat';.* Did you mean 'shape_flatt'.$"):
        catalogs.read(table().rename(columns={"shape_flat": "shape_flatt"}), TREE)


@pytest.mark.parametrize("value", [np.nan, None, -2, 1.5, np.inf, "x"])
def test_bad_votes_are_named_and_counted(value):
    frame = table(bar_yes=pd.Series([5, value, 0], dtype=object), bar_no=[0.0, 8.0, np.nan])
    with pytest.raises(ValueError) as error:
        catalogs.check_votes(frame, TREE)
    message = str(error.value)
    assert message.startswith("2 bad votes")
    assert f"galaxy 'b' (row 1, counted from 0), column 'bar_yes': {value}" in message
    assert message.endswith("There are bad ones in bar_yes (1), bar_no (1).")


def test_votes_in_any_number_type():
    for dtype in ("float32", "Int64", "uint8", "object"):
        votes = catalogs.check_votes(table().astype(dict.fromkeys(TREE.label_columns, dtype)), TREE)
        assert votes.dtype == np.int64 and votes.tolist() == [[3, 5, 5, 0], [0, 9, 1, 8], [7, 0, 0, 0]]


def test_fractions():
    with_fractions = catalogs.add_fractions(catalogs.add_fractions(table(), TREE), TREE)  # twice changes nothing
    assert with_fractions["bar_total-votes"].tolist() == [5, 9, 0]
    assert with_fractions["shape_round_fraction"].tolist() == [3 / 8, 0, 1]
    np.testing.assert_array_equal(with_fractions["bar_no_fraction"], [0, 8 / 9, np.nan])


GOLDEN_IDS = [*GZ2_IDS, "J000411.19+020924.0", "J001655.18-002739.1", "1_2"]
GOLDEN = {  # computed once from the definition: blake2b of "seed:id", 8 bytes, as a share of 2**64, against 0.7 and 0.8
    0: ["val", "train", "train", "val", "train", "train", "train"],
    7: ["val", "test", "train", "train", "train", "train", "train"],
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_split_golden(seed):
    assert catalogs.split(pd.DataFrame({"id_str": GOLDEN_IDS}), seed=seed)["subset"].tolist() == GOLDEN[seed]


SOME_IDS = st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=40, unique_by=str.strip)


@settings(max_examples=50, deadline=None)
@given(ids=SOME_IDS, seed=st.integers(0, 9), data=st.data())
def test_split_depends_on_the_id_alone(ids, seed, data):
    ids = [f"g{name}" for name in ids]
    whole = catalogs.split(pd.DataFrame({"id_str": ids}), seed=seed).set_index("id_str")["subset"]
    some = data.draw(st.permutations(ids).map(lambda p: p[: max(1, len(p) // 2)]))
    part = catalogs.split(pd.DataFrame({"id_str": some}, index=range(5, 5 + len(some))), seed=seed)
    assert part["subset"].tolist() == whole.rename(str.strip)[[name.strip() for name in some]].tolist()


def test_split_shares_are_those_asked_for():
    frame = pd.DataFrame({"id_str": np.arange(20000).astype(str)})
    shares = catalogs.split(frame, (0.5, 0.2, 0.3))["subset"].value_counts(normalize=True)
    assert abs(shares - pd.Series({"train": 0.5, "val": 0.2, "test": 0.3})).max() < 4 * np.sqrt(0.25 / 20000)
    assert set(catalogs.split(frame, (0, 0, 1))["subset"]) == {"test"}
    agree = (catalogs.split(frame, seed=1)["subset"] == catalogs.split(frame, seed=2)["subset"]).mean()
    assert abs(agree - (0.7**2 + 0.1**2 + 0.2**2)) < 0.02  # seeds are independent
    for bad in ((0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.2, 0.2), (np.nan, 0.5, 0.5)):
        with pytest.raises(ValueError, match="three shares"):
            catalogs.split(frame, bad)


def ring_table():
    return pd.DataFrame({
        "id_str": list("abcdefg"),
        "rare-features-dr5_ring": [0, 1, 3, 1, 8, 8, 0],
        "rare-features-dr5_total-votes": [20, 30, 20, 21, 20, 20, 0],  # fractions 0, 0.033, 0.15, 0.048, 0.4, 0.4, -
        "smooth-or-featured-dr5_smooth": [1, 1, 1, 1, 1, 9, 1],
        "smooth-or-featured-dr5_featured-or-disk": [9, 9, 9, 9, 9, 1, 9],
        "smooth-or-featured-dr5_artifact": 0,
        "disk-edge-on-dr5_yes": [0, 8, 0, 0, 0, 0, 0],
        "disk-edge-on-dr5_no": [9, 1, 9, 9, 9, 9, 9],
    })  # fmt: skip


def test_ring_labels_by_both_rules():
    basic = catalogs.ring_labels(ring_table())
    assert dict(zip(basic["id_str"], basic["ring"], strict=True)) == {"a": 0, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}
    advanced = catalogs.ring_labels(ring_table(), "advanced")  # b is edge-on, c between, f smooth, g never asked about
    assert dict(zip(advanced["id_str"], advanced["ring"], strict=True)) == {"a": 0, "d": 0, "e": 1}
    published = pd.DataFrame({
        "id_str": ["a", "b"], "rare-features_ring_fraction": [0.26, 0.049],
        "smooth-or-featured_featured-or-disk_fraction": [0.3, 0.3], "disk-edge-on_no_fraction": [0.8, 0.76],
    })  # fmt: skip
    assert catalogs.ring_labels(published, "advanced")["ring"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="'rare-features-dr5_ring'"):
        catalogs.ring_labels(published.iloc[:, :1])
    with pytest.raises(ValueError, match="rule must be 'basic' or 'advanced', not 'best'"):
        catalogs.ring_labels(published, "best")


def test_balanced_rings_do_not_depend_on_the_order():
    frame = pd.DataFrame({"id_str": np.arange(4000).astype(str), "rare-features-dr5_total-votes": 20})
    frame["rare-features-dr5_ring"] = [1, 0, 0, 0] * 1000
    chosen = catalogs.ring_labels(frame, balance=True, seed=3)
    assert chosen["ring"].value_counts().tolist() == [1000, 1000] and chosen.index.is_monotonic_increasing
    shuffled = catalogs.ring_labels(frame.sample(frac=1, random_state=0), balance=True, seed=3)
    assert set(shuffled["id_str"]) == set(chosen["id_str"])
    assert set(catalogs.ring_labels(frame, balance=True, seed=4)["id_str"]) != set(chosen["id_str"])
    shares = catalogs.split(chosen[chosen["ring"] == 0], seed=3)["subset"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.7) < 0.06  # the choice is independent of the split
