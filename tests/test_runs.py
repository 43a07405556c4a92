"""Runs and tables that survive interruption."""
import errno
import json
import tempfile

import numpy as np
import pandas as pd
import pytest

from zoobook.catalogs import tables
from zoobook.catalogs.shards import ShardedTable, table_files
from zoobook.files import ensure_writable_dir, fingerprint
from zoobook.learning.runs import RunFolder


def test_run_folder_remembers_and_refuses_other_settings(tmp_path):
    run = RunFolder(tmp_path / "run", {"seed": 0, "epochs": 3})
    assert not run.resuming and not run.finished
    run.log(epoch=0, val_loss=0.1 + 0.2)
    run.log(epoch=1, val_loss=2.0)
    run.log(epoch=1, val_loss=1.0)
    again = RunFolder(tmp_path / "run", {"epochs": 3, "seed": 0})
    assert again.history.to_dict("list") == {"epoch": [0, 1], "val_loss": [0.1 + 0.2, 1.0]}
    with pytest.raises(ValueError, match="seed was 0, now 1.*resume=False"):
        RunFolder(tmp_path / "run", {"seed": 1, "epochs": 3})
    run.finish()
    assert again.finished
    (run.path / "history.csv").rename(tmp_path / "kept")  # as resume=False does first: killed then, nothing is left
    assert not again.finished
    (tmp_path / "kept").rename(run.path / "history.csv")
    fresh = RunFolder(tmp_path / "run", {"seed": 1, "epochs": 3}, resume=False)
    assert not fresh.finished and fresh.history.empty


def test_what_is_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    with pytest.raises(ValueError, match="holds a history.csv, but no run.json"):
        RunFolder(tmp_path, {})
    pd.DataFrame({"id_str": ["a"]}).to_parquet(tmp_path / "00000.parquet")
    with pytest.raises(ValueError, match="holds parquet files of something else"):
        ShardedTable(tmp_path, 1, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.parquet", "history.csv"]


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to the folder .*file"):
        ensure_writable_dir(tmp_path / "file" / "run")

    def full(**options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left on device.*free some space"):
        ensure_writable_dir(tmp_path / "run")


def test_fingerprint_tells_contents_apart():
    table = pd.DataFrame({"id_str": ["a", "b"], "x": [1, 2]})
    parts = [np.arange(4), np.arange(4.0), np.arange(4).reshape(2, 2), ["a"], {"a": 1}, table, table.assign(x=3)]
    assert len({fingerprint(part) for part in parts}) == len(parts)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_sharded_table_completes_what_is_missing(tmp_path):
    table = ShardedTable(tmp_path / "out", rows=10, config={"model": "m"}, shard_rows=4)
    assert table.missing() == [(0, 0, 4), (1, 4, 8), (2, 8, 10)]
    table.write(1, pd.DataFrame({"x": range(4, 8)}))
    with pytest.raises(ValueError, match="not finished"):
        table_files(tmp_path / "out")
    with pytest.raises(ValueError, match="lacks 2 of 3"):
        table.finish()
    again = ShardedTable(tmp_path / "out", rows=10, config={"model": "m"}, shard_rows=4)
    assert [number for number, *_ in again.missing()] == [0, 2]
    for number, start, stop in again.missing():
        again.write(number, pd.DataFrame({"x": range(start, stop)}))
    assert pd.read_parquet(again.finish())["x"].tolist() == list(range(10))
    assert len(table_files(tmp_path / "out")) == 3
    with pytest.raises(ValueError, match="made by another model"):
        ShardedTable(tmp_path / "out", rows=10, config={"model": "other"}, shard_rows=4)
    with pytest.raises(ValueError, match="must have 2 rows"):
        again.write(2, pd.DataFrame({"x": range(4)}))


def test_a_table_of_which_nothing_is_made_yet_gives_way(tmp_path):
    first = ShardedTable(tmp_path, rows=2, config={"model": "a"}, shard_rows=1)
    second = ShardedTable(tmp_path, rows=2, config={"model": "b"}, shard_rows=1)
    with pytest.raises(ValueError, match="another process began another table"):
        first.write(0, pd.DataFrame({"x": [1]}))
    second.write(0, pd.DataFrame({"x": [1]}))
    with pytest.raises(ValueError, match="made by another model"):
        ShardedTable(tmp_path, rows=2, config={"model": "a"}, shard_rows=1)


def test_long_settings_are_not_spelt_out(tmp_path):
    RunFolder(tmp_path, {"tree": {"questions": ["a" * 60] * 60}, "epochs": 3}).log(epoch=1, loss=1.0)
    with pytest.raises(ValueError, match="epochs was 3, now 4; tree was .*, now None") as said:
        RunFolder(tmp_path, {"epochs": 4})
    assert len(str(said.value)) < 600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"plan": 1}', '{"settings": []}', "\0" * 40])
def test_what_a_run_or_table_notes_of_itself_is_damaged(tmp_path, content):
    RunFolder(tmp_path / "run", {"seed": 0})
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(ValueError, match="run.json is damaged.*resume=False"):
        RunFolder(tmp_path / "run", {"seed": 0})
    assert not RunFolder(tmp_path / "run", {"seed": 0}, resume=False).finished

    ShardedTable(tmp_path / "table", 2, {})
    pd.DataFrame({"id_str": ["a", "b"]}).to_parquet(tmp_path / "table" / "00000.parquet")
    (tmp_path / "table" / ShardedTable.MANIFEST).write_text(content)
    for read in (lambda folder: ShardedTable(folder, 2, {}), table_files):
        with pytest.raises(ValueError, match="_manifest.json is damaged, or not of zoobook: make"):
            read(tmp_path / "table")


def shards(folder, rows=6):
    table = ShardedTable(folder, rows, {"what": "x"}, 2)
    for number, start, stop in table.missing():
        table.write(number, pd.DataFrame({"id_str": [f"g{n}" for n in range(start, stop)]}))
    return table.finish()


def test_a_table_that_lost_or_gained_a_file_is_refused(tmp_path):
    folder = shards(tmp_path / "a")
    (folder / "._00000.parquet").write_bytes(b"of macOS")
    assert len(table_files(folder)) == 3
    (folder / "00001 copy.parquet").write_bytes((folder / "00001.parquet").read_bytes())
    for use in (table_files, shards):  # said before any work is done
        with pytest.raises(ValueError, match="00001 copy.parquet is no part of the table"):
            use(folder)
    (folder / "00001 copy.parquet").unlink()
    (folder / "00001.parquet").unlink()
    with pytest.raises(ValueError, match="lacks 1 of its 3 files, such as 00001.parquet: run again"):
        table_files(folder)
    assert len(table_files(shards(folder))) == 3


@pytest.mark.parametrize(("damage", "message"), [
    (lambda file: file.write_bytes(file.read_bytes()[:-20]), "00001.parquet: "),
    (lambda file: pd.DataFrame({"id_str": ["g2"]}).to_parquet(file), "1.parquet has 1 rows instead of 2: run again"),
])  # fmt: skip
def test_a_shard_that_is_not_as_planned_is_refused_and_made_again(tmp_path, damage, message):
    folder = shards(tmp_path / "a")
    file = folder / "00001.parquet"
    whole = file.read_bytes()
    damage(file)
    with pytest.raises(ValueError, match=message):
        tables.read(folder)
    shards(folder)
    assert file.read_bytes() == whole and len(tables.read(folder)) == 6


def test_files_of_others_are_left_alone(tmp_path):
    folder = shards(tmp_path / "a")
    for name in ("thesis.part", "best.safetensors.12-34.part"):
        (folder / name).touch()
    run = RunFolder(folder, {})
    run.log(epoch=0, val_loss=1.0)
    run.finish()
    assert (folder / "thesis.part").exists() and not (folder / "best.safetensors.12-34.part").exists()


@pytest.mark.parametrize("content", ["", "epoch;train_loss\n0;1\n", "x,y\n1,2\n", "epoch,val_loss\nzero,1\n"])
def test_a_damaged_history_is_said(tmp_path, content):
    run = RunFolder(tmp_path, {})
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(ValueError, match="history.csv is damaged.*resume=False"):
        _ = run.history


def test_a_run_of_the_other_framework_is_refused_and_an_earlier_one_is_not(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "framework": "pytorch"}).log(epoch=0, val_loss=1.0)
    with pytest.raises(ValueError, match="framework was 'pytorch', now 'tensorflow'"):
        RunFolder(tmp_path, {"seed": 0, "framework": "tensorflow"})
    RunFolder(tmp_path / "old", {"seed": 0}).log(epoch=0, val_loss=1.0)
    assert RunFolder(tmp_path / "old", {"seed": 0, "framework": "pytorch"}).resuming


@pytest.mark.parametrize("plan", [{"rows": "4"}, {"shard_rows": 0}, {"rows": None}])
def test_a_plan_that_makes_no_sense(tmp_path, plan):
    folder = shards(tmp_path / "a")
    manifest = json.loads((folder / ShardedTable.MANIFEST).read_text())
    manifest["plan"] |= plan
    (folder / ShardedTable.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="_manifest.json is damaged, or not of zoobook"):
        table_files(folder)
