"""How well can the number of spiral arms be known? What observers capture of it who are told more than a network is.

Run: python tests/benchmarks/bench_arms.py --out zoobook/weights/shipped/arms.json [--root FOLDER]

They answer like a network, with a concentration for each answer, and learn from simulated galaxies how to; they are
asked about galaxies of another seed. One observer is told the truth about a galaxy, all but the number of its arms.
Another also sees its picture, turned face-on by the true inclination, as Fourier amplitudes around the centre. The last
is told the number, too: what is not captured then is what such a small network cannot learn.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import map_coordinates
from torch import nn

import zoobook.pytorch as zb
from zoobook import evaluation, simulation, trees
from zoobook.files import atomic_write
from zoobook.images import ImageStore
from zoobook.simulation.truth import truth_table
from zoobook.simulation.volunteers import visibility

LEARN = {"n_galaxies": 45000, "image_size": 160, "seed": 100}
TEST = {"n_galaxies": 6000, "image_size": 128, "seed": 200}
QUESTION, LOWEST, HIGHEST = "spiral-arm-count", 0.05, 101
RADII = np.geomspace(0.6, 4, 20)  # scale lengths of the disk
ANGLES = np.linspace(0, 2 * np.pi, 64, endpoint=False)
ARMS = np.arange(1, 9)
EPOCHS, BATCH, WIDTH, DROPOUT, RATE, DECAY = 15, 256, 128, 0.3, 2e-3, 0.3
OBSERVERS = {"told": ["truth"], "sees": ["truth", "spectrum"], "told_number": ["truth", "number"]}


def question() -> trees.DecisionTree:
    """The one question, as a tree of its own."""
    spec = trees.load("decals_dr5").to_dict()
    (alone,) = (one for one in spec["questions"] if one["name"] == QUESTION)
    return trees.DecisionTree.from_dict({**spec, "questions": [{"name": QUESTION, "answers": alone["answers"]}]})


def spectra(pixels: np.ndarray, t: dict) -> np.ndarray:
    """Amplitudes of 1 to 8 arms in a galaxy seen face-on: at each radius, their mean, and along the true pitch angle.

    Args:
        pixels: uint8 [H, W, 3].
        t: its truth.
    """
    grey = pixels.astype(np.float32).mean(-1)
    sky, centre, scale = np.median(grey[[0, -1]]), (len(grey) - 1) / 2, len(grey) / t["frame_arcsec"]
    turn, ratio = np.deg2rad(t["pa_deg"]), max(np.cos(np.deg2rad(t["inclination_deg"])), 0.25)
    major = scale * t["disk_scale_arcsec"] * RADII[:, None] * np.cos(ANGLES)
    minor = scale * t["disk_scale_arcsec"] * RADII[:, None] * np.sin(ANGLES) * ratio
    x, y = major * np.cos(turn) - minor * np.sin(turn), major * np.sin(turn) + minor * np.cos(turn)
    rings = map_coordinates(grey, [centre + y, centre + x], order=1, mode="nearest") - sky
    mean = rings.mean(1, keepdims=True)
    waves = np.fft.rfft((rings - mean) / (np.abs(mean) + 4))[:, ARMS] / len(ANGLES)
    wound = np.log(RADII)[:, None] * ARMS / np.tan(np.deg2rad(max(t["arm_pitch_deg"], 4)))
    along = [np.abs((waves * np.exp(sign * 1j * wound)).mean(0)) for sign in (1, -1)]
    return np.log(np.concatenate([np.abs(waves).ravel(), np.abs(waves).mean(0), *along]) + 1e-3)


def known(root: Path, options: dict, tree: trees.DecisionTree) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Galaxies whose arms somebody counted, and what observers may know of them."""
    catalog = simulation.make_survey(root, **options)
    path = root / f"survey-{options['seed']}-{options['n_galaxies']}-{options['image_size']}.arrow"
    store = ImageStore.build(catalog, path, size=options["image_size"], bad="quarantine")
    counted = catalog["id_str"].isin(store.ids) & (catalog[tree.label_columns].sum(axis=1) > 0)
    catalog = catalog[counted].reset_index(drop=True)
    t, seen = truth_table(catalog), visibility(catalog)
    told = [t["flocculence"], np.log(np.maximum(t["arm_pitch_deg"], 4)), *(seen[name] for name in seen)]
    names = ("frame_arcsec", "pa_deg", "inclination_deg", "disk_scale_arcsec", "arm_pitch_deg")
    galaxies = pd.DataFrame({name: np.asarray(t[name], float) for name in names}).to_dict("records")
    pictures = (store.pixels[row] for row in store.rows(catalog["id_str"]))
    return catalog, {
        "truth": np.nan_to_num(np.column_stack(told).astype(float)),
        "number": np.eye(7)[np.clip(np.asarray(t["arm_count"], int), 0, 6)],
        "spectrum": np.array([spectra(picture, one) for picture, one in zip(pictures, galaxies, strict=True)]),
    }


def captured(learn: tuple, test: tuple, what: list[str], tree: trees.DecisionTree) -> dict:
    """Information captured of the test galaxies by an observer who knows this of them."""
    (catalog, given), (others, asked) = learn, test
    inputs, outputs = (np.hstack([one[name] for name in what]) for one in (given, asked))
    mean, scatter = inputs.mean(0), inputs.std(0) + 1e-6
    inputs, outputs = (torch.tensor((one - mean) / scatter, dtype=torch.float32) for one in (inputs, outputs))
    votes = torch.tensor(catalog[tree.label_columns].to_numpy(np.float32))
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Dropout(0.1)]
    for width in (inputs.shape[1], WIDTH):
        layers += [nn.Linear(width, WIDTH), nn.SiLU(), nn.Dropout(DROPOUT)]
    observer = nn.Sequential(*layers, nn.Linear(WIDTH, len(tree.label_columns)), nn.Sigmoid())
    steps = EPOCHS * (len(votes) // BATCH)
    optimizer = torch.optim.AdamW(observer.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        if step % (len(votes) // BATCH) == 0:
            order = torch.randperm(len(votes)).split(BATCH)
        batch = order[step % (len(votes) // BATCH)]
        concentrations = LOWEST + (HIGHEST - LOWEST) * observer(inputs[batch])
        optimizer.zero_grad()
        zb.dirichlet_multinomial_nll(concentrations, votes[batch], tree).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        answers = LOWEST + (HIGHEST - LOWEST) * observer.eval()(outputs).double().numpy()
    predictions = pd.DataFrame(answers, columns=[f"{column}_concentration" for column in tree.label_columns])
    predictions.insert(0, "id_str", others["id_str"])
    score = evaluation.evaluate(predictions, others, tree).loc["all"]
    return {"value": round(score["information_captured"], 3), "error": round(score["information_captured_error"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="the results file, JSON")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "zoobook-arms",
                        help="folder for the survey; it needs some 5 GB (%(default)s)")  # fmt: skip
    chosen, tree = parser.parse_args(), question()
    learn, test = (known(chosen.root, options, tree) for options in (LEARN, TEST))
    found = {
        "date": date.today().isoformat(), "simulation": simulation.VERSION,
        "learn": len(learn[0]), "test": len(test[0]),
        "captured": {name: captured(learn, test, what, tree) for name, what in OBSERVERS.items()},
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    atomic_write(chosen.out, json.dumps(found, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
