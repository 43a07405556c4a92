"""Several devices or processes of TensorFlow that train together do what one does with the same batches."""
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import TREE, quick, survey

if find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

# Without what differs by design: dropout draws its own numbers on each device, and batch normalisation looks at the
# images of its own device only.
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import pandas as pd
from zoobook import weights
from zoobook.images import ImageStore
from zoobook.learning import transfer
from zoobook import tensorflow as half
from toys import TREE, quick

make = half.models.GalaxyModel

def without_chance(spec):
    model = make(spec | {{"dropout": 0}})
    transfer.freeze_batchnorm(half, model)
    return model

def slowly(*args, save=weights.save, **options):
    time.sleep(1)
    return save(*args, **options)

half.models.GalaxyModel, half.models.initialize_batchnorm_stats = without_chance, lambda model, images: None
weights.save = slowly  # only the first process writes; the other must wait for it
if {devices} > 1:
    tf, one = half.engine.tf, half.engine.tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one] * {devices})
    half.engine.choose_devices = lambda *_: [f"CPU:{{number}}" for number in range({devices})]
result = half.train(ImageStore.open({store!r}), pd.read_parquet({catalog!r}), TREE, out_dir={out!r},
                    num_nodes={count}, **quick(epochs=2, batch_size=14))
print(sum(float(abs(array).sum()) for array in result.model.get_weights()))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train_together(count: int, devices: int, folder: Path) -> pd.DataFrame:
    """The history of a training by so many processes, each with so many devices, that all return the same model."""
    store, catalog = survey()
    folder.mkdir()
    catalog.to_parquet(folder / "catalog.parquet")
    script = SCRIPT.format(
        tests=str(Path(__file__).parent), store=str(store.path), catalog=str(folder / "catalog.parquet"),
        out=str(folder / "run"), count=count, devices=devices,
    )  # fmt: skip
    kinds, processes = ["chief", "worker"][:count], []
    cluster = {kind: [f"localhost:{port}"] for kind, port in zip(kinds, free_ports(count), strict=True)}
    for kind in kinds:
        place = {"cluster": cluster, "task": {"type": kind, "index": 0}}
        told = {"TF_CONFIG": json.dumps(place)} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", script], env=os.environ | told, stderr=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    try:
        said, errors = zip(*(process.communicate(timeout=300) for process in processes), strict=True)
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(errors)[-3000:]
    assert len({text.split()[-1] for text in said}) == 1
    return pd.read_csv(folder / "run" / "history.csv")


def test_two_learn_what_one_learns(tmp_path):
    one = train_together(1, 1, tmp_path / "one")
    assert list(one["epoch"]) == [0, 1] and one["val_loss"].iloc[1] < 0.95 * one["val_loss"].iloc[0]
    for processes, devices in ((2, 1), (1, 2)):
        two = train_together(processes, devices, tmp_path / f"{processes}-{devices}")
        assert list(two["epoch"]) == [0, 1]
        np.testing.assert_allclose(two[["train_loss", "val_loss"]], one[["train_loss", "val_loss"]], rtol=1e-3)


def test_machines_that_should_have_been_connected_earlier(tmp_path):
    from zoobook import tensorflow as half

    half.engine.tf.constant(1.0) + 1  # TensorFlow is at work already
    store, catalog = survey()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="top of your script"):
        place = {"cluster": {"worker": [f"localhost:{port}" for port in free_ports(2)]}}
        patch.setenv("TF_CONFIG", json.dumps(place | {"task": {"type": "worker", "index": 0}}))
        half.train(store, catalog, TREE, out_dir=tmp_path, num_nodes=2, **quick())
