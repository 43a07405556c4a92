"""Make the encoder that comes with zoobook: simulate a survey, train on it in stages, measure what was learned.

    python book/encoder/make_encoder.py FOLDER                      takes hours; the same command goes on
    python book/encoder/make_encoder.py FOLDER --settings mine.yaml

FOLDER then holds `encoder.safetensors` (half precision, for both frameworks) and `training.json` (what was learned, at
what cost). `measure.py` measures the encoder on real galaxies.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from lessons import add_lessons, lesson_tree

import zoobook
from zoobook import catalogs, evaluation, simulation, trees, weights
from zoobook.files import atomic_write
from zoobook.images import ImageStore
from zoobook.images.views import share_seen
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.engine import Twin
from zoobook.learning.models import GalaxyNetwork

SHOWN = ["galaxies", "information_captured", "information_captured_error", "coverage_90"]
SETTINGS = Path(__file__).with_name("encoder.yaml")
MEAN, VARIANCE = ".running_mean", ".running_var"


def survey(folder: Path, options: dict) -> tuple[pd.DataFrame, ImageStore]:
    """Simulated galaxies with all that they can teach, and their images; what is on disk is not made again."""
    catalog = simulation.make_survey(folder, **options)
    size = options["image_size"]
    path = folder / f"survey-{options['seed']}-{options['n_galaxies']}-{size}.arrow"
    store = ImageStore.build(catalog, path, size=size, bad="quarantine")  # one blank image does not stop it
    catalog = catalog[catalog["id_str"].isin(store.ids)].reset_index(drop=True)
    return add_lessons(catalog), store


def train(folder: Path, settings: dict, framework: str) -> Iterator[tuple[object, pd.DataFrame, int]]:
    """Go through the stages, each from where the one before has arrived; in some the head learns alone.

    Yields:
        tuple: after each stage the model, the stage's epochs, and how many galaxies taught it.
    """
    model = None
    for number, stage in enumerate(settings["stages"]):
        options = settings["training"] | stage | (settings["model"] if model is None else {})
        drawn = settings["survey"] | {"n_galaxies": options.pop("n_galaxies")}
        catalog, store = survey(folder, drawn | {"image_size": options.pop("stamp", drawn["image_size"])})
        catalog = catalogs.split(catalog, settings["fractions"])
        twin, tree, out_dir = zoobook.load_framework(framework), lesson_tree(), folder / f"stage-{number}"
        head_alone = options.pop("head_alone", False)
        if head_alone:  # which may have another range from here on; the encoder stays as it is
            spec = model.spec | {"head": model.spec["head"] | {"lowest": options.pop("lowest")}}
            ranged = twin.models.from_arrays(spec, model.to_arrays())
            result = twin.finetune(ranged, store, catalog, tree, out_dir=out_dir, **options)
        else:
            result = twin.train(store, catalog, tree, model=model, out_dir=out_dir, **options)
        model = result.model
        learned = np.flatnonzero(catalog["subset"] == "train")[: settings["batchnorm_galaxies"]]
        if not head_alone:
            model = recompute_batchnorm_stats(twin, model, store, learned, photometric=options["photometric"])
        epochs = result.history.assign(stage=number, image_size=model.spec["image_size"])
        yield model, epochs, int((catalog["subset"] == "train").sum())


def recompute_batchnorm_stats(
    twin: Twin,
    model: GalaxyNetwork,
    store: ImageStore,
    rows: np.ndarray,
    *,
    batch_size: int = 512,
    photometric: bool = False,
    seed: int = 0,
) -> GalaxyNetwork:
    """A model whose batch normalisation knows many galaxies, not the few dozen of a training's last batches.

    Training keeps running averages over about ten batches. A rare galaxy that excites one filter strongly, such as a
    disk seen edge-on at one angle, is mostly not among them; in evaluation it is then divided by too small a number,
    and its features are many times too large ("precise" batch normalisation, Wu & Johnson 2021, arXiv:2105.07576).

    The images are of galaxies as it has learned from, in these rows of the store; views vary as in the training.
    """
    spec, arrays = model.spec, model.to_arrays()
    means = [name for name in arrays if name.startswith("encoder.") and name.endswith(MEAN)]
    unknown = arrays | {name: np.zeros_like(arrays[name]) for name in means}
    other = twin.models.from_arrays(spec, unknown)
    share = share_seen(spec, store)
    batches = GalaxyBatches(store.pixels, rows, batch_size, seed=seed, share=share, photometric=photometric)
    moments: dict[str, np.ndarray] = {}  # weighted sums of means and mean squares
    for images, views in twin.engine.GalaxyLoader(batches):
        other.set_arrays(unknown)
        seen = twin.models.apply_view(images, views, spec["channels"], spec["image_size"], share)
        twin.models.initialize_batchnorm_stats(other, seen)
        found, weight = other.to_arrays(), len(images) / len(rows)
        for mean in means:
            variance = mean.removesuffix(MEAN) + VARIANCE
            first = found[mean].astype(np.float64)
            moments[mean] = moments.get(mean, 0) + weight * first
            moments[variance] = moments.get(variance, 0) + weight * (found[variance] + first**2)
    for mean in means:
        variance = mean.removesuffix(MEAN) + VARIANCE
        moments[variance] = moments[variance] - moments[mean] ** 2
    return twin.models.from_arrays(spec, arrays | {name: x.astype(np.float32) for name, x in moments.items()})


def measure(folder: Path, model, settings: dict, framework: str) -> pd.DataFrame:
    """What a model has learned of the DR5 tree, on galaxies of another seed."""
    catalog, store = survey(folder, settings["test"])
    predictions = zoobook.load_framework(framework).predict(model, store)
    return evaluation.evaluate(predictions, catalog, trees.load("decals_dr5"))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where everything goes; it needs some 12 GB")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="another file than encoder.yaml")
    parser.add_argument("--framework", choices=list(zoobook.FRAMEWORKS), default="pytorch")
    chosen = parser.parse_args()
    settings, folder = yaml.safe_load(chosen.settings.read_text("utf8")), chosen.folder.expanduser().absolute()
    history, growth = [], []
    for model, epochs, galaxies in train(folder, settings, chosen.framework):
        history += epochs[epochs["epoch"] >= 0].to_dict("records")  # without what a head began with
        scores = measure(folder, model, settings, chosen.framework)
        hours = round(sum(epoch["seconds"] for epoch in history) / 3600, 2)
        captured = scores.loc["all", "information_captured"]
        growth.append({"galaxies": galaxies, "image_size": model.spec["image_size"], "hours": hours,
                       "captured": captured})  # fmt: skip
        print(f"{growth[-1]}\n{scores[SHOWN].round(3).to_string()}", flush=True)
    file = folder / "encoder.safetensors"
    weights.save(
        model, file, half=True, licence="BSD-3-Clause", made=str(date.today()),
        data=f"{galaxies:,} galaxies of zoobook's simulated survey, version {simulation.VERSION}; no real galaxy",
    )  # fmt: skip
    report = {
        "made": str(date.today()), "weights": {"name": file.stem, "sha256": sha256(file.read_bytes()).hexdigest()},
        "settings": settings, "galaxies": galaxies, "hours": hours, "history": history,
        "growth": growth, "scores": scores[SHOWN].astype(object).where(scores[SHOWN].notna(), None).to_dict("index"),
    }  # fmt: skip
    atomic_write(folder / "training.json", json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
