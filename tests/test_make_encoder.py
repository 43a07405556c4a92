"""The program that makes the encoder that comes with zoobook, at the scale of a toy."""
import hashlib
import json
import sys
from pathlib import Path

import lessons
import make_encoder
import numpy as np
import pytest
import yaml
from toys import TREE, name_of

from zoobook import trees, weights
from zoobook.images import views

TOY = {
    "survey": {"image_size": 48, "seed": 3},
    "test": {"n_galaxies": 40, "image_size": 48, "seed": 4},
    "fractions": [0.7, 0.3, 0.0],
    "model": {"architecture": "test_efficientnet", "channels": 1, "field_of_view": 8.5},
    "training": {"batch_size": 32, "photometric": True, "patience": 9, "seed": 0},
    "batchnorm_galaxies": 50,
    "stages": [
        {"n_galaxies": 100, "image_size": 24, "epochs": 2, "learning_rate": 2e-3},
        {"n_galaxies": 120, "stamp": 56, "image_size": 32, "epochs": 1, "learning_rate": 1e-3},
        {"n_galaxies": 100, "head_alone": True, "lowest": 0.05, "epochs": 1, "learning_rate": 1e-3},
    ],
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs the program in a framework; gives its folder."""

    def run(framework: str, settings: dict = TOY) -> Path:
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
        arguments = ["make_encoder.py", str(tmp_path / framework), "--settings", str(tmp_path / "toy.yaml")]
        monkeypatch.setattr(sys, "argv", [*arguments, "--framework", framework])
        make_encoder.main()
        return tmp_path / framework

    return run


def test_one_command_makes_an_encoder_for_both_frameworks(half, make):
    framework = name_of(half)
    folder = make(framework)
    report = json.loads((folder / "training.json").read_text())
    epochs = [(row["stage"], row["epoch"], row["image_size"]) for row in report["history"]]
    assert epochs == [(0, 0, 24), (0, 1, 24), (1, 0, 32), (2, 0, 32)]
    assert list(report["scores"]) == [question.name for question in trees.load("decals_dr5").questions] + ["all"]
    assert 60 < report["galaxies"] < 120 and report["scores"]["all"]["galaxies"] == 40
    made = (folder / "encoder.safetensors").read_bytes()
    assert report["weights"] == {"name": "encoder", "sha256": hashlib.sha256(made).hexdigest()}
    spec, tensors = weights.read(folder / "encoder.safetensors")
    assert (spec["image_size"], spec["field_of_view"]) == (32, 8.5)
    assert trees.DecisionTree.from_dict(spec["tree"]) == lessons.lesson_tree()
    assert {path.name for path in folder.glob("survey-3-*.arrow")} == {"survey-3-100-48.arrow", "survey-3-120-56.arrow"}
    before, after = (weights.read(folder / f"stage-{number}/best.safetensors") for number in (1, 2))
    assert after[0] == spec and all(np.isfinite(array).all() for array in tensors.values())
    assert spec["head"] == before[0]["head"] | {"lowest": 0.05}
    learned = {name for name in after[1] if not np.array_equal(before[1][name], after[1][name])}
    assert all(name.startswith("head.") or "running_" in name for name in learned)  # the encoder stays as it was


def test_the_next_stage_goes_on_and_nothing_is_done_twice(half, make):
    times, stages = {}, TOY["stages"]
    for done in (stages[:1], stages, stages):
        folder = make(name_of(half), TOY | {"stages": done})
        assert times == {path: path.stat().st_mtime_ns for path in times}  # a finished stage is only read
        times = {path: path.stat().st_mtime_ns for path in folder.glob("stage-*/*")}
    first, second = (weights.read(folder / f"stage-{number}/best.safetensors")[1] for number in (0, 1))
    close = [np.abs(first[name] - second[name]).mean() < 0.3 * np.abs(first[name]).mean() + 0.05 for name in first
             if name.endswith("conv_stem.weight")]
    assert close == [True]  # one epoch from where the first has arrived, not from other random weights


def test_the_settings_are_those_of_the_shipped_encoder():
    settings = yaml.safe_load(make_encoder.SETTINGS.read_text())
    spec = weights.inspect("simulated_efficientnet_b0")["spec"]
    assert {name: spec[name] for name in settings["model"]} == settings["model"]
    *_, last, head = settings["stages"]
    assert (spec["image_size"], spec["head"]["lowest"]) == (last["image_size"], head["lowest"])


def test_batch_normalisation_learns_the_statistics_of_many_galaxies(halves, store):
    """As PyTorch counts them itself over all the images at once; the same in both frameworks."""
    rows, found = np.arange(24), []
    arrays = halves[0].models.to_arrays(halves[0].build_model(TREE, "test_efficientnet", image_size=32))
    arrays = {name: array + 1 if name.endswith("running_var") else array for name, array in arrays.items()}
    for half in halves:
        model = half.models.from_arrays(half.build_model(TREE, "test_efficientnet", image_size=32).spec, arrays)
        few = half.models.to_arrays(make_encoder.recompute_batchnorm_stats(half, model, store, rows, batch_size=12))
        many = half.models.to_arrays(make_encoder.recompute_batchnorm_stats(half, model, store, rows, batch_size=24))
        statistics = {name for name in arrays if "running_" in name}
        assert all(np.array_equal(few[name], arrays[name]) for name in arrays.keys() - statistics)
        assert all(np.array_equal(half.models.to_arrays(model)[name], arrays[name]) for name in arrays)
        np.testing.assert_allclose(few["encoder.bn1.running_mean"], many["encoder.bn1.running_mean"], rtol=1e-4)
        np.testing.assert_allclose(few["encoder.bn1.running_var"], many["encoder.bn1.running_var"], rtol=1e-3)
        found.append(many)
    for name in statistics:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=2e-3, atol=1e-5)
    torch = pytest.importorskip("torch")
    loaded = halves[0].models.from_arrays(model.spec, arrays)
    share = views.share_seen(model.spec, store)
    seen = views.apply_view(np.array(store.pixels[rows]), views.views(24, 0, 0, share), 1, 32, share)
    stem = loaded.encoder.conv_stem(torch.from_numpy(seen).permute(0, 3, 1, 2))
    first = {name: found[0][f"encoder.bn1.{name}"] for name in ("running_mean", "running_var")}
    np.testing.assert_allclose(first["running_mean"], stem.mean((0, 2, 3)).detach(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(first["running_var"], stem.var((0, 2, 3)).detach(), rtol=1e-3)
