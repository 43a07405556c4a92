"""Where the book's parts are and where it is published, read from `_config.yml` and `_toc.yml`."""
from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
_config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))

AUTHOR: str = _config["author"]
REPOSITORY: str = _config["repository"]["url"].rstrip("/")
BRANCH: str = _config["repository"]["branch"]
SITE: str = _config["html"]["baseurl"].rstrip("/")
NAME = REPOSITORY.removeprefix("https://github.com/")
RAW = f"https://raw.githubusercontent.com/{NAME}/{BRANCH}"
COLAB = f"https://colab.research.google.com/github/{NAME}/blob/{BRANCH}"


def header(page: Path) -> dict:
    """The YAML header of a Markdown page; empty if it has none."""
    text = page.read_text("utf8")
    return yaml.safe_load(text.split("---", 2)[1]) or {} if text.startswith("---\n") else {}


def chapters() -> list[Path]:
    """The pages that are notebooks, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    pages = [ROOT / f"{item['file']}.md" for part in toc["parts"] for item in part["chapters"]]
    return [page for page in pages if "kernelspec" in header(page)]
