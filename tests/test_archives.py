"""Images out of archives, on disk and on a local server that misbehaves: whole, checked, inside their folder, once."""

import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server, end, full_disk, processes, read_only
from toys import tarred, zipped

from zoobook import catalogs
from zoobook.datasets import archives, download, published
from zoobook.datasets.archives import ArchiveError, images_for
from zoobook.datasets.download import DownloadError, RemoteFile

PARTS = ("part1.zip", "part2.zip", "part3.zip")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.005)
    monkeypatch.setattr(download, "_PIECE", 500)
    monkeypatch.setattr(archives, "_END", 1_000)
    monkeypatch.setattr(archives, "_GAP", 2_000)
    monkeypatch.setattr(archives, "_RUN", 12_000)
    monkeypatch.setattr(archives, "_SLACK", 1_000_000)
    monkeypatch.delenv("ZOOBOOK_OFFLINE", raising=False)


def pictures(first, count, rng):
    names = [f"J00{i % 3}{i:04d}.00{'+-'[i % 2]}000000.0" for i in range(first, first + count)]
    return {f"{name[:4]}/{name}.png": rng.bytes(int(rng.integers(1_000, 5_000))) for name in names}


class Survey:
    """Three zips on a server, and what is in them."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.server, self.held = Server(), [pictures(40 * k, 40, rng) for k in range(3)]
        self.images = self.held[0] | self.held[1] | self.held[2]
        self.server.files = {
            PARTS[0]: zipped(self.held[0]),
            PARTS[1]: zipped(self.held[1]),
            PARTS[2]: zipped(self.held[2], before="dr5/png/"),
        }

    def files(self, known=False):
        return [self.file(part, known) for part in PARTS]

    def file(self, part, known=False):
        data = self.server.files[part]
        digest = "md5:" + hashlib.md5(data).hexdigest()
        known = known or "tar" in part
        return RemoteFile(self.server.url + part, part, len(data) if known else None, digest if known else None)

    def catalog(self, step=1):
        names = [path[5:-4] for path in self.images][::step]
        return pd.DataFrame({"id_str": [f"id{i}" for i in range(len(names))], "iauname": names})

    def check(self, catalog, folder):
        """Every image of the catalogue is there as it is in the archives; no image on disk is anything else."""
        for iauname, path in zip(catalog["iauname"], catalog["file_loc"], strict=True):
            assert Path(path).read_bytes() == self.images[f"{iauname[:4]}/{iauname}.png"]
        for path in Path(folder).rglob("*.png"):
            assert path.read_bytes() == self.images[f"{path.parent.name}/{path.name}"]
        assert not list(Path(folder).rglob("*.part"))


@pytest.fixture
def survey():
    survey = Survey()
    yield survey
    survey.server.close()


# ---- the way it should go


def test_only_what_is_needed_is_fetched_and_only_once(survey, tmp_path):
    catalog = survey.catalog(step=15)
    have, lacking = images_for(catalog, survey.files(), tmp_path)
    assert have.drop(columns="file_loc").equals(catalog) and lacking.empty
    survey.check(have, tmp_path)
    whole = sum(map(len, survey.server.files.values()))
    assert sum(survey.server.sent.values()) < 0.3 * whole
    survey.server.asked.clear()
    images_for(catalog, survey.files(), tmp_path)
    assert not survey.server.asked
    everything, _ = images_for(survey.catalog(), survey.files(), tmp_path)
    survey.check(everything, tmp_path)
    assert len(everything) == 120 and sum(survey.server.sent.values()) < 1.2 * whole


def test_neighbours_are_asked_for_together(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_RUN", 1 << 24)
    images_for(survey.catalog(), survey.files(known=True), tmp_path)
    assert survey.server.times(PARTS[0]) == 3  # the end, the list, all images at once


def test_images_that_no_archive_holds(survey, tmp_path):
    catalog = pd.concat([survey.catalog(30), pd.DataFrame({"id_str": ["x"], "iauname": ["J009nobody"]})])
    have, lacking = images_for(catalog, survey.files(), tmp_path)
    assert len(have) == len(catalog) - 1
    assert lacking.to_dict("records") == [
        {"id_str": "x", "image": "J009/J009nobody.png", "cause": "not in any of the 3 archives"}
    ]
    survey.check(have, tmp_path)


class Stream(io.BytesIO):
    """Cannot be sought in, so that a zip written to it has the sizes after the data."""

    def tell(self):
        raise io.UnsupportedOperation


@pytest.mark.parametrize("make", ["prefix", "zip64", "comment", "streamed"])
def test_unusual_zips(survey, tmp_path, make):
    """Each is read here as Python's own reader reads it."""
    out = Stream() if make == "streamed" else io.BytesIO(b"#!/bin/sh\n" * 300 if make == "prefix" else b"")
    with zipfile.ZipFile(out, "a" if make == "prefix" else "w") as file:
        for name, data in survey.held[0].items():
            with file.open(name, "w", force_zip64=make == "zip64") as member:
                member.write(data)
        file.comment = b"x" * 60_000 if make == "comment" else b""
    survey.server.files["odd.zip"] = out.getvalue()
    catalog, expected = pd.DataFrame({"path": list(survey.held[0])}), zipfile.ZipFile(io.BytesIO(out.getvalue()))
    assert images_for(catalog, [survey.file("odd.zip")], tmp_path, "{path}")[1].empty
    for name in expected.namelist():
        assert (tmp_path / name).read_bytes() == expected.read(name)


def test_tars_are_fetched_whole(survey, tmp_path):
    survey.server.files["all.tar.gz"] = tarred({f"./png/{name}": data for name, data in survey.images.items()})
    catalog = survey.catalog(10)
    for _ in range(2):
        have, lacking = images_for(catalog, [survey.file("all.tar.gz")], tmp_path)
        survey.check(have, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == len(have) == len(catalog) and lacking.empty
    assert survey.server.times("all.tar.gz") == 1


def test_an_archive_on_disk_is_used_without_the_network(survey, tmp_path):
    catalog = survey.catalog().iloc[40:80]  # the second archive
    (tmp_path / PARTS[1]).write_bytes(survey.server.files[PARTS[1]])
    survey.check(images_for(catalog, survey.files(known=True), tmp_path)[0], tmp_path)
    assert not survey.server.asked


def test_names_from_the_catalogue(survey, tmp_path):
    with pytest.raises(ValueError, match="needs the column `iauname`; the catalogue has: id_str"):
        images_for(pd.DataFrame({"id_str": ["a"]}), survey.files(), tmp_path)
    for name in ("../../etc/x", "/etc/x", "C:\\x"):
        catalog = pd.DataFrame({"id_str": ["a", "b"], "iauname": ["J0001", name]})
        with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): the catalogue names a file"):
            images_for(catalog, survey.files(), tmp_path, image="{iauname}.png")
    catalog = pd.DataFrame({"id_str": ["a"], "iauname": ["J0001"]})
    odd = {"{iauname": "is no format", "{iauname:{iauname}}": "one column is within another",
           "a.png": "names no column", "{iauname:05d}": "row 0 .counted"}  # fmt: skip
    for image, message in odd.items():
        with pytest.raises(ValueError, match=message):
            images_for(catalog, survey.files(), tmp_path, image=image)
    assert not survey.server.asked
    have, lacking = images_for(pd.DataFrame({"id_str": [], "iauname": []}), survey.files(), tmp_path)
    assert have.empty and lacking.empty and not survey.server.asked


# ---- servers that misbehave


@pytest.fixture(scope="module")
def steady():
    survey = Survey()
    yield survey
    survey.server.close()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 9_000), max_size=9), tags=st.booleans())
def test_cut_at_any_byte(steady, cuts, tags):
    steady.server.tags = tags
    steady.server.faults[PARTS[0]] = [("cut", cut) for cut in cuts]
    catalog = steady.catalog().iloc[:40:4]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(len(cuts) + 1):
            try:
                have, lacking = images_for(catalog, steady.files(), folder)
                break
            except DownloadError as error:
                assert "connection" in str(error)
                steady.check(pd.DataFrame({"iauname": [], "file_loc": []}), folder)
        assert len(have) == len(catalog) and lacking.empty
        steady.check(have, folder)


def test_faults_that_do_not(survey, tmp_path):
    survey.server.faults[PARTS[1]] = [404]
    with pytest.raises(DownloadError, match="part2.zip: the server answers 404 Not Found"):
        images_for(survey.catalog(10), survey.files(), tmp_path)
    survey.server.ranges = False
    with pytest.raises(DownloadError, match="serves no parts of files; fetch the whole by hand, into the folder"):
        images_for(survey.catalog(10), survey.files(), tmp_path / "other")
    assert survey.server.sent.get(PARTS[2], 0) == 0
    survey.server.ranges = True
    survey.server.faults[PARTS[1]] = [None] * 5 + [503] * 99
    with pytest.raises(DownloadError, match="503.*Finished images are kept: run again and it goes on"):
        images_for(survey.catalog(), survey.files(), tmp_path / "half")
    kept = {str(path.relative_to(tmp_path / "half")) for path in tmp_path.rglob("*.png")}
    assert set(survey.held[0]) <= kept < set(survey.images)


def test_mirrors(survey, tmp_path):
    survey.server.files["stale.zip"] = zipped(survey.held[1])
    known, urls = survey.file(PARTS[0], known=True), [survey.server.url + name for name in ("gone.zip", "stale.zip")]
    file = RemoteFile((*urls, known.url), PARTS[0], known.bytes, known.hash)
    survey.check(images_for(survey.catalog().head(9), [file], tmp_path)[0], tmp_path)


@pytest.mark.parametrize("seen_by", ["length", "tag", "checksums"])
def test_archive_that_changes_while_it_is_read(survey, tmp_path, monkeypatch, seen_by):
    survey.server.tags = seen_by == "tag"
    other = zipped(dict(reversed(survey.held[0].items()))) + bytes(seen_by == "length")
    usual = archives._RemoteZip.find
    monkeypatch.setattr(archives._RemoteZip, "find", lambda *args: survey.server.files.update({PARTS[0]: other})
                        or usual(*args))  # fmt: skip
    if seen_by != "checksums":
        with pytest.raises(DownloadError, match="bytes, where .* are expected|changed on the server while it was read"):
            images_for(survey.catalog(), survey.files(), tmp_path)
    else:
        _, lacking = images_for(survey.catalog(), survey.files(), tmp_path)
        assert 30 < len(lacking) and lacking["cause"].str.startswith("damaged in part1.zip").all()
    survey.check(pd.DataFrame({"iauname": [], "file_loc": []}), tmp_path)


def test_damaged_member(survey, tmp_path):
    name = list(survey.held[0])[8]
    data = bytearray(survey.server.files[PARTS[0]])
    info = zipfile.ZipFile(io.BytesIO(data)).getinfo(name)
    at = info.header_offset + 30 + len(name) + info.compress_size // 2
    data[at] ^= 0xFF
    survey.server.files[PARTS[0]] = bytes(data)
    for _ in range(2):
        have, lacking = images_for(survey.catalog(), survey.files(), tmp_path)
        assert lacking["image"].tolist() == [name] and "damaged in part1.zip" in lacking["cause"][0]
        assert len(have) == 119 and not (tmp_path / name).exists()
        survey.check(have, tmp_path)


@pytest.mark.parametrize("damage", ["no zip", "half", "empty", "list"])
def test_no_zip_at_all(survey, tmp_path, damage):
    data = survey.server.files[PARTS[0]]
    at = data.rfind(b"PK\x05\x06")
    survey.server.files[PARTS[0]] = {
        "no zip": b"<html>" * 500,
        "half": data[: len(data) // 2],
        "empty": b"",
        "list": data[:at] + data[at : at + 12] + b"\xff\xff\xff\x7f" + data[at + 16 :],
    }[damage]
    with pytest.raises((ArchiveError, DownloadError), match="part1.zip"):
        images_for(survey.catalog(10), survey.files(), tmp_path)
    assert not list(tmp_path.rglob("*.png"))


# ---- processes, disks, no network

FETCH = """
import sys
from pathlib import Path
import pandas as pd
from zoobook.datasets import archives, download
from zoobook.datasets.download import DownloadError, RemoteFile
download._PIECE, archives._GAP, archives._RUN, archives._END = 500, 2000, 12000, 1000
files = [RemoteFile(sys.argv[3] + part, part) for part in ("part1.zip", "part2.zip", "part3.zip")]
print("ready", flush=True)
sys.stdin.readline()
archives.images_for(pd.read_csv(sys.argv[2]), files, sys.argv[1])
"""
def test_two_processes_share_the_work(survey, tmp_path):
    survey.server.pace = 0.001
    survey.catalog().to_csv(tmp_path / "catalog.csv")
    both = processes(FETCH, tmp_path / "data", tmp_path / "catalog.csv", survey.server.url, count=2)
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum(survey.server.sent.values()) < 1.1 * sum(map(len, survey.server.files.values()))
    survey.check(images_for(survey.catalog(), [], tmp_path / "data")[0], tmp_path / "data")


def test_killed_while_images_are_fetched(survey, tmp_path):
    survey.server.pace = 0.005
    survey.catalog().to_csv(tmp_path / "catalog.csv")
    (process,) = processes(FETCH, tmp_path / "data", tmp_path / "catalog.csv", survey.server.url)
    end(process, lambda: survey.server.sent.get(PARTS[1], 0) > 50_000)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.png")}
    assert 40 < len(finished) < 120
    survey.server.pace = 0
    survey.server.sent.clear()
    have, _ = images_for(survey.catalog(), survey.files(), tmp_path / "data")
    survey.check(have, tmp_path / "data")
    assert len(have) == 120 and survey.server.sent[PARTS[0]] < 5_000  # the list of its members
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@full_disk
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_full_disk(survey, tmp_path, kind):
    """The kernel itself says so, at a device that is always full."""
    name = list(survey.images)[7]
    (tmp_path / name).parent.mkdir()
    (tmp_path / f"{name}.part").symlink_to("/dev/full")
    survey.server.files["all.tar.gz"] = tarred(survey.images)
    files = survey.files() if kind == "zip" else [survey.file("all.tar.gz")]
    with pytest.raises(OSError, match=f"cannot write to the folder {tmp_path}: No space left.*finished is kept") as e:
        images_for(survey.catalog(), files, tmp_path)
    assert e.value.errno == errno.ENOSPC and not (tmp_path / name).exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert finished
    survey.check(images_for(survey.catalog(), files, tmp_path)[0], tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_too_little_room(survey, tmp_path, monkeypatch, kind):
    (tmp_path / "all.tar.gz").write_bytes(tarred(survey.images))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 999))
    need = sum(map(len, survey.images.values()))
    survey.server.files["all.tar.gz"] = (tmp_path / "all.tar.gz").read_bytes()
    files = survey.files() if kind == "zip" else [survey.file("all.tar.gz")]
    with pytest.raises(OSError, match=f"{need:,} bytes .*{tmp_path}, which has 999 free") as error:
        images_for(survey.catalog(), files, tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.png*"))


def test_a_folder_that_may_only_be_read(survey):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        inside = Path(folder) / "data"
        images_for(survey.catalog(10), survey.files(), inside)
        with read_only(inside):
            survey.check(images_for(survey.catalog(10), survey.files(), inside)[0], inside)
            with pytest.raises(OSError, match=f"cannot write to the folder {inside}"):
                images_for(survey.catalog(), survey.files(), inside)
        survey.check(images_for(survey.catalog(10), [], inside)[0], inside)


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_without_the_network(survey, tmp_path, monkeypatch, how):
    some = survey.catalog(10)
    images_for(some, survey.files(), tmp_path)
    survey.server.asked.clear()
    if how == "variable":
        monkeypatch.setenv("ZOOBOOK_OFFLINE", "1")
    options = {"download": how == "variable"}
    survey.check(images_for(some, survey.files(), tmp_path, **options)[0], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"3 of the 3 files of 'images \(108 are not on disk\)'") as error:
        images_for(survey.catalog(), survey.files(), tmp_path, **options)
    places = re.findall(r"^  (\S+)  \(.*  from (\S+)$", str(error.value), re.MULTILINE)
    assert places == [(str(tmp_path / part), survey.server.url + part) for part in PARTS]
    for place, address in places:  # do as it says
        Path(place).write_bytes(survey.server.files[Path(address).name])
    have, lacking = images_for(survey.catalog(), survey.files(), tmp_path, **options)
    survey.check(have, tmp_path)
    assert len(have) == 120 and lacking.empty and not survey.server.asked


# ---- archives that are damaged, or not to be trusted

NAME = "J000/J0001.png"
EVIL = {
    "parent": ["../" + NAME],
    "deep parent": ["a/b/../../../" + NAME],
    "absolute": ["/HERE/" + NAME],
    "drive": ["C:/" + NAME],
    "backslash": ["..\\J000\\J0001.png"],
    "control": ["a\nb/" + NAME],
}
BOMBS = {"one": {NAME: bytes(3_000_000)}, "many": {f"J000/J{i:04d}.png": bytes(100_000) for i in range(30)}}


def take(archive, folder, names=(NAME,)):
    """Take images out of an archive that lies in the folder."""
    if archive.parent != folder:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(archive, folder)
    known = None if archive.suffix == ".zip" else "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    file = RemoteFile("", archive.name, hash=known)
    return images_for(pd.DataFrame({"path": list(names)}), [file], folder, "{path}", "toy")


def archive_of(path, members, **options):
    plain = {"mode": "w"} if path.suffix == ".tar" else {}
    path.write_bytes(zipped(members, **options) if path.suffix == ".zip" else tarred(members, **plain))
    return path


@pytest.mark.parametrize("case", EVIL)
def test_a_name_that_leads_out_of_the_folder(tmp_path, case):
    names = [name.replace("/HERE", str(tmp_path)) for name in EVIL[case]]
    archive = archive_of(tmp_path / "evil.zip", {name: b"x" for name in names})
    with pytest.raises(ArchiveError, match="evil.zip names a file .*: it leads out of its folder or is no path"):
        take(archive, tmp_path / "in" / "data")
    assert not list(tmp_path.rglob("*.png*"))
    archive = archive_of(tmp_path / "evil.tar", {name: b"x" for name in names})
    take(archive, tmp_path / "in" / "data")  # where a file is written never follows from a name in it
    assert all(file.parents[1] == tmp_path / "in" / "data" for file in tmp_path.rglob("*.png*"))


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(survey, tmp_path, bomb):
    archive = archive_of(tmp_path / "bomb.zip", BOMBS[bomb], kinds=(zipfile.ZIP_DEFLATED,))
    survey.server.files[archive.name] = archive.read_bytes()
    for file in (RemoteFile("", archive.name), survey.file(archive.name)):  # on disk, and on a server
        with pytest.raises(ArchiveError, match=r"bomb.zip would grow from .* to [\d,]+ bytes"):
            images_for(pd.DataFrame({"path": list(BOMBS[bomb])}), [file], tmp_path, "{path}")
        archive.unlink(missing_ok=True)
    assert not list(tmp_path.rglob("*.png*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_odd_members_of_a_tar(tmp_path, kind):
    assert len(take(archive_of(tmp_path / "x.tar", {NAME: (kind, "../../../x")}), tmp_path)[1]) == 1
    assert not list(tmp_path.rglob("*.png*"))


@pytest.mark.parametrize("kind", ["link", "encrypted", "method"])
def test_members_that_are_no_images(survey, tmp_path, kind):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        info = zipfile.ZipInfo(NAME)
        info.external_attr = ((stat.S_IFLNK if kind == "link" else stat.S_IFREG) | 0o777) << 16
        file.writestr(info, "/etc/passwd")
        file.writestr("J000/J0002.png", b"good")
    data = bytearray(out.getvalue())
    first = data.find(b"PK\x01\x02")
    if kind == "encrypted":
        data[first + 8] |= 1
    if kind == "method":
        data[first + 10] = 99
    survey.server.files["odd.zip"] = bytes(data)
    have, lacking = images_for(pd.DataFrame({"iauname": ["J0001", "J0002"]}), [survey.file("odd.zip")], tmp_path)
    assert have["iauname"].tolist() == ["J0002"] and lacking["image"].tolist() == [NAME]
    assert {"link": "a link in", "encrypted": "encrypted in", "method": "not supported"}[kind] in lacking["cause"][0]
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("claimed", [10, 500_000])
def test_a_zip_that_lies_about_its_sizes(tmp_path, claimed):
    """The list says 10 bytes where 100,000 come out, or more than come out."""
    real = zipped({NAME: bytes(100_000)}, kinds=(zipfile.ZIP_DEFLATED,))
    at = real.rfind(b"PK\x01\x02") + 24
    (tmp_path / "x.zip").write_bytes(real[:at] + claimed.to_bytes(4, "little") + real[at + 4 :])
    _, lacking = take(tmp_path / "x.zip", tmp_path)
    assert "damaged in x.zip" in lacking["cause"][0] and not list(tmp_path.rglob("*.png*"))


def test_members_that_overlap(tmp_path):
    """One kernel of data, listed three hundred times, as the most efficient bombs do."""
    real = zipped({"a": np.random.default_rng(0).bytes(20_000)})
    at, end_at = real.rfind(b"PK\x01\x02"), real.rfind(b"PK\x05\x06")
    first, last = real[at : at + 28] + (3).to_bytes(2, "little"), real[at + 30 : at + 46]
    listed = b"".join(first + last + f"{i:03d}".encode() for i in range(300))
    size = (300).to_bytes(2, "little") * 2 + len(listed).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(real[:at] + listed + real[end_at : end_at + 8] + size + real[end_at + 16 :])
    assert len(zipfile.ZipFile(tmp_path / "x.zip").infolist()) == 300
    with pytest.raises(ArchiveError, match="would grow"):
        take(tmp_path / "x.zip", tmp_path, ["001"])


def test_cut_archives(tmp_path):
    """However a zip is cut, that is seen, and nothing of it is used. (An empty one is as if it were not there.)"""
    rng = np.random.default_rng(6)
    members = {f"{i}.png": rng.bytes(700) + bytes(600) for i in range(6)}
    data = zipped(members)
    for cut in sorted({1, *rng.integers(1, len(data), 20).tolist(), *range(512, len(data), 512), len(data) - 1}):
        (tmp_path / "x.zip").write_bytes(data[:cut])
        with pytest.raises(ArchiveError, match="Delete .* fetch it again"):
            take(tmp_path / "x.zip", tmp_path, members)
        assert not list(tmp_path.rglob("*.png*"))


def test_a_tar_is_what_its_hash_says(survey, tmp_path):
    catalog, data = survey.catalog(10), tarred(survey.images)
    survey.server.files["all.tar.gz"] = data
    with pytest.raises(ArchiveError, match="is used only where its hash is known"):
        images_for(catalog, [RemoteFile(survey.server.url + "all.tar.gz", "all.tar.gz")], tmp_path)
    assert not survey.server.asked
    for damaged in (data[:-600], data[:5000] + b"x" + data[5001:]):  # on disk, and so fetched again
        (tmp_path / "all.tar.gz").write_bytes(damaged)
        survey.check(images_for(catalog, [survey.file("all.tar.gz")], tmp_path)[0], tmp_path)
        assert (tmp_path / "all.tar.gz").read_bytes() == data
        shutil.rmtree(tmp_path / "J000")


def test_unknown_kind(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(ArchiveError, match="none of .zip, .tar, .tar.gz, .tgz"):
        take(tmp_path / "x.rar", tmp_path)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"no tar" * 500))
    with pytest.raises(ArchiveError, match="x.tar.gz cannot be unpacked"):
        take(tmp_path / "x.tar.gz", tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_made_on_windows(tmp_path, kind):
    archive = archive_of(tmp_path / f"w.{kind}", {"img\\J000\\J0001.png": b"x"})
    have, _ = take(archive, tmp_path / "out")
    assert Path(have["file_loc"][0]).read_bytes() == b"x"


# ---- how often a server is asked


def test_a_sample_in_runs_of_names_takes_about_a_hundred_requests(monkeypatch):
    """6,000 of 253,286 galaxies, each image 305 kB, among 343,000 images in the order of their names."""
    monkeypatch.undo()
    rng, side = np.random.default_rng(0), 305_000
    place = np.sort(rng.choice(343_000, 253_286, replace=False))
    catalog = pd.DataFrame({"id_str": [f"J{i:06d}" for i in place]})
    count = {}
    for kind, rows in (("runs", published.sample_runs(catalog, 6000)),
                       ("hash", np.sort(catalogs.shuffled(catalog, "chapters")[:6000]))):  # fmt: skip
        count[kind] = len(archives.join_spans([(side * i, side * (i + 1)) for i in place[rows].tolist()]))
    assert 100 <= count["runs"] < 200 and 5_000 < count["hash"] < 6_000, count


def test_a_sample_in_runs_depends_on_the_ids_alone():
    catalog = pd.DataFrame({"id_str": [f"g{i:05d}" for i in range(10_000)]})
    rows = published.sample_runs(catalog, 1_000)
    assert len(set(rows)) == 1_000 and (np.diff(np.sort(rows)) > 1).sum() <= 17
    mixed = catalog.sample(frac=1, random_state=0)
    assert set(mixed["id_str"].iloc[published.sample_runs(mixed, 1_000)]) == set(catalog["id_str"].iloc[rows])
    assert set(published.sample_runs(catalog, 130)) < set(rows)  # a smaller sample is a part of a larger one
    assert set(published.sample_runs(catalog, 1_000, seed="other")) != set(rows)
    assert len(published.sample_runs(catalog.head(9), 50)) == 9


# ---- members and names out of the ordinary


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_several_members_that_end_alike(tmp_path, ending):
    exact = archive_of(tmp_path / f"x{ending}", {"thumbs/1.png": b"small", "1.png": b"true", "__MACOSX/1.png": b"?"})
    have, _ = take(exact, tmp_path, ["1.png"])
    assert Path(have["file_loc"][0]).read_bytes() == b"true"
    both = archive_of(tmp_path / f"y{ending}", {"train/2.png": b"one", "test/2.png": b"two", "png/1.png": b"true"})
    with pytest.raises(ArchiveError, match=f"^y{ending} has several .* may be '2.png': train/2.png, test/2.png"):
        take(both, tmp_path, ["1.png", "2.png"])
    assert len(take(both, tmp_path, ["test/2.png"])[0]) == 1
    same = archive_of(tmp_path / f"z{ending}", {"b/3.png": b"same", "a/3.png": b"same"})
    assert Path(take(same, tmp_path, ["3.png"])[0]["file_loc"][0]).read_bytes() == b"same"


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_a_member_belongs_to_the_longest_path_also_when_that_is_on_disk(tmp_path, ending):
    archive = archive_of(tmp_path / f"x{ending}", {"a/1.png": b"that of a"})
    for _ in range(2):
        have, lacking = take(archive, tmp_path, ["a/1.png", "1.png"])
        assert have["path"].tolist() == ["a/1.png"] and lacking["image"].tolist() == ["1.png"]


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_links_inside_a_tar_and_members_that_were_added_again(tmp_path, ending):
    first, last, link = (f"./J000/{name}.png" for name in ("a", "b", "c"))
    members = (first, b"old"), (first, b"new"), (last, (tarfile.LNKTYPE, first)), (link, (tarfile.SYMTYPE, first))
    archive = archive_of(tmp_path / f"x{ending}", members)
    have, lacking = take(archive, tmp_path, [f"J000/{name}.png" for name in "abcd"])
    assert [Path(path).read_bytes() for path in have["file_loc"]] == [b"new", b"new"]
    assert lacking["cause"].tolist() == [f"a link in x{ending}, not a file", f"not in x{ending}"]


def test_only_members_that_are_wanted_are_judged(tmp_path):
    path = archive_of(tmp_path / "x.zip", {"a:b.png": b"odd", NAME: b"old"})
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(NAME, b"new")
    assert Path(take(path, tmp_path)[0]["file_loc"][0]).read_bytes() == b"new"


@pytest.mark.parametrize(("column", "image", "expected"), [
    ([7, 12], "{n:04d}.png", ["0007.png", "0012.png"]), (["7", " 12 "], "{n:02d}/{n}.png", ["07/7.png", "12/12.png"]),
    ([7, 12], "{n:.1}/{n}.png", ["7/7.png", "1/12.png"]),
    (["a", None], "{n}.png", "needs `n`, which is empty in 1 rows .counted from 0.: 1"),
    ([pd.Timestamp("2020-01-01"), pd.NaT], "{n:.10}.png", "which is empty in 1 rows"),
    (["7", "x"], "{n:04d}.png", "row 1 .counted from 0.: 'x' is no whole number, as {:04d}"),
])  # fmt: skip
def test_paths_that_follow_from_a_column(tmp_path, column, image, expected):
    archive_of(tmp_path / "x.zip", {name: b"x" for name in expected} if isinstance(expected, list) else {"a": b"x"})
    catalog = pd.DataFrame({"n": column})
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            images_for(catalog, [RemoteFile("", "x.zip")], tmp_path, image)
    else:
        have, _ = images_for(catalog, [RemoteFile("", "x.zip")], tmp_path, image)
        assert have["file_loc"].tolist() == [str(tmp_path / name) for name in expected]


def test_a_link_hides_no_image_of_its_name(tmp_path):
    members = {f"thumbs/{Path(NAME).name}": (tarfile.SYMTYPE, "../elsewhere.png"), NAME: b"true"}
    have, _ = take(archive_of(tmp_path / "x.tar", members), tmp_path)
    assert Path(have["file_loc"][0]).read_bytes() == b"true"
