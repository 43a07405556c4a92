"""How many labels does it take? Asked at random, and asked by the loop of `zoobook.representations.asking`.

Run: python tests/benchmarks/bench_loop.py --real ../shared/real --out zoobook/weights/shipped/loop.json [--workers 2]

Simulated rings, one galaxy in 50; rings and bars of real galaxies (EFIGI), one in ten, and the rings of DECaLS as they
come. Each seed is another split into galaxies to ask about and to test, and another start. The score is the average
precision on the test galaxies. Without `--real`, only simulated galaxies. Images, features and each finished seed are
kept in the folder `--root`, so an interrupted run goes on; another encoder, or a change of this file, begins anew.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

import zoobook
from zoobook import catalogs, datasets, representations, trees, weights
from zoobook.files import atomic_write, fingerprint
from zoobook.images import ImageStore
from zoobook.representations import asking

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book/encoder"))
import measure  # noqa: E402

ENCODER = "simulated_efficientnet_b0"
SURVEYS, GALAXIES = (0, 200), 6000  # seeds of surveys that the encoder has not learned from, and galaxies of each
SEEDS = range(5)
TEST_SHARE = 0.4
RANDOM = (50, 100, 150, 200, 300, 400, 500, 700, 1000)  # labels
START, BATCH = 50, 25


def simulated(root: Path, model) -> tuple[np.ndarray, np.ndarray]:
    """Features of simulated galaxies, and which of them more than a quarter of the volunteers called a ring."""
    found = []
    for seed in SURVEYS:
        catalog = datasets.load("simulated", root=root, n_galaxies=GALAXIES, seed=seed)
        store = ImageStore.build(catalog, root / f"loop-{seed}-{GALAXIES}.arrow", 128)
        ring = catalogs.vote_fraction(catalog, trees.load("decals_dr5"), "rare-features_ring")
        found.append((features(root, store, model), (np.nan_to_num(ring) > 0.25).astype(int)))
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def features(root: Path, store: ImageStore, model) -> np.ndarray:
    import zoobook.pytorch as zb

    key = fingerprint(model.spec, *zb.models.to_arrays(model).values(), store.ids.tolist(), store.framing)[:12]
    return measure.kept(root / f"loop-{key}.npy", lambda: measure.represent(store, model))


def thinned(labels: np.ndarray, one_in: float | None, rng: np.random.Generator) -> np.ndarray:
    """Rows of which one in so many is what is sought; all that have a label, if None."""
    rare, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if one_in and len(rare) > len(others) / (one_in - 1):
        rare = rng.choice(rare, round(len(others) / (one_in - 1)), replace=False)
    return rng.permutation(np.r_[rare, others])


def one_seed(values: np.ndarray, labels: np.ndarray, one_in: float | None, seed: int, most: int, work: Path) -> dict:
    """Average precision by the number of labels, at random and by the loop; and where the loop would have stopped."""
    rng = np.random.default_rng(seed)
    rows = thinned(labels, one_in, rng)
    tested = [part[: int(TEST_SHARE * len(part))] for kind in (1, 0) for part in [rows[labels[rows] == kind]]]
    test = np.concatenate(tested)
    pool = rng.permutation(rows[~np.isin(rows, test)])
    names = np.array([f"g{row}" for row in range(len(labels))])
    table = pd.DataFrame(values[rows], columns=[f"feat_{k}" for k in range(values.shape[1])])
    table.insert(0, "id_str", names[rows])
    table.to_parquet(work / "features.parquet")
    few = representations.compress(work / "features.parquet", work / "compressed.parquet").path
    of_test = set(names[test])

    def learn(known: np.ndarray) -> tuple[float, pd.DataFrame]:
        scores = asking.classify(few, dict(zip(names[known], labels[known].tolist(), strict=True)), "rare")
        judged = scores[scores["id_str"].isin(of_test)].set_index("id_str").loc[names[test], "rare_probability"]
        return average_precision_score(labels[test], judged), scores[~scores["id_str"].isin(of_test)]

    found: dict = {"random": {}, "loop": {}, "rare": {}, "stop": None}
    for count in [n for n in RANDOM if n <= min(1000, len(pool))]:
        if len(np.unique(labels[pool[:count]])) == 2:
            found["random"][count] = learn(pool[:count])[0]
    known, rounds = pool[: min(START, len(pool) // 4)], []
    while len(known) <= most:
        if len(np.unique(labels[known])) < 2:  # nothing to learn from yet: go on at random
            known = pool[: len(known) + BATCH]
            continue
        score, scores = learn(known)
        rounds.append(scores)
        found["loop"][len(known)], found["rare"][len(known)] = score, int(labels[known].sum())
        if found["stop"] is None and asking.settled(rounds):
            found["stop"] = len(known)
        batch = asking.ask(few, scores, BATCH)
        if batch.empty:
            break
        known = np.r_[known, [int(name[1:]) for name in batch["id_str"]]]
    return found | {"pool": len(pool), "test": len(test), "test_rare": int(labels[test].sum())}


def kept_seed(root: Path, key: str, values: np.ndarray, labels: np.ndarray, one_in: float | None, most: int, seed: int):
    """What :func:`one_seed` finds, computed once."""
    code = [Path(file).read_text("utf8") for file in (__file__, asking.__file__)]
    file = root / f"loop-{key}-{seed}-{fingerprint(code, values, labels, one_in, most)[:12]}.pickle"
    if not file.exists():
        with tempfile.TemporaryDirectory() as work:
            found = one_seed(values, labels, one_in, seed, most, Path(work))
        atomic_write(file, pickle.dumps(found))
    return pickle.loads(file.read_bytes())


def curve(seeds: list[dict], one_in: float | None) -> dict:
    """Mean and spread over the seeds."""
    found = {key: seeds[0][key] for key in ("pool", "test", "test_rare")} | {"one_in": one_in, "seeds": len(seeds)}
    for how in ("random", "loop", "rare"):
        counts = sorted(set.union(*(set(one[how]) for one in seeds)))
        by = {count: [one[how][count] for one in seeds if count in one[how]] for count in counts}
        found[how] = [
            {"labels": n, "value": float(np.mean(v)), "spread": float(np.std(v, ddof=1)), "seeds": len(v)}
            for n, v in by.items() if len(v) == len(seeds)  # those that had bad luck count as well
        ]  # fmt: skip
    last = found["random"][-1]
    above = [one["value"] >= last["value"] for one in found["loop"]]
    reached = [one["labels"] for place, one in enumerate(found["loop"]) if all(above[place:])]  # and stays there
    each = []
    for one in seeds:
        goal = one["random"][max(one["random"])]
        each.append(min((n for n, value in one["loop"].items() if value >= goal), default=None))
    stops = [one["stop"] for one in seeds]
    return found | {"goal": last, "reached": min(reached, default=None), "reached_each": each, "stops": stops}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=datasets.home(), help="folder of the simulated galaxies")
    parser.add_argument("--real", type=Path, help="folder with `efigi` and `rings`")
    parser.add_argument("--out", type=Path, required=True, help="the results file, JSON")
    parser.add_argument("--workers", type=int, default=-1, help="processes; all processor cores by default")
    chosen = parser.parse_args()
    import zoobook.pytorch as zb

    file = weights.find_shipped(ENCODER)
    model = zb.models.from_arrays(*weights.read(file))
    jobs = {"simulated_ring": ("simulated rings", *simulated(chosen.root, model), 50, 500)}
    if chosen.real:
        real = chosen.real.expanduser().absolute()
        efigi, rings = (measure.Galaxies.read(real, name, chosen.root) for name in ("efigi", "rings"))
        ring = measure.ROWS["efigi_ring"].label(efigi.catalog).to_numpy(float)
        length = measure.ROWS["efigi_bar"].label(efigi.catalog)
        bar = (length >= 0.5).astype(float).where((length == 0) | (length >= 0.5)).to_numpy()
        tagged = measure.ROWS["decals_ring"].label(rings.catalog).to_numpy(float)
        seen = features(chosen.root, efigi.store, model)
        jobs |= {
            "efigi_ring": ("rings of EFIGI", seen, ring, 10, 500),
            "efigi_bar": ("bars of EFIGI", seen, bar, 10, 500),
            "decals_ring": ("rings of DECaLS", features(chosen.root, rings.store, model), tagged, None, 150),
        }
    from joblib import Parallel, delayed

    tasks = [(key, *job[1:], seed) for key, job in jobs.items() for seed in SEEDS]
    done = Parallel(chosen.workers, batch_size=1)(delayed(kept_seed)(chosen.root, *task) for task in tasks)
    seeds = {key: [one for task, one in zip(tasks, done, strict=True) if task[0] == key] for key in jobs}
    rows = {key: {"what": job[0], **curve(seeds[key], job[3])} for key, job in jobs.items()}
    found = {
        "date": date.today().isoformat(), "zoobook": zoobook.__version__,
        "weights": {"name": ENCODER, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "batch": BATCH, "start": START, "rows": rows,
    }  # fmt: skip
    atomic_write(chosen.out, json.dumps(measure.rounded(found), indent=1).encode() + b"\n")
    for key, row in rows.items():
        goal = row["goal"]
        print(f"{key}: {goal['labels']} random labels reach {goal['value']:.3f} ± {goal['spread']:.3f}; "
              f"the loop needs {row['reached']} (each seed: {row['reached_each']}; stops: {row['stops']})")


if __name__ == "__main__":
    main()
