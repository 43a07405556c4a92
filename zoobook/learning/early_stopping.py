"""When a training stops, and its history: what is shown of it, its best weights, its losses."""

import math
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from zoobook import weights
from zoobook.learning.models import GalaxyNetwork
from zoobook.learning.runs import RunFolder


class EarlyStopping:
    """Says which epoch is the best so far, and when there were ``patience`` epochs without a lower validation loss."""

    def __init__(self, patience: int):
        self.patience, self.losses = patience, {}

    def add(self, epoch: int, val_loss: float) -> bool:
        """Note an epoch's validation loss; whether it is the lowest so far."""
        best = not self.losses or val_loss < min(self.losses.values())
        self.losses[epoch] = val_loss
        return best

    @property
    def should_stop(self) -> bool:
        """Whether the validation loss has not fallen for long enough."""
        return bool(self.losses) and max(self.losses) - min(self.losses, key=self.losses.get) >= self.patience


class History:
    """Follows a training: shows it, writes its history, and keeps its best weights."""

    def __init__(self, folder: RunFolder, patience: int):
        self.folder, self.stopping = folder, EarlyStopping(patience)
        if folder.resuming:
            before = folder.history
            self.stopping.losses = dict(zip(before["epoch"], before["val_loss"], strict=True))
        self.bar: tqdm | None = None
        self.epoch, self.epochs, self.writes = 0, 0, True

    def begin(self, epoch: int, epochs: int, steps: int, first: bool) -> None:
        """Start, or go on, with ``epoch`` (counted from 0) of ``epochs`` that have ``steps`` each.

        Of several processes, only the ``first`` shows and writes anything.
        """
        self.stopping.losses = {done: loss for done, loss in self.stopping.losses.items() if done < epoch}
        self.epoch, self.epochs, self.writes = epoch, epochs, first
        visible = first and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self.bar = tqdm(
            total=epochs * steps, initial=epoch * steps, unit="step", disable=not visible, leave=False, mininterval=0.5
        )
        self._started = time.perf_counter()

    def step(self, number: int, loss: Callable[[], float]) -> None:
        """Note that a step of the epoch is done; ``loss`` is called now and then only, as it makes a GPU wait."""
        self.bar.update()
        if number % 10 == 0:
            value = float(loss())
            self._check_finite(value)
            self.bar.set_description(f"epoch {self.epoch + 1}/{self.epochs}, loss {value:.3f}")

    def end_epoch(self, train_loss: float, val_loss: float, learning_rate: float, model: GalaxyNetwork) -> None:
        """Write an epoch's row (mean losses, the head's learning rate), and its weights where they are the best so far.

        The state to resume from is written after this: if that is cut short, the epoch is repeated, with the same
        result.
        """
        self._check_finite(train_loss)
        self._add(self.epoch, train_loss, val_loss, learning_rate, model)
        self.epoch += 1

    def note_start(self, val_loss: float, model: GalaxyNetwork) -> None:
        """Let the state before the first step be the first that may be the best: epoch -1 of the history."""
        self._add(-1, math.nan, val_loss, 0.0, model)

    def close(self) -> None:
        """Take the progress bar away."""
        if self.bar is not None:
            self.bar.close()

    def _add(self, epoch: int, train_loss: float, val_loss: float, learning_rate: float, model) -> None:
        self._check_finite(val_loss)
        best = self.stopping.add(epoch, val_loss)
        seconds, self._started = time.perf_counter() - self._started, time.perf_counter()
        if self.writes:
            self.folder.log(
                epoch=epoch, train_loss=train_loss, val_loss=val_loss, learning_rate=learning_rate,
                seconds=round(seconds, 2),
            )  # fmt: skip
            if best:
                weights.save(model, self.folder.path / "best.safetensors", epoch=str(epoch))
            train = "at the start" if epoch < 0 else f"train {train_loss:.4f}"
            self.bar.write(
                f"epoch {epoch + 1:3d}/{self.epochs}  {train}  val {val_loss:.4f}"
                f"{'  best' if best else '      '}  {seconds:.1f} s",
                file=sys.stdout,
            )

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} in epoch {self.epoch + 1}. A lower learning_rate usually helps, "
                "or precision='float32'; the epochs before are kept."
            )
