"""Weight files: whole, described, the same for both frameworks, and refused where they are not."""
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import installed
from published_files import NAMES, Published, lightning, weight
from safetensors.numpy import save_file
from toys import TREE, array, images_for, name_of

from zoobook import weights
from zoobook.learning import architectures
from zoobook.weights import names
from zoobook.weights.layouts_2022 import LAYOUTS

FETCHED = "resnet50_torchvision_dr5_pytorch_color"
IMAGES = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
RESNET = {"architecture": "resnet50", "channels": 1, "image_size": 32, "dropout": 0, "head": None, "tree": None}
HEADS = {
    "encoder alone": None,
    "votes": {"kind": "concentrations", "hidden": []},
    "yes or no": {"kind": "binary", "hidden": [64, 64], "label": "ring"},
    "classes": {"kind": "classes", "hidden": [64, 64], "label": "shape", "classes": ["a", "b", "c"]},
    "a number": {"kind": "regression", "hidden": [8], "label": "size", "mean": 3.0, "deviation": 2.0},
}


def model_of(half, head: dict | None, architecture="test_efficientnet"):
    spec = {"architecture": architecture, "channels": 1, "image_size": 32, "dropout": 0.2, "head": head}
    spec["tree"] = TREE.to_dict() if head == HEADS["votes"] else None
    return half.models.GalaxyModel(spec)


def test_a_file_that_is_no_weight_file_or_cut_short(tmp_path):
    file = tmp_path / "a.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            weights.read(file)

    with pytest.raises(FileNotFoundError, match="no weight file"):
        weights.read(file)
    file.write_bytes(b"\x80\x04 a pickle, perhaps")
    refused("not a whole safetensors file.*in other formats are for zoobook.weights.read_legacy")
    save_file({"x": np.zeros(3, np.float32)}, file)
    refused("not one written by zoobook")
    save_file({"encoder.x": np.arange(1000, dtype=np.float32)}, file, {"format": "zoobook 1", "spec": json.dumps({})})
    assert weights.read(file)[1]["encoder.x"][-1] == 999
    with pytest.raises(ValueError, match="does not say the architecture, channels, dropout, image_size of its"):
        weights.load(file, "pytorch")
    file.write_bytes(file.read_bytes()[:-100])
    refused("not a whole safetensors file")
    for spec in ("x", "[]", "null"):
        save_file({"encoder.x": np.zeros(9, np.float32)}, file, {"format": "zoobook 1", "spec": spec})
        refused("does not say of what network its weights are")


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_file_of_one_framework_answers_the_same_in_the_other(halves, tmp_path, head):
    for writer, reader in (halves, halves[::-1]):
        spec = model_of(writer, head).spec
        arrays = writer.models.to_arrays(model_of(writer, head))
        arrays = {name: weight(name, value.shape, {"conv_gain": 0.7, "stem_gain": 4}) for name, value in arrays.items()}
        first = weights.save(writer.models.from_arrays(spec, arrays), tmp_path / "first.safetensors")
        again = weights.load(first, name_of(reader))
        assert again.spec == spec
        read = again.to_arrays()
        assert read.keys() == arrays.keys() and all(np.array_equal(read[name], arrays[name]) for name in arrays)
        second = weights.save(again, tmp_path / "second.safetensors")
        assert tensor_bytes(first) == tensor_bytes(second)
        one, other = (
            array(half.models.from_arrays(spec, arrays)(images_for(half, IMAGES))) for half in (writer, reader)
        )
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * abs(one).max())
        assert np.ptp(one) > 0


def tensor_bytes(file) -> tuple[list, bytes]:
    """Where each tensor lies in a file, and all their bytes."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    return sorted((name, entry) for name, entry in header.items() if name != "__metadata__"), content[start:]


def test_a_file_carries_the_field_of_view_and_older_ones_have_zoobots(halves, tmp_path):
    writer, reader = halves
    model = writer.build_model(TREE, "test_efficientnet", image_size=32, field_of_view=np.float32(8.5))
    file = weights.save(model, tmp_path / "a.safetensors")
    assert weights.load(file, name_of(reader)).spec["field_of_view"] == 8.5
    assert weights.inspect(file)["spec"]["field_of_view"] == 8.5
    old = {name: value for name, value in model.spec.items() if name != "field_of_view"}
    file = weights.write(tmp_path / "old.safetensors", old, writer.models.to_arrays(model))
    assert weights.inspect(file)["spec"]["field_of_view"] == 0.865 * 17
    for half in halves:
        assert weights.load(file, name_of(half)).spec["field_of_view"] == 0.865 * 17


def test_a_file_says_what_another_program_must_know(half, tmp_path):
    model = model_of(half, HEADS["votes"])
    about = weights.inspect(weights.save(model, tmp_path / "a.safetensors", data="toys"))
    assert about["provenance"]["framework"] == name_of(half) and about["provenance"]["data"] == "toys"
    assert about["encoder"]["padding"] == "symmetric"
    assert about["encoder"]["batch_norm_epsilon"] == 1e-5 and about["encoder"]["batch_norm_momentum"] == 0.1
    assert "0 to 1" in about["encoder"]["input"] and "red" in about["encoder"]["channel_order"]
    assert about["tensors"]["head.output.bias"] == [34] and "mean" in about["encoder"]["pooling"]
    assert architectures.describe("resnet50_detectron")["stride_in"] == "1x1"
    assert architectures.describe("tf_efficientnet_b0")["batch_norm_epsilon"] == 1e-3


def test_a_file_for_another_kind_of_encoder_is_refused(tmp_path, monkeypatch):
    described = architectures.describe("resnet50") | {"batch_norm_epsilon": 0.5}
    monkeypatch.setattr(architectures, "describe", lambda *_: described)
    file = weights.write(tmp_path / "a.safetensors", RESNET, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="batch_norm_epsilon 0.5, but this zoobook builds resnet50 with 1e-05"):
        weights.read(file)


def test_half_precision_is_half_the_file_and_nearly_the_same_model(half, tmp_path):
    model = model_of(half, HEADS["votes"], "efficientnet_b0")
    exact, short = weights.save(model, tmp_path / "a.safetensors"), weights.save(model, tmp_path / "b", half=True)
    assert 0.45 < short.stat().st_size / exact.stat().st_size < 0.55
    before, after = weights.read(exact)[1], weights.read(short)[1]
    for name, value in before.items():
        assert after[name].dtype == np.float32
        wanted = value.astype(np.float16).astype(np.float32) if value.ndim > 1 else value
        np.testing.assert_array_equal(after[name], wanted)
    framework, images = name_of(half), images_for(half, IMAGES)
    np.testing.assert_allclose(*(array(weights.load(file, framework)(images)) for file in (exact, short)), rtol=0.02)


def test_weights_in_any_order_and_what_is_noted_of_them(tmp_path):
    spec = {"architecture": "test_efficientnet", "head": None}
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for laid_out in (np.asfortranarray(array), array.astype(">f4"), array[:, ::-1][:, ::-1]):
        read = weights.read(weights.write(tmp_path / "m.safetensors", spec, {"encoder.a": laid_out}))[1]
        assert np.array_equal(read["encoder.a"], array)
    for value in (b"x", pd.DataFrame({"a": [1]}), pd.Timestamp("2020-01-01"), print):
        with pytest.raises(ValueError, match="cannot be noted: give text, numbers, or lists"):
            weights.write(tmp_path / "m.safetensors", spec, {"encoder.a": array}, made_of=value)
    with pytest.raises(ValueError, match="half must be True or False, not 'no'"):
        weights.write(tmp_path / "m.safetensors", spec, {"encoder.a": array}, half="no")
    with pytest.raises(ValueError, match="model must be a model, such as the `model` of a Result, not str"):
        weights.save("m", tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError, match="Zoobot published it: .*fetch.'efficientnet_dr5_pytorch'"):
        weights.inspect("efficientnet_dr5_pytorch")
    assert np.array_equal(weights.read(tmp_path / "m.safetensors")[1]["encoder.a"], array)


@pytest.mark.parametrize("value", [1e5, np.nan])
def test_half_precision_refuses_what_it_cannot_hold(tmp_path, value):
    tensors = {"encoder.fc.weight": np.full((2, 2), value, np.float32)}
    with pytest.raises(ValueError, match="encoder.fc.weight.*range of half precision"):
        weights.write(tmp_path / "a.safetensors", RESNET, tensors, half=True)
    assert not list(tmp_path.iterdir())


# ---- What comes with zoobook ----


def test_shipped_weights_have_the_same_features_in_both_frameworks(halves):
    assert len(weights.shipped()) >= 1
    for row in weights.shipped().itertuples():
        assert row.licence == "BSD-3-Clause" and row.trained_on
        images = np.random.default_rng(1).random((4, row.image_size, row.image_size, row.channels), np.float32)
        features = []
        for half in halves:
            model = weights.load(row.name, name_of(half))
            assert model.spec["architecture"] == row.architecture and model.tree.name == row.tree
            assert {array.dtype for array in half.models.to_arrays(model).values()} == {np.dtype("float32")}
            features.append(array(model.features(images_for(half, images))))
        assert abs(features[0] - features[1]).max() < 2e-5 * abs(features[0]).max()
        assert np.ptp(features[0], axis=0).max() > 0


def test_a_shipped_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    name = weights.shipped()["name"][0]
    content = bytearray((names.SHIPPED / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    monkeypatch.setattr(names, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="its hash differs.*reinstall"):
        weights.load(name, "pytorch")
    (tmp_path / f"{name}.safetensors").unlink()
    with pytest.raises(ValueError, match="missing"):
        weights.read(name)


def test_a_mistyped_name_says_which_there_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for read in (weights.read, weights.inspect, weights.legacy.read):
        with pytest.raises(FileNotFoundError, match="Did you mean 'simulated_.*come: simulated_.*efficientnet_dr5_py"):
            read("simulated_eficientnet_b0")


def test_shipped_weights_are_in_the_wheel_and_small(tmp_path):
    pytest.importorskip("setuptools", "77", reason="needs a setuptools that reads the licence in pyproject.toml")
    root = Path(weights.__file__).parents[2]
    shutil.copytree(root / "zoobook", tmp_path / "zoobook", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    build = "from setuptools import build_meta; build_meta.build_wheel('built')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    wheel = zipfile.ZipFile(next((tmp_path / "built").glob("*.whl")))
    for name in weights.shipped()["name"]:
        file = f"zoobook/weights/shipped/{name}.safetensors"
        assert wheel.read(file) == (root / file).read_bytes()
    assert sum(file.stat().st_size for file in names.SHIPPED.iterdir()) <= 10e6


# ---- The registry ----


def test_the_seven_published_weights_are_listed():
    table = weights.published()
    assert list(table["name"]) == NAMES
    for row in table.itertuples():
        assert ("TensorFlow" in row.written_by) == row.name.endswith("_tf")
        assert row.channels == Published(row.name).channels == (3 if "color" in row.name else 1)
        assert row.architecture in architectures.BOTH and row.licence and "509, 3966" in row.citation
        assert row.location.startswith("https://www.dropbox.com/sh/asqia51m1u3ccl1/")  # as their page said
    assert set(table["architecture"]) == {layout.architecture for layout in LAYOUTS}


@pytest.fixture
def checkpoint(tmp_path):
    """The file of `resnet50_torchvision_dr5_pytorch_color`, with made-up weights."""
    installed("pytorch")
    (tmp_path / "remote").mkdir()
    return lightning(tmp_path / "remote", Published(FETCHED).tensors(), file="a.ckpt")


def test_weights_fetched_by_hand_are_checked(checkpoint, tmp_path):
    name, folder = FETCHED, tmp_path / "weights" / FETCHED
    with pytest.raises(FileNotFoundError, match=f"(?s)dropbox.*put its files.*into {folder}"):
        weights.fetch(name, tmp_path)
    folder.mkdir(parents=True)
    (folder / "a.ckpt").write_bytes(checkpoint.read_bytes())
    assert weights.fetch(name, tmp_path) == folder
    folder.rename(other := folder.with_name("resnet_detectron_dr5_pytorch"))
    with pytest.raises(ValueError, match="are not resnet_detectron_dr5_pytorch: architecture is resnet50, not"):
        weights.fetch(other.name, tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'efficientnet_dr5_pytorch_color'"):
        weights.fetch("efficientnet_dr5_pytorch_colour")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_of_a_training_that_went_astray(half, tmp_path, bad):
    model = half.build_model(None, "test_efficientnet", image_size=32)
    spec, arrays = model.spec, model.to_arrays()
    name = next(iter(arrays))
    weights.write(tmp_path / "a.safetensors", spec, arrays | {name: np.full_like(arrays[name], bad)})
    with pytest.raises(ValueError, match=rf"a.safetensors: weights are NaN or infinite \({name}\): their training"):
        weights.load(tmp_path / "a.safetensors", name_of(half))
