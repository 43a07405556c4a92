"""Arguments as people give them: paths, numbers of Python and NumPy, and what of them JSON can hold."""
import json
from pathlib import Path

import numpy as np
import pytest

from zoobook import arguments, files
from zoobook.images import ImageStore
from zoobook.learning import runs
from zoobook.trees import DecisionTree
from zoobook.weights import inspect, write


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("~/a/b", Path("~/a/b"), "a/b", str(tmp_path / "a/b")):
        assert arguments.path(given) == tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="nobody-of-that-name"):
        arguments.path("~nobody-of-that-name/a")


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers(value):
    assert arguments.whole("k", value) == 3 and type(arguments.whole("k", value)) is int


@pytest.mark.parametrize("value", [0, np.int64(0), 2.5, np.float32(2), True, np.True_, "3", None, [3], float("nan")])
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="k must be a whole number, at least 1, not"):
        arguments.whole("k", value)
    with pytest.raises(ValueError, match="k must be a whole number, from 5 to 7, not 8"):
        arguments.whole("k", 8, 5, 7)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.float32("nan"), float("inf"), True, "0.5", None])
def test_shares(value):
    for half in (0.5, np.float32(0.5), np.float16(0.5)):
        assert arguments.share("s", half) == 0.5 and type(arguments.share("s", half)) is float
    with pytest.raises(ValueError, match="s must be a share from 0 to 1, not"):
        arguments.share("s", value)


def test_json():
    given = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": {1}, "e": np.True_, "f": [np.int64(2)]}
    expected = {"a": 0.5, "b": [0, 1], "c": "x", "d": [1], "e": True, "f": [2]}
    assert json.loads(json.dumps(given, default=arguments.plain)) == expected
    assert files.fingerprint(given) == files.fingerprint(expected)


def test_numpy_numbers_and_home_in_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = {"architecture": "test_efficientnet", "channels": np.int64(1), "image_size": np.int64(32), "dropout": 0.0,
            "field_of_view": np.float32(14), "tree": None, "head": None}  # fmt: skip
    written = write("~/m.safetensors", spec, {"encoder.a": np.zeros(2, "float32")}, auc=np.float32(0.5))
    assert written == tmp_path / "m.safetensors"
    for name in ("~/m.safetensors", Path("~/m.safetensors"), written):
        assert inspect(name)["provenance"]["auc"] == 0.5 and inspect(name)["spec"]["image_size"] == 32
    folder = runs.RunFolder("~/run", {"epochs": np.int64(3)})
    assert folder.path == tmp_path / "run" and json.loads((folder.path / "run.json").read_text())["settings"] == {
        "epochs": 3
    }
    assert runs.RunFolder("~/run", {"epochs": 3}).settings == {"epochs": 3}
    (tmp_path / "tree.yaml").write_text("questions: [{name: q, answers: [a, b]}]")
    assert DecisionTree.from_yaml("~/tree.yaml").label_columns == ["q_a", "q_b"]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        ImageStore.open("~/none.arrow")


def test_the_folder_of_a_training_stands_for_its_best_weights(tmp_path):
    spec = {"architecture": "test_efficientnet", "channels": 1, "image_size": 32, "dropout": 0.0, "tree": None,
            "field_of_view": 14.0, "head": None}  # fmt: skip
    write(tmp_path / "run" / "best.safetensors", spec, {"encoder.a": np.zeros(2, "float32")})
    assert inspect(tmp_path / "run") == inspect(tmp_path / "run" / "best.safetensors")
