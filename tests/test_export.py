"""Catalogues to give to others: what astropy reads back is what was written, and it says where it comes from."""
import hashlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import Table
from toys import run

import zoobook
from zoobook import export, weights
from zoobook.catalogs import tables
from zoobook.weights.names import find_shipped

NAME = weights.shipped()["name"][0]
GALAXIES = pd.DataFrame(
    {
        "id_str": ["587722981741363294", "b", "c"],
        "ra": [1.5, 2.0, 359.0],
        "ring_probability": np.array([0.25, 0.5, np.nan], np.float32),
        "volunteers": pd.array([999_999, None, 3], dtype="Int64"),
        "kind": ["spiral", None, "ring"],
        "checked": [True, False, True],
    }
)
EVERY_NUMBER = pd.DataFrame({"id_str": np.arange(257), "n": pd.array([*range(256), None], "UInt8")})


def test_a_link_to_a_file_stays_a_link(tmp_path):
    kept, link = tmp_path / "elsewhere" / "rings.parquet", tmp_path / "rings.parquet"
    kept.parent.mkdir()
    link.symlink_to(kept)  # to what is not there yet
    for galaxies in (GALAXIES, GALAXIES[:2]):
        export.write(galaxies, link)
        assert link.is_symlink() and len(tables.read(kept)) == len(galaxies)
    assert sorted(file.name for file in kept.parent.iterdir()) == ["rings.parquet"]


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet"])
def test_astropy_reads_back_values_units_descriptions_and_provenance(tmp_path, ending):
    path = export.write(
        GALAXIES, tmp_path / f"rings.{ending}", units={"volunteers": "count"}, descriptions={"kind": "seen by Ana"},
        weights=NAME, survey="DECaLS DR5",
    )  # fmt: skip
    found = Table.read(path)
    assert [str(name) for name in found["id_str"]] == GALAXIES["id_str"].tolist()
    assert found["ra"].tolist() == GALAXIES["ra"].tolist() and found["checked"].tolist() == [True, False, True]
    np.testing.assert_array_equal(np.ma.filled(found["ring_probability"], np.nan), GALAXIES["ring_probability"])
    assert found["volunteers"].tolist() == [999_999, None, 3]
    assert (found["ra"].unit, found["volunteers"].unit) == ("deg", "count")
    assert found["ring_probability"].description == "predicted probability of ring"
    assert found["kind"].description == "seen by Ana"
    about = {name.upper(): value for name, value in found.meta.items()}
    if ending == "vot":
        from astropy.io.votable import parse

        about = {info.name.upper(): info.value for info in parse(path).get_first_table().infos}
    assert about["SHA256"] == hashlib.sha256(find_shipped(NAME).read_bytes()).hexdigest()
    assert (about["ZOOBOOK"], about["WEIGHTS"], about["SURVEY"]) == (zoobook.__version__, NAME, "DECaLS DR5")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("change", "message"), [
    ({"path": "rings.txt"}, "must end in one of .fits"),
    ({"units": {"dec": "deg"}}, "no column 'dec'"),
    ({"units": {"ra": "degs of arc"}}, "no unit that astropy knows"),
    ({"weights": "nothing"}, "no weight file at nothing"),
    ({"survey": "Überblick"}, "FITS holds ASCII text only"),
    ({"table": GALAXIES.assign(id_str="same")}, "occur more than once"),
    ({"table": GALAXIES.head(0)}, "no galaxies"),
    ({"table": GALAXIES.assign(größe=1.0)}, "ASCII text only; the name of the column 'größe'"),
    ({"table": GALAXIES.assign(**{"a" * 80: 1.0})}, "cannot hold this table"),
    ({"table": GALAXIES.assign(many=[[1], [1, 2], None])}, "the column 'many' holds neither"),
    ({"table": GALAXIES.assign(big=np.uint64(2**64 - 1)), "path": "rings.vot"}, "cannot hold this table"),
    ({"table": GALAXIES.assign(n=pd.Series([2**64, None, 1], dtype=object))}, "'n' holds whole numbers from 1 to"),
    ({"table": GALAXIES.assign(n=pd.Series([2**63, None, -1], dtype=object))}, "no type of 64 bits"),
    ({"table": GALAXIES.assign(**{"0": 1}).rename(columns={"ra": 0})}, "several columns '0'"),
    ({"table": GALAXIES.assign(many=[[]] * 3)}, "the column 'many' holds neither"),
    ({"table": GALAXIES.assign(kind=["", "a\x01", ""]), "path": "rings.vot"}, "'kind' of galaxy 'b' has 'a.x01'"),
    ({"table": GALAXIES.assign(**{"a\x01": 1}), "path": "rings.vot"}, "name of the column 'a.x01'"),
    ({"survey": "a\x00", "path": "rings.vot"}, "no control characters; provenance 'survey' has"),
    ({"a" * 90: "x"}, "60 letters at most: shorten 'aaa"),
    ({"table": GALAXIES.assign(**{"volunteers.mask": 1}), "path": "rings.parquet"}, "missing: rename that column"),
    pytest.param(
        {"table": GALAXIES.assign(n=np.ones(3, np.longdouble))}, "'n' holds float128, which the formats lack",
        marks=pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="is float64 here"),
    ),
    ({"table": EVERY_NUMBER}, "'n' holds every number of uint8"),
    ({"table": GALAXIES.assign(feature=[np.zeros(1000)] * 3)}, "999 columns at most, and there are 1,006: write a"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, change, message):
    given = {"table": GALAXIES, "path": "rings.fits"} | change
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export.write(given.pop("table"), tmp_path / given.pop("path"), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet"])
@pytest.mark.parametrize("given, read", [
    (np.array([-5, 0, 7], np.int8), [-5, 0, 7]),  # in FITS, such bytes are truths
    (pd.array([-5, None, 7], "Int8"), [-5, None, 7]),
    (np.array([65535, 0, 1], np.uint16), [65535, 0, 1]),
    (np.array([2**62 + 1, 0, 1], np.uint64), [2**62 + 1, 0, 1]),
    (np.array([1, 2.5, 3], np.float16), [1, 2.5, 3]),
    (np.array([1, None, 3], object), [1, None, 3]),
    (np.array([True, None, False], object), [True, None, False]),
    (pd.Categorical([1, 2, 1]), [1, 2, 1]),
    (np.array([587722981742084097, None, 3], object), [587722981742084097, None, 3]),
    (pd.array([-5, None, 7], "int8[pyarrow]"), [-5, None, 7]),
    (pd.array([65535, None, 1], "uint16[pyarrow]"), [65535, None, 1]),
    (pd.array([True, None, False], "bool[pyarrow]"), [True, None, False]),
    (pd.array([1.5, None, 2], "float[pyarrow]"), [1.5, None, 2]),
    (pd.arrays.SparseArray([1.5, np.nan, 0]), [1.5, None, 0]),
    (pd.array([Decimal("1.5"), None, Decimal(2)], pd.ArrowDtype(pa.decimal128(3, 1))), [1.5, None, 2]),
    # a gap is told from the smallest number
    (pd.array([-(2**15), None, 2 - 2**15], "Int16"), [-(2**15), None, 2 - 2**15]),
    (pd.array([-(2**63), None, 1 - 2**63], "Int64"), [-(2**63), None, 1 - 2**63]),
    (pd.array([0, None, 63], "UInt8"), [0, None, 63]),
])  # fmt: skip
def test_what_a_column_is_follows_from_its_values(tmp_path, ending, given, read):
    path = export.write(pd.DataFrame({"id_str": list("abc"), "n": given}), tmp_path / f"t.{ending}")
    for found in (tables.read(path)["n"], *([Table.read(path)["n"]] if ending == "vot" else [])):
        assert found.dtype.kind not in "OUS" or hasattr(found, "mask")
        assert [None if value is None or pd.isna(value) else value for value in found.tolist()] == read


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_whole_numbers_beyond_int64_beside_a_gap(tmp_path, ending):
    long = pd.Series([2**63 + 1, None, 2**63], dtype=object)
    path = export.write(pd.DataFrame({"id_str": list("abc"), "n": long}), tmp_path / f"t.{ending}")
    assert tables.read(path)["n"].tolist() == [2**63 + 1, pd.NA, 2**63]


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet"])
@pytest.mark.parametrize("given", [
    *(list(np.array([[0, 7], [1, 2]], kind)) for kind in ("int8", "uint16", "float16")),
    pd.array([[0, 7], [1, 2]], pd.ArrowDtype(pa.list_(pa.int8()))),
])  # fmt: skip
def test_lists_of_small_numbers(tmp_path, ending, given):
    path = export.write(pd.DataFrame({"id_str": ["a", "b"], "q": given}), tmp_path / f"t.{ending}")
    assert tables.read(path)[["q_0", "q_1"]].to_numpy().tolist() == [[0, 7], [1, 2]]


def test_lists_with_gaps(tmp_path):
    lists = [np.ma.array([1, -99], mask=[0, 1]), np.array([3, 4])]
    path = export.write(pd.DataFrame({"id_str": ["a", "b"], "q": lists}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(tables.read(path)[["q_0", "q_1"]], [[1, np.nan], [3, 4]])


@pytest.mark.parametrize("given, read", [("a\nb", "a b"), (5, "5"), ("", None)])
def test_descriptions_stand_in_one_line(tmp_path, given, read):
    path = export.write(GALAXIES, tmp_path / "t.fits", descriptions={"ra": given})
    assert Table.read(path)["ra"].description == read


def test_lists_become_columns(tmp_path):
    passes = pd.DataFrame({"id_str": list("abc"), "bar_concentration": [np.arange(2.0) + n for n in range(3)]})
    made = Table.read(export.write(passes, tmp_path / "t.fits"))
    assert made["bar_concentration_0"].tolist() == [0, 1, 2] and made["bar_concentration_1"].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="has 'bar_concentration_1' already"):
        export.write(passes.assign(bar_concentration_1=9), tmp_path / "t.fits")
    assert made["bar_concentration_1"].description == "predicted Dirichlet concentration of bar"


@pytest.mark.parametrize(("options", "code", "message"), [
    (["table.parquet", "table.parquet"], 1, "would be overwritten"),
    (["folder", "folder/00000.parquet"], 1, "folder would be changed by a result in it"),
    (["link", "folder/best.parquet"], 1, "link would be changed by a result in it"),
    (["table.parquet", "out.fits", "--most", "0"], 2, "'--most'"),
    (["table.parquet", "out.fits", "--most", "-1"], 2, "'--most'"),
    (["table.parquet", "out.fits", "--sort", "mixed"], 1, "'mixed' cannot be sorted"),
    (["table.csv", "out.fits"], 1, "parted by ';'"),
    (["wide.parquet", "out.fits"], 1, "FITS holds 999 columns at most, and there are 1,281: write a .parquet or"),
    (["table.parquet", "out.fits", "--catalog", "some.csv"], 0, "2 galaxies of table.parquet are not in some.csv"),
    (["table.parquet", "out.fits", "--catalog", "named.csv"], 0, "1 galaxies are in"),
    (["named.csv", "out.fits"], 0, "1 galaxies are in"),
    (["table.parquet", "out.fits", "--catalog", "twice.csv"], 1, "twice.csv: 1 ids"),
])  # fmt: skip
def test_on_the_command_line(tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    GALAXIES.assign(mixed=[[1, 2], [3, 4], [5, 6]] if "mixed" in options else 0).to_parquet("table.parquet")
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    Path("table.csv").write_text("id_str;ra\na;1,5\n")
    pd.DataFrame({"id_str": ["a"]} | {f"feature_{n}": 0.0 for n in range(1280)}).to_parquet("wide.parquet")
    Path("some.csv").write_text("id_str,z,file_loc\nb,0.1,/home/me/b.png\n")
    Path("named.csv").write_text("iauname,z,file_loc\nb,0.1,b.png\n")
    Path("twice.csv").write_text("id_str,z\nb,0.1\nb,0.2\n")
    assert message in run("export", *options, code=code)
    assert (tmp_path / "out.fits").exists() == (code == 0) and len(pd.read_parquet("table.parquet")) == 3
    if code == 0:
        assert "z" in tables.read("out.fits") and "file_loc" not in tables.read("out.fits")


def test_beside_the_shards_of_a_table(tmp_path):
    GALAXIES.to_parquet(tmp_path / "00000.parquet")
    run("export", tmp_path, tmp_path / "out.fits")
    assert len(tables.read(tmp_path)) == len(tables.read(tmp_path / "out.fits")) == 3


def test_a_file_that_cannot_be_read_is_named_once(tmp_path):
    (tmp_path / "bad.csv").write_text("id_str,p\na,1,2\n")
    assert run("export", tmp_path / "bad.csv", tmp_path / "out.fits", code=1).count("bad.csv") == 1


def test_parquet_that_pandas_read_is_exported_again(tmp_path):
    path = export.write(GALAXIES.assign(checked=pd.array([True, None, False], "boolean")), tmp_path / "t.parquet")
    read = pd.read_parquet(path)
    assert "volunteers.mask" in read
    again = pd.read_parquet(export.write(read, tmp_path / "again.parquet"))
    pd.testing.assert_frame_equal(again[read.columns], read)


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_gaps_and_exact_numbers_are_read_back_by_everybody(tmp_path, ending):
    long = 2**61 + 1
    table = pd.DataFrame({
        "id_str": list("abc"), "flag": pd.array([True, None, False], "boolean"),
        "n": pd.array([long, None, 3], "Int64"), "z": [Decimal("1.5"), None, Decimal(2)],
        "name": ["M 51", None, "NGC 4"],
    })  # fmt: skip
    path = export.write(table, tmp_path / f"t.{ending}")
    for read in [tables.read] + ([pd.read_parquet] if ending == "parquet" else []):
        found = read(path)
        assert [None if pd.isna(v) else bool(v) for v in found["flag"]] == [True, None, False]
        assert found["z"].isna().tolist() == [False, True, False] and found["z"][0] == 1.5
        assert found["n"].isna().tolist() == found["name"].isna().tolist() == [False, True, False]
    assert tables.read(path)["n"].tolist() == [long, pd.NA, 3]
    flags = Table.read(path)["flag"]
    assert [bool(flags[0]), bool(flags[2])] == [True, False]
    if ending == "parquet":
        assert pd.read_parquet(path)["n"].tolist() == [long, pd.NA, 3]
        assert Table.read(path)["name"].tolist() == ["M 51", None, "NGC 4"]


@pytest.mark.parametrize(
    "name", ["comments", "comment", "checksum", "naxis", "end", "a=b", "tcomm2", "tunit2", "SURVEY", "a name",
             "checksum ", " zimage", "zimage", "ZNAXIS1", "hierarch zimage", "z"]
)
def test_provenance_of_any_name_is_in_fits(tmp_path, name):
    meta = Table.read(export.write(GALAXIES, tmp_path / "t.fits", survey="DR5", **{name: "first"})).meta
    told = [*(f"{key} = {value}" for key, value in meta.items()), *meta.get("HISTORY", [])]
    assert {f"{name} = first".lower(), "survey = dr5", f"zoobook = {zoobook.__version__}"} <= set(map(str.lower, told))
