"""The file of labels given by hand: it only grows, one line for each answer, and is whole at any moment."""
from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from zoobook import arguments
from zoobook.catalogs import keyed
from zoobook.catalogs.columns import labels_of, listed, require
from zoobook.files import ensure_writable_dir


class LabelFile:
    """The answers of one column, in a file that is held against other processes.

    Only the given ``answers`` count, and only to the galaxies whose ids are given.
    """

    _open: dict[Path, LabelFile] = {}  # of this process: a cell that is run again takes its file over from itself

    def __init__(self, path: str | os.PathLike, column: str, answers: Sequence, ids: Sequence[str]):
        from filelock import FileLock, Timeout

        if not isinstance(column, str) or not column.strip() or column == "id_str":
            raise ValueError(f"column must be a name for the labels, not {column!r}")
        self.path, self.column, self._answers = arguments.path(path), column, list(answers)
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder: give the name of a file in it")
        ensure_writable_dir(self.path.parent)
        if self.path in self._open:
            self._open[self.path].close()
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.path} is being labelled by another process. Stop that notebook's kernel (or call `close()` "
                "there), or label in another file: zoobook.label.table puts several together."
            ) from None
        except NotImplementedError:  # such as a cloud's; what others write is noticed at the next answer, see _write
            warnings.warn(f"the file system of {self.path} has no locks: label in it from one place at a time",
                          stacklevel=3)  # fmt: skip
        try:
            _mend_last_line(self.path)
            every = _history(self.path)
            self._history = every.get(self.column, [])
            self.current = dict(self._history)
            self._check({galaxy for rows in every.values() for galaxy, _ in rows}, set(ids))
            self._size = self.path.stat().st_size if self.path.exists() else 0
        except BaseException:
            self._lock.release()
            raise
        self._open[self.path] = self

    def add(self, id_str: str, answer: str | int | None) -> None:
        """Note an answer (``None``: not sure); it is on disk when this returns."""
        if answer is not None and answer not in self._answers:
            raise ValueError(f"{answer!r} is not one of the answers: {listed(self._answers)}")
        answer = None if answer is None else self._answers[self._answers.index(answer)]  # 1, not True or a NumPy number
        self._write({"id_str": id_str, "answer": answer})
        self._history.append((id_str, answer))
        self.current[id_str] = answer

    def undo(self) -> str | None:
        """Take back the last answer; returns its galaxy, or ``None``."""
        if not self._history:
            return None
        self._write({"undo": self._history[-1][0]})
        galaxy, _ = self._history.pop()
        self.current = dict(self._history)
        return galaxy

    def close(self) -> None:
        """Let others write."""
        self._lock.release()
        if self._open.get(self.path) is self:
            del self._open[self.path]

    def _write(self, what: dict) -> None:
        """One line, in one call, and down to the disk; all of it or nothing."""
        if self._open.get(self.path) is not self:
            raise ValueError("these labels were closed, or are gone on with in another cell: use that one")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"column": self.column, **what, "time": now}, default=arguments.plain).encode() + b"\n"
        with open(self.path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before != self._size:
                raise ValueError(
                    f"{self.path} was changed by another process; this answer was not written. Stop the other one, and "
                    "run this cell again to go on from what the file holds now."
                )
            try:
                if file.write(line) != len(line):
                    raise OSError(f"the disk of {self.path} is full")
                os.fsync(file.fileno())
                self._size += len(line)
            except OSError:
                file.truncate(before)
                raise

    def _check(self, known: set[str], ids: set[str]) -> None:
        """What the file holds, labels of galaxies ``known``, must fit these galaxies and answers."""
        _say_what_is_lost(sorted(known), ids, f"galaxies with labels in {self.path}", "these images")
        other = [a for a in self.current.values() if a is not None and a not in self._answers]
        if other:
            raise ValueError(
                f"{self.path} has answers {other[0]!r} in column {self.column!r}, where the answers are now "
                f"{listed(self._answers)}. Choose another column or file, or give that answer too."
            )


def table(*paths: str | os.PathLike, catalog: pd.DataFrame | None = None) -> pd.DataFrame:
    """Answers as a table, which ``to_csv`` and ``to_parquet`` write, and of which ``finetune`` takes a column.

    Args:
        *paths: files of a :class:`Labeler`, also while they are being written.
        catalog: galaxies to whose rows the answers are added; those without any are left out. A warning names
            labelled ones that it lacks.

    Returns:
        DataFrame: ``id_str`` and a column for each question or person, missing where there was no answer or one was
        not sure; with ``catalog``, its columns too.

    Raises:
        ValueError: a file is not one of answers, two have the same column, or the catalogue has it or none of the
            galaxies.
    """
    columns: dict[str, dict] = {}
    for path in map(arguments.path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"there is no label file {path}")
        for name, rows in _history(path).items():
            if name in columns:
                raise ValueError(f"{path}: an earlier file has a column {name!r} too; give each person their own")
            columns[name] = {galaxy: answer for galaxy, answer in dict(rows).items() if answer is not None}
    found = pd.DataFrame({name: pd.Series(given, dtype=object) for name, given in columns.items()})
    for name in columns:  # whole numbers stay whole, also beside a gap
        whole = pd.api.types.is_integer_dtype(found[name].dropna().infer_objects())
        found[name] = found[name].astype("Int64") if whole and found[name].isna().any() else found[name].infer_objects()
    found = found.rename_axis("id_str").reset_index()
    if catalog is None:
        return found
    catalog = keyed(catalog)
    taken = [name for name in columns if name in catalog]
    if taken:
        raise ValueError(f"the catalogue has a column {taken[0]!r} already: rename or drop it, so that none is lost")
    joined = catalog.merge(found, on="id_str", how="inner", validate="one_to_one")
    _say_what_is_lost(found["id_str"], set(joined["id_str"]), "labelled galaxies", "the catalogue")
    return joined


def _say_what_is_lost(given: Iterable[str], there: Container[str], what: str, where: str) -> None:
    """Warn of ids (``what``) that are not ``there`` (``where``), and refuse them if none is."""
    given = list(given)
    lost = [galaxy for galaxy in given if galaxy not in there]
    if lost and len(lost) == len(given):
        raise ValueError(f"none of {len(given)} {what}, such as {lost[0]!r}, is among {where}: they are of another "
                         "catalogue. Choose another file, or give all galaxies of that catalogue.")  # fmt: skip
    if lost:
        warnings.warn(f"{len(given) - len(lost)} of {len(given)} {what} are among {where}; {len(lost)} are not: "
                      f"{listed(lost, 5)}", stacklevel=3)  # fmt: skip


def agreement(labels: pd.DataFrame, one: str, other: str) -> pd.Series:
    """How far two people agree beyond what chance would give, by Cohen's kappa.

    The method is that of Cohen 1960, Educ. Psychol. Meas. 20, 37.

    Args:
        labels: a :func:`table` with both columns.
        one, other: the columns.

    Returns:
        Series: ``kappa`` (1: always, 0: as by chance), ``same`` (share of equal answers), ``galaxies`` (answered by
        both).
    """
    from sklearn.metrics import cohen_kappa_score

    arguments.names("one, other", [one, other])
    require([one, other], labels, "the table of labels")
    if one == other:
        raise ValueError(f"give two columns to compare, not {one!r} twice")
    both = labels[[one, other]]
    both = both[(both.notna() & (both.astype(str).apply(lambda answers: answers.str.strip()) != "")).all(axis=1)]
    if both.empty:
        raise ValueError(f"no galaxy has an answer in both {one!r} and {other!r}, so there is nothing to compare")
    answers = labels_of(pd.concat([both[one], both[other]]), f"{one}, {other}")  # 1 is 1.0 of a column with gaps
    first, second = answers.astype(str).to_numpy(object).reshape(2, -1)
    with np.errstate(invalid="ignore"):
        kappa = cohen_kappa_score(first, second) if answers.nunique() > 1 else np.nan
    return pd.Series({"kappa": kappa, "same": float(np.mean(first == second)), "galaxies": len(both)})


def _history(path: Path) -> dict[str, list[tuple[str, object]]]:
    """For each column the answers that were not taken back, in the order in which they were given."""
    columns: dict[str, list] = {}
    for number, line in enumerate(_whole_lines(path.read_bytes() if path.exists() else b""), 1):
        try:
            row = json.loads(line)
            rows = columns.setdefault(row["column"], [])
            galaxy, answer = ("", None) if "undo" in row else (row["id_str"], row["answer"])
            if not isinstance(galaxy, str) or not isinstance(answer, (str, int, type(None))):
                raise TypeError
            rows.pop() if "undo" in row else rows.append((galaxy, answer))
        except (ValueError, KeyError, TypeError, IndexError):
            raise ValueError(
                f"{path} is not a file of labels, or was changed by hand: line {number} reads {line[:60]!r}"
            ) from None
    return columns


def _whole_lines(content: bytes) -> list[bytes]:
    """All lines but a last one that is half; an editor may have left out the end of a whole one."""
    *lines, last = content.split(b"\n")
    with contextlib.suppress(ValueError):
        lines += [last] if json.loads(last) else []
    return lines


def _mend_last_line(path: Path) -> None:
    """Take away half a line that a power failure left: its answer was never shown as saved."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        if not content.startswith(b"{"):
            raise ValueError(f"{path} is not a file of labels: it begins with {content[:20]!r}. Choose another file.")
        whole = len(b"\n".join(_whole_lines(content)))
        with open(path, "ab") as file:
            file.truncate(whole)
            file.write(b"\n" if whole else b"")
