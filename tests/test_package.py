"""The package as a whole: light to import, and neutral where it says so."""
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from PIL import Image

import zoobook
from zoobook import chapters

HEAVY = {"torch", "tensorflow", "keras", "pytorch_lightning", "timm", "sep", "photutils", "skimage"}


def test_importing_zoobook_imports_no_framework_and_nothing_that_finds_sources():
    code = f"""import sys, zoobook.pytorch, zoobook.tensorflow, zoobook.images.cutouts
from zoobook import {", ".join(zoobook._PARTS)}
print({HEAVY} & set(sys.modules))"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown framework 'jax': choose 'pytorch' or 'tensorflow'"):
        zoobook.load_framework("jax")
    with pytest.raises(ValueError, match="unknown framework 'jax'"):
        chapters.begin("jax", "simulated", "quick")
    with pytest.raises(ValueError, match="unknown dataset 'andromeda'"):
        chapters.begin("pytorch", "andromeda", "quick")
    with pytest.raises(ValueError, match="unknown scale 'huge': choose 'quick' or 'full'"):
        chapters.begin("pytorch", "simulated", "huge")
    with pytest.raises(AttributeError, match="no attribute 'telescope'"):
        _ = zoobook.telescope


def test_votes_are_needed_where_votes_are_needed():
    with pytest.raises(ValueError, match="has ring labels but no votes"):
        chapters.begin("pytorch", "rings", "quick").survey()


def test_a_chapter_leaves_out_what_has_no_usable_image_and_says_so(store, catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    Image.new("RGB", (32, 32)).save(tmp_path / "blank.png")
    catalog = catalog.copy()
    catalog.loc[7, "file_loc"] = str(tmp_path / "blank.png")
    found, images = chapters.begin("pytorch", "simulated", "quick")._with_images(catalog)
    assert found["id_str"].tolist() == images.ids.tolist() == [name for name in store.ids if name != "toy_7"]
    assert re.search(r"left out: 1 of 96 galaxies.*blank\.png: 100% of it is blank", capsys.readouterr().out)


@pytest.mark.skipif(not all(map(find_spec, zoobook.FRAMEWORKS.values())), reason="needs both frameworks")
@pytest.mark.parametrize("order", [("pytorch", "tensorflow"), ("tensorflow", "pytorch")])
def test_both_frameworks_in_one_process_in_either_order(order):
    uses = [f"print(zoobook.load_framework({name!r}).build_model(architecture='test_efficientnet'))" for name in order]
    run = subprocess.run([sys.executable, "-c", "import zoobook; " + "; ".join(uses)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "GalaxyModel" in run.stdout


@pytest.mark.skipif(not all(map(find_spec, ("triton", "tensorflow"))), reason="needs both frameworks, and triton")
def test_tensorflow_imported_before_zoobook_is_one_clear_error_where_pytorch_is_wanted():
    uses = "import tensorflow, zoobook; zoobook.tensorflow.build_model; print('fine'); zoobook.pytorch.build_model"
    run = subprocess.run([sys.executable, "-c", uses], capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == "fine\n"
    assert "ImportError: tensorflow was imported before zoobook" in run.stderr
