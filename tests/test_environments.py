"""In environments of their own: each framework without the other; the lowest versions we promise; those of Colab."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import survey

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).resolve().parents[1]
OTHER = {"pytorch": ("tensorflow", "keras"), "tensorflow": ("torch", "timm", "pytorch_lightning")}
VERSIONS = {
    "lowest": ["--resolution", "lowest-direct"],
    "colab": [  # its Python is 3.13
        "pandas==2.2.3", "numpy==2.1.3", "pillow==11.3.0", "pyarrow==18.1.0", "torch==2.11.0", "tensorflow==2.20.0",
        "keras==3.13.2", "timm==1.0.28", "umap-learn==0.5.12",
        # of the rest that zoobook or a framework imports: those of Colab in February 2026
        "anywidget==0.9.21", "astropy==7.2.0", "filelock==3.24.3", "h5py==3.15.1", "joblib==1.5.3",
        "matplotlib==3.10.0", "opencv-python-headless==4.13.0.92", "pooch==1.9.0", "protobuf==5.29.6", "pyyaml==6.0.3",
        "requests==2.32.4", "safetensors==0.7.0", "scikit-image==0.25.2",
        "scikit-learn==1.6.1", "scipy==1.16.3", "tqdm==4.67.3",
        "typer==0.24.1", "urllib3==2.5.0",
    ],
}  # fmt: skip
SCRIPT = """
import importlib.util, json, sys
sys.path.insert(0, {tests!r})
import numpy as np, pandas as pd, zoobook
from zoobook import chapters, datasets, evaluation, plots, representations, weights
from zoobook.images import ImageStore
from toys import TREE, quick

half = zoobook.load_framework({name!r})
store, catalog = ImageStore.open({store!r}), pd.read_parquet({catalog!r})
if {given!r}:
    model = weights.load({given!r}, {name!r})
else:
    model = half.train(store, catalog, TREE, out_dir={out!r}, **quick(epochs=1)).model
    half.finetune(model, store, catalog, "large", out_dir={out!r} + "_large", epochs=1, devices="cpu")
    weights.save(model, {out!r} + ".safetensors")
half.represent(model, store).to_parquet({out!r} + ".parquet")
there = [name for name in {others!r} if importlib.util.find_spec(name) or name in sys.modules]
print(json.dumps(there))
"""


def run(*command, **options) -> str:
    """What a command prints; its last lines are shown if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def environment(folder: Path, extras: str, options: list[str] = ()) -> Path:
    """A Python with zoobook in it, made with uv, which links what is already on this machine."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv = [sys.executable, "-m", "uv"]
    run(*uv, "venv", "--quiet", "--python", sys.executable, folder)
    run(*uv, "pip", "install", "--quiet", "--python", python, f"zoobook[{extras}] @ {ROOT.as_uri()}", *options)
    return python


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A Python with each framework alone."""
    return {name: environment(tmp_path_factory.mktemp("alone") / name, name) for name in OTHER}


@pytest.mark.parametrize(("one", "other"), [("pytorch", "tensorflow"), ("tensorflow", "pytorch")])
def test_each_framework_alone_trains_and_reads_what_the_other_wrote(alone, tmp_path, one, other):
    store, catalog = survey()
    catalog.to_parquet(tmp_path / "catalog.parquet")
    for name, given in ((one, None), (other, str(tmp_path / f"{one}.safetensors"))):
        script = SCRIPT.format(
            tests=str(ROOT / "tests"), name=name, store=str(store.path), catalog=str(tmp_path / "catalog.parquet"),
            given=given, out=str(tmp_path / name), others=OTHER[name],
        )  # fmt: skip
        assert json.loads(run(alone[name], "-c", script).splitlines()[-1]) == []
    features = [pd.read_parquet(tmp_path / f"{name}.parquet").iloc[:, 1:].to_numpy() for name in (one, other)]
    np.testing.assert_allclose(features[0], features[1], atol=2e-5 * np.abs(features[0]).max())


@pytest.mark.parametrize("versions", VERSIONS)
def test_versions(versions, tmp_path):
    """What runs on each push, and every chapter, with other versions of everything."""
    python = environment(tmp_path / versions, "pytorch,tensorflow,book,test", VERSIONS[versions])
    home = {**os.environ, "ZOOBOOK_HOME": str(tmp_path / "home")}
    tests = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not book and not nightly"]
    run(python, *tests, cwd=ROOT, env=home)
    run(python, "book/_tools/execute_chapters.py", "--jobs", "2", cwd=ROOT, env=home)
