"""Catalogues to give to others: what astropy reads back is what was written, and it says where it comes from."""
import hashlib
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "rings.txt"}, "must end in one of .fits"),
        ({"units": {"dec": "deg"}}, "no column 'dec'"),
        ({"units": {"ra": "degs of arc"}}, "no unit that astropy knows"),
        ({"weights": "nothing"}, "no weight file at nothing"),
        ({"survey": "Überblick"}, "FITS holds ASCII text only"),
        ({"table": GALAXIES.assign(id_str="same")}, "occur more than once"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, change, message):
    given = {"table": GALAXIES, "path": "rings.fits"} | change
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export.write(given.pop("table"), tmp_path / given.pop("path"), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_gaps_and_exact_numbers_are_read_back_by_everybody(tmp_path, ending):
    long = 2**61 + 1
    table = pd.DataFrame({
        "id_str": list("abc"), "flag": pd.array([True, None, False], "boolean"),
        "n": pd.array([long, None, 3], "Int64"), "z": [Decimal("1.5"), None, Decimal(2)],
    })  # fmt: skip
    path = export.write(table, tmp_path / f"t.{ending}")
    for read in [tables.read] + ([pd.read_parquet] if ending == "parquet" else []):
        found = read(path)
        assert [None if pd.isna(v) else bool(v) for v in found["flag"]] == [True, None, False]
        assert found["z"].isna().tolist() == [False, True, False] and found["z"][0] == 1.5
        assert found["n"].isna().tolist() == [False, True, False]
    assert tables.read(path)["n"].tolist() == [long, pd.NA, 3]
    flags = Table.read(path)["flag"]
    assert [bool(flags[0]), bool(flags[2])] == [True, False]
