"""Downloads from a local server that misbehaves in every way: nothing half-written is taken for whole."""

import errno
import hashlib
import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server, end, full_disk, processes, read_only

from zoobook.datasets import download
from zoobook.datasets.download import DownloadError, RemoteFile, fetch, missing, require

N = 20_000
SCRIPT = """
import sys
from pathlib import Path
from zoobook.datasets import download
from zoobook.datasets.download import RemoteFile, fetch
download._PIECE = 500
files = [RemoteFile(*eval(spec)) for spec in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
fetch(files, Path(sys.argv[1]), "toy", None)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.005)
    monkeypatch.setattr(download, "_PIECE", 500)
    monkeypatch.delenv("ZOOBOOK_OFFLINE", raising=False)


@pytest.fixture
def server(server):
    rng = np.random.default_rng(1)
    server.files = {name: rng.bytes(N) for name in ("a", "b", "c/d.png")}
    return server


def remote(server, path, length=True, hashed=True, mirrors=()):
    data = server.files[path]
    return RemoteFile(
        tuple(server.url + p for p in (*mirrors, path)),
        path,
        len(data) if length else None,
        "sha256:" + hashlib.sha256(data).hexdigest() if hashed else None,
    )


def whole(server, folder, *paths):
    """Files under their own names are whole, and nothing else is left."""
    for path in paths:
        assert (folder / path).read_bytes() == server.files[path]
    assert not [p for p in Path(folder).rglob("*") if ".part" in p.name]


def others(folder, *files, count=1):
    """Other processes that fetch, at the same moment."""
    return processes(SCRIPT, folder, *(repr((f.url, f.path, f.bytes, f.hash)) for f in files), count=count)


# ---- what is compressed on the way


@pytest.mark.parametrize("fault", [None, "hang up"])
@pytest.mark.parametrize("known", [{}, {"length": False}, {"length": False, "hashed": False}])
def test_a_server_that_compresses(server, tmp_path, known, fault):
    server.coding, server.faults["a"] = "gzip", [fault]
    fetch([remote(server, "a", **known)], tmp_path, "toy")
    whole(server, tmp_path, "a")


def test_a_server_that_compresses_without_telling_the_end(server, tmp_path):
    server.coding, server.faults["a"] = "gzip", ["endless"] * 9
    with pytest.raises(DownloadError, match="its end would not be seen"):
        fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
    server.coding = "zopfli"
    with pytest.raises(DownloadError, match="coding that was not asked for .zopfli"):
        fetch([remote(server, "b")], tmp_path, "toy")


# ---- connections that break


@pytest.fixture(scope="module")
def steady():
    server = Server()
    server.files = {"x": np.random.default_rng(2).bytes(5_000)}
    yield server
    server.close()


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 5_000), max_size=6),
    length=st.booleans(),
    hashed=st.booleans(),
    ranges=st.booleans(),
    tags=st.booleans(),
)
def test_cut_at_any_byte(steady, cuts, length, hashed, ranges, tags):
    """However often and wherever the connection ends: the file is whole in the end, or absent and finished later."""
    steady.ranges, steady.tags = ranges, tags
    steady.faults["x"] = [("cut", cut) for cut in cuts]
    steady.asked.clear()
    file = remote(steady, "x", length, hashed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for _ in range(len(cuts) + 1):
            try:
                fetch([file], folder, "toy")
                break
            except DownloadError as error:
                assert "connection broke" in str(error) or "connection failed" in str(error)
                assert not (folder / "x").exists()
        whole(steady, folder, "x")
        asked = len(steady.asked)
        fetch([file], folder, "toy")
        assert len(steady.asked) == asked  # finished work is never fetched again


def test_what_arrived_is_not_asked_for_again(server, tmp_path):
    server.faults["a"] = [("cut", 7_000), ("cut", 7_000)]
    fetch([remote(server, "a")], tmp_path, "toy")
    starts = [start for _, start in server.asked]
    assert len(starts) == 3 and 6_000 < starts[1] <= 7_000 and 12_000 < starts[2] <= 14_000
    whole(server, tmp_path, "a")


def test_stalled_and_slow_servers(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", (5, 0.5))
    server.faults["a"] = [("stall", 1)]
    fetch([remote(server, "a")], tmp_path, "toy")
    assert server.times("a") == 2  # the first one was given up
    server.pace = 0.03  # longer than that in all, but something comes all the time
    fetch([remote(server, "b")], tmp_path, "toy")
    assert server.times("b") == 1
    whole(server, tmp_path, "a", "b")


# ---- answers


@pytest.mark.parametrize("faults", [[500], [503, 502, 504], [("redirect", "b")], [500, ("redirect", "b"), 500]])
def test_answers_that_pass(server, tmp_path, faults):
    server.files["b"] = server.files["a"]
    server.faults["a"] = faults
    fetch([remote(server, "a")], tmp_path, "toy")
    whole(server, tmp_path, "a")


def test_half_a_file_through_a_redirect(server, tmp_path):
    server.files["b"] = server.files["a"]
    server.faults = {"a": [("redirect", "b")] * 2, "b": ["hang up"]}
    fetch([remote(server, "a", hashed=False)], tmp_path, "toy")
    assert [start > 0 for path, start in server.asked if path == "b"] == [False, True]
    whole(server, tmp_path, "a")


def test_a_server_that_asks_for_a_pause_gets_it(server, tmp_path):
    server.faults["a"] = [(429, 1)]
    began = time.monotonic()
    fetch([remote(server, "a")], tmp_path, "toy")
    assert time.monotonic() - began > 1
    whole(server, tmp_path, "a")


def test_not_there(server, tmp_path):
    gone = RemoteFile(server.url + "gone", "gone", 5)
    with pytest.raises(DownloadError, match=f"{server.url}gone: the server answers 404 Not Found. 0 of 1 files"):
        fetch([gone], tmp_path, "toy")
    assert server.times("gone") == 1  # trying again would not help
    with pytest.raises(DownloadError, match="this is no address"):
        fetch([RemoteFile("nonsense", "n", 5)], tmp_path, "toy")
    with pytest.raises(DownloadError, match="127.0.0.1:9/x: the connection failed: .*; tried 4 times"):
        fetch([RemoteFile("http://127.0.0.1:9/x", "x", 5)], tmp_path, "toy")
    with pytest.raises(DownloadError, match=f"503.*; tried 4 times.*put each into its place below {tmp_path}"):
        server.faults["a"] = [503] * 9
        fetch([remote(server, "a")], tmp_path, "toy")


def test_wrong_length(server, tmp_path):
    server.faults["a"] = ["short"]
    with pytest.raises(DownloadError, match="the server has 19,999 bytes, where 20,000 are expected"):
        fetch([remote(server, "a", hashed=False)], tmp_path, "toy")
    assert not list(tmp_path.glob("a*"))
    server.faults["a"] = ["short"]
    with pytest.raises(DownloadError, match=r"content is wrong.*got .* \(19,999 bytes\); the bad copy is deleted"):
        fetch([remote(server, "a", length=False)], tmp_path, "toy")
    assert not list(tmp_path.glob("a*"))


def test_an_empty_answer_is_no_file(server, tmp_path):
    server.files["a"] = b""
    (tmp_path / "a").touch()  # as an earlier version may have left it
    with pytest.raises(DownloadError, match="expected a file that is not empty, got one .0 bytes."):
        fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
    for known in ({"length": True, "hashed": False}, {"length": False, "hashed": True}):
        fetch([remote(server, "a", **known)], tmp_path, "toy")


def test_length_that_nobody_tells(server, tmp_path):
    server.faults["a"] = ["endless"]
    fetch([remote(server, "a", length=False)], tmp_path, "toy")
    whole(server, tmp_path, "a")
    server.faults["b"] = ["endless"]
    with pytest.raises(DownloadError, match="does not tell its length, and no hash is known"):
        fetch([remote(server, "b", length=False, hashed=False)], tmp_path, "toy")


# ---- a file that changes on the server while half of it is here


@pytest.mark.parametrize("tags, dates, careless", [(1, 0, 0), (0, 1, 0), (0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_changed_between_two_pieces(server, tmp_path, tags, dates, careless):
    server.tags, server.dates, server.careless = tags, dates, careless
    server.faults["a"] = ["hang up"] + [404]
    file = remote(server, "a", hashed=False)
    with pytest.raises(DownloadError, match="404"):
        fetch([file], tmp_path, "toy")
    assert (tmp_path / "a.part").exists() == bool(tags or dates) and not (tmp_path / "a").exists()
    server.files["a"] = np.random.default_rng(3).bytes(N)
    server.asked.clear()
    fetch([file], tmp_path, "toy")
    whole(server, tmp_path, "a")  # the new version, with nothing of the old one
    assert server.times("a") == (2 if careless else 1)  # asked rightly, the server sends it anew at once


def test_unchanged_is_gone_on_with_by_the_next_run(server, tmp_path):
    for tags, dates, resumed in ((1, 0, True), (0, 1, True), (0, 0, False)):
        server.tags, server.dates = tags, dates
        server.faults["a"] = ["hang up", 404]
        with pytest.raises(DownloadError):
            fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
        server.asked.clear()
        fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
        assert [start > 0 for _, start in server.asked] == [resumed]
        whole(server, tmp_path, "a")
        (tmp_path / "a").unlink()


def test_shorter_than_the_piece_that_is_here(server, tmp_path):
    server.faults["a"] = ["hang up", 404]
    with pytest.raises(DownloadError):
        fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
    server.files["a"] = b"new"
    server.careless = True  # it answers 416
    fetch([remote(server, "a", length=False, hashed=False)], tmp_path, "toy")
    whole(server, tmp_path, "a")


# ---- content


def test_wrong_content(server, tmp_path):
    right, wrong = (hashlib.sha256(data).hexdigest() for data in (server.files["a"], bytes(N)))
    server.faults["a"] = ["wrong"]
    message = f"its content is wrong: expected sha256:{right} .* got sha256:{wrong}.*the bad copy is deleted"
    with pytest.raises(DownloadError, match=message):
        fetch([remote(server, "a")], tmp_path, "toy")
    assert not list(tmp_path.glob("a*"))
    fetch([remote(server, "a")], tmp_path, "toy")
    whole(server, tmp_path, "a")


@pytest.mark.parametrize("note", ["[1]", "null", "3", "{"])
def test_damaged_notes_are_as_none(server, tmp_path, note):
    for name in ("a.part.json", ".verified.json"):
        (tmp_path / name).write_text(note)
    (tmp_path / "a.part").write_bytes(b"old")
    fetch([remote(server, "a")], str(tmp_path), "toy")
    whole(server, tmp_path, "a")


@pytest.mark.parametrize("bad", ["crc32:12", "0123", "sha256:", 3])
def test_a_hash_of_an_unknown_kind(bad):
    with pytest.raises(ValueError, match="a: a hash is written 'sha256:…' or 'md5:…', not"):
        RemoteFile("https://a.org/a", "a", hash=bad)


@pytest.mark.parametrize("piece", [b"old" * 1000, b"old" * 100_000])
def test_a_wrong_piece_from_an_earlier_run_is_not_trusted(server, tmp_path, piece):
    """Shorter than the file, or longer."""
    (tmp_path / "a.part").write_bytes(piece)
    fetch([remote(server, "a")], tmp_path, "toy")
    whole(server, tmp_path, "a")


def test_a_server_that_keeps_hanging_up(server, tmp_path):
    fetch([remote(server, "a")], tmp_path, "toy")
    server.ranges, server.faults["b"] = False, ["hang up"] * 4  # so that it never comes further than half-way
    with pytest.raises(DownloadError) as error:
        fetch([remote(server, "a"), remote(server, "b")], tmp_path, "toy", "`git clone x`")
    assert f"{server.url}b: the connection broke after 10,000 of 20,000 bytes; tried 4 times. " in str(error.value)
    assert f"1 of 2 files of 'toy' are finished and kept in {tmp_path}. Run again and it goes on" in str(error.value)
    assert str(error.value).endswith("or fetch the files by hand: `git clone x`.")
    fetch([remote(server, "a"), remote(server, "b")], tmp_path, "toy")
    whole(server, tmp_path, "a", "b")
    assert server.times("a") == 1


# ---- mirrors


def test_mirrors_in_turn(server, tmp_path):
    server.faults = {"m1": [404], "m2": [503] * 9, "m3": ["wrong"]}
    server.files |= {"m3": server.files["a"]}
    fetch([remote(server, "a", mirrors=("m1", "m2", "m3"))], tmp_path, "toy")
    assert [server.times(path) for path in ("m1", "m2", "m3", "a")] == [1, 4, 1, 1]
    whole(server, tmp_path, "a")
    with pytest.raises(DownloadError, match=r"x: the server answers 404.*; then from the next mirror, .*y: .*404"):
        fetch([RemoteFile((server.url + "x", server.url + "y"), "x", 5)], tmp_path, "toy")


@pytest.mark.parametrize("hashed, same", [(True, True), (False, True), (True, False)])
def test_half_from_one_mirror(server, tmp_path, hashed, same):
    """The other half may come from another one only if a hash shows that both are of the same file."""
    server.files["m"] = server.files["a"] if same else np.random.default_rng(4).bytes(N)
    server.faults["m"] = ["hang up", 404]
    fetch([remote(server, "a", hashed=hashed, mirrors=("m",))], tmp_path, "toy")
    assert (server.asked[-1][0], server.asked[-1][1] > 0) == ("a", hashed and same)
    whole(server, tmp_path, "a")


# ---- processes


def test_two_processes_share_one_download(server, tmp_path):
    server.pace = 0.02
    files = [remote(server, path) for path in server.files]
    both = others(tmp_path, *files, count=2)
    errors = [process.communicate(timeout=30)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum("another process is at work" in error for error in errors) == 1
    assert sorted(path for path, _ in server.asked) == sorted(server.files)  # each once
    whole(server, tmp_path, *server.files)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_on_the_way(server, tmp_path, how):
    files = [remote(server, path) for path in server.files]
    fetch(files[:1], tmp_path, "toy")
    server.pace = 0.02
    (process,) = others(tmp_path, *files)
    end(process, lambda: server.sent.get("b", 0) >= 6_000, how)
    assert {f.path for f in missing(files, tmp_path)} == {"b", "c/d.png"} and not (tmp_path / "b").exists()
    server.pace = 0
    server.asked.clear()
    fetch(files, tmp_path, "toy")
    whole(server, tmp_path, *server.files)
    starts = dict(server.asked)
    assert "a" not in starts and starts["b"] > 0


# ---- disks


@full_disk
def test_a_full_disk(server, tmp_path):
    """The kernel itself says so, at a device that is always full."""
    (tmp_path / "b.part").symlink_to("/dev/full")
    files = [remote(server, "a"), remote(server, "b")]
    fetch(files[:1], tmp_path, "toy")
    message = f"cannot write to the folder {tmp_path}: No space left.*is kept: free some space"
    with pytest.raises(OSError, match=message) as e:
        fetch(files, tmp_path, "toy")
    assert e.value.errno == errno.ENOSPC and not (tmp_path / "b").exists()
    (tmp_path / "b.part").unlink()
    fetch(files, tmp_path, "toy")
    whole(server, tmp_path, "a", "b")
    assert server.times("a") == 1


@pytest.mark.parametrize("length", [True, False])
def test_too_little_room(server, tmp_path, monkeypatch, length):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 999))
    with pytest.raises(OSError, match=f"needs 20,000 bytes more in {tmp_path}, which has 999 free"):
        fetch([remote(server, "a", length=length)], tmp_path, "toy")
    assert server.sent.get("a", 0) == 0 or not length
    assert not list(tmp_path.glob("a*"))


def test_a_folder_that_may_only_be_read(server):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        inside = Path(folder) / "data"
        inside.mkdir()
        fetch([remote(server, "a")], inside, "toy")
        with read_only(inside):
            fetch([remote(server, "a")], inside, "toy")  # whole: nothing to write
            with pytest.raises(OSError, match=f"cannot write to the folder {inside}.*Choose another folder"):
                fetch([remote(server, "a"), remote(server, "b")], inside, "toy")
        assert server.times("a") == 1 and server.times("b") == 0
        whole(server, inside, "a")


# ---- without the network


def test_offline(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBOOK_OFFLINE", "1")
    files = [remote(server, path) for path in server.files]
    (tmp_path / "a").write_bytes(server.files["a"])
    with pytest.raises(FileNotFoundError) as error:
        fetch(files, tmp_path, "toy", "`git clone x`")
    message = str(error.value)
    assert message.startswith(f"2 of the 3 files of 'toy' are missing or damaged in {tmp_path}. The network is not")
    assert "$ZOOBOOK_OFFLINE" in message and "all at once: `git clone x`" in message
    listed = re.findall(r"^  (\S+)  \(20,000 bytes, (sha256:\w+)\)  from (\S+)$", message, re.MULTILINE)
    assert listed == [(str(tmp_path / f.path), f.hash, f.url[0]) for f in files[1:]]
    for place, _, address in listed:  # do as it says
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_bytes(server.files[address.removeprefix(server.url)])
    fetch(files, tmp_path, "toy")
    require(files, tmp_path, "toy")
    assert not server.asked


@pytest.mark.parametrize("value, off", [("", False), ("0", False), ("no", False), ("1", True), ("true", True)])
def test_offline_switch(monkeypatch, value, off):
    monkeypatch.setenv("ZOOBOOK_OFFLINE", value)
    assert download.offline() == off


def test_long_lists_are_cut(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"50 of the 50 files .*Allow the download(.|\n)*… and 30 more$"):
        require([RemoteFile(f"http://x/{i}", f"{i}") for i in range(50)], tmp_path, "toy")


# ---- files that are there


def test_files_are_hashed_once(server, tmp_path, monkeypatch):
    file, read = remote(server, "a"), []
    (tmp_path / "a").write_bytes(server.files["a"])
    os.utime(tmp_path / "a", (1, 1))
    usual = download._hash_of
    monkeypatch.setattr(download, "_hash_of", lambda *args: read.append(args) or usual(*args))
    assert missing([file], tmp_path) == [] and len(read) == 1
    assert missing([file], tmp_path) == [] and len(read) == 1
    shouted = replace(file, hash="sha256:" + hashlib.sha256(server.files["a"]).hexdigest().upper())
    assert missing([shouted], tmp_path, thorough=True) == []
    read.pop()
    assert missing([file], tmp_path, thorough=True) == [] and len(read) == 2
    (tmp_path / "a").write_bytes(bytes(N))
    assert missing([file], tmp_path) == [file]
    os.utime(tmp_path / "a", (1, 1))  # damage that leaves length and time alone is found by looking again
    assert missing([file], tmp_path, thorough=True) == [file]
    (tmp_path / "a").write_bytes(bytes(3))
    assert missing([file], tmp_path) == [file]


def test_a_change_right_after_the_check_is_seen(server, tmp_path):
    file = remote(server, "a")
    fetch([file], tmp_path, "toy")
    assert missing([file], tmp_path) == []
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(bytes(N))
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))  # within one tick of a coarse clock
    assert missing([file], tmp_path) == [file]


def test_one_bar_that_ends_at_its_total(server, tmp_path, monkeypatch):
    bars, usual = [], download.tqdm
    monkeypatch.setattr(download, "tqdm", lambda **options: bars.append(usual(**options)) or bars[-1])
    server.faults = {"a": [500, "hang up", ("cut", 3_000)], "b": ["hang up", "no ranges"], "c/d.png": [("cut", 1)]}
    (tmp_path / "b.part").write_bytes(b"from another time")
    fetch([remote(server, path, length=path != "a") for path in server.files], tmp_path, "toy")
    assert len(bars) == 1 and bars[0].n == bars[0].total == 3 * N
    whole(server, tmp_path, *server.files)


@pytest.mark.parametrize(("given", "message"), [
    ({"url": "http://x/a", "bytes": "10000"}, "a: the length in bytes must be a whole number"),
    ({"url": ()}, "a: give an address"),
])  # fmt: skip
def test_what_is_no_remote_file(given, message):
    with pytest.raises(ValueError, match=message):
        RemoteFile(path="a", **given)
