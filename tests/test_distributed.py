"""Several processes that train together do what one process does with the same batches."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from toys import survey

# Without what differs by design: dropout draws its own numbers on each device, and batch normalisation looks at the
# images of its own device only.
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import functools, pandas as pd, zoobook
from zoobook.images import ImageStore
from toys import TREE, quick
half = zoobook.load_framework({name!r})
build = half.models.build_model
def without_chance(*args, **options):
    model = build(*args, **options, dropout=0)
    if {name!r} == "pytorch":
        for module in model.modules():
            if "Norm" in type(module).__name__:
                module.requires_grad_(False)
    else:
        for layer in model.encoder.layers:
            layer.trainable = "BatchNorm" not in type(layer).__name__
    return model
half.training.build_model = without_chance
half.training.settle_statistics = lambda model, images: None
half.train(ImageStore.open({store!r}), pd.read_parquet({catalog!r}), TREE, out_dir={out!r}, num_nodes={count},
           **quick(epochs=2, batch_size=14, learning_rate={rate}))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment(name: str, number: int, ports: list[int]) -> dict[str, str]:
    """How the launcher of each framework tells a process its place."""
    if len(ports) == 1:
        return {}
    if name == "pytorch":  # as torchrun does
        return {"MASTER_ADDR": "localhost", "MASTER_PORT": str(ports[0]), "RANK": str(number), "LOCAL_RANK": "0",
                "GROUP_RANK": str(number), "WORLD_SIZE": str(len(ports)), "LOCAL_WORLD_SIZE": "1",
                "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})}


def train_together(half, count: int, folder: Path) -> pd.DataFrame:
    """The history of a training by so many processes."""
    store, catalog = survey()
    folder.mkdir()
    catalog.to_parquet(folder / "catalog.parquet")
    name, ports = half.__name__.split(".")[1], free_ports(count)
    script = SCRIPT.format(
        tests=str(Path(__file__).parent), name=name, store=str(store.path), catalog=str(folder / "catalog.parquet"),
        out=str(folder / "run"), count=count, rate=3e-3,
    )  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"} | environment(name, i, ports),
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(errors)[-3000:]
    return pd.read_csv(folder / "run" / "history.csv")


def test_two_processes_learn_what_one_learns(half, tmp_path):
    one, two = (train_together(half, count, tmp_path / str(count)) for count in (1, 2))
    assert list(one["epoch"]) == list(two["epoch"]) == [0, 1]
    assert one["val_loss"].iloc[1] < 0.95 * one["val_loss"].iloc[0]
    np.testing.assert_allclose(two[["train_loss", "val_loss"]], one[["train_loss", "val_loss"]], rtol=1e-3)
