"""`zoobook data …` on the command line."""
import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zoobook import datasets
from zoobook.cli.data import app


@pytest.fixture
def run(server, monkeypatch, tmp_path):
    """Runs a command, with one data set that this machine serves."""
    content = b"objid,sample,asset_id\n588018090547020096,original,1\n"
    server.files["gz2_filename_mapping.csv"] = content
    entry = {**datasets.registry()["gz2_images"], "address": server.url + "{file}"}
    entry["files"] = {"gz2_filename_mapping.csv": {"hash": "md5:" + hashlib.md5(content).hexdigest()}}
    entries = {**datasets.registry(), "gz2_images": entry}
    monkeypatch.setattr(datasets.names, "registry", lambda: entries)
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_list(run):
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(datasets.registry())
    gz2 = next(line for line in lines if line.startswith("gz2 "))
    assert "239,695" in gz2 and "Galaxy Zoo 2" in gz2 and "on disk" not in gz2
    assert "659 MB" in next(line for line in lines if line.startswith("gz_desi "))


def test_where_fetch_and_verify(run, tmp_path):
    folder, file = tmp_path / "gz2_images", tmp_path / "gz2_images" / "gz2_filename_mapping.csv"
    assert run("where").stdout.strip() == str(tmp_path)
    assert run("where", "gz2_images").stdout.strip() == str(folder)
    assert run("where", "--root", "~/galaxies").stdout.strip() == str(Path("~/galaxies").expanduser())
    assert run("where", "simulated").stdout.strip() == str(tmp_path / "simulated")
    missing = run("verify", "gz2_images")
    assert missing.exit_code == 1 and missing.stdout.split() == ["missing", str(file)]
    fetched = run("fetch", "gz2_images")
    assert fetched.exit_code == 0 and fetched.stdout.splitlines()[-1] == str(folder)
    whole = run("verify", "gz2_images")
    assert whole.exit_code == 0 and whole.stdout.split() == ["whole", str(file)]
    assert "on disk" in next(line for line in run("list").stdout.splitlines() if line.startswith("gz2_images "))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    damaged = run("verify", "gz2_images", "--root", str(tmp_path))
    assert damaged.exit_code == 1 and damaged.stdout.split()[0] == "damaged"


def test_it_is_a_part_of_zoobook(run, tmp_path):
    from zoobook.cli import app as whole

    assert CliRunner().invoke(whole, ["data", "where"]).stdout.strip() == str(tmp_path)
    wrong = CliRunner().invoke(whole, ["data", "where", "gz22"])
    assert wrong.exit_code == 1 and "Did you mean 'gz2'?" in wrong.stderr and "Traceback" not in wrong.stderr


def test_mistakes(run):
    for command in ("fetch", "verify", "where"):
        assert "Did you mean 'gz2'?" in str(run(command, "gz22").exception)
    for command in ("fetch", "verify"):
        assert "'simulated' is made on this machine" in str(run(command, "simulated").exception)
