"""How far luck and the learning rate decide what fine-tuning gives: the figures that the ring chapter quotes.

Run: python tests/benchmarks/bench_finetuning.py --out zoobook/weights/shipped/finetuning.json

The chapter's own rings at its quick scale, in PyTorch: three seeds of head, top and all; then other learning rates.
The file is written after every run, so that what is there can be used if the rest has no time.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from datetime import date
from pathlib import Path

from zoobook import chapters, evaluation, weights
from zoobook.files import atomic_write

RATE = 2e-3
RATES = (2e-4, 2e-2, 6e-3, 6e-4)
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the results file, JSON")
    chosen = parser.parse_args()
    import zoobook.pytorch as zb

    run = chapters.begin("pytorch", "simulated", "quick")
    catalog, store = run.rings()
    test = catalog[catalog["subset"] == "test"]
    encoder = weights.load(chapters.ENCODER, "pytorch")
    file = weights.find_shipped(chapters.ENCODER)
    found: dict = {
        "date": date.today().isoformat(), "weights": hashlib.sha256(file.read_bytes()).hexdigest(),
        "epochs": run.scale.finetuning_epochs, "test": len(test), "runs": [],
    }  # fmt: skip
    jobs = [("all", 0, RATE), *(("all", 0, rate) for rate in RATES[:2]), ("head", 0, RATE), ("top", 0, RATE)]
    jobs += [(unfreeze, seed, RATE) for seed in SEEDS[1:] for unfreeze in ("head", "top", "all")]
    jobs += [("all", 0, rate) for rate in RATES[2:]]
    for unfreeze, seed, rate in jobs:
        with tempfile.TemporaryDirectory() as out:
            tuned = zb.finetune(encoder, store, catalog, "ring", unfreeze=unfreeze, learning_rate=rate, seed=seed,
                                epochs=found["epochs"], out_dir=out)  # fmt: skip
            answers = zb.predict(tuned.model, store).set_index("id_str").loc[test["id_str"], "ring_probability"]
        auc = evaluation.roc_auc(test["ring"].to_numpy(), answers.to_numpy())["auc"]
        loss = tuned.history["val_loss"]
        last, best = float(loss.iloc[-1]), float(loss.min())
        found["runs"].append({"unfreeze": unfreeze, "seed": seed, "learning_rate": rate, "auc": round(auc, 4),
                              "last_val_loss": round(last, 4), "best_val_loss": round(best, 4)})  # fmt: skip
        atomic_write(chosen.out, json.dumps(found, indent=1).encode() + b"\n")
        print(found["runs"][-1], flush=True)


if __name__ == "__main__":
    main()
