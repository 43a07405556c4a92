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
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server, end, full_disk, processes, read_only

from zoobook.datasets import archives, unpacking, web
from zoobook.datasets.archives import fetch_members, images_for
from zoobook.datasets.download import RemoteFile
from zoobook.datasets.unpacking import ArchiveError, extract
from zoobook.datasets.web import DownloadError

PARTS = ("part1.zip", "part2.zip", "part3.zip")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(web, "_PAUSE", 0.005)
    monkeypatch.setattr(web, "_PIECE", 500)
    monkeypatch.setattr(archives, "_END", 1_000)
    monkeypatch.setattr(archives, "_GAP", 2_000)
    monkeypatch.setattr(archives, "_RUN", 12_000)
    monkeypatch.setattr(unpacking, "_SLACK", 1_000_000)
    monkeypatch.delenv("ZOOBOOK_OFFLINE", raising=False)


def zipped(members, before="", kinds=(zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for i, (name, data) in enumerate(members.items()):
            file.writestr(before + name, data, kinds[i % len(kinds)])
    return out.getvalue()


def tarred(members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


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
    lists = {part: zipfile.ZipFile(io.BytesIO(data)).start_dir for part, data in survey.server.files.items()}
    assert all(start < lists[part] for part, start in survey.server.asked)  # they are kept on disk
    survey.check(everything, tmp_path)
    assert len(everything) == 120 and sum(survey.server.sent.values()) < 1.1 * whole


def test_neighbours_are_asked_for_together(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_RUN", 1 << 24)
    images_for(survey.catalog(), survey.files(known=True), tmp_path)
    assert survey.server.times(PARTS[0]) == 3  # the end, the rest of the list, all images at once


def test_images_that_no_archive_holds(survey, tmp_path):
    catalog = pd.concat([survey.catalog(30), pd.DataFrame({"id_str": ["x"], "iauname": ["J009nobody"]})])
    have, lacking = images_for(catalog, survey.files(), tmp_path)
    assert len(have) == len(catalog) - 1
    assert lacking.to_dict("records") == [
        {"id_str": "x", "image": "J009/J009nobody.png", "cause": "not in any of the 3 archives"}
    ]
    survey.check(have, tmp_path)


def test_fetch_members(survey, tmp_path):
    names = list(survey.held[2])[:3]
    assert fetch_members(survey.file(PARTS[2]), tmp_path, [*names, "other.png"]) == {"other.png": "not in part3.zip"}
    assert all((tmp_path / name).read_bytes() == survey.images[name] for name in names)
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        fetch_members(survey.file(PARTS[2]), tmp_path, ["../x"])


@pytest.mark.parametrize("make", ["prefix", "zip64", "comment", "streamed", "one"])
def test_unusual_zips(survey, tmp_path, make):
    """Each is read here as Python's own reader reads it."""
    members = dict(list(survey.held[0].items())[: 1 if make == "one" else None])
    out = io.BytesIO()
    if make == "prefix":
        out.write(b"#!/bin/sh\n" * 300)
    if make == "streamed":  # the sizes come after the data

        class Stream(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                return out.write(data)

        target = Stream()
    else:
        target = out
    with zipfile.ZipFile(target, "a" if make == "prefix" else "w") as file:
        for name, data in members.items():
            with file.open(name, "w", force_zip64=make == "zip64") as member:
                member.write(data)
        file.comment = b"x" * 60_000 if make == "comment" else b""
    survey.server.files["odd.zip"] = out.getvalue()
    assert fetch_members(survey.file("odd.zip"), tmp_path, members) == {}
    for name in zipfile.ZipFile(out).namelist():
        assert (tmp_path / name).read_bytes() == zipfile.ZipFile(out).read(name)


def test_tars_are_fetched_whole(survey, tmp_path):
    survey.server.files["all.tar.gz"] = tarred({f"./png/{name}": data for name, data in survey.images.items()})
    catalog = survey.catalog(10)
    for _ in range(2):
        have, lacking = images_for(catalog, [survey.file("all.tar.gz")], tmp_path)
        survey.check(have, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == len(have) == len(catalog) and lacking.empty
    assert survey.server.times("all.tar.gz") == 1


def test_whole_archives_on_request(survey, tmp_path):
    catalog = survey.catalog().iloc[40:80]  # the second archive
    have, _ = images_for(catalog, survey.files(known=True), tmp_path, whole=True)
    survey.check(have, tmp_path)
    assert {path.name for path in tmp_path.glob("*.zip")} == {PARTS[1]}  # of the others only the lists were fetched
    survey.server.asked.clear()
    shutil.rmtree(tmp_path / "J001")
    survey.check(images_for(catalog, survey.files(known=True), tmp_path)[0], tmp_path)  # out of the one on disk
    assert not survey.server.asked


def test_names_from_the_catalogue(survey, tmp_path):
    with pytest.raises(ValueError, match="needs the column `iauname`; the catalogue has: id_str"):
        images_for(pd.DataFrame({"id_str": ["a"]}), survey.files(), tmp_path)
    for name in ("../../etc/x", "/etc/x", "C:\\x"):
        catalog = pd.DataFrame({"id_str": ["a", "b"], "iauname": ["J0001", name]})
        with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): the catalogue names a file"):
            images_for(catalog, survey.files(), tmp_path, image="{iauname}.png")
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


@pytest.mark.parametrize("faults", [[500], [503, 502, 504], [("redirect", "moved.zip")] * 9, [("stall", 0.8)]])
def test_faults_that_pass(survey, tmp_path, faults, monkeypatch):
    monkeypatch.setattr(web, "_TIMEOUT", (5, 0.4))
    survey.server.files["moved.zip"] = survey.server.files[PARTS[0]]
    survey.server.faults[PARTS[0]] = faults
    have, _ = images_for(survey.catalog(10), survey.files(), tmp_path)
    survey.check(have, tmp_path)
    assert len(have) == 12


def test_faults_that_do_not(survey, tmp_path):
    survey.server.faults[PARTS[1]] = [404]
    with pytest.raises(DownloadError, match="part2.zip: the server answers 404 Not Found"):
        images_for(survey.catalog(10), survey.files(), tmp_path)
    survey.server.ranges = False
    with pytest.raises(DownloadError, match="serves no parts of files; fetch whole archives"):
        images_for(survey.catalog(10), survey.files(), tmp_path / "other")
    assert survey.server.sent.get(PARTS[2], 0) == 0
    have, _ = images_for(survey.catalog(10), survey.files(), tmp_path / "other", whole=True)
    survey.check(have, tmp_path / "other")
    assert len(have) == 12


def test_broken_off_then_gone_on_with(survey, tmp_path):
    survey.server.faults[PARTS[1]] = [None] * 5 + [503] * 99
    with pytest.raises(DownloadError, match="503.*Finished images are kept: run again and it goes on"):
        images_for(survey.catalog(), survey.files(), tmp_path)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert set(survey.held[0]) <= kept < set(survey.images)
    survey.server.faults.clear()
    survey.server.asked.clear()
    survey.check(images_for(survey.catalog(), survey.files(), tmp_path)[0], tmp_path)
    assert survey.server.times(PARTS[0]) == 0


def test_mirrors(survey, tmp_path):
    file = RemoteFile((survey.server.url + "gone.zip", survey.server.url + PARTS[0]), PARTS[0])
    survey.check(images_for(survey.catalog().head(9), [file], tmp_path)[0], tmp_path)
    stale = zipped(survey.held[1])
    survey.server.files["stale.zip"] = stale
    known = survey.file(PARTS[0], known=True)
    file = RemoteFile((survey.server.url + "stale.zip", known.url), PARTS[0], known.bytes, known.hash)
    survey.check(images_for(survey.catalog().head(9), [file], tmp_path / "other")[0], tmp_path / "other")


@pytest.mark.parametrize("careless", [False, True])
def test_archive_that_changes_between_two_runs(survey, tmp_path, careless):
    survey.server.careless = careless
    catalog = survey.catalog()
    images_for(catalog.head(3), survey.files(), tmp_path)
    held = dict(reversed(survey.held[0].items()))  # the same images at other places
    survey.server.files[PARTS[0]] = zipped(held)
    have, lacking = images_for(catalog, survey.files(), tmp_path)
    assert len(have) == 120 and lacking.empty
    survey.check(have, tmp_path)


def test_archive_that_never_stays_the_same(survey, tmp_path, monkeypatch):
    images_for(survey.catalog().head(3), survey.files(), tmp_path)
    monkeypatch.setattr(survey.server, "tag", lambda path: f'"{time.monotonic_ns()}"')
    with pytest.raises(DownloadError, match=r"part\d.zip is being changed on the server; try again later"):
        images_for(survey.catalog(), survey.files(), tmp_path)


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


def test_images_on_disk_are_compared_on_request(survey, tmp_path):
    have, _ = images_for(survey.catalog(10), survey.files(), tmp_path)
    with open(have["file_loc"][2], "r+b") as file:
        file.write(b"xx")
    survey.server.sent.clear()
    have, _ = images_for(survey.catalog(10), survey.files(), tmp_path, verify=True)
    survey.check(have, tmp_path)
    assert sum(survey.server.sent.values()) < 6_000  # that one


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
from zoobook.datasets import archives, web
from zoobook.datasets.download import RemoteFile
web._PIECE, archives._GAP, archives._RUN, archives._END = 500, 2000, 12000, 1000
files = [RemoteFile(sys.argv[3] + part, part) for part in ("part1.zip", "part2.zip", "part3.zip")]
print("ready", flush=True)
sys.stdin.readline()
archives.images_for(pd.read_csv(sys.argv[2]), files, sys.argv[1])
"""
EXTRACT = """
import os, sys, time
from zoobook.datasets import unpacking
def slowly(*args, usual=os.replace):
    time.sleep(0.02)
    usual(*args)
print("ready", flush=True)
sys.stdin.readline()
os.replace = slowly
unpacking.extract(sys.argv[2], sys.argv[1])
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
    assert len(have) == 120 and PARTS[0] not in survey.server.sent
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_killed_while_an_archive_is_extracted(survey, tmp_path, kind):
    archive, folder = tmp_path / f"images.{kind}", tmp_path / "data"
    archive.write_bytes({"zip": zipped, "tar.gz": tarred}[kind](survey.images))
    (process,) = processes(EXTRACT, folder, archive)
    end(process, lambda: len(list(folder.rglob("*.png"))) > 10)
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert 10 < len(finished) < 120
    assert all(path.read_bytes() == survey.images[str(path.relative_to(folder))] for path in finished)
    assert extract(archive, folder) == [folder / name for name in survey.images]
    survey.check(pd.DataFrame({"iauname": [], "file_loc": []}), folder)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@full_disk
@pytest.mark.parametrize("road", ["images", "zip", "tar.gz"])
def test_a_full_disk(survey, tmp_path, road):
    """The kernel itself says so, at a device that is always full."""
    name = list(survey.images)[7]
    (tmp_path / name).parent.mkdir()
    (tmp_path / f"{name}.part").symlink_to("/dev/full")
    archive = tmp_path / f"images.{road}"
    if road != "images":
        archive.write_bytes({"zip": zipped, "tar.gz": tarred}[road](survey.images))

    def go():
        images_for(survey.catalog(), survey.files(), tmp_path) if road == "images" else extract(archive, tmp_path)

    with pytest.raises(OSError, match=f"cannot write {re.escape(str(tmp_path / name))}: the disk is full. Finish") as e:
        go()
    assert e.value.errno == errno.ENOSPC and not (tmp_path / name).exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert finished
    go()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    survey.check(images_for(survey.catalog(), [], tmp_path)[0], tmp_path)


def test_too_little_room(survey, tmp_path, monkeypatch):
    archive = tmp_path / "images.zip"
    archive.write_bytes(zipped(survey.images))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 999))
    need = sum(map(len, survey.images.values()))
    for go in (lambda: images_for(survey.catalog(), survey.files(), tmp_path), lambda: extract(archive, tmp_path)):
        with pytest.raises(OSError, match=f"{need:,} bytes .*{tmp_path}, which has 999 free") as error:
            go()
        assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.png*"))


def test_a_folder_that_may_only_be_read(survey):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        inside = Path(folder) / "data"
        images_for(survey.catalog(10), survey.files(), inside)
        archive = Path(folder) / "images.zip"
        archive.write_bytes(zipped(survey.images))
        with read_only(inside):
            survey.check(images_for(survey.catalog(10), survey.files(), inside)[0], inside)
            for go in (lambda: images_for(survey.catalog(), survey.files(), inside), lambda: extract(archive, inside)):
                with pytest.raises(OSError, match=f"cannot write to the folder {inside}"):
                    go()
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


# ---- archives that are not to be trusted


def entry(name, data=b"x", link=None):
    return name, data, link


EVIL = {
    "parent": [entry("../evil")],
    "deep parent": [entry("a/b/../../../evil")],
    "absolute": [entry("/HERE/evil")],
    "drive": [entry("C:evil")],
    "backslash": [entry("..\\evil")],
    "control": [entry("a\nb")],
    "link out": [entry("a", link=".."), entry("a/evil")],
    "link to a file": [entry("a", link="/etc/passwd")],
    "twice": [entry("a"), entry("a", b"yy")],
    "bomb": [entry("a", bytes(3_000_000))],
    "many bombs": [entry(f"{i}", bytes(100_000)) for i in range(30)],
}


def evil_archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data, link in members:
                info = zipfile.ZipInfo("x")
                info.filename = name  # as it is: the constructor would mend it on some systems
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o777) << 16
                file.writestr(info, link or data)
        return
    with tarfile.open(path, "w:gz") as file:
        for name, data, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            info.size = 0 if link else len(data)
            file.addfile(info, None if link else io.BytesIO(data))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize("case", EVIL)
def test_evil_archives(tmp_path, case, ending):
    archive, folder = tmp_path / f"evil.{ending}", tmp_path / "in" / "data"
    evil_archive(archive, [(name.replace("/HERE", str(tmp_path)), *rest) for name, *rest in EVIL[case]])
    with pytest.raises(ArchiveError, match="not extracted|not used"):
        extract(archive, folder)
    outside = [p for p in tmp_path.rglob("*") if p not in (archive, folder, folder.parent) and folder not in p.parents]
    assert not outside
    assert not [p for p in folder.rglob("*") if p.is_symlink()]
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 1_000_000


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_odd_members_of_a_tar(tmp_path, kind):
    info = tarfile.TarInfo("a")
    info.type, info.linkname = kind, "../x"
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.addfile(info)
    with pytest.raises(ArchiveError, match="x.tar"):
        extract(tmp_path / "x.tar", tmp_path / "data")
    assert not (tmp_path / "data" / "a").exists()


@pytest.mark.parametrize("claimed", [10, 5_000_000])
def test_a_zip_that_lies_about_its_sizes(tmp_path, claimed):
    """The list says 10 bytes where 2,000,000 come out, or a size that nothing can have."""
    real = zipped({"a": bytes(2_000_000)}, kinds=(zipfile.ZIP_DEFLATED,))
    at = real.rfind(b"PK\x01\x02") + 24
    (tmp_path / "x.zip").write_bytes(real[:at] + claimed.to_bytes(4, "little") + real[at + 4 :])
    with pytest.raises(ArchiveError):
        extract(tmp_path / "x.zip", tmp_path / "data")
    assert not (tmp_path / "data" / "a").exists() and not list(tmp_path.rglob("*.part"))


def test_members_that_overlap(tmp_path):
    """One kernel of data, listed a hundred times, as the most efficient bombs do."""
    real = zipped({"a": np.random.default_rng(0).bytes(20_000)})
    at = real.rfind(b"PK\x01\x02")
    end = real.rfind(b"PK\x05\x06")
    first, last = real[at : at + 28] + (3).to_bytes(2, "little"), real[at + 30 : at + 46]
    listed = b"".join(first + last + f"{i:03d}".encode() for i in range(300))
    tail = real[end : end + 8] + (300).to_bytes(2, "little") * 2 + len(listed).to_bytes(4, "little") + real[end + 16 :]
    (tmp_path / "x.zip").write_bytes(real[:at] + listed + tail)
    assert len(zipfile.ZipFile(tmp_path / "x.zip").infolist()) == 300
    with pytest.raises(ArchiveError):
        extract(tmp_path / "x.zip", tmp_path / "data")


def test_bomb_on_a_server(survey, tmp_path):
    survey.server.files["bomb.zip"] = zipped({"J000/J0001.png": bytes(3_000_000)})
    with pytest.raises(ArchiveError, match="bomb.zip would grow from .* to 3,000,000 bytes"):
        images_for(pd.DataFrame({"iauname": ["J0001"]}), [survey.file("bomb.zip")], tmp_path)
    assert not list(tmp_path.rglob("*.png*"))


@pytest.mark.parametrize("kind", ["link", "encrypted", "method"])
def test_members_that_are_no_images(survey, tmp_path, kind):
    path = tmp_path / "odd.zip"
    name = "J000/J0001.png"
    evil_archive(path, [entry(name, link="/etc/passwd" if kind == "link" else None), entry("J000/J0002.png", b"good")])
    data = bytearray(path.read_bytes())
    first = data.find(b"PK\x01\x02")
    if kind == "encrypted":
        data[first + 8] |= 1
    if kind == "method":
        data[first + 10] = 99
    survey.server.files["odd.zip"] = bytes(data)
    path.unlink()
    catalog = pd.DataFrame({"iauname": ["J0001", "J0002"]})
    have, lacking = images_for(catalog, [survey.file("odd.zip")], tmp_path)
    assert have["iauname"].tolist() == ["J0002"] and lacking["image"].tolist() == [name]
    assert {"link": "a link in", "encrypted": "encrypted in", "method": "not supported"}[kind] in lacking["cause"][0]
    assert not (tmp_path / name).exists()


# ---- archives on disk: whole or not


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz"])
def test_extract(survey, tmp_path, monkeypatch, kind):
    archive, folder = tmp_path / f"images.{kind}", tmp_path / "data"
    members = dict(list(survey.images.items())[:20]) | {"empty.txt": b"", "deep/er/er.png": b"1"}
    archive.write_bytes(zipped(members) if kind == "zip" else tarred(members, "w" if kind == "tar" else "w:gz"))
    assert extract(archive, folder) == [folder / name for name in members]
    visible = [p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."]
    assert {str(p.relative_to(folder)): p.read_bytes() for p in visible} == members
    (folder / "deep/er/er.png").unlink()
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("J*.png")}
    extract(archive, folder)
    assert (folder / "deep/er/er.png").read_bytes() == b"1"
    assert {p: p.stat().st_mtime_ns for p in times} == times  # what was there is left alone
    archive.unlink()
    assert extract(archive, folder) == [folder / name for name in members]  # nothing is left to do
    with pytest.raises(FileNotFoundError, match="there is no archive"):
        extract(archive, tmp_path / "elsewhere")


def test_another_archive_of_the_same_name(tmp_path):
    archive = tmp_path / "x.zip"
    for content in (b"one", b"two"):
        archive.write_bytes(zipped({"a": content}))
        extract(archive, tmp_path / "data")
        assert (tmp_path / "data" / "a").read_bytes() == content


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_cut_archives(tmp_path, kind):
    """However an archive is cut, that is seen, and nothing of a damaged one stays under its own name."""
    rng = np.random.default_rng(6)
    members = {f"{i}.png": rng.bytes(700) + bytes(600) for i in range(6)}  # ends in zeros, as FITS files do
    data = zipped(members) if kind == "zip" else tarred(members, "w" if kind == "tar" else "w:gz")
    needed = 6 * 4 * 512 + 512 if kind == "tar" else len(data)  # headers, data, and one block of zeros
    for cut in sorted({*rng.integers(0, needed, 30).tolist(), *range(0, needed, 512), needed - 1}):
        archive, folder = tmp_path / f"x.{kind}", tmp_path / f"data{cut}"
        archive.write_bytes(data[:cut])
        with pytest.raises(ArchiveError, match="Delete .* fetch it again"):
            extract(archive, folder)
        assert not list(folder.rglob("*.png*"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_flipped_bits(tmp_path, kind):
    rng = np.random.default_rng(7)
    members = {f"{i}.png": rng.bytes(2_000) for i in range(4)}
    data = zipped(members) if kind == "zip" else tarred(members)
    for at in rng.integers(20, len(data), 40):
        broken = bytearray(data)
        broken[at] ^= 1 << rng.integers(8)
        archive, folder = tmp_path / f"x.{kind}", tmp_path / f"data{at}"
        archive.write_bytes(bytes(broken))
        try:
            extract(archive, folder)
        except ArchiveError:
            pass
        for path in folder.rglob("*.png"):  # names and dates have no checksum in a zip, contents have
            assert path.read_bytes() in members.values()


def test_unknown_kind(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(ArchiveError, match="none of .zip, .tar, .tar.gz, .tgz"):
        extract(tmp_path / "x.rar", tmp_path / "data")
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"no tar" * 500))
    with pytest.raises(ArchiveError, match="damaged or not whole"):
        extract(tmp_path / "x.tar.gz", tmp_path / "data")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_made_on_windows(tmp_path, kind):
    archive = tmp_path / f"w.{kind}"
    archive.write_bytes((zipped if kind == "zip" else tarred)({"img\\sub\\a.png": b"x", "b.png": b"y"}))
    assert extract(archive, tmp_path / "out") == [tmp_path / "out/img/sub/a.png", tmp_path / "out/b.png"]
    assert (tmp_path / "out/img/sub/a.png").read_bytes() == b"x"
    for name in ("..\\a.png", "img\\..\\..\\a.png", "C:\\a.png", "\\a.png"):
        archive.write_bytes((zipped if kind == "zip" else tarred)({name: b"x"}))
        with pytest.raises(ArchiveError, match="leads out of its folder"):
            extract(archive, tmp_path / "elsewhere")
