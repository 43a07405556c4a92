"""What zoobook does in the benchmarks, and what it is measured against beside Zoobot. Run by bench.py."""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from side import serve

SIZE = 224  # what the model sees


def _device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _store(folder: str):
    from zoobook.images import ImageStore

    catalog = pd.read_parquet(f"{folder}/catalog.parquet")
    return ImageStore.build(catalog, f"{folder}/store.arrow", size=424), catalog


def pipeline(folder: str, batch_size: int):
    """Augmented float batches of one epoch after another; the first warms up."""
    from zoobook.learning.batches import GalaxyBatches
    from zoobook.learning.devices import tune_malloc
    from zoobook.pytorch.engine import GalaxyLoader
    from zoobook.pytorch.models import apply_view

    store, _ = _store(folder)
    tune_malloc()
    batches = GalaxyBatches(store.pixels, np.arange(len(store)), batch_size, seed=0)
    device, epochs = _device(), count()

    def work():
        batches.epoch = next(epochs)
        for images, views in GalaxyLoader(batches):
            apply_view(images.to(device, non_blocking=True), views.to(device, non_blocking=True), 3, SIZE)
        _wait()

    return work


def warp(folder: str, batch_size: int):
    """The bare warp of images that are in memory already."""
    from zoobook.images.views import views as random_views
    from zoobook.learning.devices import tune_malloc
    from zoobook.pytorch.models import apply_view

    torch = __import__("torch")
    store, _ = _store(folder)
    tune_malloc()
    views = torch.from_numpy(random_views(batch_size, 0, 0)).to(_device())
    images = torch.from_numpy(store.pixels[:batch_size].copy()).to(_device())

    def work():
        for _ in range(len(store) // batch_size):
            apply_view(images, views, 3, SIZE)
        _wait()

    return work


def loss(batch_size: int, repeats: int):
    """Forward and backward; and the error at 10^7 votes, in nats, against SciPy in float64."""
    import torch

    from zoobook import trees, votes
    from zoobook.learning.devices import tune_malloc
    from zoobook.pytorch import dirichlet_multinomial_nll

    tune_malloc()  # as train does
    tree = trees.load("decals_dr5")
    rng = np.random.default_rng(0)
    answers = len(tree.label_columns)
    found = torch.tensor(1 + 100 * rng.random((batch_size, answers)), dtype=torch.float32, device=_device())
    given = torch.tensor(rng.integers(0, 40, (batch_size, answers)), dtype=torch.float32, device=_device())
    found.requires_grad_(True)
    many = torch.full((1, answers), 1e7)
    one = torch.full((1, answers), 50.0)
    exact = votes.nll(one.double().numpy(), many.double().numpy(), tree)
    error = np.abs(dirichlet_multinomial_nll(one, many, tree).double().numpy() - exact).max()

    def work():
        for _ in range(repeats):
            found.grad = None
            dirichlet_multinomial_nll(found, given, tree).sum(1).mean().backward()
        _wait()
        return {"error": float(error), "exact": exact.ravel().tolist()}

    return work


def step(folder: str, batch_size: int, constant: bool, compiled: bool = False):
    """Training steps of one epoch, with data, or always with the same batch that is there already; compiled or not."""
    import torch

    from zoobook import trees
    from zoobook.learning.batches import GalaxyBatches
    from zoobook.learning.devices import tune_malloc
    from zoobook.learning.tasks import find_task
    from zoobook.pytorch import build_model
    from zoobook.pytorch.engine import GalaxyLoader
    from zoobook.pytorch.models import apply_view

    tune_malloc()
    store, catalog = _store(folder)
    tree, device = trees.load("decals_dr5"), _device()
    task = find_task(store, catalog.assign(subset=np.where(np.arange(len(catalog)) % 4, "train", "val")), tree)
    votes = np.resize(task.targets["train"], (len(store), len(tree.label_columns)))
    model = build_model(tree, "efficientnet_b0", 3, image_size=SIZE).to(device, memory_format=torch.channels_last)
    if compiled:
        model.features = torch.compile(model.features)
    optimizer = torch.optim.AdamW(model.parameters())
    batches = GalaxyBatches(store.pixels, np.arange(len(store)), batch_size, votes, seed=0)
    some = [tensor.to(device) for tensor in next(iter(GalaxyLoader(batches)))[:3]]
    same = apply_view(*some[:2], 3, SIZE)
    epochs = count()

    def work():
        batches.epoch = next(epochs)
        for batch in (range(len(batches)) if constant else GalaxyLoader(batches)):
            if constant:
                seen, targets = same, some[2]
            else:
                images, views, targets = (tensor.to(device, non_blocking=True) for tensor in batch[:3])
                seen = apply_view(images, views, 3, SIZE)
            optimizer.zero_grad()
            model.galaxy_losses(seen, targets).mean().backward()
            optimizer.step()
        _wait()

    return work


def represent(folder: str, batch_size: int):
    """Representations from image files, decoding included."""
    from zoobook import pytorch as zb
    from zoobook.images import ImageStore

    catalog = pd.read_parquet(f"{folder}/catalog.parquet")
    model = zb.build_model(None, "efficientnet_b0", 3, image_size=SIZE)

    def work():
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            store = ImageStore.build(catalog, f"{fresh}/store.arrow", size=SIZE + 36)
            zb.represent(model, store, out=f"{fresh}/table", batch_size=batch_size)

    return work


def pca(table: str):
    """Principal components of a table in parquet files, and the compressed table."""
    from zoobook import representations

    def work():
        made = representations.compress(table, f"{table}.pca.parquet", n_components=40)
        return {"variance": float(made.explained[:40].sum())}

    return work


def incremental_pca(table: str):
    """The same with scikit-learn's IncrementalPCA."""
    import pyarrow.parquet as pq
    from sklearn.decomposition import IncrementalPCA

    files = sorted(Path(table).glob("*.parquet"))
    names = [name for name in pq.read_schema(files[0]).names if name != "id_str"]

    def pieces():
        for file in files:
            yield pd.read_parquet(file, columns=names).to_numpy()

    def work():
        model = IncrementalPCA(40)
        for piece in pieces():
            if len(piece) >= 40:
                model.partial_fit(piece)
        with tempfile.TemporaryDirectory(dir=Path(table).parent) as folder:
            for number, piece in enumerate(pieces()):
                scores = pd.DataFrame(model.transform(piece), columns=[f"feat_{k}_pca" for k in range(40)])
                scores.to_parquet(f"{folder}/{number}.parquet")
        return {"variance": float(model.explained_variance_ratio_.sum())}

    return work


def search(table: str, queries: int):
    """The ten nearest of some galaxies, from the file."""
    from zoobook import representations

    opened = representations.open(table)
    ids = opened.ids_at(np.linspace(0, len(opened) - 1, queries).astype(int)).tolist()
    del opened
    return lambda: {"found": len(representations.nearest(table, ids, k=10))}


def sklearn_search(table: str, queries: int):
    """The same with scikit-learn, which wants the whole table in memory."""
    from sklearn.neighbors import NearestNeighbors

    def work():
        frame = pd.read_parquet(table)
        features = frame.drop(columns="id_str").to_numpy()
        rows = np.linspace(0, len(features) - 1, queries).astype(int)
        NearestNeighbors(algorithm="brute").fit(features).kneighbors(features[rows], 11)

    return work


def imports(statement: str):
    """A fresh interpreter that runs one statement."""
    return lambda: subprocess.run([sys.executable, "-c", statement], check=True) and None


def rendering(galaxies: int, image_size: int):
    """A simulated survey, files written."""
    from zoobook import simulation

    def work():
        folder = tempfile.mkdtemp()
        simulation.make_survey(folder, galaxies, image_size=image_size, seed=1)
        shutil.rmtree(folder)

    return work


WORKS = (pipeline, warp, loss, step, represent, pca, incremental_pca, search, sklearn_search, imports, rendering)

if __name__ == "__main__":
    serve({work.__name__: work for work in WORKS})
