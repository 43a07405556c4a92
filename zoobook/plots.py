"""The figures of the book, each from tables and arrays that any chapter has; each function returns the figure."""
from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from zoobook import arguments, evaluation
from zoobook.catalogs import check_votes, total_votes, vote_fraction
from zoobook.catalogs.columns import a_frame, floats, numbers, require
from zoobook.trees import DecisionTree, Question, check
from zoobook.votes import checked

# Colours that people with colour-blindness can tell apart (Tol 2021, technical note SRON/EPS/TN/09-002, "bright").
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
DARK = {"#4477AA", "#228833", "#AA3377"}
_GREY = "#777777"
_ON_LINES: dict[str, Any] = {"frameon": True, "edgecolor": "none", "framealpha": 0.9}  # a legend that lines pass behind
_SKY, _ON_SKY = "#2b323c", "#dfe3ea"  # behind pictures of the sky, and on it: alike on a light and on a dark page


def montage(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, columns: int = 8, size: float = 1.35
) -> Figure:
    """Galaxies side by side.

    Args:
        images: uint8 arrays [H, W, 3].
        titles: a text above each, or ``None``.
        columns: galaxies in a row.
        size: side of a galaxy in inches.

    Raises:
        ValueError: there are no images, not as many titles, or a number makes no sense.
    """
    images, titles = _pictures(images), None if titles is None else list(titles)
    if not len(images):
        raise ValueError("there are no images to show side by side: `images` is empty")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(titles)} titles")
    columns, size = arguments.whole("columns", columns), arguments.real("size", size)
    rows = -(-len(images) // columns)
    height = size * (1.0 if titles is None else 1.22)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * height), squeeze=False, facecolor=_SKY)
    for axis in axes.flat:
        axis.axis("off")
    for i, image in enumerate(images):
        axes.flat[i].imshow(image, interpolation="bilinear")
        if titles is not None:
            axes.flat[i].set_title(titles[i], fontsize=8, pad=2, color=_ON_SKY)
    top = 0.0 if titles is None else 0.24  # [inches] above the first row
    figure.subplots_adjust(0, 0, 1, 1 - top / (rows * height), 0.03, 0.03 if titles is None else 0.22)
    return figure


def _pictures(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Refuse what is no list of pictures that Matplotlib can show."""
    given = list(images) if isinstance(images, Iterable) else [images]
    for image in given:
        pixels = np.asarray(image)
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype.kind not in "uif" or not pixels.size:
            raise ValueError("`images` must be a list of arrays [H, W, 3], not such as "
                             f"{type(image).__name__} of the shape {list(pixels.shape)}")  # fmt: skip
        most, off = (255, 0) if pixels.dtype.kind in "ui" else (1, 1e-3)  # floats may be rounded
        if not (-off <= pixels.min() and pixels.max() <= most + off):  # Matplotlib would clip them
            raise ValueError("the pixels of `images` must be bytes, 0 to 255, or floats from 0 to 1, not from "
                             f"{pixels.min():g} to {pixels.max():g} in {pixels.dtype}")  # fmt: skip
    return given


# ---- The decision tree ----


def tree(decision_tree: DecisionTree, shares: np.ndarray | None = None) -> Figure:
    """A decision tree: a box for each question, a line for each answer that leads on.

    Args:
        decision_tree: the tree.
        shares: [Q] share of the volunteers who are asked each question, written into the boxes.

    Raises:
        ValueError: this is no tree, or there is not one share for each of its questions.
    """
    check(decision_tree)
    shares = None if shares is None else floats(pd.Series(np.ravel(shares)))
    if shares is not None and not np.isfinite(shares).all():
        raise ValueError(f"shares must be numbers, one for each question; {np.isnan(shares).sum()} are none")
    if shares is not None and len(shares) != len(decision_tree.questions):
        raise ValueError(f"there are {len(shares)} shares for the {len(decision_tree.questions)} questions of tree "
                         f"{decision_tree.name!r}; `expected` gives one for each")  # fmt: skip
    questions, places = decision_tree.questions, _places(decision_tree)
    left, right = -0.42, max(x for x, _ in places) + 0.42
    bottom, top = min(y for _, y in places) - 0.6, max(y for _, y in places) + 0.55
    # Boxes and text share one coordinate system, so their sizes are fixed: one unit is 2.2 by 1.2 inches.
    figure, axis = plt.subplots(figsize=(2.2 * (right - left), 1.2 * (top - bottom)))
    leading = {column for question in questions for column in question.asked_after}
    for q, (question, place, ways) in enumerate(zip(questions, places, decision_tree.parents, strict=True)):
        title = question.name.removesuffix(decision_tree.suffix)
        title = title if shares is None else f"{title}\n({100 * shares[q]:.0f} %)"
        _draw_question(axis, question, place, title, leading)
        if ways:
            after = " or ".join(dict.fromkeys(decision_tree.answers[answer].name for _, answer in ways))
            axis.text(place[0] - 0.36, place[1] + (0.29 if shares is None else 0.42), f"if {after}", fontsize=7,
                      style="italic", color="#444444", zorder=4)  # fmt: skip
        for parent, _ in ways:
            _draw_line(axis, places[parent], place)
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.axis("off")
    figure.tight_layout(pad=0.2)
    return figure


def _places(decision_tree: DecisionTree) -> list[tuple[int, float]]:
    """Where each question stands: how many questions come before it, and its height."""
    order, groups = decision_tree.walking_order, decision_tree.index_groups
    parents = [[(parent, answer - groups[parent][0]) for parent, answer in ways] for ways in decision_tree.parents]
    depth: dict[int, int] = {}
    for q in order:
        depth[q] = 1 + max((depth[parent] for parent, _ in parents[q]), default=-1)
    down: dict[int, float] = {}
    for level in range(max(depth.values()) + 1):
        # A question would be at the mean height of its parents' answers; those of one depth are then spread evenly.
        wish = {q: float(np.mean([down[parent] + 0.1 * n for parent, n in parents[q]] or [0.0]))
                for q in order if depth[q] == level}  # fmt: skip
        for slot, q in enumerate(sorted(wish, key=wish.__getitem__)):
            down[q] = slot - (len(wish) - 1) / 2
    return [(depth[q], -down[q]) for q in range(len(order))]


def _draw_question(axis: Axes, question: Question, place: tuple[int, float], title: str, leading: set[str]) -> None:
    """A box with a question and its answers; those that lead on are marked."""
    x, y = place
    answers = [answer.name + (" ›" if answer.column in leading else "") for answer in question.answers]
    together = "  ".join(answer.replace(" ", "\xa0") for answer in answers)
    lines = textwrap.wrap(together, 27, break_on_hyphens=False)
    axis.text(x, y, title, ha="center", va="bottom", fontsize=8.5, weight="bold", zorder=4)
    axis.text(x, y - 0.03, "\n".join(lines), ha="center", va="top", fontsize=7.5, color="#444444", zorder=4)
    bottom, top = y - 0.1 - 0.12 * len(lines), y + 0.1 + 0.13 * len(title.splitlines())
    axis.add_patch(FancyBboxPatch(
        (x - 0.37, bottom), 0.74, top - bottom,
        boxstyle="round,pad=0.02", facecolor="white", edgecolor=COLOURS[x % 6], linewidth=1.3, zorder=3,
    ))


def _draw_line(axis: Axes, parent: tuple[int, float], child: tuple[int, float]) -> None:
    """A line in the form of an S from one box to another."""
    along = np.linspace(0, 1, 30)
    ease = along * along * (3 - 2 * along)
    start, stop = parent[0] + 0.39, child[0] - 0.39
    axis.plot(start + (stop - start) * along, parent[1] + (child[1] - parent[1]) * ease,
              color=COLOURS[parent[0] % 6], linewidth=1.1, alpha=0.7, zorder=1)


def expected(catalog: pd.DataFrame, decision_tree: DecisionTree) -> np.ndarray:
    """Mean share of a catalogue's volunteers who are asked each question, [Q] between 0 and 1, for :func:`tree`."""
    votes = check_votes(catalog, decision_tree, needed=True)
    totals = np.stack([votes[:, start:stop].sum(1) for start, stop in decision_tree.index_groups], axis=1)
    return totals.sum(0) / totals.max(1).sum()


def votes_of(catalog: pd.DataFrame, row: int, decision_tree: DecisionTree) -> Figure:
    """How the volunteers answered about the galaxy in one row of a catalogue, question by question.

    A piece of a bar is an answer, with its votes; those of pieces too narrow for it stand at the right, in their order.

    Args:
        catalog: with the votes of the tree.
        row: the position of the galaxy, from 0; a negative one counts from the end.
        decision_tree: the tree.

    Raises:
        ValueError: there is no such row, or no vote in it.
    """
    a_frame(catalog, "the catalogue")
    if catalog.empty:
        raise ValueError("the catalogue has no galaxies, so there are no votes to show")
    row = arguments.whole("row", row, -len(catalog), len(catalog) - 1)
    counts = check_votes(catalog.iloc[[row]], decision_tree, needed=True)[0]
    asked = [(question, counts[start:stop])
             for question, (start, stop) in zip(decision_tree.questions, decision_tree.index_groups, strict=True)
             if counts[start:stop].sum()]  # fmt: skip
    figure, axis = plt.subplots(figsize=(7.2, 0.42 * len(asked) + 0.7))
    for place, (question, votes) in enumerate(asked):
        shares, narrow = votes / votes.sum(), []
        for a, (answer, left) in enumerate(zip(question.answers, np.cumsum(shares) - shares, strict=True)):
            if not votes[a]:
                continue
            colour, label = COLOURS[a % len(COLOURS)], f"{answer.name}: {votes[a]:.0f}"
            axis.barh(-place, shares[a], left=left, color=colour, edgecolor="white")
            if shares[a] > 0.015 * len(label):  # it fits into the bar
                axis.text(left + shares[a] / 2, -place, label, ha="center", va="center", fontsize=7,
                          color="white" if colour in DARK else "black")
            else:
                narrow.append(label)
        if narrow:
            axis.text(1.01, -place, "also " + ", ".join(narrow), va="center", fontsize=7, color="#444444")
    names = [question.name.removesuffix(decision_tree.suffix) for question, _ in asked]
    axis.set_yticks([-place for place in range(len(asked))], names, fontsize=8.5)
    axis.set(xlim=(0, 1), xlabel="share of the answers")
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    return figure


# ---- Training and predictions ----


def training(
    history: pd.DataFrame, ylabel: str = "loss (nats per galaxy)", references: Mapping[str, float] | None = None
) -> Figure:
    """Training and validation loss by epoch.

    Args:
        history: the ``history`` of a ``Result``.
        ylabel: what the loss is.
        references: horizontal lines: name to value, such as the loss of the oracle.

    Raises:
        ValueError: this is no history, no epoch has a validation loss, or a reference has no name or is no number.
    """
    require(["epoch", "train_loss", "val_loss"], history, "the history")
    lines = {} if references is None else _named("references", references, "{'the oracle': 2.1}")
    values = {name: arguments.real(f"references[{name!r}]", value, lambda _: True, "a number")
              for name, value in lines.items()}  # fmt: skip
    epochs, learned, judged = (floats(history[name]) for name in ("epoch", "train_loss", "val_loss"))
    if not np.isfinite(judged).any():
        raise ValueError(f"none of the {len(history)} epochs of the history has a validation loss: nothing to draw")
    epochs, best = epochs + 1, np.argmin(np.where(np.isfinite(judged), judged, np.inf))
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    axis.plot(epochs, learned, "o-", color=COLOURS[0], label="training", markersize=4)
    axis.plot(epochs, judged, "s-", color=COLOURS[1], label="validation", markersize=4)
    axis.plot(epochs[best], judged[best], "*", color="black", markersize=12, label="best")
    for number, (name, value) in enumerate(values.items()):
        axis.axhline(value, color=_GREY, linestyle=("--", ":", "-.")[number % 3], linewidth=1.2, label=name)
    axis.set(xlabel="epoch", ylabel=ylabel)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(**_ON_LINES)
    figure.tight_layout()
    return figure


def information(table: pd.DataFrame) -> Figure:
    """Information captured, question by question, with its standard error.

    Args:
        table: the result of :func:`zoobook.evaluation.evaluate` for a survey whose oracle is known.
    """
    columns = ["information_captured", "information_captured_error"]
    require(columns, table, "the table of scores")
    table = table[::-1]
    figure, axis = plt.subplots(figsize=(6.8, 0.34 * len(table) + 0.9))
    colours = [COLOURS[1] if name == "all" else COLOURS[0] for name in table.index]
    captured, error = (numbers(table, name, "the table of scores") for name in columns)
    axis.barh(list(map(str, table.index)), captured, xerr=np.abs(error), color=colours,
              error_kw={"linewidth": 1, "capsize": 2})  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.axvline(1, color=_GREY, linestyle="--", linewidth=1)
    axis.set(xlabel="information captured (0: the best constant, 1: the oracle)")
    axis.set_xlim(right=1.05)
    figure.tight_layout()
    return figure


def fractions(
    predictions: pd.DataFrame, catalog: pd.DataFrame, decision_tree: DecisionTree, answers: list[str], minimum: int = 10
) -> Figure:
    """Predicted against observed vote fractions, one panel an answer.

    Args:
        predictions: a table made by ``predict``.
        catalog: votes for the same galaxies.
        decision_tree: the tree.
        answers: label columns to show.
        minimum: galaxies with fewer votes on the question are left out.

    Raises:
        ValueError: ids or answers are bad, a galaxy has several rows, or a table lacks an answer.
    """
    check(decision_tree)
    predictions, votes = evaluation.of_same_galaxies(predictions, catalog)
    answers = arguments.names("answers", answers)
    minimum = arguments.whole("minimum", minimum, 0)
    if not answers:
        raise ValueError("there is nothing to show: `answers` is empty")
    require(answers, decision_tree.label_columns, f"the tree {decision_tree.name!r}")
    require([f"{column}_fraction" for column in answers], predictions, "the table of predictions")
    columns = min(len(answers), 2 if len(answers) <= 4 else 3)
    rows = -(-len(answers) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.5 * rows), squeeze=False,
                                sharex=True, sharey=True)
    for axis in axes.flat[len(answers):]:
        axis.axis("off")
    for axis, column in zip(axes.flat, answers, strict=False):
        question = next(q for q in decision_tree.questions if column in [a.column for a in q.answers])
        require([answer.column for answer in question.answers], votes, "the catalogue")
        total = total_votes(votes, decision_tree, question.name)
        enough = total >= max(minimum, 1)
        observed = vote_fraction(votes, decision_tree, column)[enough]
        predicted = numbers(predictions, f"{column}_fraction", "the table of predictions")[enough]
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
        axis.scatter(predicted, observed, s=5, alpha=0.35, color=COLOURS[0], linewidths=0)
        axis.set_title(f"{question.name.removesuffix(decision_tree.suffix)}:\n"
                       f"{column.removeprefix(question.name + '_')}", fontsize=8.5)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("predicted fraction", fontsize=8.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("observed fraction", fontsize=8.5)
    figure.tight_layout()
    return figure


def belief(
    image: np.ndarray,
    concentrations: np.ndarray,
    observed: np.ndarray,
    decision_tree: DecisionTree,
    questions: list[str],
) -> Figure:
    """One galaxy, and what a model believes about its vote fractions: a Beta density an answer.

    Args:
        image: uint8 [H, W, 3].
        concentrations: [A] predicted concentrations.
        observed: [A] votes, whose fractions are drawn as vertical lines.
        decision_tree: the tree.
        questions: names of the questions to show.

    Raises:
        ValueError: this is no image, a number of answers is not that of the tree, or a question is not in it.
    """
    from scipy.stats import beta

    if np.ndim(image) != 3:
        raise ValueError(f"`image` must be one array [H, W, 3], not of the shape {list(np.shape(image))}")
    image = _pictures([image])[0]
    questions = arguments.names("questions", questions)
    if not questions:
        raise ValueError("there is nothing to show: `questions` is empty")
    concentrations = checked(np.asarray(concentrations)[None], decision_tree, "concentrations")[0]
    observed = checked(np.asarray(observed)[None], decision_tree, "votes")[0]
    figure, axes = plt.subplot_mosaic([["image", place] for place in range(len(questions))], width_ratios=[0.75, 1],
                                      figsize=(6.2, 2.3 * len(questions)), layout="constrained")
    axes["image"].imshow(image)
    axes["image"].axis("off")
    share = np.linspace(0.001, 0.999, 400)
    for place, name in enumerate(questions):
        axis = axes[place]
        question = decision_tree.question(name)
        start, stop = decision_tree.index_groups[decision_tree.questions.index(question)]
        alpha, votes = concentrations[start:stop], observed[start:stop]
        highest = []
        for a, answer in enumerate(question.answers):
            colour, others = COLOURS[a % len(COLOURS)], alpha.sum() - alpha[a]
            density = beta(alpha[a], others).pdf(share)
            finite = slice(4 if alpha[a] < 1 else 0, -4 if others < 1 else None)  # without an end where it is endless
            highest.append(density[finite].max())
            axis.fill_between(share, density, color=colour, alpha=0.25, linewidth=0)
            axis.plot(share, density, color=colour, linewidth=1.2, label=answer.name)
            if votes.sum():
                axis.axvline(votes[a] / votes.sum(), color=colour, linestyle="--", linewidth=1.2)
        axis.set(xlim=(0, 1), ylim=(0, 1.05 * max(highest)), yticks=[])
        axis.set_title(question.name.removesuffix(decision_tree.suffix), fontsize=10)
        axis.set(xlabel="vote fraction", ylabel="probability density")
        axis.legend(fontsize=9, **_ON_LINES)
    return figure


def _named(what: str, given: object, example: str) -> Mapping:
    """Refuse what is no dictionary of things to draw, each under the name that the legend shows."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} must be a dictionary from names to values, such as {example}, not {given!r:.60}")
    return given


def galaxy_map(
    positions: np.ndarray, images: Sequence[np.ndarray], cells: int = 22, size: float = 8.0
) -> Figure:
    """A map of galaxies in two dimensions: in each cell, the image of one that lies there.

    Args:
        positions: [N, 2] coordinates, such as those of UMAP.
        images: N uint8 arrays [H, W, 3]; only those drawn are read.
        cells: cells along a side.
        size: side of the figure in inches.
    """
    cells, size = arguments.whole("cells", cells), arguments.real("size", size)
    if not isinstance(images, (Sequence, np.ndarray)):
        raise ValueError(f"`images` must be a list of arrays [H, W, 3], not {type(images).__name__}")
    positions = np.asarray(positions)
    if positions.ndim == 2:
        positions = pd.DataFrame(positions).apply(floats).to_numpy()
    if positions.shape != (len(images), 2) or not len(images) or not np.isfinite(positions).all():
        raise ValueError(f"there must be two finite numbers for each of {len(images)} images, and one image at least; "
                         f"the positions have the shape {list(positions.shape)}")  # fmt: skip
    low, high = np.quantile(positions, [0.002, 0.998], axis=0)
    low, high = np.where(high > low, low, low - 0.5), np.where(high > low, high, high + 0.5)
    scaled = (positions - low) / (high - low) * cells
    cell = np.floor(scaled).astype(int)
    centred = np.hypot(*(scaled - cell - 0.5).T)
    figure, axis = plt.subplots(figsize=(size, size), facecolor=_SKY)
    for column, row in np.unique(cell[((cell >= 0) & (cell < cells)).all(1)], axis=0):
        here = np.flatnonzero((cell == (column, row)).all(1))
        chosen = here[centred[here].argmin()]
        axis.imshow(_pictures([images[chosen]])[0], extent=(column, column + 1, row, row + 1), interpolation="bilinear")
    axis.set(xlim=(0, cells), ylim=(0, cells), aspect="equal")
    axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """ROC curves: the share of rings found against the share of others mistaken for rings.

    Args:
        curves: name to (labels of 0 and 1, scores).

    Raises:
        ValueError: a curve has no name, or is not labels and scores of both classes.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    pairs = {}
    if not len(_named("curves", curves, "{'my network': (labels, scores)}")):
        raise ValueError("there is nothing to show: `curves` is empty")
    for name, pair in curves.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"curves[{name!r}] must be (labels, scores), not {pair!r:.60}")
        labels, scores = pair
        pairs[name] = evaluation.of_two_classes(labels, scores, "a ROC curve")
    figure, axis = plt.subplots(figsize=(4.8, 4.4))
    axis.plot([0, 1], [0, 1], ":", color=_GREY, linewidth=1)
    for number, (name, (labels, scores)) in enumerate(pairs.items()):
        colour = COLOURS[number % len(COLOURS)]
        false, true, _ = roc_curve(labels, scores)
        axis.plot(false, true, color=colour, linewidth=1.6, label=f"{name} (AUC {roc_auc_score(labels, scores):.2f})")
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="lower right", fontsize=9, frameon=True, edgecolor="none", framealpha=1)
    figure.tight_layout()
    return figure


def benchmarks(results: dict) -> Figure:
    """How many times as fast zoobook is as something else that does the same.

    Each comparison is a point on a line from the slowest to the fastest round, with a mark at what is demanded.

    Args:
        results: what `make bench` wrote: ``date``, ``machine`` and ``rows``.
    """
    rows = [row for row in results["rows"] if "ratio" in row][::-1]
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.42 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        axis.plot([row["low"], row["high"]], [place, place], color=COLOURS[0], linewidth=3, alpha=0.4)
        axis.plot(row["ratio"], place, "o", color=COLOURS[0])
        if row["floor"]:
            axis.plot(row["floor"], place, "|", color=COLOURS[1], markersize=14, markeredgewidth=2)
    axis.axvline(1, color=_GREY, linewidth=0.8)
    names = [f"{row['title'].split(', against')[0]}\n(against {row['other']})" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set(xscale="log", xlabel="times as fast")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(f"{results['machine']}, {results['date']}", fontsize=9)
    return figure
