"""With one framework installed, everything works without the other: in an environment of its own for each."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import FOLDER, survey

ROOT = Path(__file__).resolve().parents[1]
OTHER = {"pytorch": ("tensorflow", "keras"), "tensorflow": ("torch", "timm", "pytorch_lightning")}
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


@pytest.fixture(scope="module")
def environments():
    """A Python with each framework alone, made with uv, which links what is already on this machine."""
    made = {}
    for name in OTHER:
        folder = Path(FOLDER.name) / f"venv_{name}"
        python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        for command in (
            ["venv", "--quiet", "--python", sys.executable, folder],
            ["pip", "install", "--quiet", "--python", python, f"zoobook[{name}] @ {ROOT.as_uri()}"],
        ):
            run = subprocess.run([sys.executable, "-m", "uv", *command], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
        made[name] = python
    return made


@pytest.mark.parametrize(("one", "other"), [("pytorch", "tensorflow"), ("tensorflow", "pytorch")])
def test_each_framework_alone_trains_and_reads_what_the_other_wrote(environments, tmp_path, one, other):
    store, catalog = survey()
    catalog.to_parquet(tmp_path / "catalog.parquet")
    for name, given in ((one, None), (other, str(tmp_path / f"{one}.safetensors"))):
        script = SCRIPT.format(
            tests=str(ROOT / "tests"), name=name, store=str(store.path), catalog=str(tmp_path / "catalog.parquet"),
            given=given, out=str(tmp_path / name), others=OTHER[name],
        )  # fmt: skip
        run = subprocess.run([environments[name], "-c", script], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        assert json.loads(run.stdout.splitlines()[-1]) == []
    features = [pd.read_parquet(tmp_path / f"{name}.parquet").iloc[:, 1:].to_numpy() for name in (one, other)]
    np.testing.assert_allclose(features[0], features[1], atol=2e-5 * np.abs(features[0]).max())
