"""Data sets by name; the ring catalogue, fetched from a local server."""

import hashlib
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from zoobook import datasets
from zoobook.datasets import download, rings
from zoobook.datasets.download import RemoteFile

TABLE = "data/example_ring_catalog_basic.csv"
IMAGES = "data/example_images/basic/"


@pytest.fixture
def server(server, monkeypatch):
    """A local stand-in for the public repository, with 20 small files instead of its 470 images."""
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    monkeypatch.setattr(download, "_PIECE", 500)
    rng = np.random.default_rng(0)
    names = [f"J{i:06d}.{i:02d}{'+-'[i % 2]}000000.0.png" for i in range(20)]
    server.files = {IMAGES + name: rng.bytes(20_000 + 1000 * i) for i, name in enumerate(names)}
    columns = {"iauname": [name[:-4] for name in names], "local_png_loc": list(server.files)}
    table = pd.DataFrame(columns | {"ring": [1, 0] * 10, "x_fraction": 0.5})
    server.files[TABLE] = table.to_csv(index=False).encode()
    monkeypatch.setattr(rings, "remote_files", lambda base: [
        RemoteFile(base + path.replace("+", "%2B"), path, len(data), "sha256:" + hashlib.sha256(data).hexdigest())
        for path, data in server.files.items()
    ])  # fmt: skip
    monkeypatch.setitem(datasets.known("rings"), "address", server.url)
    return server


def check(catalog, server):
    assert list(catalog.columns) == ["id_str", "iauname", "file_loc", "ring", "x_fraction"]
    assert catalog["ring"].tolist() == [1, 0] * 10 and len(catalog) == 20
    for name, file in zip(catalog["id_str"], catalog["file_loc"], strict=True):
        with open(file, "rb") as data:
            assert data.read() == server.files[f"{IMAGES}{name}.png"]


# ---- names


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    assert datasets.home() == tmp_path
    monkeypatch.delenv("ZOOBOOK_HOME")
    assert "zoobook" in str(datasets.home())


def test_available(monkeypatch, tmp_path, server):
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    table = datasets.available().set_index("name")
    assert {"simulated", "rings"} <= set(table.index) and not table["on_disk"].any()
    assert table.loc["rings", "rows"] == 470 and table.loc["rings", "bytes"] == 154_418_363
    assert table[["licence", "citation"]].map(len).min(axis=None) > 5
    datasets.load("rings")
    (tmp_path / "simulated").mkdir()
    assert datasets.available().set_index("name")["on_disk"].loc[["rings", "simulated"]].all()


def test_unknown_names():
    with pytest.raises(
        ValueError, match=r"there is no data set 'ringz'\. Did you mean 'rings'\? Known: simulated, rings"
    ):
        datasets.load("ringz")
    with pytest.raises(ValueError, match="'rings' has no option 'seed'; its options are: base_url"):
        datasets.load("rings", seed=1)


def test_how_images_are_framed():
    framing = {name: datasets.framing(name) for name in datasets.registry()}
    others = {name: side for name, side in framing.items() if side != 17}
    assert others == {"gz2": 22, "gz2_images": 22, "galaxy_mnist": 17 * 318 / 424}
    assert datasets.framing("my/galaxies.csv") == 17


def test_registry_agrees_with_the_facts(shared):
    facts = pd.read_csv(shared / "facts" / "rings_basic_files.csv")
    files = {file.path: file for file in rings.remote_files("https://x/y")}
    assert len(files) == 471 and sum(file.bytes for file in files.values()) == datasets.registry()["rings"]["bytes"]
    for row in facts.itertuples():
        file = files[IMAGES + row.name]
        assert (file.bytes, file.hash) == (row.bytes, "sha256:" + row.sha256)
    told = yaml.safe_load((shared / "facts" / "datasets.yaml").read_text())["ring_catalogues"]["basic"]
    assert (files[TABLE].bytes, told["rows"]) == (told["bytes"], 470)
    name = "J000411.19+020924.0.png"
    assert files[IMAGES + name].url == f"https://x/y/{IMAGES}{name.replace('+', '%2B')}"


# ---- the way it should go


def test_download_then_nothing_more(server, tmp_path):
    check(datasets.load("rings", root=tmp_path), server)
    assert len(server.asked) == 21
    check(datasets.load("rings", root=tmp_path), server)
    check(datasets.load("rings", root=tmp_path, download=False), server)
    check(datasets.load("rings", root=tmp_path / "rings"), server)  # as one would have a copy of the repository
    assert len(server.asked) == 21
    assert not [file for _, _, files in os.walk(tmp_path) for file in files if file.endswith(".part")]


def test_only_missing_and_damaged_files_are_fetched(server, tmp_path):
    catalog = datasets.load("rings", root=tmp_path)
    os.remove(catalog["file_loc"][3])
    with open(catalog["file_loc"][4], "r+b") as file:
        file.write(b"xxxx")  # same length, other content
    with pytest.raises(FileNotFoundError, match="2 of the 21 files .*git clone"):
        datasets.load("rings", root=tmp_path, download=False)
    server.asked.clear()
    check(datasets.load("rings", root=tmp_path), server)
    assert sorted(path for path, _ in server.asked) == [f"{IMAGES}{catalog['id_str'][i]}.png" for i in (3, 4)]


def test_base_address_as_an_argument(server, tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.known("rings"), "address", "http://127.0.0.1:9/")
    check(datasets.load("rings", root=tmp_path, base_url=server.url), server)


# ---- one's own table, and real files


def own_table(folder, **columns):
    frame = pd.DataFrame({"iauname": ["a", "b"], "file_loc": ["1.png", "2.png"], "ring": [1, 0]}).assign(**columns)
    frame.to_csv(folder / "catalog.csv", index=False)
    return frame


def test_own_table(tmp_path):
    frame = own_table(tmp_path, note="n")
    for root in (tmp_path, tmp_path / "catalog.csv"):
        catalog = datasets.load("rings", root=root)
        assert catalog["file_loc"].tolist() == [f"{tmp_path}/1.png", f"{tmp_path}/2.png"]
        assert catalog["ring"].tolist() == [1, 0] and catalog["note"].tolist() == ["n", "n"]
    frame.rename(columns={"iauname": "id_str"}).to_parquet(tmp_path / "mine.parquet")
    assert datasets.load("rings", root=tmp_path / "mine.parquet")["id_str"].tolist() == ["a", "b"]
    with pytest.raises(FileNotFoundError, match=r"no table at .*none\.csv"):
        datasets.load("rings", root=tmp_path / "none.csv")
    own_table(tmp_path, ring=[1, 2])
    with pytest.raises(
        ValueError, match=r"`ring` must be 1 or 0, but is not in 1 of 2 rows\. First: galaxy 'b' \(row 1.*: 2"
    ):
        datasets.load("rings", root=tmp_path)
    own_table(tmp_path).drop(columns="ring").to_csv(tmp_path / "catalog.csv", index=False)
    with pytest.raises(ValueError, match="has no column 'ring'"):
        datasets.load("rings", root=tmp_path)


def test_real_table(shared):
    catalog = datasets.load("rings", root=shared / "real" / "rings", download=False)
    assert catalog["ring"].value_counts().to_dict() == {0: 135, 1: 135}
    assert catalog["file_loc"].map(os.path.isfile).all()


def test_real_originals(shared, tmp_path):
    """The six images that are here byte for byte have the hashes that the download will ask for."""
    copied = tmp_path / IMAGES
    copied.mkdir(parents=True)
    originals = sorted((shared / "real" / "originals").iterdir())
    for file in originals:
        shutil.copy(file, tmp_path / TABLE if file.suffix == ".csv" else copied / file.name)
    there = {TABLE, *(IMAGES + file.name for file in originals if file.suffix == ".png")}
    wanted = rings.remote_files("http://127.0.0.1:9/")
    lacking = {file.path for file in download.missing(wanted, tmp_path)}
    assert len(there) == 7 and lacking == {file.path for file in wanted} - there
    with pytest.raises(FileNotFoundError, match="464 of the 471 files"):
        datasets.load("rings", root=tmp_path, download=False)
