"""Run every chapter once and keep the outputs for the book.

    python book/_tools/execute_chapters.py                          all chapters, each framework, quick scale
    python book/_tools/execute_chapters.py data_notes --force       one chapter, even if nothing changed
    python book/_tools/execute_chapters.py --scale full             as on a GPU

A chapter runs again only if its code, the package, a measured result, the parameters or a main dependency changed.
Executed notebooks come to `_build/executed/<framework>/`; `jupyter-book build .` finds their outputs in its cache.
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from layout import ROOT, chapters
from myst_nb.core.read import read_myst_markdown_notebook
from nbclient.exceptions import CellTimeoutError, DeadKernelError

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS, Edition, cache_dir, in_words, installed  # noqa: E402

NOT_IN_PAGE = {"injected-parameters", "colab-setup"}
FAILURES = (papermill.PapermillExecutionError, CellTimeoutError, DeadKernelError)


def run(page: Path, edition: Edition, out_dir: Path, timeout: int = 900) -> Path:
    """Execute a chapter's notebook with papermill.

    Args:
        page: the chapter's source, `book/<chapter>.md`, beside which its notebook lies.
        edition: values of its parameters.
        out_dir: where the executed notebook is written.
        timeout: seconds that one cell may take.

    Returns:
        Path: the executed notebook; after a failure too it is there, with the error in it.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    notebook = page.with_suffix(".ipynb")
    papermill.execute_notebook(
        str(notebook),
        str(out_dir / notebook.name),
        parameters=vars(edition),
        cwd=str(page.parent),
        execution_timeout=timeout,
        progress_bar=sys.stderr.isatty(),
        log_output=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else each kernel warns about its TCP transport
    )
    return out_dir / notebook.name


def page_notebook(page: Path, edition: Edition):
    """The chapter as the book's parser sees it: what jupyter-cache compares."""
    notebook = read_myst_markdown_notebook(edition.source(page.read_text("utf8")), path=page)
    notebook.metadata.pop("source_map", None)
    return notebook


def is_kept(page: Path, edition: Edition, folder: Path) -> bool:
    """Whether the cache in a folder holds outputs of exactly this chapter."""
    try:
        get_cache(str(folder)).match_cache_notebook(page_notebook(page, edition))
    except KeyError:
        return False
    return True


def keep(page: Path, edition: Edition, folder: Path, executed: Path, seconds: float) -> None:
    """Put the outputs of an executed notebook where `jupyter-book build` looks for them."""
    notebook = page_notebook(page, edition)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = [
        cell
        for cell in nbformat.read(executed, 4).cells
        if cell.cell_type == "code" and not NOT_IN_PAGE & set(cell.metadata.get("tags", []))
    ]
    if [cell.source for cell in cells] != [edition.source(cell.source) for cell in ran]:
        raise SystemExit(f"{page.with_suffix('.ipynb').name} is not what {page.name} says: run `make notebooks`")
    for number, (cell, done) in enumerate(zip(cells, ran, strict=True), 1):
        cell.outputs, cell.execution_count = done.outputs, number
    get_cache(str(folder)).cache_notebook_bundle(
        CacheBundleIn(notebook, str(page), data={"execution_seconds": seconds}), check_validity=False, overwrite=True
    )


def run_all(pages: list[Path], edition: Edition, timeout: int, force: bool) -> list[str]:
    """Bring the outputs of an edition up to date; gives the names of the chapters that failed."""
    failed = []
    for page in pages:
        name = f"{page.stem} ({edition})"
        folder = cache_dir(ROOT, edition)  # of the package as it is now, should somebody edit it while the chapter runs
        if not force and is_kept(page, edition, folder):
            print(f"{name}: up to date", flush=True)
            continue
        print(f"{name}: running", flush=True)
        start = time.perf_counter()
        try:
            executed = run(page, edition, ROOT / "_build/executed" / edition.framework, timeout)
        except FAILURES as error:
            print(f"{name}: FAILED\n{error}", file=sys.stderr)
            failed.append(page.stem)
            continue
        seconds = time.perf_counter() - start
        keep(page, edition, folder, executed, seconds)
        print(f"{name}: done in {in_words(seconds)}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="names, such as data_notes; default: all")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each that is installed")
    parser.add_argument("--dataset", default=Edition.dataset)
    parser.add_argument("--scale", default=Edition.scale, choices=("quick", "full"))
    parser.add_argument("--timeout", type=int, default=900, help="seconds a cell may take (%(default)s)")
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    chosen = parser.parse_args()
    pages = {page.stem: page for page in chapters()}
    unknown = [name for name in chosen.chapters if name not in pages]
    if unknown:
        parser.error(f"no chapter {unknown[0]!r}; there are {', '.join(pages)}")
    wanted = [page for name, page in pages.items() if not chosen.chapters or name in chosen.chapters]
    failed = []
    for framework in chosen.framework or installed():
        edition = Edition(framework, chosen.dataset, chosen.scale)
        failed += run_all(wanted, edition, chosen.timeout, chosen.force)
    if (chosen.dataset, chosen.scale) != (Edition.dataset, Edition.scale):
        print(f"to render this: ZOOBOOK_EDITION={edition} python book/_tools/build_site.py")
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
