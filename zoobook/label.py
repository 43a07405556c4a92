"""Labels by hand: galaxies shown in a notebook, answered by keys, and every answer on disk at once.

::

    labels = label.Labeler(store, "rings.jsonl", "ring", ["ring", "no ring"])
    labels                                    # the last line of a cell: shows galaxies and takes answers
    label.table("rings.jsonl", catalog=catalog)  # what finetune learns from, once it is split

The file has one line (JSON) for each key pressed and only grows, so that whatever ends the process loses nothing; the
same call goes on where it was left. Several people answer in a column each, of one file after each other or of several
files at once; :func:`table` puts them side by side, and :func:`agreement` tells how far they agree.

It needs ``pip install "zoobook[label]"``. In Colab, keep the file in a mounted Drive, or it goes with the machine; in
VS Code, click once into the widget, so that keys go there. Tested is JupyterLab; the widget is made with anywidget,
which serves the others too.
"""
from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import entr

from zoobook import arguments
from zoobook.catalogs import check_ids, shuffled
from zoobook.catalogs.columns import a_frame, ids_of, listed, numbers
from zoobook.images import ImageStore
from zoobook.images.stamps import by_id
from zoobook.label_file import LabelFile, agreement, table

__all__ = ["LabelFile", "Labeler", "agreement", "table"]

ORDERS = ("random", "given", "least_sure", "most_interesting")
_COMMAND_KEYS = {"u": "not sure", "z": "undo", "c": "contrast", "x": "contrast", "+": "zoom", "=": "zoom", "-": "zoom"}
_STATIC = Path(__file__).parent / "static"
_RANKS = ("acquisition", "anomaly_score")  # what the rankings of representations are sorted by


class Labeler:
    """Galaxies to label, in a notebook: JupyterLab, Jupyter Notebook, Colab or VS Code.

    Keys give the answers and "not sure", undo, go back and forth, zoom and change the contrast; the widget shows which.

    Args:
        images: an :class:`~zoobook.images.ImageStore`, or a catalogue with ``id_str`` and ``file_loc``: all galaxies.
        path: the file of answers; one that is there is gone on with.
        column: what the answers are called in the table: the name of the question, and where several people answer it,
            of the person too (``"ring_ana"``).
        answers: text or whole numbers; their keys are 1, 2 … (0 and 1: those two). Or keys and answers:
            ``{"r": "ring", "n": "no ring"}``.
        order: ``"random"``, ``"given"`` (that of ``images``), ``"least_sure"`` or ``"most_interesting"`` first.
        scores: what the last two are judged by: a table that ``predict``, ``representations.interesting`` or
            ``anomalies`` made. Galaxies that are not in it come last.
        grid: galaxies at once; 1 shows one, large.
        seed: decides the random order.

    Raises:
        ValueError: an argument makes no sense; the file is another one's, or being labelled by another process.
    """

    def __init__(
        self, images: ImageStore | pd.DataFrame, path: str | os.PathLike, column: str,
        answers: Sequence | Mapping[str, object] = (0, 1), *, order: str = "random",
        scores: pd.DataFrame | None = None, grid: int = 1, seed: int = 0,
    ):  # fmt: skip
        self._by_key = _keys(answers)
        self._grid, self._bad = arguments.whole("grid", grid, 1, 100), list[str]()
        self._read = by_id(images, self._bad)
        ids = images.ids if isinstance(images, ImageStore) else check_ids(images)
        self._order = _ordered(pd.DataFrame({"id_str": ids}), order, scores, arguments.seed(seed))
        self._file = LabelFile(path, column, list(self._by_key.values()), self._order)
        self._at = self._next_open(0)
        self._widget: Any = None

    def answer(self, choice: str | int | None, id_str: str | None = None) -> None:
        """Note an answer on disk and go on to the next galaxy without one.

        Args:
            choice: one of the answers; ``None`` is "not sure".
            id_str: which galaxy; by default the one shown.
        """
        asked = [self._order[self._at]] if id_str is None else ids_of(id_str).tolist()
        galaxy = asked[0] if len(asked) == 1 else None
        if galaxy not in self._order:
            raise ValueError(f"{listed(map(repr, asked))} is not among the galaxies to label")
        at = self._order.index(galaxy)
        self._file.add(self._order[at], choice)
        self._at = self._next_open(at)

    def undo(self) -> str | None:
        """Take back the last answer, also one of an earlier session; returns the galaxy's id, which is shown again."""
        galaxy = self._file.undo()
        if galaxy in self._order:
            self._at = self._order.index(galaxy)
        return galaxy

    def table(self) -> pd.DataFrame:
        """The answers so far: ``id_str`` and the column; without the galaxies that one was not sure of."""
        given = {galaxy: answer for galaxy, answer in self._file.current.items() if answer is not None}
        return pd.DataFrame({"id_str": list(given), self._file.column: list(given.values())})

    def unanswered(self) -> list[str]:
        """Galaxies without an answer, in their order; "not sure" is an answer."""
        return [galaxy for galaxy in self._order if galaxy not in self._file.current]

    def close(self) -> None:
        """Let another process label in this file."""
        self._file.close()

    def _repr_mimebundle_(self, **kwargs):
        return self.widget._repr_mimebundle_(**kwargs)

    @property
    def widget(self) -> Any:
        """The widget itself, to be put among others."""
        if self._widget is None:
            self._widget = _widget_class()(pictures=self._pictures(), view=self._view())
            self._widget.on_msg(lambda _, message, buffers: self._hear(message))
        return self._widget

    def _hear(self, message: dict) -> None:
        """Do what a key asks for and show what came of it."""
        said = problem = ""
        try:
            if message["do"] == "move":
                self._at = min(max(self._order.index(message["id"]) + int(message["by"]), 0), len(self._order) - 1)
                said = f"galaxy {self._at + 1} of {len(self._order)}: {self._order[self._at]}"
            elif message["do"] == "undo":
                galaxy = self.undo()
                said = f"taken back: the answer to {galaxy}" if galaxy else "there is no answer to take back"
            else:
                choice = None if message["do"] == "not sure" else list(self._by_key.values())[message["choice"]]
                self.answer(choice, message["id"])
                said = f"saved: {_shown(choice)} for {message['id']}"
                shown = self._order[self._at]
                said += "; all galaxies have an answer" if shown in self._file.current else f"; next: {shown}"
        except (OSError, ValueError) as error:
            problem = f"Not saved: {error}"
        with self._widget.hold_sync():
            self._widget.pictures = self._pictures()
            self._widget.view = self._view(said, problem) | {"number": message.get("number")}

    def _page(self) -> list[str]:
        start = self._at - self._at % self._grid
        return self._order[start : start + self._grid]

    def _view(self, message: str = "", problem: str = "") -> dict:
        answered = self._file.current
        cells = [{"id": i, "label": _shown(answered[i]) if i in answered else ""} for i in self._page()]
        keys = [{"key": key, "name": str(name)} for key, name in self._by_key.items()]
        done = len(answered.keys() & set(self._order))
        problem = problem or "; ".join(self._bad)
        return {"cells": cells, "current": self._at % self._grid, "answers": keys, "column": self._file.column,
                "done": done, "total": len(self._order), "message": message, "problem": problem}  # fmt: skip

    def _pictures(self) -> list[bytes]:
        self._bad.clear()  # what by_id says of those that cannot be used
        return [_png(self._read(galaxy)) for galaxy in self._page()]

    def _next_open(self, start: int) -> int:
        """The first galaxy without an answer from a place on, then from the beginning; the place itself if none is."""
        around = [*range(start, len(self._order)), *range(start)]
        return next((at for at in around if self._order[at] not in self._file.current), start)


def _keys(answers: Sequence | Mapping[str, object]) -> dict[str, object]:
    """The answer of each key."""
    given = list(answers.values()) if isinstance(answers, Mapping) else answers
    given = given if isinstance(given, Iterable) and not isinstance(given, str) else []
    values = [value.item() if hasattr(value, "item") else value for value in given]
    if isinstance(answers, Mapping):
        keys = dict(zip(answers, values, strict=True))
    else:
        own = all(str(value) in tuple("0123456789") for value in values)
        keys = {str(value) if own else str(n): value for n, value in enumerate(values, 1)}
    different = {value.strip() if isinstance(value, str) else value for value in keys.values()}
    if not 2 <= len(different) == len(keys):
        raise ValueError(f"there must be at least two answers, all different, not {answers!r}")
    for value in keys.values():
        if not isinstance(value, (str, int)):
            raise ValueError(f"answers must be text or whole numbers, not {value!r}")
        if isinstance(value, str) and value.strip().lower() in ("", "nan", "<na>", "nat"):
            raise ValueError(f"the answer {value!r} stands for a missing value in tables: choose another word")
    for key, value in keys.items():
        if not isinstance(key, str) or len(key) != 1:
            raise ValueError(f"the answer {value!r} has no key of its own ({key!r}): give {{'a': {value!r}, …}}")
        if key in _COMMAND_KEYS:
            raise ValueError(f"the key {key!r} is taken for {_COMMAND_KEYS[key]}: choose another for {value!r}")
    return keys


def _ordered(galaxies: pd.DataFrame, order: str, scores: pd.DataFrame | None, seed: int) -> list[str]:
    """Ids in the order in which they are asked about."""
    if not len(galaxies):
        raise ValueError("there are no galaxies to label")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {listed(ORDERS)}, not {order!r}")
    if order != "given":
        galaxies = galaxies.iloc[shuffled(galaxies, f"label:{seed}")]
    if order in ("random", "given"):
        return list(galaxies["id_str"])
    if scores is None:
        raise ValueError(f"order={order!r} needs `scores`: a table of predictions, or of representations.interesting")
    a_frame(scores, "the table of scores")
    rank = _doubt(scores) if order == "least_sure" else _first_of(scores, _RANKS)
    if rank is None:
        raise ValueError(f"`scores` has no column to tell the {order.replace('_', ' ')} by: {listed(scores.columns)}")
    ranked = pd.Series(rank, index=check_ids(scores, "the scores"))
    if not galaxies["id_str"].isin(ranked.index).any():
        raise ValueError(f"`scores` are of another catalogue: {listed(ranked.index, 3)} are none of these images")
    place = galaxies["id_str"].map(ranked).to_numpy(float)
    return galaxies["id_str"].iloc[np.argsort(-np.nan_to_num(place, nan=-np.inf), kind="stable")].tolist()


def _first_of(scores: pd.DataFrame, names: Sequence[str]) -> np.ndarray | None:
    return next((numbers(scores, name, "the table of scores") for name in names if name in scores), None)


def _doubt(scores: pd.DataFrame) -> np.ndarray | None:
    """How unsure a prediction is: its standard deviation, or the entropy of its probabilities."""
    columns = [name for name in scores if str(name).endswith("_probability")]
    if not columns:
        return _first_of(scores, ("std",))
    shares = np.stack([numbers(scores, name, "the table of scores") for name in columns], axis=1)
    if (odd := shares[(shares < -1e-3) | (shares > 1 + 1e-3)]).size:
        raise ValueError(f"the table of scores has probabilities such as {odd[0]:g}, which must be from 0 to 1")
    shares = np.concatenate([shares, 1 - shares], axis=1) if len(columns) == 1 else shares
    return entr(np.clip(shares, 0, 1)).sum(1)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _shown(answer) -> str:
    return "not sure" if answer is None else str(answer)


@functools.cache
def _widget_class():
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise ImportError('labelling in a notebook needs anywidget: pip install "zoobook[label]"') from None

    class LabelWidget(anywidget.AnyWidget):
        _esm = (_STATIC / "label.js").read_text(encoding="utf-8")
        _css = (_STATIC / "label.css").read_text(encoding="utf-8")
        view = traitlets.Dict().tag(sync=True)
        pictures = traitlets.List().tag(sync=True)

    return LabelWidget
