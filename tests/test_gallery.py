"""The page of galaxies as a file; in a browser: test_browser.py."""
import json
import os
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from toys import run, survey

from zoobook import gallery


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def scores():
    ids = list(survey()[0].ids)
    table = pd.DataFrame({"id_str": ids, "ring_probability": np.linspace(0, 1, len(ids)), "file_loc": "x.png"})
    return table.assign(kind=["</script><b>", None] * (len(ids) // 2), ring=[True, False] * (len(ids) // 2))


def test_the_page_holds_everything_itself(store):
    text = gallery.page(store, scores(), title="Rings & <more>", places=("ring_probability", "ring"))
    assert "<title>Rings &amp; &lt;more&gt;</title>" in text
    assert not re.search(r"https?://", text) and text.count("</script>") == 2
    data = data_of(text)
    assert data["ids"] == list(store.ids) and list(data["columns"]) == ["ring_probability", "kind", "ring"]
    assert data["columns"]["kind"][:2] == ["</script><b>", None] and data["columns"]["ring"][:2] == ["True", "False"]
    assert np.ptp(data["places"]["xy"], axis=0).tolist() == [1000, 1000]


def test_stamps_are_where_the_page_looks_for_them(store):
    import base64
    import io

    from PIL import Image

    data = data_of(gallery.page(store, scores(), size=32, quality=95))
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["sprites"][0])))).astype(float)
    for n in (0, 23, 24, 95):
        top, left = n // data["across"] * 32, n % data["across"] * 32
        assert np.abs(sheet[top : top + 32, left : left + 32] - store.pixels[n]).mean() < 6


def test_from_the_command_line(store, catalog, tmp_path):
    scores().to_parquet(tmp_path / "scores.parquet")
    catalog.to_parquet(tmp_path / "catalog.parquet")
    out = tmp_path / "page.html"
    said = run("gallery", store.path, "--out", out, "--scores", tmp_path / "scores.parquet",
               "--sort", "ring_probability", "--most", 10, "--column", "ring_probability")  # fmt: skip
    assert "the first 10 of 96 galaxies are shown" in said
    assert data_of(out.read_text())["ids"] == list(store.ids[:-11:-1])
    run("gallery", tmp_path / "catalog.parquet", "--out", out,
        "--column", "radius", "--column", "large", "--map", "radius", "large")  # fmt: skip
    assert data_of(out.read_text())["places"]["names"] == ["radius", "large"]
    near = catalog.head(2).assign(file_loc=["0.png", "none.png"])  # counted from the folder of the table
    os.link(catalog["file_loc"][0], tmp_path / "0.png")
    near.to_csv(tmp_path / "near.csv", index=False)
    said = run("gallery", tmp_path / "near.csv", "--out", out)
    assert "Note: 1 of 2 images cannot be used" in said and "none.png" in said
    near.tail(1).to_csv(tmp_path / "near.csv", index=False)
    assert "none of 1 images can be used" in run("gallery", tmp_path / "near.csv", "--out", out, code=1)
    assert "'--most'" in run("gallery", store.path, "--out", out, "--most", -5, code=2)
    before = store.path.read_bytes()
    assert "must end in .html" in run("gallery", store.path, "--out", store.path, code=1)
    assert store.path.read_bytes() == before
    assert "no column 'beauty'" in run("gallery", store.path, "--out", out, "--sort", "beauty", code=1)


def test_numbers_keep_the_digits_that_tell_and_ids_all():
    store, _ = survey()
    table = pd.DataFrame({
        "id_str": store.ids[:3], "ra": [187.70593, 10.0, np.nan], "objid": [587722981742084097, 2, 3],
        "count": [1.0, np.inf, 3.0], "share": [0.123456, 1e-9, 1], "lists": [[1], [2], None],
    })  # fmt: skip
    columns = data_of(gallery.page(store, table))["columns"]
    assert columns == {"ra": [187.7059, 10, None], "objid": ["587722981742084097", "2", "3"], "count": [1, None, 3],
                       "share": [0.1235, 1e-9, 1]}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [
    ({"table": scores().assign(lists=[[1, 2]] * 96), "columns": ["lists"]}, "'lists' holds lists"),
    ({"size": 50}, "a multiple of 16"),
    ({"columns": ["beauty"]}, "no column 'beauty'"),
    ({"table": scores().head(0)}, "1 to 20,000 galaxies, not 0"),
    ({"table": scores().assign(id_str=[f"other_{n}" for n in range(96)])}, "not in the image store"),
    ({"places": ("ring_probability", "kind")}, "lack a place"),
])  # fmt: skip
def test_what_cannot_be_shown_is_said(change, message):
    given = {"table": scores()} | change
    with pytest.raises(ValueError, match=message):
        gallery.page(survey()[0], given.pop("table"), **given)


def test_numbers_among_objects_are_numbers():
    store, _ = survey()
    table = pd.DataFrame({
        "id_str": store.ids[:3], "float": [0.123456, None, 2], "decimal": [Decimal("0.25"), Decimal("NaN"), 3],
        "long": [587722981742084097, 2, None], "truth": [True, None, False], "mixed": [1, "x", 2.5],
    }, dtype=object)  # fmt: skip
    assert data_of(gallery.page(store, table))["columns"] == {
        "float": [0.1235, None, 2], "decimal": [0.25, None, 3], "long": ["587722981742084097", "2", None],
        "truth": ["True", None, "False"], "mixed": ["1", "x", "2.5"],
    }  # fmt: skip
    kinds = table[["id_str"]].assign(n=pd.Categorical([2.5, None, 1]), kind=pd.Categorical(["E", None, "S"]))
    assert data_of(gallery.page(store, kinds))["columns"] == {"n": [2.5, None, 1], "kind": ["E", None, "S"]}
