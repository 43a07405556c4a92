"""Long work survives being killed, does not grow in memory, and several processes do what one does."""
import itertools
import multiprocessing
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import survey

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from side import peak_mb  # noqa: E402

from zoobook import representations  # noqa: E402
from zoobook.catalogs.shards import table_files  # noqa: E402
from zoobook.learning.prediction import by_shards, feature_table  # noqa: E402

ROWS, WIDTH, SHARD = 230, 12, 20


class Store:
    """What an image store looks like to `by_shards`, with pixels that take no room."""

    def __init__(self, rows: int):
        self.ids = np.array([f"g{i}" for i in range(rows)], dtype=object)
        self.pixels = np.broadcast_to(np.uint8(7), (rows, 2, 2, 3))

    def check(self):
        pass


def slowly(replica, rows):
    """Stands for a network: a few rows at a time, each batch after a pause."""
    for part in np.array_split(rows, 2):
        time.sleep(0.01)
        yield (part[:, None] * 1.5 + np.arange(WIDTH)).astype(np.float32)


def write_shards(out):
    by_shards(Store(ROWS), [None], slowly, feature_table, out, {"what": "test"}, SHARD)


def start(work, *args) -> multiprocessing.Process:
    """Start work in a process that has imported what it needs."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["zoobook.learning.prediction", "zoobook.representations"])
    process = processes.Process(target=work, args=args)
    process.start()
    return process


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_table_killed_again_and_again_is_completed(tmp_path, kills):
    """Shards that are whole are not made twice; `predict` and `represent` write theirs in this way."""
    table, rng, seen = tmp_path / "table", np.random.default_rng(kills), {}
    while True:
        process = start(write_shards, table)
        if kills:
            process.join(rng.uniform(0, 0.4))
            if process.is_alive():
                process.kill()
                kills -= 1
        process.join()
        now = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in table.glob("*.parquet")}
        assert {file: now.get(file) for file in seen} == seen  # what was whole is as it was
        seen = now
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    files = table_files(table)
    frame = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    assert frame["id_str"].tolist() == [f"g{i}" for i in range(ROWS)]
    assert [len(pd.read_parquet(file)) for file in files] == [SHARD] * 11 + [10]
    np.testing.assert_array_equal(frame.iloc[:, 1:], np.arange(ROWS)[:, None] * 1.5 + np.arange(WIDTH))
    assert {file.name for file in table.iterdir()} == {"_manifest.json", *(file.name for file in files)}


def compress_until(path, out, killed_at):
    """`compress` in small pieces, killed when it comes to one of them."""
    from zoobook.representations import compression, tables

    matrix, count = tables._as_matrix, itertools.count()
    tables.PIECE, compression._ROW_GROUP = WIDTH * SHARD, SHARD

    def counted(columns):
        if next(count) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return matrix(columns)

    tables._as_matrix = counted
    representations.compress(path, out, n_components=2)


def test_compression_killed_at_any_piece_leaves_a_whole_table_or_none(tmp_path):
    """12 pieces are read for the covariances, after a first look at one, and 12 to be written."""
    write_shards(tmp_path / "table")
    representations.compress(tmp_path / "table", tmp_path / "whole.parquet", n_components=2)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/pca.parquet"
    for killed_at, left in [(0, []), (8, []), (16, ["pca.parquet.part"]), (24, ["pca.parquet.part"]),
                            (None, ["pca.parquet"])]:  # fmt: skip
        process = start(compress_until, tmp_path / "table", out, killed_at)
        process.join()
        assert process.exitcode == (0 if killed_at is None else -signal.SIGKILL)
        assert [file.name for file in (tmp_path / "out").iterdir()] == left
    pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(tmp_path / "whole.parquet"))


def growth(rows: int, folder: Path, answers) -> None:
    """By how many MB the memory grows while a table is written, compressed and searched."""
    store = Store(rows)
    rng = np.random.default_rng(0)

    def features(replica, some):
        yield rng.standard_normal((len(some), 64), np.float32)

    before = peak_mb()
    by_shards(store, [None], features, feature_table, folder / f"{rows}", {"what": "test"}, 4096)
    representations.compress(folder / f"{rows}", folder / f"{rows}.pca", n_components=8)
    representations.nearest(folder / f"{rows}", ["g5", "g6"], k=3)
    answers.put(peak_mb() - before)


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_table(tmp_path):
    processes = multiprocessing.get_context("spawn")
    found = []
    for rows in (100_000, 1_000_000):  # 26 and 256 MB of features
        answers = processes.SimpleQueue()
        process = processes.Process(target=growth, args=(rows, tmp_path, answers))
        process.start()
        process.join()
        found.append(answers.get())
    assert found[1] < found[0] + 60


TRAINING = """
import os, runpy, sys
from zoobook.learning import transfer
from zoobook.learning.runs import RunFolder

def finish(folder, finish=RunFolder.finish):
    (folder.path / ("finished-by-" + os.environ.get("RANK", "0"))).touch()
    finish(folder)

RunFolder.finish = finish

# Dropout and batch normalisation look at each process's share of a batch; without them the shares must add up.
transfer.DROPOUT = 0.0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_two_processes_learn_what_one_does(tmp_path):
    """With the script of the book, as torchrun starts it."""
    torch = pytest.importorskip("torch", reason="needs the `pytorch` extra")
    if torch.cuda.is_available() or not torch.distributed.is_available():
        pytest.skip("two processes on a CPU: not where there is a GPU, or no torch.distributed")
    survey()[1].to_parquet(tmp_path / "catalog.parquet")
    start = tmp_path / "start.py"
    start.write_text(TRAINING)
    script = Path(__file__).parents[1] / "book/cluster/train_survey.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for launcher, name in (([sys.executable], "one"), (torchrun, "two")):
        command = [*launcher, str(start), str(script), str(tmp_path / "catalog.parquet"), str(tmp_path / name)]
        command += ["--architecture=test_convnext", "--image-size=64", "--epochs=2", "--batch-size=6"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two"))
    assert len(one) == 2
    assert [file.name for file in (tmp_path / "two").glob("finished-by-*")] == ["finished-by-0"]
    np.testing.assert_allclose(two["train_loss"], one["train_loss"], rtol=1e-4)
    np.testing.assert_allclose(two["val_loss"], one["val_loss"], rtol=1e-4)
    from safetensors.numpy import load_file

    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert all(np.allclose(first[name], second[name], atol=2e-4) for name in first)


def test_the_commands_of_the_book_fit_its_script():
    pytest.importorskip("torch", reason="needs the `pytorch` extra")
    book = Path(__file__).parents[1] / "book"
    script = runpy.run_path(str(book / "cluster/train_survey.py"))  # without being the main program it does nothing
    lines = (book / "cluster/train_survey.slurm").read_text() + (book / "scaling_up.md").read_text()
    commands = re.findall(r"^(?:torchrun|srun) .*train_survey\.py (.*)$", lines, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        arguments = shlex.split(command.replace("$SLURM_JOB_NUM_NODES", "2"))
        assert script["parser"].parse_args(arguments).catalog == "catalog.parquet"
