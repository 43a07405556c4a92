"""Cross-matching by id and by position, of tables in memory and on disk."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoobook.catalogs import crossmatch

IDS = st.lists(st.integers(10**17, 10**17 + 8).map(str), max_size=12)  # 18 digits that a float cannot tell apart


def test_crossmatch_by_id():
    left = pd.DataFrame({"id_str": ["1", "2", "3", "2"], "x": [1, 2, 3, 4]})
    right = pd.DataFrame({"id_str": [3, 2, 9, 3], "x": [30, 20, 90, 40], "y": [1.0, 2.0, 3.0, 4.0]})
    joined = crossmatch.by_id(left, right)
    assert joined.to_dict("list") == {"id_str": ["2", "3"], "x": [2, 3], "x_right": [20, 30], "y": [2.0, 1.0]}
    report = crossmatch.report(joined)
    assert report["rows"].to_dict() == joined.attrs["report"] == {
        "matched": 2, "left_only": 1, "right_only": 1, "left_repeated": 1, "right_repeated": 1
    }  # fmt: skip
    assert report["meaning"].str.len().min() > 10
    with pytest.raises(ValueError, match="the right table: the ids in `id_str` are floating"):
        crossmatch.by_id(left, right.astype({"id_str": float}))
    with pytest.raises(ValueError, match="the right table has no column 'iauname'"):
        crossmatch.by_id(left.assign(iauname="a"), right, on="iauname")
    with pytest.raises(ValueError, match="no report of a cross-match"):
        crossmatch.report(left)


def test_crossmatch_on_the_sky():
    arcsec = 1 / 3600
    left = pd.DataFrame({"id_str": list("abcd"), "ra": [359.9999, 10, 10, 50]})
    left["dec"] = [0, 60, 60 + 0.2 * arcsec, -89.9999]
    right = pd.DataFrame({"id_str": list("wxyz"), "ra": [0.0, 10 + 0.6 * arcsec, 230.0, 80]})
    right["dec"] = [0, 60, -89.9999, 0]
    joined = crossmatch.by_position(left, right, radius_arcsec=1)
    # a matches across 0 h; b and c both lie nearest to x; d and y lie on two sides of the pole, 0.72" apart
    assert joined["id_str"].tolist() == ["a", "b", "d"] and joined["id_str_right"].tolist() == ["w", "x", "y"]
    np.testing.assert_allclose(joined["separation_arcsec"], [0.36, 0.3, 0.72], rtol=1e-4)
    assert joined.attrs["report"] == {"matched": 3, "left_only": 0, "right_only": 1, "contested": 1}
    assert len(crossmatch.by_position(left, right.iloc[:0])) == 0
    with pytest.raises(ValueError, match="left table: `dec` is missing or not within -90 … 90 degrees in 1 rows.*: 2"):
        crossmatch.by_position(left.assign(dec=[0, 0, np.nan, 0]), right)
    with pytest.raises(ValueError, match="radius_arcsec must be a positive number"):
        crossmatch.by_position(left, right, radius_arcsec=0)


@settings(max_examples=60, deadline=None)
@given(left=IDS, right=IDS, on_disk=st.sampled_from([None, "r.parquet", "r.csv"]))
def test_by_id_agrees_with_a_dictionary(left, right, on_disk, tmp_path_factory):
    first = {}
    for row, name in enumerate(right):
        first.setdefault(name, row)
    expected = [(name, row, first[name]) for row, name in enumerate(left) if name in first and name not in left[:row]]

    left_table = pd.DataFrame({"id_str": pd.Series(left, dtype=object), "row": range(len(left))})
    right_table = pd.DataFrame({"dr8_id": pd.Series(right, dtype=object), "row": range(len(right))})
    if on_disk:
        path = tmp_path_factory.mktemp("match") / on_disk
        right_table.to_parquet(path) if on_disk == "r.parquet" else right_table.to_csv(path, index=False)
        right_table = path
    joined = crossmatch.by_id(left_table, right_table, on=("id_str", "dr8_id"))
    assert list(zip(joined["id_str"], joined["row"], joined["row_right"], strict=True)) == expected
    rows = crossmatch.report(joined)["rows"]
    assert rows[["matched", "left_only", "left_repeated"]].sum() == len(left)
    assert rows[["matched", "right_only", "right_repeated"]].sum() == len(right)


def test_of_a_file_only_what_is_asked_for_is_added(tmp_path):
    right = pd.DataFrame({"id_str": list("cab"), "ra": [3.0, 1.0, 2.0], "dec": 0.0, "x": [30, 10, 20], "y": 1})
    right.to_parquet(tmp_path / "r.parquet")
    left = pd.DataFrame({"id_str": list("abc"), "ra": [1.0, 2.0, 3.0], "dec": 0.0})
    for joined in (
        crossmatch.by_id(left, tmp_path / "r.parquet", columns=["x"]),
        crossmatch.by_position(left, tmp_path / "r.parquet", columns=["x"]),
    ):
        assert joined["x"].tolist() == [10, 20, 30] and "y" not in joined
    with pytest.raises(ValueError, match=r"r\.parquet has no column 'z'; there are: id_str, ra, dec, x, y"):
        crossmatch.by_id(left, tmp_path / "r.parquet", columns=["z"])
    with pytest.raises(ValueError, match="the right table has no column 'z'"):
        crossmatch.by_id(left, right, columns=["z"])
    with pytest.raises(ValueError, match=r"r\.parquet has no column 'iauname'"):
        crossmatch.by_id(left.assign(iauname="a"), tmp_path / "r.parquet", on="iauname")
    with pytest.raises(FileNotFoundError, match=r"no table at .*none\.csv"):
        crossmatch.by_id(left, tmp_path / "none.csv")


def test_no_column_is_lost_or_doubled(tmp_path):
    table = pd.DataFrame({"id_str": ["a", "b"], "ra": [1.0, 2.0], "dec": [0.0, 0.0], "z": [1, 2]})
    table.to_csv(tmp_path / "t.csv", index=False)
    for right in (table, tmp_path / "t.csv"):
        once = crossmatch.by_position(crossmatch.by_id(table, right, columns=["id_str"]), right, columns=["z", "z"])
        assert list(once.columns) == [*table.columns, "z_right", "separation_arcsec"]
        for again in (crossmatch.by_id, crossmatch.by_position):
            with pytest.raises(ValueError, match="two columns '(z_right|separation_arcsec)'"):
                again(once, right, columns=["z"])
        with pytest.raises(ValueError, match="two columns 'separation_arcsec'"):
            crossmatch.by_position(once, right, columns=["ra"])


@pytest.mark.parametrize("ids", [["0012", "0013"], ["1e5", "2e5"]])
def test_ids_of_a_csv_that_are_joined_on_stay_text(tmp_path, ids):
    pd.DataFrame({"name": ids, "z": [1, 2]}).to_csv(tmp_path / "r.csv", index=False)
    joined = crossmatch.by_id(pd.DataFrame({"id_str": ids}), tmp_path / "r.csv", on=("id_str", "name"))
    assert joined.to_dict("list") == {"id_str": ids, "name": ids, "z": [1, 2]}


def test_tables_with_notes_that_are_arrays():
    table = pd.DataFrame({"id_str": ["a"], "ra": np.array([1.0], ">f8"), "dec": [0.0]})
    table.attrs["header"] = np.arange(3)
    for join in (crossmatch.by_id, crossmatch.by_position):
        assert len(join(table, table)) == 1
    assert table.attrs.keys() == {"header"}


def test_near_pairs():
    arcsec = 1 / 3600
    catalog = pd.DataFrame({"id_str": list("abcde"), "ra": [0.0, 359.9999, 10, 10, 10], "dec": [0.0, 0, 5, 5, 6]})
    catalog.loc[3, "dec"] += 0.8 * arcsec
    pairs = crossmatch.near_pairs(catalog, radius_arcsec=1)
    assert pairs[["id_str", "id_str_right"]].to_numpy().tolist() == [["a", "b"], ["c", "d"]]
    np.testing.assert_allclose(pairs["separation_arcsec"], [0.36, 0.8], rtol=1e-6)
    with pytest.raises(ValueError, match="radius_arcsec must be a positive number"):
        crossmatch.near_pairs(catalog, 0)
