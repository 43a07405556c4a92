"""What a model learns about each galaxy: votes on a decision tree, a class, or a number.

Shared by both frameworks: finding the training and validation galaxies, checking them before anything is computed,
and turning a model's answers into a table.
"""
from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real

import numpy as np
import pandas as pd

from zoobook import catalogs, votes
from zoobook.files import fingerprint
from zoobook.trees import DecisionTree

STRENGTHS = 10.0 ** np.arange(-5, 1)  # how freely a regression on features may choose its weights
MOST_CLASSES = 20  # whole numbers with more different values than this are a quantity, not classes


@dataclass(frozen=True)
class Task:
    """What to learn, and from which galaxies.

    Attributes:
        head: description of the answer, as a model's ``spec["head"]`` has it, without the hidden layers.
        tree: the decision tree; ``None`` if the task is another.
        rows: for ``"train"`` and ``"val"``, the positions in the image store, int64.
        targets: for each of both, float32 [N, A] votes, [N, 1] standardised numbers or 0/1, or int64 [N] classes.
        data: digest of ids, subsets and targets: which data a run was made with.
    """

    head: dict
    tree: DecisionTree | None
    rows: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    data: str


def find_task(store, catalog: pd.DataFrame, label: str | DecisionTree) -> Task:
    """Work out from the data what is to be learned, and check all of it.

    A decision tree means votes. For a column it follows from the values, whatever their type: 0 and 1 (or true and
    false) are a yes-or-no question; text, and whole numbers with up to 20 different values, are classes; anything else
    is a number.

    Args:
        store: the :class:`~zoobook.images.ImageStore`.
        catalog: galaxies with ``id_str``, ``subset`` and the labels.
        label: name of a column, or a decision tree.

    Returns:
        Task: what to learn.

    Raises:
        ValueError: a column or a subset is missing, a galaxy has several rows, a label is absent or bad, the training
            galaxies are all of one class, or galaxies have no image.
    """
    parts = _subsets(catalog)
    if isinstance(label, DecisionTree):
        head = {"kind": "concentrations"}
        targets = {name: catalogs.check_votes(part, label).astype(np.float32) for name, part in parts.items()}
    else:
        head, targets = _column_targets(parts, label)
    rows = {name: np.asarray(store.rows(part["id_str"])) for name, part in parts.items()}
    digest = fingerprint(*(x for name in parts for x in (list(parts[name]["id_str"]), targets[name])), store.size)
    return Task(head, label if isinstance(label, DecisionTree) else None, rows, targets, digest)


def linear_answer(features: np.ndarray, targets: np.ndarray, head: dict) -> tuple[np.ndarray, np.ndarray]:
    """The linear answer to the features of a frozen encoder from which fine-tuning sets out.

    Kumar et al. 2022 (ICLR, "Fine-tuning can distort pretrained features and underperform out-of-distribution"): an
    encoder that learns together with a random head loses some of what it knew before the head has learned anything.
    For a number it is a ridge regression, else a logistic regression, both on standardised features; how small the
    weights are held is what serves best in cross-validation.

    Args:
        features: float32 [N, F] of the training galaxies.
        targets: what a :class:`Task` has for them.
        head: a task's ``head``.

    Returns:
        tuple: float32 weights [outputs, F] and bias [outputs] of the raw answer: logits, or a standardised number.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV

    mean, deviation = features.mean(0, dtype=float), features.std(0, dtype=float)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 1  # constant but for rounding
    scaled, axes = (features - mean) / deviation, None
    if len(scaled) < scaled.shape[1]:  # the same answer, sooner: there are no more directions than galaxies
        left, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
        scaled = left * sizes
    if head["kind"] == "number":
        found = RidgeCV(alphas=1 / STRENGTHS).fit(scaled, targets[:, 0])
        weights, bias = found.coef_[None], np.array([found.intercept_])
    else:
        classes = targets.astype(int).ravel()
        found = LogisticRegression(C=_best_strength(scaled, classes), max_iter=1000).fit(scaled, classes)
        weights, bias = found.coef_, found.intercept_
        if head["kind"] == "classes" and len(weights) == 1:  # of two, one is told by its odds against the other
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    weights = (weights if axes is None else weights @ axes) / deviation
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def answer_table(ids, answers: np.ndarray, head: dict, tree: DecisionTree | None) -> pd.DataFrame:
    """A model's answers as a table.

    Args:
        ids: [N] galaxy ids.
        answers: [N, C, P]: C outputs of the head, over P forward passes.
        head: the model's ``spec["head"]``.
        tree: its decision tree, or ``None``.

    Returns:
        DataFrame: ``id_str`` and, for a tree, the columns of :func:`zoobook.votes.prediction_table`; for a yes-or-no
            question ``{label}_probability``; for classes ``{label}_{class}_probability``; for a number or a fraction
            ``{label}``. Over several passes these are means, and ``…_deviation`` is their standard deviation.
    """
    if tree is not None:
        return votes.prediction_table(ids, answers, tree)
    label = head["label"]
    names = {
        "binary": lambda: [f"{label}_probability"],
        "classes": lambda: [f"{label}_{value}_probability" for value in head["classes"]],
        "number": lambda: [label],
        "fraction": lambda: [label],
    }[head["kind"]]()
    columns: dict = {"id_str": np.asarray(ids, dtype=object)}
    for c, name in enumerate(names):
        columns[name] = answers[:, c].mean(1).astype(np.float32)
        if answers.shape[2] > 1:
            columns[f"{name}_deviation"] = answers[:, c].std(1).astype(np.float32)
    return pd.DataFrame(columns)


def _best_strength(features: np.ndarray, classes: np.ndarray) -> float:
    """With which of :data:`STRENGTHS` a logistic regression predicts best what it has not seen, in cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    parts = min(5, np.bincount(classes).min())
    if parts < 2:  # a class of a single galaxy cannot be both learned and asked for
        return 1e-3
    folds = StratifiedKFold(parts, shuffle=True, random_state=0)

    def loss(strength: float) -> float:
        model = LogisticRegression(C=strength, max_iter=1000)
        return log_loss(classes, cross_val_predict(model, features, classes, cv=folds, method="predict_proba"))

    return float(min(STRENGTHS, key=loss))


def _subsets(catalog: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The training and the validation galaxies, neither of them empty."""
    for column in ("id_str", "subset"):
        if column not in catalog:
            hint = " zoobook.catalogs.split(catalog) adds it." if column == "subset" else ""
            raise ValueError(f"the catalogue has no column {column!r}.{hint}")
    catalog = catalogs.keyed(catalog)
    parts = {name: catalog[catalog["subset"] == name] for name in ("train", "val")}
    for name, part in parts.items():
        if not len(part):
            found = ", ".join(f"{count} {value!r}" for value, count in catalog["subset"].value_counts().items())
            raise ValueError(
                f"the catalogue has no galaxy with subset {name!r} (it has: {found or 'no rows'}). Training needs "
                "both 'train' and 'val'; zoobook.catalogs.split(catalog) makes them."
            )
    return parts


def _column_targets(parts: dict[str, pd.DataFrame], label: str) -> tuple[dict, dict[str, np.ndarray]]:
    if label not in parts["train"]:
        known = ", ".join(map(str, parts["train"].columns))
        raise ValueError(f"the catalogue has no column {label!r} to learn. It has: {known}.")
    for name, part in parts.items():
        values = part[label].astype(object)  # in a column of booleans, Arrow takes infinity for true
        bad = values.isna() | values.isin([np.inf, -np.inf])
        if bad.any():
            ids = ", ".join(part["id_str"][bad][:3])
            raise ValueError(
                f"column {label!r} has no usable value for {int(bad.sum())} of {len(part)} {name} galaxies "
                f"(such as {ids}). Fill them in, or leave those galaxies out."
            )
    values = _by_value(pd.concat([part[label].astype(object) for part in parts.values()]), label)
    starts = np.cumsum([0, *(len(part) for part in parts.values())])
    parts = {name: part.assign(**{label: values.iloc[start : start + len(part)].to_numpy()})
             for (name, part), start in zip(parts.items(), starts, strict=False)}  # fmt: skip
    train = parts["train"][label]
    numeric = pd.api.types.is_numeric_dtype(train)  # true for booleans too
    whole = numeric and bool((train.astype(float) % 1 == 0).all())
    present = sorted(train.unique().tolist()) if whole or not numeric else None
    if present is not None and len(present) == 1:
        raise ValueError(
            f"all {len(train)} training galaxies have {label} = {present[0]!r}: there is nothing to tell apart"
        )
    if whole and set(present) == {0, 1}:
        head = {"kind": "binary", "label": label}
        targets = {name: part[label].to_numpy(np.float32)[:, None] for name, part in parts.items()}
        _refuse_unknown(parts["val"], label, present)
    elif present is not None and (not numeric or len(present) <= MOST_CLASSES):
        classes = [int(value) if whole else str(value) for value in present]
        head = {"kind": "classes", "label": label, "classes": classes}
        _refuse_unknown(parts["val"], label, present)
        number = {value: i for i, value in enumerate(present)}
        targets = {name: part[label].map(number).to_numpy(np.int64) for name, part in parts.items()}
    else:
        mean, deviation = float(train.mean()), float(train.std(ddof=0))
        if not deviation > 0:
            raise ValueError(f"all {len(train)} training galaxies have the same {label}: there is nothing to learn")
        head = {"kind": "number", "label": label, "mean": mean, "deviation": deviation}
        targets = {
            name: ((part[label].to_numpy(float) - mean) / deviation).astype(np.float32)[:, None]
            for name, part in parts.items()
        }
    return head, targets


def _by_value(values: pd.Series, label: str) -> pd.Series:
    """A column as booleans, whole or real numbers, or text: what its values are, whatever holds them."""
    values = [value.decode("utf8", "replace") if isinstance(value, bytes) else value for value in values]
    kinds = {"text": str, "true or false": (bool, np.bool_), "numbers": (Real, Decimal)}  # bool is a kind of Real too
    found: dict = {}
    for value in values:
        kind = next((kind for kind, classes in kinds.items() if isinstance(value, classes)), type(value).__name__)
        found.setdefault(kind, value)
    if len(found) > 1 or not found.keys() <= kinds.keys():
        shown = " and ".join(f"{kind} (such as {value!r})" for kind, value in found.items())
        raise ValueError(f"column {label!r} holds {shown}; labels must be all text, all numbers, or all true or false")
    if "numbers" in found and not all(isinstance(value, Integral) for value in values):
        values = map(float, values)
    return pd.Series(list(values))


def _refuse_unknown(part: pd.DataFrame, label: str, known: list) -> None:
    unknown = ~part[label].isin(known)
    if unknown.any():
        row = part[unknown].iloc[0]
        raise ValueError(
            f"galaxy {row['id_str']} of the validation subset has {label} = {row[label]!r}, which no training galaxy "
            f"has ({int(unknown.sum())} such galaxies); the training galaxies have {known}"
        )
