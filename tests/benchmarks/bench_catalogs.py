"""Catalogues of full size: cross-match of 340 thousand with 8.7 million galaxies, rows out of 340 thousand.

    python tests/benchmarks/bench_catalogs.py [share of the full size]

Every task runs in a process of its own; what counts is the most memory that it ever held.
"""
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

LEFT, RIGHT, FEATURES = 340_000, 8_700_000, 1280


def make_catalogue(path: Path, rows: int) -> None:
    """A table of the size and the kind of ids of GZ DESI: {brickid}_{objid}, position, a few fractions."""
    rng = np.random.default_rng(0)
    brick, number = np.divmod(np.arange(rows), 30)
    ids = np.char.add(np.char.add((300_000 + brick).astype(str), "_"), number.astype(str))
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    table = {"dr8_id": pa.array(ids), "ra": rng.uniform(0, 360, rows), "dec": dec}
    for name in ("smooth", "featured-or-disk", "artifact"):
        table[f"smooth-or-featured_{name}_fraction"] = rng.random(rows, np.float32)
    pq.write_table(pa.table(table).take(pa.array(rng.permutation(rows))), path)


def make_features(path: Path, rows: int) -> None:
    """A table of the size and the columns of cnn_features_decals; one row group, as pandas writes it."""
    rng = np.random.default_rng(0)
    names = [f"feat_{i}_pred" for i in range(FEATURES)]
    ids = pa.array([f"J{row:09d}" for row in range(rows)])
    pq.write_table(pa.table([ids, *rng.random((FEATURES, rows), np.float32)], names=["iauname", *names]), path)


def match_by_id(path: Path, rows: int) -> str:
    from zoobook.catalogs import crossmatch

    left = pd.read_parquet(path, columns=["dr8_id"]).sample(rows, random_state=1).rename(columns={"dr8_id": "id_str"})
    joined = crossmatch.by_id(left.reset_index(drop=True), path, on=("id_str", "dr8_id"))
    assert len(joined) == rows
    return f"{rows:,} ids"


def match_by_position(path: Path, rows: int) -> str:
    from zoobook.catalogs import crossmatch

    left = pd.read_parquet(path, columns=["ra", "dec"]).sample(rows, random_state=1).reset_index(drop=True)
    joined = crossmatch.by_position(left, path, columns=["dr8_id"])
    assert len(joined) > 0.999 * rows
    return f"{rows:,} positions"


def select_features(path: Path, rows: int) -> str:
    from zoobook import datasets

    ids = [f"J{row:09d}" for row in range(0, rows, 17)]
    table = datasets.load("cnn_features_decals", root=path.parents[1], download=False, ids=ids)
    assert table["id_str"].tolist() == ids and table.shape[1] >= FEATURES + 1
    return f"{len(ids):,} of {rows:,} galaxies"


def measured(task, pipe, *arguments) -> None:
    started = time.perf_counter()
    what = task(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send(f"{task.__name__}: {what}, {time.perf_counter() - started:.0f} s, {peak:.2f} GB")


def run(task, *arguments) -> None:
    """In a process that holds nothing of this one."""
    process = multiprocessing.get_context("spawn").Process(target=task, args=arguments)
    process.start()
    process.join()


def measure(task, *arguments) -> None:
    receiver, sender = multiprocessing.Pipe(False)
    run(measured, task, sender, *arguments)
    print(receiver.recv(), flush=True)


if __name__ == "__main__":
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    left, right = int(LEFT * share), int(RIGHT * share)
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "desi.parquet"
        features = Path(folder) / "cnn_features_decals/cnn_features_decals.parquet"
        features.parent.mkdir()
        for target, path, rows in ((make_catalogue, catalogue, right), (make_features, features, left)):
            run(target, path, rows)
        measure(match_by_id, catalogue, left)
        measure(match_by_position, catalogue, left)
        measure(select_features, features, left)
