"""Data sets by name; the ring catalogue, fetched from a local server that misbehaves in every way."""

import errno
import hashlib
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from server import Server

from zoobook import datasets
from zoobook.datasets import download, rings
from zoobook.datasets.download import DownloadError, RemoteFile, fetch

TABLE = "data/example_ring_catalog_basic.csv"
IMAGES = "data/example_images/basic/"


@pytest.fixture
def server(monkeypatch):
    """A local stand-in for the public repository, with 20 small files instead of its 470 images."""
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    monkeypatch.setattr(download, "_PIECE", 500)
    server, rng = Server(), np.random.default_rng(0)
    names = [f"J{i:06d}.{i:02d}{'+-'[i % 2]}000000.0.png" for i in range(20)]
    server.files = {IMAGES + name: rng.bytes(20_000 + 1000 * i) for i, name in enumerate(names)}
    table = pd.DataFrame(
        {
            "iauname": [n[:-4] for n in names],
            "local_png_loc": list(server.files),
            "ring": [1, 0] * 10,
            "x_fraction": 0.5,
        }
    )
    server.files[TABLE] = table.to_csv(index=False).encode()
    monkeypatch.setattr(
        rings,
        "remote_files",
        lambda base: [
            RemoteFile(base + path.replace("+", "%2B"), path, len(data), "sha256:" + hashlib.sha256(data).hexdigest())
            for path, data in server.files.items()
        ],
    )
    monkeypatch.setenv("ZOOBOOK_RINGS_URL", server.url)
    yield server
    server.close()


def victim(server):
    return sorted(server.files)[5]


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
    monkeypatch.setenv("ZOOBOOK_RINGS_URL", "http://127.0.0.1:9/")
    check(datasets.load("rings", root=tmp_path, base_url=server.url), server)


# ---- and the ways it should not


@pytest.mark.parametrize("faults", [[503, 500, 429], ["hang up"], ["hang up"] * 6, [503, "hang up", 502]])
def test_passing_faults_are_survived(server, tmp_path, faults):
    server.faults[victim(server)] = list(faults)
    check(datasets.load("rings", root=tmp_path), server)
    starts = [start for path, start in server.asked if path == victim(server)]
    assert len(starts) == len(faults) + 1 and (starts[-1] > 0) == ("hang up" in faults)


def test_server_that_cannot_resume(server, tmp_path):
    server.ranges = False
    server.faults[victim(server)] = ["hang up"]
    check(datasets.load("rings", root=tmp_path), server)


def test_server_that_keeps_hanging_up(server, tmp_path):
    server.ranges = False  # so that it never comes further than half-way
    server.faults[victim(server)] = ["hang up"] * 4
    with pytest.raises(DownloadError) as error:
        datasets.load("rings", root=tmp_path)
    message, size = str(error.value), len(server.files[victim(server)])
    assert f"{victim(server)}: the connection broke after {size // 2:,} of {size:,} bytes" in message
    kept = [path for path in server.files if (tmp_path / "rings" / path).exists()]
    assert f"tried 4 times. {len(kept)} of 21 files of 'rings' are finished and kept in {tmp_path / 'rings'}" in message
    assert "git clone" in message and victim(server) not in kept
    server.asked.clear()
    check(datasets.load("rings", root=tmp_path), server)  # goes on
    assert not {path for path, _ in server.asked} & set(kept)


def test_wrong_content(server, tmp_path):
    right = hashlib.sha256(server.files[victim(server)]).hexdigest()
    wrong = hashlib.sha256(bytes(len(server.files[victim(server)]))).hexdigest()
    server.faults[victim(server)] = ["wrong"]
    with pytest.raises(
        DownloadError, match=f"its content is wrong: expected sha256:{right} .* got sha256:{wrong}.*deleted"
    ):
        datasets.load("rings", root=tmp_path)
    target = tmp_path / "rings" / victim(server)
    assert not target.exists() and not target.with_name(target.name + ".part").exists()
    check(datasets.load("rings", root=tmp_path), server)


def test_a_wrong_piece_from_an_earlier_run_is_not_trusted(server, tmp_path):
    part = tmp_path / "rings" / (victim(server) + ".part")
    for piece in (b"old" * 1000, b"old" * 100_000):  # shorter, longer than the file
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(piece)
        check(datasets.load("rings", root=tmp_path), server)
        shutil.rmtree(tmp_path / "rings")


def test_missing_on_the_server(server, tmp_path):
    server.faults[victim(server)] = [404] * 9
    with pytest.raises(DownloadError, match="the server answers 404 Not Found.*finished and kept"):
        datasets.load("rings", root=tmp_path)
    assert server.times(victim(server)) == 1  # trying again would not help


def test_no_network(server, tmp_path):
    with pytest.raises(
        DownloadError, match="the connection failed.*0 of 21 files.*by hand: `git clone .*root='zoobot'"
    ):
        datasets.load("rings", root=tmp_path, base_url="http://127.0.0.1:9/")


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "rings").touch()
    with pytest.raises(OSError, match="cannot write to the folder .*rings"):
        datasets.load("rings", root=tmp_path)
    assert not server.asked


def test_too_little_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    need = sum(map(len, server.files.values()))
    with pytest.raises(
        OSError, match=rf"{need:,} bytes are still to be fetched into .*rings, which has 1,000 free"
    ) as error:
        datasets.load("rings", root=tmp_path)
    assert error.value.errno == errno.ENOSPC and not server.asked


def test_disk_that_fills_up_on_the_way(server, tmp_path, monkeypatch):
    usual, written = open, []

    class Full:
        def __init__(self, path):
            self.file = usual(path, "ab")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            written.append(len(data))
            if sum(written) > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(data)

    monkeypatch.setattr(
        download, "open", lambda path, mode: Full(path) if mode == "ab" else usual(path, mode), raising=False
    )
    with pytest.raises(
        OSError, match=r"cannot write .*part: the disk is full\. \d+ of 21 files .*Free some space"
    ) as error:
        datasets.load("rings", root=tmp_path)
    assert error.value.errno == errno.ENOSPC
    kept = {path for path in server.files if (tmp_path / "rings" / path).exists()}
    assert kept
    monkeypatch.undo()
    server.asked.clear()
    files = [
        RemoteFile(server.url + p.replace("+", "%2B"), p, len(d), "md5:" + hashlib.md5(d).hexdigest())
        for p, d in server.files.items()
    ]
    fetch(files, tmp_path / "rings", "rings", "")
    assert not {path for path, _ in server.asked} & kept
    assert all((tmp_path / "rings" / path).read_bytes() == data for path, data in server.files.items())


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
    with pytest.raises(ValueError, match="has no column `ring`"):
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
