"""Write `book/*.ipynb`, the notebooks that Colab opens, from `book/*.md`, which people edit.

    python book/_tools/make_notebooks.py            write those that changed
    python book/_tools/make_notebooks.py --check    write nothing; fail if one is out of date

The same sources, pages and `book/measured.json`, always give the same bytes, so the check needs no file times.

Where a page quotes a number, the notebook shows what the book measured, and a cell after the text says the sentence
again with what the reader's own run has found.
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from datetime import date
from pathlib import Path

import jupytext
import measured
import nbformat
from layout import BRANCH, COLAB, REPOSITORY, ROOT, SITE, chapters, header
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from plain_markdown import NUMBER, plain_markdown, with_numbers

SETUP = f"""\
keep_on_drive = False  # True: Colab keeps what you download and train in the folder zoobook of your Google Drive

# On Colab this installs zoobook beside the packages that are already there. Anywhere else it does nothing.
import os
import sys

if "google.colab" in sys.modules:
    if keep_on_drive:
        from google.colab import drive

        drive.mount("/content/drive")
        os.environ["ZOOBOOK_HOME"] = "/content/drive/MyDrive/zoobook"
    %pip install --quiet "zoobook[pytorch,tensorflow,chapters] @ git+{REPOSITORY}@{BRANCH}"
"""
NUMBERS = "# @title With the numbers of your run\nchapters.own_numbers({})"
FOLDED = {"hide-input", "hide-cell", "remove-cell", "own-numbers"}
NOT_MEASURED = "(not measured yet)"
SECTIONS = re.compile(r"\n(?=## )")


def build(page: Path) -> str:
    """The notebook of one chapter, as JSON text."""
    source = jupytext.reads(page.read_text("utf8"), fmt="md:myst")
    where = page.relative_to(ROOT).with_suffix("").as_posix()
    run = measured.load(page.parent).get(page.stem, {})
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
    setup_needed, begun, unsaid = True, False, []
    for cell in source.cells:
        if cell.cell_type == "markdown":
            plain = plain_markdown(cell.source, page)
            for section in SECTIONS.split(plain) if begun else [plain]:  # a section's numbers come before the next
                text = NUMBER.sub(lambda number: run.get("numbers", {}).get(number[1], NOT_MEASURED), section)
                text = text if notebook.cells else f"{top}{text}\n\n{_about(page, run)}"
                notebook.cells.append(new_markdown_cell(text))
                unsaid += with_numbers(section)
                if unsaid and begun:
                    notebook.cells.append(_code(NUMBERS.format(_quote("\n\n".join(unsaid))), ["own-numbers"]))
                    unsaid = []
            continue
        if setup_needed:
            notebook.cells.append(_code(SETUP.rstrip(), ["colab-setup"]))
            setup_needed = False
        begun = begun or "chapters" in cell.source  # is imported
        notebook.cells.append(_code(cell.source, list(cell.metadata.get("tags", []))))
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption:  # the site shows it below the figure
            notebook.cells.append(new_markdown_cell(f"*Figure: {plain_markdown(caption, page)}*"))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{number:03d}"[-64:]
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _about(page: Path, run: dict) -> str:
    """What one should know first: whose numbers these are, what it costs, how to keep what it makes."""
    text = "> **Running this page.** "
    if run and measured.quoted(page.read_text("utf8")):
        text += (
            f"The numbers in the text are the book's, measured on {measured.day(date.fromisoformat(run['date']))}. "
            "When you run the page, a cell below such text says it again with your own numbers.\n>\n> "
        )
    if run:
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        text += (
            f"On {run['cores']} processor cores the chapter took {measured.in_words(run['seconds'])} at the quick "
            f"scale ({versions}). On Colab's T4 GPU it has not been measured.\n>\n> "
        )
    return text + (
        "Colab forgets its files when you leave. To keep data and trained networks on your Google Drive, set "
        "`keep_on_drive = True` in the next cell before you run it. That sets the variable `ZOOBOOK_HOME`, the "
        "folder in which zoobook keeps everything; on your own machine you may set it, too."
    )


def _code(source: str, tags: list[str]) -> nbformat.NotebookNode:
    metadata: dict = {"tags": tags} if tags else {}
    if FOLDED & set(tags):
        metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return new_code_cell(source, metadata=metadata)


def _quote(text: str) -> str:
    """A string literal of several lines."""
    quotes = '"' * 3
    return f"r{quotes}\n{text}\n{quotes}"


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
