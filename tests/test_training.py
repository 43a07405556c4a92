"""Training, its repetition and its interruption, in both frameworks."""
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import installed
from toys import TREE, name_of, quick, trained

from zoobook import trees, votes, weights
from zoobook.catalogs.shards import ShardedTable
from zoobook.learning import tasks, training, transfer
from zoobook.learning.early_stopping import EarlyStopping
from zoobook.learning.runs import RunFolder
from zoobook.learning.schedule import learning_rate_factors

COLUMNS = ["epoch", "train_loss", "val_loss", "learning_rate"]


def same_weights(half, one, other):
    one, other = (half.models.to_arrays(model).values() for model in (one, other))
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_learns_and_keeps_its_best_epoch(half, store, catalog):
    result = trained(half)
    history = result.history
    assert list(history) == ["epoch", "train_loss", "val_loss", "learning_rate", "seconds"]
    assert list(history["epoch"]) == [0, 1, 2]
    counts = {name: catalog.loc[catalog["subset"] == name, TREE.label_columns].to_numpy() for name in ("train", "val")}
    constant = votes.fit_constant(counts["train"], TREE)
    unseeing = votes.nll(np.tile(constant, (len(counts["val"]), 1)), counts["val"], TREE).sum(1).mean()
    assert history["val_loss"].min() < 0.5 * unseeing
    assert result.checkpoint.name == "best.safetensors"

    table = half.predict(result.model, store)[catalog["subset"].to_numpy() == "val"]
    again = votes.nll(votes.predicted_concentrations(table, TREE)[..., 0], counts["val"], TREE).sum(1).mean()
    assert again == pytest.approx(history["val_loss"].min(), rel=1e-4)


def state(folder: Path) -> list[Path]:
    """What a run keeps to resume from."""
    return [file for file in (folder / "last.ckpt", folder / "last.safetensors") if file.exists()]


def random_numbers(half):
    """Seed the framework's own random numbers; what is returned draws one."""
    if half.__name__.endswith("pytorch"):
        import torch

        torch.manual_seed(4)
        return lambda: float(torch.rand(()))
    return lambda: None  # TensorFlow's belong to layers


def test_a_run_repeats_to_the_last_digit_and_leaves_random_numbers_alone(half, store, catalog, tmp_path):
    numbers = random_numbers(half)
    expected = numbers(), random.Random(4).random()
    numbers = random_numbers(half)
    random.seed(4)
    result = half.train(store, catalog, TREE, out_dir=tmp_path / "run", **quick())
    assert (numbers(), random.random()) == expected
    assert same_weights(half, result.model, trained(half).model)
    assert result.history[COLUMNS].equals(trained(half).history[COLUMNS])


def test_a_finished_run_is_only_read(half, store, catalog, tmp_path, monkeypatch):
    """Also one of an earlier version, which knew neither fields of view nor today's name of an argument."""
    first = trained(half)
    monkeypatch.setattr(half.engine.Trainer, "fit", None)
    shutil.copytree(first.checkpoint.parent, tmp_path / "old")
    record = json.loads((tmp_path / "old" / "run.json").read_text())
    for name in ("field_of_view", "framing", "photometric"):
        del record["settings"][name]
    record["settings"]["accumulate"] = record["settings"].pop("accumulate_grad_batches")
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    for folder in (first.checkpoint.parent, tmp_path / "old"):
        again = half.train(store, catalog, TREE, out_dir=folder, **quick())
        assert same_weights(half, again.model, first.model) and again.history.equals(first.history)
        for option, was, now in (("learning_rate", "0.003", 0.1), ("field_of_view", "14.7.*", 8.5)):
            with pytest.raises(ValueError, match=f"{option} was {was}, now {now}.*resume=False"):
                half.train(store, catalog, TREE, out_dir=folder, **quick(**{option: now}))
    changed = catalog.copy()
    changed.loc[1, TREE.label_columns[0]] += 1
    with pytest.raises(ValueError, match="data was"):
        half.train(store, changed, TREE, out_dir=first.checkpoint.parent, **quick())


def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(half, store, catalog, tmp_path):
    out = tmp_path / "run"
    catalog.to_parquet(tmp_path / "catalog.parquet")
    script = f"""
import sys, pandas as pd
sys.path.insert(0, {str(Path(__file__).parent)!r})
from zoobook.images import ImageStore
import zoobook
from toys import TREE, quick
catalog = pd.read_parquet({str(tmp_path / "catalog.parquet")!r})
half = zoobook.load_framework({name_of(half)!r})
half.train(ImageStore.open({str(store.path)!r}), catalog, TREE, out_dir={str(out)!r}, **quick())
"""
    process = subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if re.match(r"epoch +1/3", line):
            break
    while not state(out) and process.poll() is None:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and state(out)
    done = len((out / "history.csv").read_text().splitlines()) - 1
    assert 1 <= done < 3
    last, = state(out)
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=f"{last.name} is damaged, so the run cannot go on"):
        half.train(store, catalog, TREE, out_dir=out, **quick())
    last.write_bytes(whole)
    result = half.train(store, catalog, TREE, out_dir=out, **quick())
    assert same_weights(half, result.model, trained(half).model)
    assert result.history[COLUMNS].equals(trained(half).history[COLUMNS])
    assert not list(out.glob("*.part")) and not list(out.glob("last.*"))


def test_training_stops_early_and_starts_afresh_on_request(half, store, catalog, tmp_path, monkeypatch):
    losses = {"dirichlet_multinomial": lambda model, logits, _: logits[:, 0] * 0 + 1}
    monkeypatch.setattr(half.models.GalaxyModel, "LOSSES", losses)
    for resume in (True, False):
        result = half.train(store, catalog, TREE, out_dir=tmp_path, resume=resume, **quick(epochs=50, patience=2))
        assert len(result.history) == 3


def test_a_full_disk_is_said_plainly_and_costs_no_finished_work(half, store, catalog, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(RunFolder, "log", full)
        with pytest.raises(OSError, match="cannot write to the folder .*run: No space.*run again"):
            half.train(store, catalog, TREE, out_dir=tmp_path / "run", **quick(epochs=1))
    model = half.train(store, catalog, TREE, out_dir=tmp_path / "run", **quick(epochs=1)).model
    with monkeypatch.context() as disk:
        disk.setattr(ShardedTable, "write", full)
        with pytest.raises(OSError, match="cannot write to the folder .*table: No space.*run again"):
            half.predict(model, store, out=tmp_path / "table")
    assert len(pd.read_parquet(half.predict(model, store, out=tmp_path / "table"))) == len(store)


def test_early_stopping_counts_from_the_best_epoch():
    stopping = EarlyStopping(patience=2)
    assert [stopping.add(epoch, loss) for epoch, loss in enumerate((3.0, 2.0, 2.0))] == [True, True, False]
    assert not stopping.should_stop
    stopping.add(3, 2.5)
    assert stopping.should_stop


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_the_learning_rate_warms_up_and_falls(steps):
    factors = learning_rate_factors(steps)
    top = factors.argmax()
    assert len(factors) == steps + 1 and factors[top] == 1 and factors.min() >= 0.0099 and top <= max(1, steps / 20)
    assert (np.diff(factors[: top + 1]) > 0).all() and (np.diff(factors[top:]) <= 0).all()


def test_going_on_begins_where_the_model_arrived(half, store, catalog, tmp_path):
    """With hardly any learning, the same tree has the same loss, and images of another size are no obstacle."""
    arrived = trained(half).history["val_loss"].min()
    options = dict(epochs=1, batch_size=36, learning_rate=1e-9, devices="cpu")
    result = half.train(store, catalog, TREE, model=trained(half).model, out_dir=tmp_path / "same", **options)
    assert result.model.spec == trained(half).model.spec
    assert result.history["train_loss"][0] < 0.8 * trained(half).history["train_loss"][0]
    assert result.history["val_loss"][0] < 1.5 * arrived  # the batch statistics of so small a network leap
    other = half.train(
        store, catalog, TREE, model=trained(half).model, image_size=24, out_dir=tmp_path / "other", **options
    )
    assert other.model.spec == trained(half).model.spec | {"image_size": 24}
    with pytest.raises(ValueError, match="model was"):
        half.train(store, catalog, TREE, model=other.model, out_dir=tmp_path / "same", **options)


def test_going_on_takes_over_what_the_trees_share(half, store, catalog):
    """Encoder, batch statistics, and the head of questions with the same answers; the rest starts from the constant."""
    given = half.models.to_arrays(trained(half).model)
    questions = [{"name": "size", "answers": ["big", "small"]}, {"name": "disk-edge-on", "answers": ["no", "yes"]}]
    tree = trees.DecisionTree.from_dict({"name": "own", "questions": questions})
    counts = {"size_big": 9 * catalog["large"], "size_small": 3, "disk-edge-on_no": 4, "disk-edge-on_yes": 4}
    task = tasks.find_task(store, catalog.assign(**counts), tree)
    spec = transfer.new_spec(trained(half).model.spec, task)
    model = transfer.new_model(half, spec, task, trained(half).model)
    begun = half.models.to_arrays(model)
    assert all(np.array_equal(begun[name], given[name]) for name in given if name.startswith("encoder."))
    old = [TREE.label_columns.index(f"disk-edge-on-dr5_{answer}") for answer in ("no", "yes")]
    for name in ("head.output.weight", "head.output.bias"):
        assert np.array_equal(begun[name][2:], given[name][old])
    constant = votes.fit_constant(task.targets["train"], tree)[:2]
    np.testing.assert_allclose(1 + 100 / (1 + np.exp(-begun["head.output.bias"][:2])), constant, rtol=1e-4)
    assert abs(begun["head.output.weight"][:2]).max() < 0.1 * model.num_features**-0.5 + 1e-6


def test_the_lowest_concentration_is_the_models(half, store, catalog, tmp_path):
    """What is given counts, else the model goes on with its own; a run that has Zoobot's does not mention it."""
    options = dict(epochs=1, batch_size=36, learning_rate=1e-9, devices="cpu")
    low = half.train(store, catalog, TREE, architecture="test_efficientnet", image_size=32, lowest=0.05,
                     out_dir=tmp_path / "low", **options)  # fmt: skip
    run = json.loads((tmp_path / "low/run.json").read_text())
    assert low.model.kind.scale == (0.05, 100.95) and '"lowest": 0.05' in json.dumps(run)
    constant = votes.fit_constant(catalog[catalog["subset"] == "train"][TREE.label_columns].to_numpy(), TREE)
    bias = half.models.to_arrays(low.model)["head.output.bias"]
    wanted = np.clip(constant, 0.05 + 0.1, None)  # a share of at least a thousandth
    np.testing.assert_allclose(0.05 + 100.95 / (1 + np.exp(-bias)), wanted, rtol=2e-3)
    kept = half.finetune(low.model, store, catalog, TREE, out_dir=tmp_path / "kept", **options)
    assert kept.model.spec == low.model.spec
    zoobot = half.train(store, catalog, TREE, model=low.model, lowest=1, out_dir=tmp_path / "one", **options)
    assert zoobot.model.kind.scale == (1, 100)
    ring = half.finetune(low.model, store, catalog, "large", out_dir=tmp_path / "ring", **options)
    assert "lowest" not in ring.model.spec["head"] and "lowest" not in trained(half).model.spec["head"]
    task = tasks.find_task(store, catalog, TREE)
    begun = half.models.to_arrays(transfer.new_model(half, zoobot.model.spec, task, low.model))
    shares = 1 / (1 + np.exp(-begun["head.output.bias"]))
    np.testing.assert_allclose(1 + 100 * shares, np.clip(constant, 1.1, None), rtol=1e-3)  # it begins anew
    bad = low.model.spec | {"head": low.model.spec["head"] | {"lowest": "x"}}
    with pytest.raises(ValueError, match="lowest must be a number from 0.01 to 1"):
        half.models.GalaxyModel(bad)
    for value in (0, -1, 0.001, 1.5, np.nan, "low"):
        with pytest.raises(ValueError, match="lowest must be a number from 0.01 to 1"):
            half.train(store, catalog, TREE, lowest=value, out_dir=tmp_path / "bad", **options)
        with pytest.raises(ValueError, match="lowest must be a number from 0.01 to 1"):
            half.build_model(TREE, "test_efficientnet", lowest=value)


def test_going_on_refuses_another_encoder_by_name(half, store, catalog, tmp_path):
    for name, value in (("architecture", "resnet50"), ("channels", 3)):
        with pytest.raises(ValueError, match=f"{name} is {value!r}, but the given model has"):
            half.train(store, catalog, TREE, model=trained(half).model, out_dir=tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


def test_the_field_of_view_and_other_telescopes(half, store, catalog, tmp_path, monkeypatch):
    """What is seen in training and validation, and what is kept of it."""
    shown, batches = [], training.GalaxyBatches

    def noted(*args, **options):
        shown.append(batches(*args, **options))
        return shown[-1]

    monkeypatch.setattr(training, "GalaxyBatches", noted)
    options = quick(epochs=1, image_size=16, channels=3, field_of_view=np.float64(8.5), photometric=True)
    first = half.train(store, catalog, TREE, out_dir=tmp_path, **options)
    assert [(one.share, one.photometric) for one in shown] == [(0.5, True), (0.5, False)]
    assert first.model.spec["image_size"] == 16 and first.model.spec["channels"] == 3
    assert first.model.spec["field_of_view"] == 8.5
    assert weights.inspect(first.checkpoint)["spec"]["field_of_view"] == 8.5
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (settings["field_of_view"], settings["framing"], settings["photometric"]) == (8.5, 17, True)
    assert half.train(store, catalog, TREE, out_dir=tmp_path, **options).history.equals(first.history)
    with pytest.raises(ValueError, match="photometric was True, now False"):
        half.train(store, catalog, TREE, out_dir=tmp_path, **options | {"photometric": False})
    tuned = half.finetune(first.model, store, catalog, "large", out_dir=tmp_path / "tuned", epochs=1, photometric=True)
    assert tuned.model.spec["field_of_view"] == 8.5
    assert [(one.share, one.photometric) for one in shown[2:]] == [(0.5, True), (0.5, False)]


def test_going_on_refuses_a_size_that_a_transformer_was_not_made_for(store, catalog, tmp_path):
    half = installed("pytorch")
    model = half.build_model(TREE, "test_vit", image_size=48)
    for options in ({}, {"image_size": 64}):
        with pytest.raises(ValueError, match="test_vit was trained with 48, .* Pass image_size=48"):
            half.train(store, catalog, TREE, model=model, out_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_parts_of_a_batch_add_up_to_the_whole(half, store, catalog, tmp_path, monkeypatch):
    """Without dropout, which draws for each part, and batch normalisation, which looks at the part alone."""
    build = half.models.GalaxyModel

    def plain(spec):
        model = build(spec | {"dropout": 0})
        transfer.freeze_batchnorm(half, model)
        return model

    monkeypatch.setattr(half.models, "GalaxyModel", plain)
    monkeypatch.setattr(half.models, "initialize_batchnorm_stats", lambda model, images: None)
    whole, parts = (
        half.train(store, catalog, TREE, out_dir=tmp_path / str(n), accumulate_grad_batches=n,
                   **quick(batch_size=14, epochs=2))
        for n in (1, 3)
    )  # fmt: skip
    with pytest.warns(DeprecationWarning, match="accumulate is now accumulate_grad_batches"):
        again = half.train(store, catalog, TREE, out_dir=tmp_path / "3", accumulate=3, **quick(batch_size=14, epochs=2))
    assert again.history.equals(parts.history)
    columns = ["train_loss", "val_loss", "learning_rate"]
    np.testing.assert_allclose(parts.history[columns], whole.history[columns], rtol=1e-3)
    assert whole.history["val_loss"].iloc[1] < 0.95 * whole.history["val_loss"].iloc[0]


def test_what_stands_in_another_ones_place(half, store, catalog, tmp_path):
    for given, message in (
        (("s.arrow", catalog, TREE), "store must be an image store, not 's.arrow'; ImageStore.open"),
        ((catalog, store, TREE), "store must be an image store"),
        ((store, catalog, "decals_dr5"), "the tree must be a DecisionTree, not 'decals_dr5'; zoobook.trees.load"),
        ((store, catalog, None), "the tree must be a DecisionTree, not None"),
    ):
        with pytest.raises(ValueError, match=message):
            half.train(*given, out_dir=tmp_path / "run", **quick())
    for wrong in (None, "m.safetensors", store, trained(half)):
        with pytest.raises(ValueError, match="model must be a model of zoobook.*such as the `model` of a Result"):
            half.predict(wrong, store)
        with pytest.raises(ValueError, match="model must be a model"):
            half.finetune(wrong, store, catalog, "large", out_dir=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_first_epoch_that_failed_does_not_refuse_the_next_run(half, store, catalog, tmp_path):
    with pytest.raises(ValueError, match="lower learning_rate"):
        half.train(store, catalog, TREE, out_dir=tmp_path, **quick(learning_rate=1e30, epochs=1))
    assert len(half.train(store, catalog, TREE, out_dir=tmp_path, **quick(epochs=1)).history) == 1
