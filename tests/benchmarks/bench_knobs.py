"""How much each knob of a training matters: the figures that the guide "Which knob?" shows.

    python tests/benchmarks/bench_knobs.py [--real ../shared/real] [--out FILE] [--work FOLDER] [--workers N] [--quick]

Rings are sought among simulated galaxies and, where the folder of real ones is, in EFIGI (SDSS). One knob is turned,
the others stay as they are. PyTorch, on the CPU, one training on each core at a time: on two cores these are the same
trainings as before in less time, as a small network gains little from a second one. What is in the work folder is not
computed again, so an interrupted run goes on; another encoder has a folder of its own there, and what does not depend
on it (the network learned from scratch) is kept for all.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
import torch

import zoobook.pytorch as zb
from zoobook import chapters, evaluation, votes, weights
from zoobook.files import atomic_write, fingerprint
from zoobook.images import ImageStore, views
from zoobook.trees import load as load_tree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/encoder"))
import measure  # noqa: E402  its galaxies, labels and regression

OUT = ROOT / "zoobook/weights/shipped/knobs.json"
LABELS, DRAWS, TEST = 160, 5, 400  # labels to learn from, how often they are drawn, galaxies to test with at most
COUNTS = (20, 40, 80, 160, 320)
WRONG = (0.0, 0.1, 0.2, 0.3, 0.4)  # share of the labels that say the opposite
RATES = (1e-4, 1e-3, 1e-2, 1e-1)
VIEWS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # fields of view, in units of the one that the encoder was trained with
TUNED = {"epochs": 8, "patience": 8, "batch_size": 32, "devices": "cpu"}
TUNINGS = 2  # draws of the labels to fine-tune with
SMALL = {"architecture": "test_efficientnet", "channels": 1, "image_size": 32, "field_of_view": 8.5, "devices": "cpu"}


@dataclass(frozen=True)
class Question:
    """Galaxies with a yes or no each."""

    catalog: pd.DataFrame
    store: ImageStore
    labels: np.ndarray  # float [N] of 0 and 1, in the order of the store
    fit: np.ndarray  # rows to learn from
    test: np.ndarray  # rows to test with
    tested: ImageStore  # their images alone

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Some rows to learn from, rings and others in the same proportion."""
        return self.fit if count >= len(self.fit) else measure.draw("auc", self.labels, self.fit, count, seed)

    def auc(self, scores: np.ndarray) -> float:
        """Of scores of the rows to test with."""
        return measure.score("auc", self.labels[self.test], scores)


def simulated(run: chapters.Run, work: Path) -> Question:
    """Rings of the simulated survey, as chapter 4 has them."""
    catalog, store = run.rings()
    catalog = catalog.set_index("id_str").loc[store.ids].reset_index()
    of_test = (catalog["subset"] == "test").to_numpy()
    fit, test = np.flatnonzero(~of_test), np.flatnonzero(of_test)[:TEST]
    tested = ImageStore.build(catalog.loc[test], work / "rings.arrow", store.size, framing=store.framing)
    return Question(catalog, store, catalog["ring"].to_numpy(float), fit, test, tested)


def efigi(real: Path, work: Path) -> Question:
    """Rings that ten astronomers saw in images of SDSS."""
    catalog = pd.read_csv(real / "efigi" / "catalog.csv")
    catalog.insert(0, "id_str", catalog.pop(catalog.columns[0]).astype(str))
    catalog["file_loc"] = [str(real / "efigi" / name) for name in catalog["file_loc"]]
    labels = measure.ROWS["efigi_ring"].label(catalog).to_numpy(float)
    chosen = [part[np.isfinite(labels[part])] for part in measure.split("efigi", len(catalog))]
    fit, test = chosen[0][: 2 * max(COUNTS)], chosen[1][:TEST]
    rows = np.concatenate([fit, test])
    catalog = catalog.loc[rows].reset_index(drop=True)
    store = ImageStore.build(catalog, work / "efigi.arrow", 88, framing=measure.FRAMING["efigi"])
    fit, test = np.arange(len(fit)), np.arange(len(fit), len(rows))
    tested = ImageStore.build(catalog.loc[test], work / "efigi-test.arrow", 88, framing=store.framing)
    return Question(catalog, store, labels[rows], fit, test, tested)


def told(values: list[float]) -> dict:
    """The mean of what several draws of the labels gave, and how much they differ."""
    return {"value": float(np.mean(values)), "spread": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def frozen(question: Question, features: np.ndarray, count: int = LABELS, wrong: float = 0.0) -> dict:
    """AUC of a regression on frozen features."""
    found = []
    for seed in range(DRAWS):
        few, labels = question.draw(count, seed), question.labels.copy()
        flipped = np.random.default_rng(seed).permutation(few)[: round(wrong * len(few))]
        labels[flipped] = 1 - labels[flipped]
        found.append(question.auc(measure.learn_and_guess("auc", features, labels, few, question.test)))
    return told(found)


def tuned_once(
    question: Question, model, work: Path, rate: float, unfreeze: str, kind: str, seed: int
) -> tuple[float, float]:
    """AUC after a fine-tuning, and the validation loss of the last epoch over that of the start; computed once."""
    out = work / f"{rate:g}-{unfreeze}-{kind}-{seed}"
    done = out / "found.json"
    if not done.exists():
        few = question.draw(LABELS, seed)
        catalog = question.catalog.loc[few, ["id_str"]].assign(ring=question.labels[few].astype(int), subset="train")
        catalog.iloc[::4, catalog.columns.get_loc("subset")] = "val"
        with patch.object(views, "views", upright) if kind == "upright" else contextlib.nullcontext():
            result = zb.finetune(
                model, question.store, catalog, "ring", unfreeze=unfreeze, learning_rate=rate,
                photometric=kind == "photometric", seed=seed, out_dir=out, **TUNED,
            )  # fmt: skip
            answers = zb.predict(result.model, question.tested, devices="cpu")
        auc = question.auc(answers["ring_probability"].to_numpy())
        rose = float(result.history["val_loss"].iloc[-1] - result.history["val_loss"].iloc[0])
        atomic_write(done, json.dumps([auc, rose]))
    return tuple(json.loads(done.read_text()))


def tuned(question: Question, model, work: Path, settings: list[tuple], workers: int) -> list[dict]:
    """For each setting (rate, what is unfrozen, kind of views) the AUC of several draws, on several cores."""
    tasks = [(*setting, seed) for setting in settings for seed in range(TUNINGS)]
    pool = joblib.Parallel(workers, batch_size=1)
    found = pool(joblib.delayed(single)(tuned_once, question, model, work, *task) for task in tasks)
    parts = [found[start : start + TUNINGS] for start in range(0, len(found), TUNINGS)]
    return [told([auc for auc, _ in part]) | {"loss_rose_by": float(np.mean([rose for _, rose in part]))}
            for part in parts]  # fmt: skip


def single(work: Callable, *args):
    """What a function gives, on one core."""
    torch.set_num_threads(1)
    return work(*args)


def upright(n: int, seed: int, epoch: int, share: float = 1.0, photometric: bool = False) -> np.ndarray:
    """In place of random views: always the same, central and upright one."""
    return views.centre_views(n, share)


def turn_knobs(question: Question, encoder, untrained, work: Path, workers: int) -> dict:
    """Every knob, turned alone."""
    share = views.share_seen(encoder.spec, question.store)

    def represent(model) -> np.ndarray:
        return zb.represent(model, question.store, devices="cpu").drop(columns="id_str").to_numpy()

    def kept(name: str, make: Callable) -> np.ndarray:
        return measure.kept(work / f"{name}.npy", make)

    def seen(factor: float) -> np.ndarray:
        spec = {**encoder.spec, "field_of_view": factor * encoder.spec["field_of_view"]}
        return represent(zb.models.from_arrays(spec, zb.models.to_arrays(encoder)))

    features = kept("shipped", lambda: represent(encoder))
    found: dict = {
        "encoder": {
            "shipped": frozen(question, features),
            "untrained": frozen(question, kept("untrained", lambda: represent(untrained))),
            "none: radial profiles": frozen(question, measure.profiles(question.store, share, colour=False)),
            "none: pixels": frozen(question, kept("pixels", lambda: measure.pixels(question.store, share))),
        },
        "labels": {str(count): frozen(question, features, count) for count in COUNTS},
        "wrong labels": {f"{share:g}": frozen(question, features, wrong=share) for share in WRONG},
        "field of view": {
            f"{factor:g}": frozen(
                question, features if factor == 1 else kept(f"view-{factor}", lambda factor=factor: seen(factor))
            )
            for factor in VIEWS
        },
    }
    print("frozen features: done", flush=True)
    settings = [(rate, "all", "turned") for rate in RATES]
    settings += [(1e-3, part, "turned") for part in ("head", "top")]
    settings += [(1e-3, "all", kind) for kind in ("upright", "photometric")]
    *rates, head, top, still, other = tuned(question, encoder, work, settings, workers)
    found["learning rate"] = {f"{rate:g}": one for rate, one in zip(RATES, rates, strict=True)}
    usual = found["learning rate"]["0.001"]
    found["unfreeze"] = {"head": head, "top": top, "all": usual}
    found["augmentation"] = {"none": still, "turned": usual, "other telescopes": other}
    return found


def learned(
    store: ImageStore, few: pd.DataFrame, test: pd.DataFrame, constant: np.ndarray, work: Path, epochs: int, rate: float
) -> float | None:
    """Information captured by a small network that learns the votes at a rate, or None; computed once."""
    done = work / f"rate-{rate:g}.json"
    if not done.exists():
        tree = load_tree(chapters.TREE)
        looked_at = ImageStore.build(test, work / f"test-{rate:g}.arrow", store.size, framing=store.framing)
        settings = {**SMALL, "batch_size": 64, "epochs": epochs}
        try:
            model = zb.train(store, few, tree, learning_rate=rate, out_dir=work / f"rate-{rate:g}", **settings).model
            scores = evaluation.evaluate(zb.predict(model, looked_at, devices="cpu"), test, tree, baseline=constant)
            value = float(scores.loc["all", "information_captured"])
        except ValueError as error:  # the loss is not a number any more
            print(rate, error, flush=True)
            value = None
        atomic_write(done, json.dumps(value))
    return json.loads(done.read_text())


def from_scratch(run: chapters.Run, work: Path, quick: bool, workers: int) -> dict:
    """A small network that learns the votes of simulated galaxies: information captured, by the learning rate."""
    catalog, store = run.survey()
    tree = load_tree(chapters.TREE)
    parts = {name: catalog[catalog["subset"] == name] for name in ("train", "val", "test")}
    few, test = pd.concat([parts["train"].iloc[:2000], parts["val"].iloc[:400]]), parts["test"].iloc[:TEST]
    constant, epochs = votes.fit_constant(parts["train"][tree.label_columns].to_numpy(), tree), 1 if quick else 5
    work = work / fingerprint(SMALL, epochs, few, test, version("timm"), version("torch"))[:12]
    work.mkdir(parents=True, exist_ok=True)
    rates = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    pool = joblib.Parallel(workers, batch_size=1)
    values = pool(joblib.delayed(single)(learned, store, few, test, constant, work, epochs, rate) for rate in rates)
    return {"learning rate": {f"{rate:g}": value for rate, value in zip(rates, values, strict=True)}}


def main() -> None:
    """Measure, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=ROOT.parent / "shared/real")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, help="folder for what is computed on the way; else a passing one")
    parser.add_argument("--workers", type=int, default=-1, help="processes; all processor cores by default")
    parser.add_argument("--quick", action="store_true", help="too little to mean anything, to see that it runs")
    chosen = parser.parse_args()
    if chosen.quick:
        globals().update(DRAWS=1, TUNINGS=1, COUNTS=(20, 40), WRONG=(0.0,), RATES=(1e-3,), VIEWS=(1.0,), TEST=60)
        TUNED["epochs"] = 1
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = chosen.work or Path(folder)
        run = chapters.begin("pytorch", "simulated", "quick")
        encoder = weights.load(chapters.ENCODER, "pytorch")
        torch.manual_seed(0)
        untrained = zb.models.GalaxyModel(encoder.spec).eval()
        questions, real = {"simulated": simulated(run, work)}, chosen.real / "efigi" / "catalog.csv"
        file = weights.find_shipped(chapters.ENCODER)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        own = work / fingerprint(sha256, TUNED, DRAWS, TEST, Path(__file__).read_text("utf8"))[:12]
        for name in ("simulated", "efigi"):
            (own / name).mkdir(parents=True, exist_ok=True)
        if real.exists():
            questions["efigi"] = efigi(chosen.real, work)
        workers = chosen.workers
        knobs = {name: turn_knobs(one, encoder, untrained, own / name, workers) for name, one in questions.items()}
        scratch = from_scratch(run, work / "scratch", chosen.quick, workers)
    counts = {name: {"fit": len(one.fit), "test": len(one.test)} for name, one in questions.items()}
    found = {
        "date": str(date.today()), "seconds": round(time.perf_counter() - start), "galaxies": counts,
        "weights": {"name": chapters.ENCODER, "sha256": sha256},
        "protocol": {"labels": LABELS, "draws": DRAWS, "tunings": TUNINGS, "epochs": TUNED["epochs"]},
        "versions": {name: version(name) for name in ("zoobook", "torch", "timm", "scikit-learn", "numpy")},
        "knobs": knobs, "scratch": scratch,
    }  # fmt: skip
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{chosen.out}: written after {found['seconds']} s")


if __name__ == "__main__":
    main()
