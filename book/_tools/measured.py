"""What the book measured when it last ran: `book/measured.json`, for notebooks that nobody has run yet.

`execute_chapters.py --record` writes it. For each chapter it holds the date, the seconds, the processor cores and the
versions of the run, and the numbers that the text quotes, as the page shows them.
"""
from __future__ import annotations

import json
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAME = "measured.json"
QUOTED = re.compile(r"\{glue(?::\w+)?\}(?:`([^`]+)`| *(\S+))")  # a role or a directive
VERSIONS = {  # what a reader may ask for, in the words of its makers
    "zoobook": "zoobook", "torch": "PyTorch", "timm": "timm", "tensorflow": "TensorFlow", "keras": "Keras",
    "numpy": "NumPy", "scikit-learn": "scikit-learn",
}  # fmt: skip
ONLY = {"pytorch": ("tensorflow", "keras"), "tensorflow": ("torch", "timm")}  # an edition is made without these


def load(folder: Path) -> dict[str, dict]:
    """Chapter to what it measured; empty where nothing has been recorded.

    Args:
        folder: of the chapters' sources.
    """
    file = folder / NAME
    return json.loads(file.read_text("utf8")) if file.exists() else {}


def save(folder: Path, found: dict[str, dict]) -> None:
    """Write what chapters measured; chapters that are not in `found` stay as they are."""
    text = json.dumps(dict(sorted((load(folder) | found).items())), indent=1, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", "utf8")


def quoted(text: str) -> list[str]:
    """The numbers that a chapter's text quotes, with their formats, as in ``n_galaxies`` or ``loss:.2f``."""
    return list(dict.fromkeys(role or directive for role, directive in QUOTED.findall(text)))


def versions(framework: str | None = None) -> dict[str, str]:
    """Versions of what is installed; with a framework, without what belongs to the other one."""
    found = {}
    for package, name in VERSIONS.items():
        if package not in ONLY.get(framework, ()):
            try:
                found[name] = version(package)
            except PackageNotFoundError:
                continue
    return found


def in_words(seconds: float) -> str:
    """A duration as people say it.

    >>> in_words(7.4), in_words(48), in_words(200)
    ('7 seconds', '50 seconds', '3 minutes')
    """
    if seconds < 10:
        number, unit = max(1, round(seconds)), "second"
    elif seconds < 95:
        number, unit = 10 * round(seconds / 10), "second"
    else:
        number, unit = round(seconds / 60), "minute"
    return f"{number} {unit}" + "s" * (number != 1)


def day(when: date) -> str:
    """A date as people say it.

    >>> day(date(2026, 3, 4))
    '4 March 2026'
    """
    return f"{when.day} {when:%B %Y}"
