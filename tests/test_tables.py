"""Tables on disk: columns and rows out of CSV, parquet and FITS, and how little memory that takes."""
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoobook import tables


@pytest.fixture(params=["t.csv", "t.csv.gz", "t.parquet", "grouped.parquet", "t.fits"])
def stored(request, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id_str": [f"g{i}" for i in range(100)], "x": rng.random(100), "n": rng.integers(0, 9, 100)})
    path = tmp_path / request.param
    if request.param == "grouped.parquet":
        pq.write_table(pa.table(frame), path, row_group_size=7)
    elif ".csv" in request.param:
        frame.to_csv(path, index=False)
    elif ".fits" in request.param:
        from astropy.table import Table

        Table.from_pandas(frame).write(path)
    else:
        frame.to_parquet(path)
    return frame, path


@pytest.mark.parametrize("rows", [None, [], [0], [99], [3, 4, 5, 50], list(range(100))])
@pytest.mark.parametrize("columns", [None, ["n"], ["n", "id_str"]])
def test_columns_and_rows(stored, columns, rows, monkeypatch):
    monkeypatch.setattr(tables, "_VALUES", 100)  # so that parquet is read in blocks of columns
    monkeypatch.setattr(tables, "_CHUNK", 7)
    frame, path = stored
    expected = frame if columns is None else frame[columns]
    expected = expected if rows is None else expected.iloc[rows].reset_index(drop=True)
    got = tables.read(path, columns, None if rows is None else np.array(rows, int))
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)
    assert tables.column_names(path) == list(frame.columns)


def test_names(stored):
    frame, path = stored
    assert tables.id_column(path, "id_str", "the table").to_pylist() == frame["id_str"].tolist()
    with pytest.raises(ValueError, match=rf"{path.name} has no column 'y'; there are: id_str, n, x"):
        tables.read(path, ["y"])


def test_rows_out_of_many_features_take_little_memory(tmp_path):
    """One row group, as pandas writes it. All 1280 features of all rows are 205 MB as float64 in memory."""
    rows, path = 20_000, tmp_path / "features.parquet"
    rng = np.random.default_rng(0)
    ids = pa.array([f"J{row}" for row in range(rows)])
    features = [pa.array(rng.random(rows)) for _ in range(1280)]
    pq.write_table(pa.table([ids, *features], ["id_str", *(f"feat_{i}" for i in range(1280))]), path,
                   use_dictionary=False, compression="none")  # fmt: skip
    code = f"""
import numpy, pyarrow
from zoobook import tables
tables.id_column({str(path)!r}, "id_str", "the table")
table = tables.read({str(path)!r}, rows=numpy.arange(0, {rows}, 100))
assert table.shape == (200, 1281)
print(pyarrow.default_memory_pool().max_memory())
"""
    peak = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert peak < 0.7 * path.stat().st_size, f"{peak / 1e6:.0f} MB"
