"""A toy survey that even a tiny network learns in seconds: small or large blobs, and votes that tell which.

And what several test files need: tables and archives on disk, commands, tensors of either framework.
"""
import io
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from typer.testing import CliRunner

from zoobook import cli, trees
from zoobook.images import ImageStore

SIZE = 32
FOLDER = tempfile.TemporaryDirectory()
TREE = trees.load("decals_dr5")


@cache
def survey() -> tuple[ImageStore, pd.DataFrame]:
    """96 galaxies: an image store, and a catalogue with votes, subsets and labels of every kind."""
    rng = np.random.default_rng(0)
    count, folder = 96, Path(FOLDER.name)
    large = rng.integers(0, 2, count)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    for i in range(count):
        blob = 200 * np.exp(-np.hypot(x, y) / (10 if large[i] else 3))[..., None] + rng.normal(0, 8, (SIZE, SIZE, 3))
        Image.fromarray(np.clip(blob, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    votes = np.zeros((count, len(TREE.label_columns)), int)
    for start, _ in TREE.index_groups[:-1]:  # nobody was asked the last question
        votes[:, start], votes[:, start + 1] = 20 * large, 20 * (1 - large)
    catalog = pd.DataFrame(
        {
            "id_str": [f"toy_{i}" for i in range(count)],
            "file_loc": [str(folder / f"{i}.png") for i in range(count)],
            "subset": np.where(np.arange(count) % 4 == 0, "val", "train"),
            "large": large,
            "kind": np.where(large, "big", np.array(["ring", "bar"])[rng.integers(0, 2, count)]),
            "radius": 3.0 + 7 * large + rng.normal(0, 0.1, count),
        }
    )
    catalog[TREE.label_columns] = votes
    return ImageStore.build(catalog, folder / "toys.arrow", size=SIZE), catalog


@cache
def trained(half):
    """The result of a short training on the toy survey, in one framework."""
    store, catalog = survey()
    return half.train(store, catalog, TREE, out_dir=Path(FOLDER.name) / half.__name__, **quick())


def quick(**options) -> dict:
    """Settings for a training that lasts seconds."""
    return dict(architecture="test_efficientnet", epochs=3, batch_size=12, learning_rate=3e-3, devices="cpu") | options


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format that its name tells; `grouped.parquet` in groups of few rows."""
    if ".csv" in path.name:
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=7 if path.name == "grouped.parquet" else None)
    else:
        from astropy.table import Table

        Table.from_pandas(frame).write(path, format="votable" if path.suffix == ".vot" else "fits")
    return path


def zipped(members, before="", kinds=(zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)) -> bytes:
    """A zip archive of names and contents, which are packed in one way after the other."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for i, (name, data) in enumerate(members.items()):
            file.writestr(before + name, data, kinds[i % len(kinds)])
    return out.getvalue()


def tarred(members, mode="w:gz") -> bytes:
    """A tar archive of names and contents; in place of a content, the kind of a member and what it leads to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            info, data = tarfile.TarInfo(name), content if isinstance(content, bytes) else b""
            info.size = len(data)
            if not isinstance(content, bytes):
                info.type, info.linkname = content
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def run(*arguments, code=0) -> str:
    """What a command prints, which must end with this code."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def name_of(half) -> str:
    """`pytorch` or `tensorflow`."""
    return half.__name__.split(".")[1]


def tensor(half, array):
    """A NumPy array as a tensor of a framework."""
    if half.__name__.endswith("pytorch"):
        import torch

        return torch.tensor(array)
    import tensorflow

    return tensorflow.constant(array)


def array(found) -> np.ndarray:
    """A tensor of either framework as a NumPy array."""
    return found.detach().numpy() if hasattr(found, "detach") else np.asarray(found)


def images_for(half, images: np.ndarray):
    """Float images [N, H, W, C] as a model of a framework takes them."""
    return tensor(half, np.moveaxis(images, 3, 1) if half.__name__.endswith("pytorch") else images)


def from_model(half, images) -> np.ndarray:
    """What a model of a framework takes, as float images [N, H, W, C]."""
    return np.moveaxis(array(images), 1, 3) if half.__name__.endswith("pytorch") else array(images)
