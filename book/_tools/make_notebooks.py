"""Write `book/*.ipynb`, the notebooks that Colab opens, from `book/*.md`, which people edit.

    python book/_tools/make_notebooks.py            write those that changed
    python book/_tools/make_notebooks.py --check    write nothing; fail if one is out of date

The same source always gives the same bytes, so the check needs no file times.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from layout import BRANCH, COLAB, REPOSITORY, ROOT, SITE, chapters, header
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from plain_markdown import plain_markdown

SETUP = f"""\
# On Colab this installs zoobook beside the packages that are already there. Anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "zoobook[pytorch,tensorflow,chapters] @ git+{REPOSITORY}@{BRANCH}"
"""
FOLDED = {"hide-input", "hide-cell"}


def build(page: Path) -> str:
    """The notebook of one chapter, as JSON text."""
    source = jupytext.reads(page.read_text("utf8"), fmt="md:myst")
    where = page.relative_to(ROOT).with_suffix("").as_posix()
    top = (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({COLAB}/{where}.ipynb) "
        f"[Read this chapter in the book]({SITE}/{where}.html)\n\n"
    )
    notebook = new_notebook()
    notebook.metadata = nbformat.from_dict(
        {
            "colab": {"provenance": [], "toc_visible": True},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    if header(page).get("zoobook", {}).get("gpu"):
        notebook.metadata["accelerator"] = "GPU"
        notebook.metadata["colab"]["gpuType"] = "T4"
    setup_needed = True
    for cell in source.cells:
        if cell.cell_type == "markdown":
            text = plain_markdown(cell.source, page)
            notebook.cells.append(new_markdown_cell(text if notebook.cells else top + text))
            continue
        if setup_needed:
            notebook.cells.append(new_code_cell(SETUP.rstrip(), metadata={"tags": ["colab-setup"]}))
            setup_needed = False
        tags = list(cell.metadata.get("tags", []))
        metadata = {"tags": tags} if tags else {}
        if FOLDED & set(tags):
            metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
        notebook.cells.append(new_code_cell(cell.source, metadata=metadata))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{number:03d}"[-64:]
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def out_of_date() -> dict[Path, str | None]:
    """Notebooks that differ from what their source gives, with their right content; None where no source is left."""
    wanted = {page.with_suffix(".ipynb"): build(page) for page in chapters()}
    found: dict[Path, str | None] = {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf8") != text
    }
    return found | {path: None for path in sorted((ROOT / "book").glob("*.ipynb")) if path not in wanted}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is out of date")
    check = parser.parse_args().check
    stale = out_of_date()
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: {'has no source' if text is None else 'out of date' if check else 'written'}")
        if text is not None and not check:
            temporary = path.with_suffix(".part")
            temporary.write_text(text, "utf8")
            os.replace(temporary, path)
    if check and stale:
        print("run `make notebooks`, delete those without a source, and commit", file=sys.stderr)
    return bool(stale) if check else any(text is None for text in stale.values())


if __name__ == "__main__":
    sys.exit(main())
