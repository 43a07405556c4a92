"""What the original Zoobot and galaxy-datasets do in the benchmarks, as their documentation says. Run by bench.py."""
from __future__ import annotations

import logging
import tempfile
import warnings

import numpy as np
import pandas as pd
import torch
from side import serve

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _loader(folder: str, batch_size: int, workers: int, label_cols: list[str]):
    from galaxy_datasets.pytorch.galaxy_datamodule import CatalogDataModule
    from galaxy_datasets.transforms import default_view_config, get_galaxy_transform

    catalog = pd.read_parquet(f"{folder}/catalog.parquet")
    view = default_view_config()
    view.erase_iterations = 0  # zoobook erases nothing, so Zoobot need not either
    module = CatalogDataModule(
        label_cols=label_cols, train_catalog=catalog, val_catalog=catalog, batch_size=batch_size, num_workers=workers,
        train_transform=get_galaxy_transform(view), test_transform=get_galaxy_transform(view),
    )  # fmt: skip
    module.setup("fit")
    return module.train_dataloader()


def pipeline(folder: str, batch_size: int, workers: int):
    """Augmented float batches of one epoch after another; the first warms up and starts the workers."""
    loader = _loader(folder, batch_size, workers, ["votes"])

    def work():
        for batch in loader:
            batch["image"].to(DEVICE, non_blocking=True)

    return work


def loss(batch_size: int, repeats: int, groups: list, exact: list):
    """Forward and backward; and the error at 10^7 votes, in nats, against SciPy in float64."""
    from zoobot.pytorch.training import losses

    pairs = {f"q{q}": [f"_{a}" for a in range(stop - start)] for q, (start, stop) in enumerate(groups)}
    keys = [question + answer for question, answers in pairs.items() for answer in answers]
    function = losses.CustomMultiQuestionLoss(pairs, losses.get_dirichlet_neg_log_prob)
    rng = np.random.default_rng(0)
    found = torch.tensor(1 + 100 * rng.random((batch_size, len(keys))), dtype=torch.float32, device=DEVICE)
    given = torch.tensor(rng.integers(0, 40, (batch_size, len(keys))), dtype=torch.float32, device=DEVICE)
    found.requires_grad_(True)
    targets = dict(zip(keys, given.T, strict=True))
    many = {key: torch.full((1,), 10_000_000) for key in keys}
    at_many = function(torch.full((1, len(keys)), 50.0), many).double().numpy().ravel()

    def work():
        for _ in range(repeats):
            found.grad = None
            function(found, targets).sum(1).mean().backward()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return {"error": float(np.abs(at_many - np.array(exact)).max())}

    return work


def step(folder: str, batch_size: int, workers: int, groups: list, columns: list):
    """Training steps of one epoch, with data."""
    from zoobot.pytorch.estimators import define_model

    pairs = {f"q{q}": [f"_{a}" for a in range(stop - start)] for q, (start, stop) in enumerate(groups)}
    keys = [question + answer for question, answers in pairs.items() for answer in answers]
    encoder = define_model.get_pytorch_encoder("efficientnet_b0", 3)
    head = define_model.get_pytorch_dirichlet_head(1280, len(keys), test_time_dropout=False, dropout_rate=0.2)
    model = torch.nn.Sequential(encoder, head).to(DEVICE)
    function = define_model.get_dirichlet_loss_func(pairs)
    optimizer = torch.optim.AdamW(model.parameters())
    loader = _loader(folder, batch_size, workers, columns)

    def work():
        for batch in loader:
            targets = {key: batch[column].to(DEVICE) for key, column in zip(keys, columns, strict=True)}
            optimizer.zero_grad()
            function(model(batch["image"].to(DEVICE)), targets).sum(1).mean().backward()
            optimizer.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return work


def represent(folder: str, batch_size: int, workers: int):
    """Representations from image files with predict_on_catalog."""
    import timm
    from galaxy_datasets.transforms import get_galaxy_transform, minimal_view_config
    from zoobot.pytorch.predictions import predict_on_catalog
    from zoobot.pytorch.training import finetune

    catalog = pd.read_parquet(f"{folder}/catalog.parquet")
    encoder = timm.create_model("efficientnet_b0", num_classes=0)
    model = finetune.FinetuneableZoobotClassifier(encoder=encoder, num_classes=2)
    model.head = torch.nn.Identity()
    names = [f"feat_{i}" for i in range(1280)]

    def work():
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            predict_on_catalog.predict(
                catalog, model, f"{fresh}/table.csv", names, get_galaxy_transform(minimal_view_config()),
                datamodule_kwargs={"batch_size": batch_size, "num_workers": workers},
                trainer_kwargs={"logger": False, "enable_progress_bar": False, "default_root_dir": fresh},
            )  # fmt: skip

    return work


if __name__ == "__main__":
    serve({work.__name__: work for work in (pipeline, loss, step, represent)})
