"""The folder of a training run, written so that the run can be interrupted at any moment and go on without loss."""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs.csv_file import EXACT
from zoobook.files import atomic_write, clear_parts, ensure_writable_dir, fingerprint
from zoobook.images.views import UNSTATED
from zoobook.learning.architectures import whole_spec


@dataclass(frozen=True)
class Result:
    """What training gives back."""

    model: Any  #: the model with the weights of its best epoch, ready to predict
    #: one row an epoch, with ``epoch``, ``train_loss``, ``val_loss`` (nats per galaxy, or the loss of the task),
    #: ``learning_rate``, ``seconds``
    history: pd.DataFrame
    checkpoint: Path  #: the weight file of the best epoch, in zoobook's neutral format


class RunFolder:
    """The folder of one training run: its settings, its history, and whether it is finished.

    Args:
        out_dir: the folder.
        settings: everything that decides the outcome, as JSON can hold it.
        resume: go on with the run that the folder holds; ``False`` starts it again from the beginning.

    Raises:
        ValueError: the folder holds a run with other settings.
    """

    def __init__(self, out_dir: str | Path, settings: dict, resume: bool = True):
        self.path = ensure_writable_dir(out_dir)
        self.settings = json.loads(json.dumps(settings, default=arguments.plain))
        self._record = self.path / "run.json"
        if not resume:
            (self.path / "history.csv").unlink(missing_ok=True)
        earlier = _as_now(self._read()["settings"]) if resume and self._record.exists() else None
        if earlier is not None:  # runs of earlier versions do not say their framework
            earlier.setdefault("framework", self.settings.get("framework"))
        if resume and self.resuming:  # before the first epoch is done, there is nothing to go on with
            if earlier is None:
                raise ValueError(f"{self.path} holds a history.csv, but no run.json: choose another out_dir")
            other = [
                f"{key} was {reprlib.repr(earlier.get(key))}, now {reprlib.repr(self.settings.get(key))}"
                for key in sorted(earlier.keys() | self.settings.keys())
                if earlier.get(key) != (UNSTATED | self.settings).get(key)
            ]
            if other:
                raise ValueError(
                    f"{self.path} holds a run with other settings ({'; '.join(other)}). "
                    "Choose another out_dir, or pass resume=False to start this one afresh."
                )
        else:
            self._write(finished=False)

    @property
    def resuming(self) -> bool:
        """Whether at least one epoch is already done."""
        return (self.path / "history.csv").exists()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.resuming and self._read()["finished"]

    def finish(self) -> None:
        """Note that the run came to its end: from now on it is only read. Of several processes, one may say so."""
        clear_parts(self.path)
        self._write(finished=True)

    @property
    def history(self) -> pd.DataFrame:
        """The epochs so far, one row each."""
        file = self.path / "history.csv"
        if not file.exists():
            return pd.DataFrame()
        try:
            history = pd.read_csv(file, **EXACT)
        except (ValueError, UnicodeDecodeError):  # pandas' own errors are ValueErrors
            raise damaged(file) from None
        if "epoch" not in history or history["epoch"].dtype.kind not in "iuf":
            raise damaged(file)
        return history

    def log(self, **row: float) -> None:
        """Add a row, with its ``epoch``, to the history; a repeated epoch replaces its earlier row."""
        earlier = [one for one in self.history.to_dict("records") if one["epoch"] < row["epoch"]]
        atomic_write(self.path / "history.csv", pd.DataFrame([*earlier, row]).to_csv(index=False))

    def _read(self) -> dict:
        try:
            record = json.loads(self._record.read_text())
            return {"settings": dict(record["settings"]), "finished": bool(record["finished"])}
        except (ValueError, KeyError, TypeError):
            raise damaged(self._record) from None

    def _write(self, finished: bool) -> None:
        atomic_write(self._record, json.dumps({"settings": self.settings, "finished": finished}, indent=1))


def damaged(file: Path) -> ValueError:
    """What is said of a file without which a run cannot go on."""
    return ValueError(
        f"{file} is damaged, so the run cannot go on: choose another out_dir, or pass resume=False to start it afresh"
    )


def model_fingerprint(spec: dict, arrays: dict[str, np.ndarray]) -> str:
    """A digest of a model, by which a run knows the one that it went on from."""
    head = spec["head"]
    if head and head["kind"] == "regression":  # as it was called when earlier runs were begun
        spec = {**spec, "head": {**head, "kind": "number"}}
    return fingerprint(spec, *arrays.values())


def _as_now(settings: dict) -> dict:
    """The settings of a run that an earlier version may have begun, in today's words."""
    settings = UNSTATED | settings
    if "accumulate" in settings:
        settings["accumulate_grad_batches"] = settings.pop("accumulate")
    if "spec" in settings:
        settings["spec"] = whole_spec(settings["spec"])
    return settings
