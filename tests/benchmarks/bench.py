"""How fast zoobook is, beside the original Zoobot and others, on this machine.

    make bench                                             everything; about an hour on two cores
    python tests/benchmarks/bench.py --quick               small sizes, to see that it works
    python tests/benchmarks/bench.py --only loss search    some measures; the others keep their earlier results

Both sides of a comparison take turns, round by round, on the same data, so that what else the machine does falls on
both; absolute times need a machine that does nothing else (`load` tells). A ratio is the median over the rounds, with
the smallest and the largest. Results go to `tests/benchmarks/results/<date>-<device>.json`, with a figure beside them.
With a GPU the same command uses it.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from side import Side

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OTHER = ROOT / ".venv-zoobot"
ZOOBOOK, ZOOBOT = (Path(sys.executable), HERE / "zoobook_side.py"), (OTHER / "bin/python", HERE / "zoobot_side.py")


@dataclass
class Measure:
    """One measurement."""

    name: str  # short, for the command line
    title: str  # for the table
    items: int  # how many things one round does, or 0 if seconds are what counts
    unit: str  # of the things
    ours: tuple[str, dict]  # work of zoobook and its options
    theirs: tuple | None = None  # side, its name, work and options; nothing: zoobook alone
    floor: float | None = None  # the smallest ratio that is good enough; alone, the smallest rate
    at_most: float | None = None  # most seconds that are good enough
    most_mb: float | None = None  # most memory that is good enough
    rounds: int = 5  # how many, besides one to warm up
    warm: bool = True  # whether to warm up

    def run(self) -> dict:
        """Measure; gives a row of the results."""
        sides = [Side(*ZOOBOOK, *self.ours)]
        if self.theirs:
            sides.append(Side(*self.theirs[0], *self.theirs[2:]))
        rounds = [[side.round() for side in sides] for _ in range(self.rounds + self.warm)][self.warm :]
        for side in sides:
            side.close()
        seconds = np.array([[answer["seconds"] for answer in answers] for answers in rounds])
        row = {"name": self.name, "title": self.title, "unit": self.unit, "items": self.items, "rounds": self.rounds,
               "seconds": float(np.median(seconds[:, 0])), "peak_mb": rounds[-1][0]["peak_mb"],
               "load": os.getloadavg()[0],
               "floor": self.floor, "at_most": self.at_most, "most_mb": self.most_mb}  # fmt: skip
        held = [self.at_most is None or row["seconds"] < self.at_most,
                self.most_mb is None or row["peak_mb"] < self.most_mb]
        if self.theirs:
            ratios = seconds[:, 1] / seconds[:, 0]
            row |= {"other": self.theirs[1], "other_seconds": float(np.median(seconds[:, 1])),
                    "other_peak_mb": rounds[-1][1]["peak_mb"],
                    "ratio": float(np.median(ratios)), "low": float(ratios.min()), "high": float(ratios.max())}
            held.append(self.floor is None or row["ratio"] >= self.floor)
        elif self.floor is not None:
            held.append(self.items / row["seconds"] >= self.floor)
        for who, answer in zip(("ours", "theirs"), rounds[-1], strict=False):
            more = {key: value for key, value in answer.items() if isinstance(value, (int, float))}
            row[f"told_{who}"] = {key: more[key] for key in more.keys() - {"seconds", "peak_mb"}}
        return row | {"holds": bool(all(held))}


def measures(folder: Path, quick: bool) -> dict[str, callable]:
    """By name, functions that make the data of a measure and say what to measure."""
    from zoobook import trees, votes

    tree = trees.load("decals_dr5")
    groups = [list(group) for group in tree.index_groups]
    cores = os.cpu_count()
    few = 2 if quick else 3
    n_images, n_represented, n_steps = (128, 64, 64) if quick else (2048, 128, 64)
    n_table, wide, n_search, n_long = (8192, 256, 20_000, 100_000) if quick else (340_000, 1280, 340_000, 8_700_000)

    def pipeline():
        at = images(folder, n_images)
        return Measure("pipeline", "input pipeline, 424 px files to 224 px batches", n_images, "images",
                       ("pipeline", {"folder": at, "batch_size": 64}),
                       (ZOOBOT, "Zoobot", "pipeline", {"folder": at, "batch_size": 64, "workers": cores}),
                       floor=8, rounds=few)  # fmt: skip

    def limit():
        at = images(folder, n_images)
        return Measure("limit", "the same, against the bare warp of images in memory", n_images, "images",
                       ("pipeline", {"folder": at, "batch_size": 64}),
                       (ZOOBOOK, "bare warp", "warp", {"folder": at, "batch_size": 64}), floor=0.7, rounds=few)

    def loss():
        many, one = np.full((1, len(tree.label_columns)), 1e7), np.full((1, len(tree.label_columns)), 50.0)
        exact = votes.nll(one, many, tree).ravel().tolist()
        size = {"batch_size": 512, "repeats": 300}
        return Measure("loss", "loss and its gradient, 512 galaxies × 34 answers", 300, "batches", ("loss", size),
                       (ZOOBOT, "Zoobot", "loss", size | {"groups": groups, "exact": exact}), floor=4, rounds=2 * few)

    def data():
        at = images(folder, n_images)
        size = {"folder": subset(at, n_steps), "batch_size": 32}
        return Measure("data", "training step with data, against one without", n_steps, "images",
                       ("step", size | {"constant": False}),
                       (ZOOBOOK, "constant batch", "step", size | {"constant": True}), floor=0.95, rounds=few)

    def training():
        size = {"folder": subset(images(folder, n_images), n_steps), "batch_size": 32}
        return Measure("training", "training step, EfficientNet-B0 at 224 px", n_steps, "images",
                       ("step", size | {"constant": False}),
                       (ZOOBOT, "Zoobot", "step",
                        size | {"workers": cores, "groups": groups, "columns": list(tree.label_columns)}),
                       floor=1, rounds=few)  # fmt: skip

    def compiled():
        size = {"folder": subset(images(folder, n_images), n_steps), "batch_size": 32, "constant": True}
        return Measure("compiled", "training step, against a compiled one", n_steps, "images",
                       ("step", size), (ZOOBOOK, "torch.compile", "step", size | {"compiled": True}),
                       floor=0.85, rounds=few)  # fmt: skip

    def represent():
        size = {"folder": subset(images(folder, n_images), n_represented), "batch_size": 64}
        return Measure("represent", "representations from image files, EfficientNet-B0", n_represented, "images",
                       ("represent", size), (ZOOBOT, "Zoobot", "represent", size | {"workers": cores}),
                       floor=2, rounds=few)  # fmt: skip

    def pca():
        at = {"table": table(folder, n_table, wide)}
        return Measure("pca", f"PCA of {n_table:,} × {wide} to 40", n_table, "galaxies", ("pca", at),
                       (ZOOBOOK, "IncrementalPCA", "incremental_pca", at), floor=3, most_mb=600, rounds=1, warm=False)

    def search():
        size = {"table": table(folder, n_search, 40), "queries": 100}
        return Measure("search", f"100 searches in {n_search:,} × 40", 0, "", ("search", size),
                       (ZOOBOOK, "scikit-learn", "sklearn_search", size), at_most=0.2, rounds=few)

    def long_search():
        size = {"table": table(folder, n_long, 40), "queries": 100}
        return Measure("long_search", f"100 searches in {n_long:,} × 40", 0, "", ("search", size),
                       at_most=6, most_mb=600, rounds=2)

    def imports():
        parts = "import torch, timm, pytorch_lightning, pandas"
        ours = "import zoobook.pytorch as zb; zb.train, zb.predict, zb.finetune"
        return Measure("imports", "import of zoobook.pytorch, against that of its parts", 0, "",
                       ("imports", {"statement": ours}), (ZOOBOOK, "its parts", "imports", {"statement": parts}),
                       floor=0.9, rounds=few)  # fmt: skip

    def command():
        return Measure("command", "zoobook --help", 0, "",
                       ("imports", {"statement": "import sys; sys.argv = ['zoobook', '--help']\n"
                                                 "from zoobook.cli import app\ntry: app()\nexcept SystemExit: pass"}),
                       at_most=0.7, rounds=few)  # fmt: skip

    def rendering():
        size = {"galaxies": 300 if quick else 1500, "image_size": 128}
        return Measure("rendering", "simulated galaxies of 128 px, files written", size["galaxies"], "galaxies",
                       ("rendering", size), floor=150, rounds=2)  # fmt: skip

    return {f.__name__: f for f in (pipeline, limit, loss, data, training, compiled, represent, pca, search,
                                    long_search, imports, command, rendering)}  # fmt: skip


def images(folder: Path, n: int) -> str:
    """A catalogue of n images of 424 px, of 64 different simulated galaxies."""
    from PIL import Image

    from zoobook import simulation

    at = folder / f"images-{n}"
    if not (at / "catalog.parquet").exists():
        few = simulation.make_survey(folder / "galaxies", 64, image_size=424, seed=0)
        catalog = few.iloc[np.arange(n) % len(few)].reset_index(drop=True)
        at.mkdir(exist_ok=True)
        files = [at / f"{i}.png" for i in range(n)]
        for source, file in zip(catalog["file_loc"], files, strict=True):
            Image.open(source).convert("RGB").save(file)
        catalog = catalog.assign(id_str=[f"g{i}" for i in range(n)], file_loc=[str(file) for file in files], votes=1)
        catalog.to_parquet(at / "catalog.parquet")
    return str(at)


def subset(at: str, n: int) -> str:
    """The first n images of a catalogue, as one of its own."""
    small = Path(f"{at}-{n}")
    small.mkdir(exist_ok=True)
    pd.read_parquet(f"{at}/catalog.parquet").head(n).to_parquet(small / "catalog.parquet")
    return str(small)


def table(folder: Path, n: int, width: int) -> str:
    """A table of features as `represent` writes it; narrow ones as `compress` does: many correlated features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = folder / f"table-{n}-{width}"
    if not at.exists():
        rng, latent = np.random.default_rng(0), min(60, width)
        mix = (rng.normal(size=(latent, width)) * np.geomspace(1, 0.05, latent)[:, None]).astype(np.float32)
        part, rows = Path(f"{at}.part"), 4096 if width > 40 else 65_536
        part.mkdir()
        for number, start in enumerate(range(0, n, rows)):
            count = min(rows, n - start)
            features = rng.standard_normal((count, latent), np.float32) @ mix
            features += 0.05 * rng.standard_normal((count, width), np.float32)
            ids = pa.array([f"g{i:08d}" for i in range(start, start + count)])
            names = ["id_str", *(f"feat_{i}" for i in range(width))]
            pq.write_table(pa.table([ids, *features.T], names), part / f"{number:05d}.parquet", use_dictionary=False)
        part.rename(at)
    return str(at)


def make_other_environment() -> None:
    """Install the original Zoobot, with the PyTorch that zoobook has here, in a virtual environment of its own."""
    if (OTHER / ".ready").exists():
        return
    same = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision", "timm", "numpy")]
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(OTHER)], check=True)
    subprocess.run([*uv, "pip", "install", "--python", str(OTHER / "bin/python"), "zoobot[pytorch]==2.9.0",
                    "galaxy-datasets==0.0.25", *same], check=True)  # fmt: skip
    (OTHER / ".ready").touch()


def machine() -> tuple[str, str]:
    """Short and long name of the kind of this machine."""
    import torch

    if torch.cuda.is_available():
        return "gpu", f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores"
    return "cpu", f"{os.cpu_count()} CPU cores, {platform.machine()}"


def draw(results: dict, path: Path) -> None:
    """The ratios as a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from zoobook import plots

    figure = plots.benchmarks(results)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes; results go to _build/benchmarks")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these measures")
    options = parser.parse_args()
    make_other_environment()
    kind, device = machine()
    home = ROOT / "_build/benchmarks" if options.quick else HERE / "results"
    home.mkdir(parents=True, exist_ok=True)
    today = datetime.date.today().isoformat()
    file = home / f"{today}-{kind}.json"
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    folder = ROOT / "_build/benchmarks/data"  # kept, so that the next run need not make it; `make clean` deletes it
    folder.mkdir(parents=True, exist_ok=True)
    known = measures(folder, options.quick)
    for name in options.only or known:
        row = rows[name] = known[name]().run()
        ratio = "{ratio:.2f} × {other} ({low:.2f} to {high:.2f})".format(**row) if "ratio" in row else "alone"
        print(f"{row['title']}: {row['seconds']:.3g} s, {row['peak_mb']:.0f} MB, {ratio}"
              f"{'' if row['holds'] else ', WHICH IS NOT ENOUGH'}", flush=True)
        versions = {name: version(name) for name in ("zoobook", "torch", "timm", "numpy", "scikit-learn")}
        results = {"date": today, "machine": device, "quick": options.quick,
                   "versions": versions | {"zoobot": "2.9.0"},
                   "rows": [rows[name] for name in known if name in rows]}  # fmt: skip
        file.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, file.with_suffix(".svg"))
    return int(not all(row["holds"] for row in results["rows"]))


if __name__ == "__main__":
    sys.exit(main())
