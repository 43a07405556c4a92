"""Tables on disk: columns and rows out of CSV, parquet and FITS, and how little memory that takes."""
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from toys import write_table

from zoobook import catalogs, export, representations
from zoobook.catalogs import columns, crossmatch, parquet, tables
from zoobook.catalogs.shards import ShardedTable
from zoobook.catalogs.units import to_degrees
from zoobook.learning.runs import RunFolder


@pytest.fixture(params=["t.csv", "t.csv.gz", "t.parquet", "grouped.parquet", "t.fits", "t.vot"])
def stored(request, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id_str": [f"g{i}" for i in range(100)], "x": rng.random(100), "n": rng.integers(0, 9, 100)})
    return frame, write_table(frame, tmp_path / request.param)


@pytest.mark.parametrize("rows", [None, [], [99], [3, 4, 5, 50]])
@pytest.mark.parametrize("columns", [None, ["n"], ["n", "id_str"]])
def test_columns_and_rows(stored, columns, rows, monkeypatch):
    monkeypatch.setattr(parquet, "_VALUES", 100)  # so that parquet is read in blocks of columns
    frame, path = stored
    expected = frame if columns is None else frame[columns]
    expected = expected if rows is None else expected.iloc[rows].reset_index(drop=True)
    got = tables.read(path, columns, None if rows is None else np.array(rows, int))
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)
    assert tables.column_names(path) == list(frame.columns)


def test_names(stored):
    frame, path = stored
    assert tables.id_column(path, "id_str", "the table").to_pylist() == frame["id_str"].tolist()
    with pytest.raises(ValueError, match=rf"{path.name} has no column 'y'; there are: id_str, x, n"):
        tables.read(path, ["y"])


def test_rows_out_of_many_features_take_little_memory(tmp_path):
    """One row group, as pandas writes it; a quarter of a usual one, read in pieces of a quarter of the usual size."""
    rows, path = 5_000, tmp_path / "features.parquet"
    rng = np.random.default_rng(0)
    ids = pa.array([f"J{row}" for row in range(rows)])
    features = [pa.array(rng.random(rows)) for _ in range(1280)]
    pq.write_table(pa.table([ids, *features], ["id_str", *(f"feat_{i}" for i in range(1280))]), path,
                   use_dictionary=False, compression="none")  # fmt: skip
    code = f"""
import numpy, pyarrow
from zoobook.catalogs import parquet, tables
parquet._VALUES //= 4
tables.id_column({str(path)!r}, "id_str", "the table")
table = tables.read({str(path)!r}, rows=numpy.arange(0, {rows}, 100))
assert table.shape == (50, 1281)
print(pyarrow.default_memory_pool().max_memory())
"""
    peak = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert peak < 0.7 * path.stat().st_size, f"{peak / 1e6:.0f} MB"


@pytest.mark.filterwarnings("error")
def test_decimal_numbers_come_back_to_the_last_bit(tmp_path):
    """Not so in pandas 2 unless it is asked; pandas 3.1 and later warn if it is."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=2000) * 10.0 ** rng.integers(-12, 12, 2000)
    pd.DataFrame({"x": numbers}).to_csv(tmp_path / "t.csv", index=False)
    assert (tables.read(tmp_path / "t.csv")["x"].to_numpy() == numbers).all()
    run = RunFolder(tmp_path / "run", {})
    for epoch, number in enumerate(numbers[:20]):
        run.log(epoch=epoch, val_loss=number)
    assert run.history["val_loss"].tolist() == numbers[:20].tolist()


LONG = 2**61 + 1  # a float would make 2**61 of it


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.fits", "t.vot"])
@pytest.mark.parametrize("rows", [None, [0, 1], [1, 2]])
def test_every_digit_beside_a_gap(tmp_path, name, rows):
    frame = pd.DataFrame({
        "whole": [1, 2, 3], "n": pd.array([LONG, None, 3], "Int64"), "x": [0.5, np.nan, 2.0],
        "flag": pd.array([True, None, False], "boolean"),
    })  # fmt: skip
    if name in ("t.fits", "t.vot"):  # which have no boolean that is missing
        frame = frame.drop(columns="flag")
    write_table(frame, tmp_path / name)
    got = tables.read(tmp_path / name, rows=None if rows is None else np.array(rows))
    expected = frame if rows is None else frame.iloc[rows].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)
    if rows is None:
        assert got["n"][0] == LONG and got["n"].dtype == "Int64" and got["whole"].dtype == "int64"


def test_a_logical_of_fits_that_is_neither_true_nor_false(tmp_path):
    columns = [fits.Column("a", "L", array=[True, False, True]), fits.Column("b", "L", array=[True, False, True])]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    data = (tmp_path / "t.fits").read_bytes()
    (tmp_path / "t.fits").write_bytes(data.replace(b"TTFFTT", b"TTF\0TT"))
    got = tables.read(tmp_path / "t.fits")
    assert got["a"].tolist() == [True, False, True] and got["a"].dtype == bool
    assert got["b"].tolist() == [True, pd.NA, True]


def test_every_digit_in_lists_and_structures(tmp_path):
    nested = pa.table({"list": pa.array([[LONG, None]]), "struct": pa.array([{"a": LONG}])})
    pq.write_table(pa.concat_tables([nested, nested.slice(1)]), tmp_path / "t.parquet")
    got = tables.read(tmp_path / "t.parquet")
    assert got["list"][0].tolist() == [LONG, None] and got["struct"][0] == {"a": LONG}


@pytest.mark.parametrize("rows", [None, [1]])
def test_columns_of_arrays_and_objects_in_fits(tmp_path, rows):
    Table({"id_str": ["a", "b"], "one": [[1], [2]], "three": [[1.0, 2, 3], [4, 5, 6]],
           "at": SkyCoord([1, 2], [3, 4], unit="deg")}).write(tmp_path / "t.fits")  # fmt: skip
    got = tables.read(tmp_path / "t.fits", rows=rows and np.array(rows))
    assert list(got.columns) == ["id_str", "one", "three", "at.ra", "at.dec"]
    assert (got["one"].iloc[-1], got["three"].iloc[-1].tolist(), got["at.dec"].iloc[-1]) == (2, [4, 5, 6], 4)
    Table.read(tmp_path / "t.fits")["id_str", "one"].write(tmp_path / "t.fits", append=True)
    with pytest.warns(UserWarning, match="has 2 tables: the first is read"):
        tables.read(tmp_path / "t.fits")


CELLS = [  # as they stand in a column of a CSV, and what they are; None is a gap
    ([str(LONG), "nan", "2"], [LONG, None, 2]), ([str(LONG), "  ", "3"], [LONG, None, 3]),
    ([str(2**64 - 1), "", "1"], [2**64 - 1, None, 1]), ([str(2**70 + 1), "", "1"], [str(2**70 + 1), None, "1"]),
    (["118446744073709551615", " ", "1"], ["118446744073709551615", " ", "1"]),
    (["1", "2.5", "3"], [1, 2.5, 3]), (["1.5", "nan", "  "], [1.5, None, None]),
    ([" 1.5", " nan", "2"], [1.5, None, 2]), (["1", "-nan", "NaN"], [1, None, None]),  # as programs write gaps
    (["nan", "NaN", "nan"], [None, None, None]), (["", "", ""], [None, None, None]),
    (["1.2e18", "10000000000000000", "1"], [1.2e18, 1e16, 1]), (["2e16", "0.5", "1e19"], [2e16, 0.5, 1e19]),
    (["inf", "1234567890123456789", "1"], [np.inf, 1234567890123456789.0, 1]),
    (["587722981742084097", "-999.0", ""], ["587722981742084097", "-999.0", None]),
    (["True", "nan", "False"], [True, None, False]), (["True", "", "1"], ["True", None, "1"]),
    (["001", "nan", "x"], ["001", "nan", "x"]), (["001", "002", "M31"], ["001", "002", "M31"]),
    (["001", "002", "nan"], [1, 2, None]),
    (["nan", "NULL", ""], ["nan", "NULL", None]), (["None", "x", ""], ["None", "x", None]),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "values"), CELLS, ids=str)
def test_what_the_cells_of_a_csv_are_in_part_as_in_whole(tmp_path, cells, values):
    (tmp_path / "t.csv").write_text("id_str,x\n" + "".join(f"g{i},{cell}\n" for i, cell in enumerate(cells)))
    for rows in ([0, 1, 2], [0], [0, 1], [1, 2], None):
        got = tables.read(tmp_path / "t.csv", rows=None if rows is None else np.array(rows))["x"]
        assert [None if pd.isna(value) else value for value in got] == [values[row] for row in rows or range(3)], rows


def test_words_of_a_csv_are_words(tmp_path):
    (tmp_path / "t.csv").write_text("id_str,galid\nNA,0012\nnull,12\nN/A,7e5\nnan1,13\n")
    got = tables.read(tmp_path / "t.csv", text=("galid",))
    assert got["id_str"].tolist() == ["NA", "null", "N/A", "nan1"]
    assert got["galid"].tolist() == ["0012", "12", "7e5", "13"]
    (tmp_path / "t.csv").write_text("id_str,NA,NA\na,1,2\n")
    with pytest.raises(ValueError, match="several columns 'NA'"):
        tables.read(tmp_path / "t.csv")


def test_foreign_byte_order():
    foreign = pd.DataFrame({"id": np.arange(3).astype(">i8"), "x": np.arange(3).astype(">f4"), "name": list("abc")})
    native = columns.in_memory(foreign)
    assert all(kind.isnative for kind in native.dtypes if isinstance(kind, np.dtype))
    assert native.columns.tolist() == ["id", "x", "name"] and native["x"].tolist() == [0, 1, 2]
    assert columns.floats(foreign["x"]).tolist() == [0, 1, 2] and columns.ids_of(foreign["id"]).tolist() == list("012")


@pytest.mark.parametrize(("ids", "message"), [
    ([True, False], "holds bool: an id is a text or a whole number"), (["a", True], "holds True"),
    (pd.to_datetime(["2020-01-01"]), "holds timestamp"), ([1j], "holds 1j"), (None, "one id or several"),
    (pd.DataFrame({"id_str": ["a"]}), "not DataFrame"), (np.ma.array([1, 2], mask=[0, 1]), "empty in 1 rows"),
    (["5.877e+17", "587722981742084096"], "floating-point"), (["1.0", "nan"], "floating-point"),
    (["5.877e+17", "5.878e+17"], "floating-point"), (["587722981742084096.0"], "floating-point"),
    (1.0, "floating-point"), ([1.5e17, 2e17], "floating-point"), (np.array([1e17]), "floating-point"),
    (pd.Series([1.5, None], dtype="Float64"), "floating-point"),
])  # fmt: skip
def test_what_is_no_id(ids, message):
    with pytest.raises(ValueError, match=message):
        columns.ids_of(ids)


def test_ids_as_spreadsheets_are_made_to_keep_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f'id_str,ra\n="{LONG}",2\n"=""0123""",3\n')
    assert catalogs.read(path)["id_str"].tolist() == [str(LONG), "0123"]
    assert len(crossmatch.by_id(pd.DataFrame({"id_str": [LONG]}), path, columns=["ra"])) == 1
    assert columns.ids_of([' ="a" ', 16]).tolist() == ["a", "16"]
    for ids, message in ((['="1.5E+18"'], "floating-point"), (['=""'], "empty in 1 rows")):
        with pytest.raises(ValueError, match=message):
            columns.ids_of(ids)


VOTABLE = """<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="ra" datatype="double"/><FIELD name="ra" datatype="double"/><DATA><TABLEDATA><TR><TD>1</TD><TD>2</TD></TR>
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.vot", "t.fits"])
def test_two_columns_of_one_name_in_a_file(tmp_path, name):
    path = tmp_path / name
    if name == "t.parquet":
        pq.write_table(pa.table([[1], [2]], names=["ra", "ra"]), path)
    elif name == "t.fits":
        pd.DataFrame({"id_str": ["a"], "ra": 1.0, "rb": 2.0}).pipe(export.write, path)
        path.write_bytes(path.read_bytes().replace(b"'rb      '", b"'ra      '"))
    else:
        path.write_text("ra,ra\n1,2\n" if name == "t.csv" else VOTABLE)
    for ask in (tables.read, tables.column_names, catalogs.read):
        with pytest.raises(ValueError, match=f"{name} .*several columns 'ra'.*rename them"):
            ask(path)


def test_ids_in_whatever_holds_them():
    for held in ([LONG], np.array(LONG), pd.Series([LONG], dtype="category"), pd.Series([LONG], dtype="int64[pyarrow]"),
                 pd.Series([LONG], dtype=pd.ArrowDtype(pa.decimal128(20, 0))), np.array([f"{LONG} "]), {str(LONG)}):
        assert columns.ids_of(held).tolist() == [str(LONG)]
    assert columns.ids_of([2**64 + 1, 3]).tolist() == [str(2**64 + 1), "3"]
    assert columns.ids_of(7).tolist() == ["7"] and columns.ids_of(" a ").tolist() == ["a"]
    assert columns.ids_of([np.int64(LONG), b"b"]).tolist() == [str(LONG), "b"]
    for text in (["1.0", "1.1"], ["7e12", "0a"], ["12e4"], ["1E5", "2E5"]):
        assert columns.ids_of(text).tolist() == text


def test_what_is_no_number():
    for value in (10**400, -(10**400), np.ma.masked):
        np.testing.assert_array_equal(columns.floats(pd.Series([1, value], dtype=object)), [1, np.nan])
    for value in (1 * units.deg, np.array(3)):
        with pytest.raises(ValueError, match="`x` holds .* in 2 rows .counted from 0.: 0, 1"):
            columns.numbers(pd.DataFrame({"x": pd.Series([value, value], dtype=object)}), "x")
    with pytest.raises(ValueError, match="`x` holds a signalling NaN in 1 rows .counted from 0.: 1"):
        columns.numbers(pd.DataFrame({"x": [Decimal(1), Decimal("sNaN")]}), "x")
    for values in ([1j, 2j], pd.to_datetime(["2020-01-01"]), pd.to_timedelta([1, 2]), ["a", None]):
        assert np.isnan(columns.floats(pd.Series(values))).all()


def test_a_fits_table_behind_an_image_and_a_folder_of_parquet(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("id_str", "2A", array=["a", "b"])])
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4))), table]).writeto(tmp_path / "t.fits")
    assert tables.read(tmp_path / "t.fits")["id_str"].tolist() == ["a", "b"]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4)))]).writeto(tmp_path / "none.fits")
    with pytest.raises(ValueError, match="it has no table"):
        tables.read(tmp_path / "none.fits")

    frame = pd.DataFrame({"id_str": list("abcde"), "x": range(5)})
    shards = ShardedTable(tmp_path / "p", 5, {}, shard_rows=2)
    for number, start, stop in shards.missing():
        shards.write(number, frame[start:stop])
    shards.finish()
    pd.testing.assert_frame_equal(tables.read(tmp_path / "p"), frame, check_dtype=False)
    assert tables.read(tmp_path / "p", ["x"], np.array([1, 4]))["x"].tolist() == [1, 4]
    assert tables.id_column(tmp_path / "p", "id_str", "it").to_pylist() == list("abcde")


@pytest.mark.parametrize(("text", "message"), [
    ("a,1,\nb,2,\n", "row 2 .counted from 1. has 3 cells, where the first row has 2"),  # pandas takes ids for an index
    ("a,1\nb\n", "row 3 .counted from 1. has 1 cells"),  # and fills this up
    ("a,1\nb", "was the file cut off"),
    ('a,1\nb,"2\n', "row 3 .counted from 1. has a quotation mark that is never closed"),
])  # fmt: skip
def test_a_csv_with_rows_of_unequal_length(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(f"id_str,x\n{text}")
    for rows in (None, np.array([0])):
        with pytest.raises(ValueError, match=f"t.csv could not be read as a table: .*{message}|{message}"):
            tables.read(tmp_path / "t.csv", rows=rows)


@pytest.mark.parametrize(("content", "message"), [
    (b"id_str;ra\na;1,5\n", "parted by ';'"),  # as spreadsheets write it in much of Europe
    (b"id_str\tra\na\t1.5\n", r"parted by '.t'"),
    ("id_str,ort\na,Köln\n".encode("latin-1"), "no text in UTF-8"),
    ("id_str,ort\na,Köln\n".encode("utf-16"), "no text in UTF-8"),
    ("\ufeffid_str,ort\n007,\"Köln, Dom\"\n".encode(), None),
])  # fmt: skip
def test_a_csv_as_spreadsheets_write_it(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    if message is None:
        assert tables.read(tmp_path / "t.csv").to_dict("list") == {"id_str": ["007"], "ort": ["Köln, Dom"]}
    else:
        with pytest.raises(ValueError, match=message):
            tables.read(tmp_path / "t.csv")


def test_a_csv_that_may_be_cut_in_its_last_cell(tmp_path):
    (tmp_path / "t.csv").write_text("id_str,x\na,1\nb,2")
    with pytest.warns(UserWarning, match="does not end with a line break"):
        assert tables.read(tmp_path / "t.csv")["x"].tolist() == [1, 2]
    (tmp_path / "t.csv").write_bytes(b'id_str,x\r\n"a, the first\r\none",1\r\n\r\nb,2\r\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tables.read(tmp_path / "t.csv")["x"].tolist() == [1, 2]


def test_tables_of_fits_in_ascii_and_text_that_is_missing(tmp_path):
    fields = [fits.Column("id_str", "A5", array=["a", "b"]), fits.Column("n", "I10", array=[1, 2])]
    fits.TableHDU.from_columns(fields).writeto(tmp_path / "ascii.fits")
    assert tables.read(tmp_path / "ascii.fits").to_dict("list") == {"id_str": ["a", "b"], "n": [1, 2]}
    Table({"id_str": list("abc"), "bar": ["None", "", "weak"]}).write(tmp_path / "t.fits")
    bar = tables.read(tmp_path / "t.fits")["bar"]
    assert bar[0] == "None" and bar.isna().tolist() == [False, True, False]


@pytest.mark.parametrize("rows", [None, [0, 1], [1, 2]])
def test_gaps_as_astropy_writes_them_in_parquet(tmp_path, rows):
    gap = [False, True, False]
    Table({"id_str": list("abc"), "n": np.ma.array([LONG, 7, 3], mask=gap), "x": [1.0, 2, 3],
           "flag": np.ma.array([True, True, False], mask=gap)}).write(tmp_path / "t.parquet")  # fmt: skip
    kept = None if rows is None else np.array(rows)
    got = tables.read(tmp_path / "t.parquet", rows=kept)
    assert list(got.columns) == ["id_str", "n", "x", "flag"] == tables.column_names(tmp_path / "t.parquet")
    expected = [[LONG, pd.NA, 3][row] for row in rows or range(3)]
    assert got["n"].tolist() == expected and got["flag"].isna().tolist() == [value is pd.NA for value in expected]
    assert tables.read(tmp_path / "t.parquet", ["x", "n"], kept).columns.tolist() == ["x", "n"]
    with pytest.raises(ValueError, match="`n` is empty in 1 rows"):
        tables.id_column(tmp_path / "t.parquet", "n", "it")


@pytest.mark.parametrize("rows", [None, np.array([1, 2, 3])])
def test_each_file_of_a_folder_has_its_own_masks_and_units(tmp_path, rows):
    parts = [
        Table({"id_str": ["a", "b"], "ra": [15.0, 16] * units.deg, "dec": [1.0, 2] * units.deg, "n": [1, 2]}),
        Table({"id_str": ["c", "d"], "ra": [1.0, 2] * units.hourangle, "dec": [60.0, 90] * units.arcmin,
               "n": np.ma.array([-99, 4], mask=[True, False])}),
    ]  # fmt: skip
    for part, name in zip(parts, ("0.parquet", "1.PARQUET"), strict=True):
        part.write(tmp_path / name, format="parquet")
    got = tables.read(tmp_path, rows=rows)
    sky = [SkyCoord(part["ra"], part["dec"]) for part in parts]
    for name in ("ra", "dec"):
        expected = np.concatenate([getattr(one, name).deg for one in sky])
        np.testing.assert_allclose(got[name], expected if rows is None else expected[rows])
    assert got["n"].tolist() == [1, 2, pd.NA, 4][0 if rows is None else 1 :]
    parts[1]["dec"].unit = "pix"
    parts[1].write(tmp_path / "1.PARQUET", format="parquet", overwrite=True)
    with pytest.raises(ValueError, match="1.PARQUET could not be read as a table: `dec` is in 'pix'"):
        tables.read(tmp_path, rows=rows)
    assert tables.id_column(tmp_path, "id_str", "it").to_pylist() == list("abcd")


@pytest.mark.parametrize("kinds", [
    (pa.string(), pa.large_string()), (pa.int32(), pa.int64()), (pa.int64(), pa.string()),
])  # fmt: skip
def test_files_of_other_types_are_the_same_to_all_readers(tmp_path, kinds):
    for number, kind in enumerate(kinds):
        ids = pa.array([f"{number + 1}1", f"{number + 1}2"]).cast(kind)
        pq.write_table(pa.table({"id_str": ids, "feat_0": [1.0, 2.0], "feat_1": [0.5, 3]}), tmp_path / f"{number}.pq")
    empty = pd.DataFrame(columns=["id_str", "feat_0", "feat_1"])
    for name in ("!.parquet", "2.parquet"):  # the first and the last
        empty.to_parquet(tmp_path / name)
    left = pd.DataFrame({"id_str": ["12"]})
    for read in (catalogs.read, lambda path: crossmatch.by_id(left, path), representations.anomalies,
                 lambda path: representations.crossmatch(path, left),
                 lambda path: tables.read(path, rows=[1])):  # fmt: skip
        if kinds == (pa.int64(), pa.string()):
            with pytest.raises(ValueError, match="'id_str' is string in 1.pq, but int64 in"):
                read(tmp_path)
        else:
            assert left["id_str"][0] in read(tmp_path)["id_str"].astype(str).tolist()


def test_text_as_astropy_gives_it_of_fits():
    frame = pd.DataFrame({"id_str": [b"a ", b"b"], "subset": [b"train", None], "x": [1, 2]})
    assert columns.in_memory(frame)["subset"].tolist() == ["train", None]
    assert columns.file_locations(pd.DataFrame({"file_loc": [b"a.png"]}), folder="c") == ["c/a.png"]


def test_gaps_in_ascii_tables_of_fits(tmp_path):
    columns = [fits.Column("id_str", "A4", array=["None", "b", "c"]), fits.Column("n", "I3", array=[111, -1, 333]),
               fits.Column("x", "F5.1", array=[1.5, 2.5, -9.9])]  # fmt: skip
    hdu = fits.TableHDU.from_columns(columns)
    hdu.header.update({"TNULL2": "-1", "TNULL3": "-9.9"})
    hdu.writeto(tmp_path / "t.fits")
    (tmp_path / "t.fits").write_bytes((tmp_path / "t.fits").read_bytes().replace(b"333", b"   "))
    got = tables.read(tmp_path / "t.fits")
    assert got["id_str"][0] == "None"
    assert got["n"].tolist() == [111, pd.NA, pd.NA] and got["x"].fillna(0).tolist() == [1.5, 2.5, 0]


def test_lists_with_gaps_and_text_of_any_length_in_fits(tmp_path):
    rows = [np.array([1, -99], np.int32), np.array([2, 3], np.int32)]
    uneven = np.empty(2, object)
    uneven[:] = rows
    fits.BinTableHDU.from_columns([
        fits.Column("id_str", "PA()", array=np.array(["abc", "d"], object)),
        fits.Column("even", "2J", null=-99, array=rows), fits.Column("any", "PJ()", null=-99, array=uneven),
    ]).writeto(tmp_path / "t.fits")  # fmt: skip
    got = catalogs.read(tmp_path / "t.fits")
    assert got["id_str"].tolist() == ["abc", "d"]
    for name in ("even", "any"):
        np.testing.assert_array_equal(np.stack(got[name]), [[1, np.nan], [2, 3]])
    table = Table({"n": np.ma.masked_equal([[LONG, -99], [2, 3]], -99)})
    for name in ("t.fits", "t.parquet"):
        table.write(tmp_path / name, overwrite=True)
        assert tables.read(tmp_path / name)["n"][0][0] == LONG


@pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 22, reason="this version of pyarrow writes no string views")
def test_text_as_polars_writes_it(tmp_path):
    ids, names = (pa.array(cells, pa.string_view()) for cells in (["a", "b", "d"], ["M 31", None, "M 33"]))
    pq.write_table(pa.table({"id_str": ids, "name": names, "x": [1, 2, 4]}), tmp_path / "t.parquet")
    assert tables.read(tmp_path / "t.parquet", rows=np.array([1, 2]))["id_str"].tolist() == ["b", "d"]
    assert tables.read(tmp_path / "t.parquet")["name"].isna().tolist() == [False, True, False]
    joined = crossmatch.by_id(pd.DataFrame({"id_str": ["d", "a"]}), tmp_path / "t.parquet", columns=["x"])
    assert joined["x"].tolist() == [4, 1]


def test_empty_cells_that_an_older_votable_makes_zero_are_told(tmp_path):
    text = VOTABLE.replace("1.3", "1.2").replace('ra" datatype="double"', 'n" datatype="int"', 1)
    (tmp_path / "t.vot").write_text(text.replace("<TD>1", "<TD>"))
    with pytest.warns(UserWarning, match="they are read as 0"):
        tables.read(tmp_path / "t.vot")


def test_whole_degrees_with_and_without_a_unit_are_one_column(tmp_path):
    Table({"ra": [1]}).write(tmp_path / "0.parquet")
    pd.DataFrame({"ra": [2]}).to_parquet(tmp_path / "1.parquet")
    assert tables.read(tmp_path)["ra"].tolist() == [1, 2]


@pytest.mark.parametrize("size, info, message", [
    ('arraysize="*"', "", None), ('arraysize="*"', '<PARAM name="frame" datatype="char" value="ICRS"/>', None),
    ('arraysize="3"', "", "text in line [0-9]+ is longer than its FIELD allows"), ("", "", "in line .* would be cut"),
    ('arraysize="*"', '<INFO name="QUERY_STATUS" value="ERROR">no column z</INFO>', "error of a service: no column z"),
    ('arraysize="*"', '<INFO name="QUERY_STATUS" value="OVERFLOW"/>', "so it lacks rows"),
])  # fmt: skip
def test_answers_of_services(tmp_path, size, info, message):
    text = VOTABLE.replace('ra" datatype="double"', f'id_str" datatype="char" {size}', 1).replace("<TD>1", "<TD>M 31")
    (tmp_path / "t.vot").write_text(text.replace("</TABLE>", f"</TABLE>{info}"))
    if "OVERFLOW" in info:
        with pytest.warns(UserWarning, match=message):
            tables.read(tmp_path / "t.vot")
    elif message:
        with pytest.raises(ValueError, match=message):
            tables.read(tmp_path / "t.vot")
    else:
        assert tables.read(tmp_path / "t.vot")["id_str"].tolist() == ["M 31"]


def test_a_scaled_unit_of_positions_keeps_its_scale():
    assert to_degrees("dec", units.Unit(1e-3 * units.deg)) == pytest.approx(1e-3)
    assert to_degrees("ra", units.mas) == pytest.approx(1 / 3.6e6)


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
@pytest.mark.parametrize("unit, degrees", [
    ("radian", 180 / np.pi), ("radians", 180 / np.pi), ("HOURS", 15), ("arcseconds", 1 / 3600), ("Degrees", 1),
    ("", 1), ("deg (J2000)", 1), ("none", 1), ("furlongs", None), ("m", None),
])  # fmt: skip
@pytest.mark.parametrize("name", ["t.fits", "t.vot", "t.parquet"])
def test_units_of_positions_are_the_same_in_every_format(tmp_path, name, unit, degrees):
    if name == "t.fits":
        fits.BinTableHDU.from_columns([fits.Column("ra", "D", unit=unit, array=[1.0])]).writeto(tmp_path / name)
    elif name == "t.vot":
        old = 'ra" datatype="double"/><FIELD name="ra"'
        text = VOTABLE.replace(old, old.replace("/", f' unit="{unit}"/').replace('name="ra"', 'name="x"'))
        (tmp_path / name).write_text(text)
    else:
        table = Table({"ra": [1.0]})
        table["ra"].unit = units.Unit(unit, parse_strict="silent")
        table.write(tmp_path / name)
    if degrees is None:
        with pytest.raises(ValueError, match=f"`ra` is in '{unit}', which is no known unit of angles"):
            tables.read(tmp_path / name)
        assert "ra" in tables.column_names(tmp_path / name)
    else:
        assert tables.read(tmp_path / name)["ra"].tolist() == pytest.approx([degrees])


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/a", "file://{}/b"])
def test_a_votable_leads_nowhere_else(tmp_path, place):
    (tmp_path / "b").write_bytes(np.array([1.5], ">f8").tobytes())
    stream = f'<BINARY><STREAM href="{place.format(tmp_path)}"/></BINARY>'
    (tmp_path / "t.vot").write_text(
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f'<FIELD name="x" datatype="double"/><DATA>{stream}</DATA></TABLE></RESOURCE></VOTABLE>'
    )
    with pytest.raises(ValueError, match="in another file or on the network"):
        tables.read(tmp_path / "t.vot")


@pytest.mark.parametrize("name", ["t.fits", "t.vot"])
def test_positions_come_in_degrees_and_lists_in_the_order_of_this_machine(tmp_path, name):
    Table({"id_str": ["a"], "ra": [np.pi] * units.rad, "dec": [30.0] * units.arcmin, "v": [[1, LONG]]}).write(
        tmp_path / name, format={".fits": "fits", ".vot": "votable"}[name[1:]]
    )
    got = tables.read(tmp_path / name)
    assert got["ra"].tolist() == pytest.approx([180]) and got["dec"].tolist() == pytest.approx([0.5])
    assert got["v"][0].dtype.isnative and got["v"][0].tolist() == [1, LONG]


@pytest.mark.parametrize("unit, kind, given, degrees", [
    ("arcmin", "J", [90, -45], [1.5, -0.75]), ("deg", "J", [90, 45], [90, 45]),
    ("h", "D", [1.5, 2], [22.5, 30]), ("hourangle", "D", [1.5, 2], [22.5, 30]),
])  # fmt: skip
def test_right_ascensions_in_other_units_keep_their_fractions(tmp_path, unit, kind, given, degrees):
    columns = [fits.Column("ra", kind, unit=unit, array=given), fits.Column("dec", "D", unit="deg", array=[0, 1])]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    assert tables.read(tmp_path / "a.fits")["ra"].tolist() == pytest.approx(degrees)


def test_a_gap_is_one_before_it_is_scaled(tmp_path):
    hdu = fits.BinTableHDU.from_columns([fits.Column("z", "I", array=np.array([-32768, 60], np.int16))])
    hdu.header.update({"TSCAL1": 0.1, "TZERO1": 5.0, "TNULL1": -32768})
    hdu.writeto(tmp_path / "a.fits")
    np.testing.assert_allclose(tables.read(tmp_path / "a.fits")["z"], [np.nan, 11])


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("rows, message", [
    ([2], r"row 2 \(counted from 0\) is asked for, and it has 2"), ([-1], "whole numbers from 0"),
    (np.array([True, False]), "whole numbers from 0"), ([1, 0], "ascending"), ([0.5], "whole numbers from 0"),
])  # fmt: skip
def test_rows_that_there_are_not(tmp_path, name, rows, message):
    write_table(pd.DataFrame({"id_str": ["a", "b"]}), tmp_path / name)
    with pytest.raises(ValueError, match=message):
        tables.read(tmp_path / name, rows=rows)


def test_files_that_are_something_else_than_they_say(tmp_path):
    frame = pd.DataFrame({"id_str": ["a", "b"], "v": [1, 2]})
    frame.to_parquet(tmp_path / "a.csv", engine="pyarrow")
    with pytest.raises(ValueError, match="it is a parquet file: rename it"):
        tables.read(tmp_path / "a.csv")
    (tmp_path / "many").mkdir()
    frame.to_parquet(tmp_path / "many" / "0.parquet")
    for other, message in ((frame.assign(v=0.5), "'v' is double in 1.parquet, but int64 in 0"),
                           (frame[["id_str"]], "1.parquet has no column 'v'"),
                           (frame.assign(w=1), "0.parquet, unlike 1.parquet, has no column 'w'")):  # fmt: skip
        other.to_parquet(tmp_path / "many" / "1.parquet")
        with pytest.raises(ValueError, match=message):
            tables.read(tmp_path / "many")


def test_columns_out_of_anything_that_can_be_gone_through(tmp_path):
    frame = pd.DataFrame({"id_str": ["a"], "v": [1], "w": [2]})
    for name in ("t.csv", "t.parquet"):
        write_table(frame, tmp_path / name)
        for wanted in (["w", "v"], ("w", "v"), (name for name in ("w", "v"))):
            assert list(tables.read(tmp_path / name, wanted)) == ["w", "v"]
        with pytest.raises(ValueError, match="`columns` has several columns 'v'"):
            tables.read(tmp_path / name, ["v", "v"])
    joined = crossmatch.by_id(frame[["id_str"]], frame, columns=(name for name in ("v",)))
    assert list(joined) == ["id_str", "v"]


@pytest.mark.parametrize("begin, message", [
    (b"\x1f\x8b\x08\x00", "packed with gzip: rename it"), (b"PK\x03\x04 xl/", "a zip archive or a spreadsheet"),
    (b"<!DOCTYPE html><html>", "a web page or XML"), (b"# %ECSV 1.0\n# ---\nid_str a\n", "it begins with #: remove"),
])  # fmt: skip
def test_what_is_no_csv_though_its_name_says_so(tmp_path, begin, message):
    (tmp_path / "a.csv").write_bytes(begin)
    with pytest.raises(ValueError, match=message):
        tables.read(tmp_path / "a.csv")


@pytest.mark.parametrize("text, names", [
    ("#,id_str,x\n1,a,2\n", ["#", "id_str", "x"]), ("PAR1,id_str\n1,a\n", ["PAR1", "id_str"]),
])  # fmt: skip
def test_names_of_columns_that_look_odd_are_names(tmp_path, text, names):
    (tmp_path / "a.csv").write_text(text)
    assert list(tables.read(tmp_path / "a.csv")) == names


@pytest.mark.parametrize("path", [Path("s3://bucket/a.csv"), Path("http://a.org/b.csv"), "gs:/bucket"])
def test_an_address_is_no_path_even_where_slashes_were_lost(path):
    with pytest.raises(ValueError, match="is no path, but an address"):
        tables.read(path)


def test_a_label_beyond_any_float():
    with pytest.raises(ValueError, match="column 'z' holds a number beyond 1e300"):
        columns.labels_of(pd.Series([1, 10**400], dtype=object), "z")


def test_positions_of_parquet_come_in_degrees(tmp_path):
    hours, minutes = [1.0, 2.0] * units.hourangle, np.ma.array([60, 30], mask=[False, True])
    table = Table({"id_str": ["a", "b"], "ra": hours, "dec": minutes, "x": [1, 2] * units.arcmin})
    table["dec"].unit = "arcmin"
    table.write(tmp_path / "t.parquet")
    got = tables.read(tmp_path / "t.parquet")
    assert got["ra"].tolist() == [15, 30] and got["dec"].fillna(9).tolist() == [1, 9] and got["x"].tolist() == [1, 2]
    assert tables.read(tmp_path / "t.parquet", ["ra"], rows=[1])["ra"].tolist() == [30]
