"""The command line: each command does what the function does, and says what is wrong without a traceback."""
import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from toys import FOLDER, TREE, name_of, run, survey, trained

from zoobook import trees, weights
from zoobook.cli import inputs
from zoobook.cli.options import Images
from zoobook.images import ImageStore

ARGUMENTS = ["--epochs", "1", "--batch-size", "36", "--learning-rate", "0.003", "--devices", "cpu"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def table():
    file = f"{FOLDER.name}/galaxies.parquet"
    survey()[1].to_parquet(file)
    return file


def test_help_comes_at_once_and_imports_nothing_heavy():
    code = (
        "import runpy, sys; sys.argv = ['-m', '--help']\n"
        "try: runpy.run_module('zoobook', run_name='__main__')\n"
        "except SystemExit: assert not {'torch', 'tensorflow', 'pandas', 'numpy'} & set(sys.modules)"
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        for command in ("Usage: zoobook", "train", "predict", "represent", "finetune", "weights"):
            assert command in result.stdout
        if seconds[-1] < 0.7:
            break
    assert min(seconds) < 0.7


def test_train_predict_represent_and_finetune(half, table, tmp_path):
    framework = ["--framework", name_of(half)]
    printed = run("train", table, "--out", tmp_path / "run", "--architecture", "test_efficientnet", "--image-size", 32,
                  *ARGUMENTS, *framework)  # fmt: skip
    assert str(tmp_path / "run" / "best.safetensors") in printed
    run("predict", tmp_path / "run", table, "--out", tmp_path / "answers", "--passes", 3, *framework)
    answers = pd.read_parquet(tmp_path / "answers")
    assert list(answers["id_str"]) == list(survey()[0].ids)
    assert len(answers[f"{TREE.label_columns[0]}_concentration"][0]) == 3
    store = next((tmp_path / "home" / "stores").glob("*-32.arrow"))
    run("represent", tmp_path / "run" / "best.safetensors", store, "--out", tmp_path / "features", "--devices", "cpu",
        *framework)  # fmt: skip
    features = pd.read_parquet(tmp_path / "features")
    model = weights.load(tmp_path / "run" / "best.safetensors", name_of(half))
    wanted = half.represent(model, ImageStore.open(store), devices="cpu")
    np.testing.assert_array_equal(features.to_numpy(), wanted.to_numpy())
    run("represent", tmp_path / "run", store, "--out", tmp_path / "stages", "--all-stages", *framework)
    assert pd.read_parquet(tmp_path / "stages").shape[1] == 1 + half.with_all_stages(model).num_features
    run("train", table, "--model", tmp_path / "run", "--out", tmp_path / "more", *ARGUMENTS, *framework)
    assert weights.inspect(tmp_path / "more" / "best.safetensors")["spec"] == model.spec
    run("finetune", tmp_path / "run", table, "--label", "large", "--out", tmp_path / "rings", "--all-stages",
        *ARGUMENTS, *framework)  # fmt: skip
    spec = weights.inspect(tmp_path / "rings" / "best.safetensors")["spec"]
    assert spec["head"]["label"] == "large" and spec["all_stages"] is True


def test_framing_field_of_view_and_other_telescopes(half, table, tmp_path):
    common = ["--framework", name_of(half), "--framing", "8.5"]
    run("train", table, "--out", tmp_path / "run", "--architecture", "test_efficientnet", "--image-size", 32,
        "--field-of-view", 4.25, "--photometric", *ARGUMENTS, *common)  # fmt: skip
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["field_of_view"], settings["framing"], settings["photometric"]) == (4.25, 8.5, True)
    assert settings["image_size"] == 32
    store = next((tmp_path / "home" / "stores").glob("*-55.arrow"))  # as many pixels in the view as usual
    assert ImageStore.open(store).framing == 8.5
    run("represent", tmp_path / "run", table, "--out", tmp_path / "features", *common)
    run("predict", tmp_path / "run", store, "--out", tmp_path / "answers", *common[:2])
    assert "leave out --framing" in run("predict", tmp_path / "run", store, "--out", "x", "--framing", 17, code=1)
    assert "framing must be a pos" in run("predict", tmp_path / "run", table, "--out", "x", "--framing", 0, code=1)
    run("finetune", tmp_path / "run", table, "--label", "large", "--out", tmp_path / "large", "--photometric",
        *ARGUMENTS, *common)  # fmt: skip
    settings = json.loads((tmp_path / "large" / "run.json").read_text())["settings"]
    assert settings["spec"]["field_of_view"] == 4.25 and settings["framing"] == 8.5 and settings["photometric"]
    for file in (tmp_path / "large", tmp_path / "large" / "best.safetensors"):
        assert re.search(r"field of view +4.25", run("weights", "inspect", file))
    again = run("finetune", tmp_path / "run", table, "--label", "large", "--out", tmp_path / "large",
                *ARGUMENTS, *common, code=1)  # fmt: skip
    assert "give --no-resume" in again and "another --out" in again and "resume=False" not in again


def test_the_commands_of_the_book_run(half, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "book/your_own_galaxies.md").read_text("utf8")
    commands = re.search(r"```console\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert [command.split()[1] for command in commands] == ["predict", "represent", "finetune", "predict", "finetune"]
    monkeypatch.chdir(tmp_path)
    Path("trained").symlink_to(trained(half).checkpoint.parent)
    Path("over-tea.yaml").write_text(re.search(r'text = """\n(.*?)"""', page, re.DOTALL)[1])
    said = trees.DecisionTree.from_yaml("over-tea.yaml").label_columns
    catalog = survey()[1].drop(columns="subset").assign(bulge_to_total=survey()[1]["radius"], **dict.fromkeys(said, 3))
    catalog.to_csv("galaxies.csv", index=False)
    catalog.to_csv("labelled.csv", index=False)
    for command in commands:
        short = ARGUMENTS if "finetune" in command else []
        run(*shlex.split(command)[1:], *short, "--framework", name_of(half))
    assert len(pd.read_parquet("answers")) == len(pd.read_parquet("features")) == len(catalog)
    assert "bulge_to_total" in pd.read_parquet("bulge_answers")
    heads = [weights.inspect(f"{out}/best.safetensors")["spec"]["head"]["kind"] for out in ("bulges", "tea")]
    assert heads == ["regression", "concentrations"]


def test_weights_list_fetch_inspect_and_convert(half, tmp_path):
    listed = run("weights", "list")
    for name in weights.published()["name"]:
        assert name in listed
    assert "Walmsley" in listed and "dropbox.com" in listed
    assert "download efficientnet_dr5_pytorch," in run("weights", "fetch", "efficientnet_dr5_pytorch", code=1)
    model = half.build_model(TREE, "test_efficientnet", image_size=32)
    file = weights.save(model, tmp_path / "model.safetensors", data="toys")
    shown = run("weights", "inspect", file)
    for part in ("test_efficientnet", "symmetric", "1e-05", "0.1", "toys", "decals_dr5", name_of(half)):
        assert part in shown
    pytest.importorskip("timm")
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_efficientnet", num_classes=0), tmp_path / "hub", safe_serialization=True)
    assert "an encoder alone" in run("weights", "inspect", tmp_path / "hub")
    run("weights", "convert", tmp_path / "hub", tmp_path / "converted.safetensors")
    found, wanted = load_file(tmp_path / "converted.safetensors"), load_file(tmp_path / "hub" / "model.safetensors")
    assert all(np.array_equal(array, wanted[name.removeprefix("encoder.")]) for name, array in found.items())
    assert weights.load(tmp_path / "converted.safetensors", name_of(half)).spec["channels"] == 3


def test_weights_that_come_with_zoobook_are_named(half, table, tmp_path):
    name, framework = weights.shipped()["name"][0], ["--framework", name_of(half)]
    assert name in run("weights", "list") and "BSD-3-Clause" in run("weights", "inspect", name)
    for command in ("predict", "represent"):
        run(command, name, table, "--out", tmp_path / command, "--devices", "cpu", *framework)
        assert list(pd.read_parquet(tmp_path / command)["id_str"]) == list(survey()[0].ids)
    run("finetune", name, table, "--label", "large", "--out", tmp_path / "large", *ARGUMENTS, *framework)
    assert (tmp_path / "large" / "best.safetensors").is_file()


@pytest.mark.parametrize(("arguments", "message"), [
    (["predict", "simulated_efficientnet", "none.csv", "--out", "x"], "Did you mean 'simulated_efficientnet_b0'?"),
    (["predict", "none.safetensors", "none.csv", "--out", "x"], "no weight file at none.safetensors"),
    (["train", "none.csv", "--out", "x"], "there is no table at"),
    (["train", "images.arrow", "--out", "x"], "an image store, without labels"),
    (["train", "none.csv", "--out", "x", "--framework", "jax"], "unknown framework 'jax'"),
    (["train", "none.csv", "--out", "x", "--tree", "decals"], "no decision tree is called 'decals'"),
    (["predict", "simulated_efficientnet_b0", "simulatd", "--out", "x"], "of that name. Did you mean 'simulated'"),
    (["predict", "https://a.org/b.ckpt", "none.csv", "--out", "x"], "is no path, but an address"),
    (["train", "none.csv", "--out", "x", "--tree", "none.yaml"], "none.yaml"),
    (["weights", "fetch", "efficientnet"], "no published weights 'efficientnet'. Did you mean"),
    (["weights", "inspect", "none.ckpt"], "none.ckpt"),
    (["weights", "convert", "own.ckpt", "own.ckpt"], "own.ckpt would be overwritten"),
    (["weights", "convert", ".", "own.ckpt"], ". would be changed by a result in it"),
    (["weights", "convert", "simulated_efficientnet_b0", "x.safetensors"], "there is nothing to convert"),
])  # fmt: skip
def test_mistakes_are_explained_without_a_traceback(arguments, message):
    output = run(*arguments, code=1)
    assert output.startswith("Error: ") and message in output and "Traceback" not in output


def test_what_a_store_cannot_be_asked_for(table):
    store, spec = survey()[0], {"image_size": 32, "field_of_view": 14.705}
    for images, option in ((Images(max_blank=0.5), "--max-blank"), (Images(framing=8), "--framing")):
        with pytest.raises(ValueError, match=f"leave out {option}"):
            inputs.read_galaxies(str(store.path), spec, images)
    with pytest.raises(ValueError, match="framing must be a positive number, 0.1 to 1000"):
        inputs.read_galaxies(table, spec, Images(framing=1e-9))


def test_warnings_are_notes(monkeypatch):
    def slow():
        warnings.warn("the disk is slow", stacklevel=1)
        raise ValueError("and now it is full")

    monkeypatch.setattr(weights, "shipped", slow)
    assert run("weights", "list", code=1) == "Note: the disk is slow\nError: and now it is full\n"


def test_an_interruption_is_no_error(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt("stopped; whole epochs are kept")

    monkeypatch.setattr(weights, "published", stop)
    assert "whole epochs are kept" in run("weights", "list", code=130)


def test_bad_images_may_be_left_out(table, tmp_path):
    catalog = pd.read_parquet(table)
    os.link(catalog["file_loc"][0], tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = catalog.head(2).assign(file_loc=[str(tmp_path / "whole.png"), str(tmp_path / "broken.png")])
    rows.to_csv(tmp_path / "two.csv", index=False)
    spec = {"image_size": 32, "field_of_view": 14.705}
    with pytest.raises(ValueError, match="broken.png"):
        inputs.read_galaxies(str(tmp_path / "two.csv"), spec, Images())
    kept, store = inputs.read_galaxies(str(tmp_path / "two.csv"), spec, Images(skip_bad_images=True))
    assert list(kept["id_str"]) == list(store.ids) == [rows["id_str"][0]]
