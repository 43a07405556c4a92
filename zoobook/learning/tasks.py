"""What a model learns about each galaxy: votes on a decision tree, yes or no, a class, or a number.

Each kind of answer is one class here, a :class:`Kind`: how it is read from a column, its targets, its loss, what the
head gives, and the columns that ``predict`` writes. A new kind of answer is a new class, listed in ``KINDS``.
"""
# ruff: noqa: D102  (what each method is for stands in Kind)
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from zoobook import catalogs, trees, votes
from zoobook.catalogs.columns import labels_of, listed, require
from zoobook.files import fingerprint
from zoobook.images import ImageStore
from zoobook.trees import DecisionTree

STRENGTHS = 10.0 ** np.arange(-5, 1)  # how freely a regression on features may choose its weights
MOST_CLASSES = 20  # whole numbers with more different values than this are a quantity, not classes


class Kind:
    """One kind of answer.

    Args:
        head: description of the answer, plain data: ``kind``, and ``label`` and whatever else the kind must remember.
        tree: the decision tree, where votes on one are the answer.
    """

    name: ClassVar[str]  #: as ``spec["head"]["kind"]`` of a model has it
    loss: ClassVar[str]  #: name of the loss, as the ``losses`` of either framework have it
    activation: ClassVar[str]  #: ``"sigmoid"``, ``"softmax"`` or ``"linear"``, after the head's logits

    def __init__(self, head: dict, tree: DecisionTree | None = None):
        self.head, self.tree = head, tree

    @classmethod
    def from_column(cls, label: str, values: pd.Series) -> Kind | None:
        """The kind of answer that the training galaxies' values of a column ask for; ``None``: not this one."""
        return None

    @property
    def outputs(self) -> int:
        """How many numbers the head gives."""
        return 1

    @property
    def scale(self) -> tuple[float, float]:
        """Offset and factor that make the answer of the activated logits."""
        return 0.0, 1.0

    @property
    def columns(self) -> list[str]:
        """The columns that ``predict`` writes, one an output."""
        return [self.head["label"]]

    def targets(self, galaxies: pd.DataFrame) -> np.ndarray:
        """What the loss takes: [N, outputs] float32, or [N] int64 for classes."""
        raise NotImplementedError

    def regress(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [outputs, F] and bias [outputs] of a regularised regression on standardised features."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        classes = targets.astype(int).ravel()
        found, parts = LogisticRegression(C=1e-3, max_iter=1000), min(5, np.bincount(classes).min())
        if parts > 1:  # else a class has a single galaxy, which cannot be both learned and asked for
            options = {"scoring": "neg_log_loss", "cv": StratifiedKFold(parts, shuffle=True, random_state=0)}
            search = GridSearchCV(found, {"C": STRENGTHS}, refit=False, error_score="raise", **options)
            found.set_params(**search.fit(features, classes).best_params_)
        found.fit(features, classes)
        return found.coef_, found.intercept_

    def table(self, ids: np.ndarray, answers: np.ndarray) -> pd.DataFrame:
        """The table that ``predict`` writes, of ids [N] and answers [N, outputs, P] over P forward passes.

        It has ``id_str`` and :attr:`columns`; over several passes, their means and ``…_deviation``, their standard
        deviation.
        """
        found: dict = {"id_str": np.asarray(ids, dtype=object)}
        for number, name in enumerate(self.columns):
            found[name] = answers[:, number].mean(1).astype(np.float32)
            if answers.shape[2] > 1:
                found[f"{name}_deviation"] = answers[:, number].std(1).astype(np.float32)
        return pd.DataFrame(found)


class Votes(Kind):
    """Votes on a decision tree: one Dirichlet concentration an answer, from ``lowest`` of the head (or 1) to 101.

    ``predict`` writes ``{answer}_concentration`` (a list, over several passes), ``{answer}_fraction`` and
    ``{question}_proportion_volunteers_asked``, see :func:`zoobook.votes.prediction_table`.
    """

    name, loss, activation = "concentrations", "dirichlet_multinomial", "sigmoid"

    @property
    def scale(self) -> tuple[float, float]:
        lowest = self.head.get("lowest", votes.LOWEST)
        return lowest, votes.HIGHEST - lowest

    @property
    def outputs(self) -> int:
        return len(self.tree.label_columns)

    def targets(self, galaxies: pd.DataFrame) -> np.ndarray:
        return catalogs.check_votes(galaxies, self.tree, needed=True).astype(np.float32)

    def table(self, ids: np.ndarray, answers: np.ndarray) -> pd.DataFrame:
        return votes.prediction_table(ids, answers, self.tree)


class YesNo(Kind):
    """0 and 1, or true and false. ``predict`` writes ``{label}_probability``."""

    name, loss, activation = "binary", "binary_crossentropy", "sigmoid"

    @classmethod
    def from_column(cls, label: str, values: pd.Series) -> Kind | None:
        present = _whole_or_text(label, values)
        return cls({"kind": cls.name, "label": label}) if present is not None and set(present) == {0, 1} else None

    @property
    def columns(self) -> list[str]:
        return [f"{self.head['label']}_probability"]

    def targets(self, galaxies: pd.DataFrame) -> np.ndarray:
        _check_known(galaxies, self.head["label"], [0, 1])
        return galaxies[self.head["label"]].to_numpy(np.float32)[:, None]


class Classes(Kind):
    """Text, or whole numbers with up to 20 different values. ``predict`` writes ``{label}_{class}_probability``."""

    name, loss, activation = "classes", "crossentropy", "softmax"

    @classmethod
    def from_column(cls, label: str, values: pd.Series) -> Kind | None:
        present = _whole_or_text(label, values)
        numeric = pd.api.types.is_numeric_dtype(values)
        if present is None or (numeric and len(present) > MOST_CLASSES):
            return None
        numbers = [] if numeric else [not np.isnan(n) for n in pd.to_numeric(pd.Series(present), errors="coerce")]
        if any(numbers) and len(present) > MOST_CLASSES:
            raise ValueError(f"column {label!r} holds numbers (such as {present[numbers.index(True)]}), and the word "
                             f"{present[numbers.index(False)]!r}: leave out the galaxies that have none")  # fmt: skip
        return cls({"kind": cls.name, "label": label, "classes": [int(v) if numeric else str(v) for v in present]})

    @property
    def outputs(self) -> int:
        return len(self.head["classes"])

    @property
    def columns(self) -> list[str]:
        return [f"{self.head['label']}_{value}_probability" for value in self.head["classes"]]

    def targets(self, galaxies: pd.DataFrame) -> np.ndarray:
        known = self.head["classes"]
        _check_known(galaxies, self.head["label"], known)
        return galaxies[self.head["label"]].map({value: i for i, value in enumerate(known)}).to_numpy(np.int64)

    def regress(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias = super().regress(features, targets)
        if len(weights) == 1:  # of two, one is told by its odds against the other
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        return weights, bias


class Regression(Kind):
    """Any other number, learned in units of the training galaxies' deviation. ``predict`` writes ``{label}``."""

    name, loss, activation = "regression", "squared_error", "linear"

    @classmethod
    def from_column(cls, label: str, values: pd.Series) -> Kind | None:
        mean, deviation = float(values.mean()), float(values.std(ddof=0))
        if not np.isfinite(deviation):
            raise ValueError(f"the numbers of {label!r}, up to {values.abs().max():g}, are too large to be learned")
        if not deviation > 1e-12 * abs(mean):  # beyond rounding
            raise ValueError(f"all {len(values)} training galaxies have the same {label}: there is nothing to learn")
        return cls({"kind": cls.name, "label": label, "mean": mean, "deviation": deviation})

    @property
    def scale(self) -> tuple[float, float]:
        return self.head["mean"], self.head["deviation"]

    def targets(self, galaxies: pd.DataFrame) -> np.ndarray:
        mean, deviation = self.scale
        return ((galaxies[self.head["label"]].to_numpy(float) - mean) / deviation).astype(np.float32)[:, None]

    def regress(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import RidgeCV

        found = RidgeCV(alphas=1 / STRENGTHS).fit(features, targets[:, 0])
        return found.coef_[None], np.array([found.intercept_])


class Fraction(Kind):
    """A number from 0 to 1, in files that Zoobot wrote; it cannot be learned here. ``predict`` writes ``{label}``."""

    name, loss, activation = "fraction", "squared_error", "sigmoid"


KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Votes, YesNo, Classes, Regression, Fraction)}


def kind_of(head: dict, tree: DecisionTree | None = None) -> Kind:
    """The kind of answer that a model's ``spec["head"]`` describes.

    >>> kind_of({"kind": "classes", "label": "bar", "classes": ["strong", "weak"]}).columns
    ['bar_strong_probability', 'bar_weak_probability']
    """
    return KINDS[head["kind"]](head, tree)


@dataclass(frozen=True)
class Task:
    """What to learn, and from which galaxies."""

    kind: Kind  #: of answer
    rows: dict[str, np.ndarray]  #: for ``"train"`` and ``"val"``, the positions in the image store, int64
    targets: dict[str, np.ndarray]  #: for each of both, what :meth:`Kind.targets` gives
    data: str  #: digest of ids, subsets and targets: which data a run was made with


def find_task(store: ImageStore, catalog: pd.DataFrame, label: str | DecisionTree) -> Task:
    """Work out from the data what is to be learned, and check all of it.

    A decision tree means votes. For a column it follows from the values, whatever their type: 0 and 1 (or true and
    false) are a yes-or-no question; text, and whole numbers with up to 20 different values, are classes; anything else
    is a number.

    Args:
        store: the :class:`~zoobook.images.ImageStore`.
        catalog: galaxies with ``id_str``, ``subset`` and the labels.
        label: name of a column, or a decision tree.

    Raises:
        ValueError: a column or a subset is missing, a galaxy has several rows, a label is absent or bad, the training
            galaxies are all of one class, or galaxies have no image.
    """
    parts = _subsets(catalog)
    if not isinstance(label, str):
        trees.check(label, "label must be the name of a column, or")
        kind: Kind = Votes({"kind": Votes.name}, label)
    else:
        parts = _with_usable_labels(parts, label)
        values = parts["train"][label]
        kind = next(found for one in (YesNo, Classes, Regression) if (found := one.from_column(label, values)))
    targets = {name: kind.targets(part) for name, part in parts.items()}
    rows = {name: np.asarray(store.rows(part["id_str"])) for name, part in parts.items()}
    digest = fingerprint(*(x for name in parts for x in (list(parts[name]["id_str"]), targets[name])), store.size)
    return Task(kind, rows, targets, digest)


def linear_answer(features: np.ndarray, targets: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """The linear answer to the features of a frozen encoder from which fine-tuning sets out.

    Of features, float32 [N, F], and targets of the training galaxies, :meth:`Kind.regress` makes float32 weights
    [outputs, F] and bias [outputs] of the logits, with the strength that cross-validates best. An encoder that learns
    together with a random head loses some of what it knew before the head has learned anything (Kumar et al. 2022,
    ICLR, "Fine-tuning can distort pretrained features and underperform out-of-distribution").
    """
    mean, deviation = features.mean(0, dtype=float), features.std(0, dtype=float)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 1  # constant but for rounding
    scaled, axes = (features - mean) / deviation, None
    if len(scaled) < scaled.shape[1]:  # the same answer, sooner: there are no more directions than galaxies
        left, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
        scaled = left * sizes
    weights, bias = kind.regress(scaled, targets)
    weights = (weights if axes is None else weights @ axes) / deviation
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def _subsets(catalog: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The training and the validation galaxies, neither of them empty."""
    catalog = catalogs.keyed(catalog)
    require(["subset"], catalog, "the catalogue", "zoobook.catalogs.split(catalog) adds it.")
    subset = catalog["subset"].astype(object).map(lambda name: name.strip() if isinstance(name, str) else name)
    parts = {name: catalog[subset == name] for name in ("train", "val")}
    for name, part in parts.items():
        if not len(part):
            found = ", ".join(f"{count} {value!r}" for value, count in catalog["subset"].value_counts().items())
            raise ValueError(
                f"the catalogue has no galaxy with subset {name!r} (it has: {found or 'no rows'}). Training needs "
                "both 'train' and 'val'; zoobook.catalogs.split(catalog) makes them."
            )
    return parts


def _with_usable_labels(parts: dict[str, pd.DataFrame], label: str) -> dict[str, pd.DataFrame]:
    """The galaxies, with the column as booleans, numbers or text: what its values are, whatever holds them."""
    hint = f"Votes are learned with the tree itself: zoobook.trees.load({label!r})." if label in trees.names() else ""
    require([label], parts["train"], "the catalogue", hint)
    for name, part in parts.items():
        values = part[label].astype(object)  # in a column of booleans, Arrow takes infinity for true
        empty = values.map(lambda value: isinstance(value, str) and not value.strip()).astype(bool)
        bad = values.isna() | values.isin([np.inf, -np.inf]) | empty
        if bad.any():
            ids = ", ".join(part["id_str"][bad][:3])
            raise ValueError(
                f"column {label!r} has no usable value for {int(bad.sum())} of {len(part)} {name} galaxies "
                f"(such as {ids}). Fill them in, or leave those galaxies out."
            )
    both = pd.concat(parts.values())
    both[label] = labels_of(both[label], label).to_numpy()
    count = len(parts["train"])
    return {"train": both.iloc[:count], "val": both.iloc[count:]}


def _whole_or_text(label: str, values: pd.Series) -> list | None:
    """The different values of a column of whole numbers, booleans or text; ``None`` for real numbers."""
    if pd.api.types.is_numeric_dtype(values) and not (values.astype(float) % 1 == 0).all():
        return None
    present = sorted(values.unique().tolist())
    if len(present) == 1:
        raise ValueError(
            f"all {len(values)} training galaxies have {label} = {present[0]!r}: there is nothing to tell apart"
        )
    return present


def _check_known(galaxies: pd.DataFrame, label: str, known: list) -> None:
    unknown = ~galaxies[label].isin(known)
    if unknown.any():
        name, value = galaxies.loc[unknown, ["id_str", label]].astype(object).to_numpy()[0]
        raise ValueError(
            f"galaxy {name} of the validation subset has {label} = {value!r}, which no training galaxy "
            f"has ({int(unknown.sum())} such galaxies); the training galaxies have {listed(known)}"
        )
