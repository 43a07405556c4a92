"""What a simulated galaxy can teach beside the DR5 tree: rare features, and its structure, which is known exactly."""
from __future__ import annotations

import numpy as np
import pandas as pd

from zoobook import trees
from zoobook.simulation.truth import truth_table
from zoobook.simulation.volunteers import RARE_FEATURES, RARE_QUESTION, visibility

EXPERTS = 20  # a known quantity from 0 to 1 is taught as if so many people had voted, that share of them for it
# Question, its answers, and what it asks. The first answer has the share.
_STRUCTURE = {
    "hubble-stage": ("late", "early", "Hubble stage T, from -5 (early) to 10 (late)"),
    "bulge": ("dominant", "absent", "how far the bulge dominates"),
    "roundness": ("round", "flat", "apparent axis ratio"),
    "inclination": ("face-on", "edge-on", "cosine of the disk's inclination"),
    "bar-length": ("long", "absent", "length of the bar over 1.9 scale lengths of the disk"),
    "bar-contrast": ("clear", "hidden", "how clearly a bar shows"),
    "arm-contrast": ("clear", "hidden", "how clearly spiral arms show"),
    "ring-contrast": ("clear", "hidden", "how clearly a ring shows"),
    "patchiness": ("clear", "hidden", "how clearly patches of young stars show"),
    "disturbance": ("clear", "hidden", "how clearly a disturbance or a companion shows"),
    "extent": ("large", "small", "half-light radius over 1/8 of the stamp"),
}


def lesson_tree() -> trees.DecisionTree:
    """The DR5 tree, whose columns come first, then a question for each rare feature and each known quantity."""
    spec = trees.load("decals_dr5").to_dict()
    spec["name"] = "decals_dr5_lessons"
    spec["questions"] += [
        {"name": name, "asks": f"whether {name} was ticked", "answers": ["yes", "no"]} for name in RARE_FEATURES
    ]
    spec["questions"] += [
        {"name": name, "asks": asks, "answers": [share, rest]} for name, (share, rest, asks) in _STRUCTURE.items()
    ]
    return trees.DecisionTree.from_dict(spec)


def add_lessons(catalog: pd.DataFrame) -> pd.DataFrame:
    """Add the counts that :func:`lesson_tree` asks for to a catalogue of :func:`~zoobook.simulation.make_survey`.

    For rare features they say who ticked it and who did not, for quantities the share as the nearest number of 20;
    nobody is asked about the disk of an elliptical, nor about anything of a galaxy that an artifact hides.
    """
    seen, t = visibility(catalog), truth_table(catalog)
    if missing := {f"{RARE_QUESTION}_{name}" for name in ("total-votes", *RARE_FEATURES)} - {*catalog.columns}:
        raise ValueError(f"the table lacks {', '.join(sorted(missing))}: give a catalogue of simulation.make_survey")
    disk, clear = t["type"] != "elliptical", t["artifact_severity"] < 0.5
    face = disk & (t["type"] != "edge-on")
    shares = {
        "hubble-stage": ((t["stage"] + 5) / 15, clear),
        "bulge": (seen["bulge"], clear),
        "roundness": (seen["roundness"], clear),
        "inclination": (np.where(face, np.cos(np.deg2rad(t["inclination_deg"])), 0.0), clear & disk),
        "bar-length": (t["bar_over_disk"] * 3.2 / 1.9, clear & face),
        "bar-contrast": (seen["bar"], clear & face),
        "arm-contrast": (seen["arms"], clear & face),
        "ring-contrast": (seen["ring"], clear & face),
        "patchiness": (seen["patches"], clear & face),
        "disturbance": (seen["disturbance"], clear),
        "extent": (8 * t["r50_arcsec"] / t["frame_arcsec"], clear),
    }
    columns, asked = {}, catalog[f"{RARE_QUESTION}_total-votes"].to_numpy()
    for name in RARE_FEATURES:
        ticked = catalog[f"{RARE_QUESTION}_{name}"].to_numpy()
        columns[f"{name}-dr5_yes"], columns[f"{name}-dr5_no"] = ticked, asked - ticked
    for name, (share, known) in shares.items():
        first, second, _ = _STRUCTURE[name]
        votes = np.round(EXPERTS * np.clip(share, 0, 1)).astype(np.int64)
        columns[f"{name}-dr5_{first}"] = np.where(known, votes, 0)
        columns[f"{name}-dr5_{second}"] = np.where(known, EXPERTS - votes, 0)
    return pd.concat([catalog, pd.DataFrame(columns, index=catalog.index)], axis=1)
