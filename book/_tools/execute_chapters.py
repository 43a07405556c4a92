"""Run every chapter once and keep the outputs for the book.

    python book/_tools/execute_chapters.py                          all chapters, each framework, quick scale
    python book/_tools/execute_chapters.py data_notes --force       one chapter, even if nothing changed
    python book/_tools/execute_chapters.py --scale full             as on a GPU
    python book/_tools/execute_chapters.py --jobs 2                 the frameworks side by side
    python book/_tools/execute_chapters.py --record                 then write what they measured to book/measured.json

A chapter runs again only if its code cells changed or what `rerun_rule.py` says.
Executed notebooks come to `_build/executed/<framework>/`; `jupyter-book build .` finds their outputs in its cache.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import measured
import nbformat
import papermill
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from layout import ROOT, chapters, header
from measured import in_words
from myst_nb.core.read import read_myst_markdown_notebook
from myst_nb.core.variables import format_plain_text
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from rerun_rule import cache_dir

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS, Edition, installed  # noqa: E402

NOT_IN_PAGE = {"injected-parameters", "colab-setup", "own-numbers"}
FAILURES = (papermill.PapermillExecutionError, CellTimeoutError, DeadKernelError)


def run(page: Path, edition: Edition, out_dir: Path, timeout: int = 1800) -> Path:
    """Execute a chapter's notebook with papermill.

    Args:
        page: the chapter's source, `book/<chapter>.md`, beside which its notebook lies.
        edition: values of its parameters.
        out_dir: where the executed notebook is written.
        timeout: seconds that one cell may take.

    Returns:
        Path: the executed notebook; after a failure too, with the error in it.
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


def kept(page: Path, edition: Edition, folder: Path) -> nbformat.NotebookNode | None:
    """Exactly this chapter with its outputs, as the site shows them, from a cache; None if it has to be run."""
    cache = get_cache(str(folder))
    try:
        return cache.get_cache_bundle(cache.match_cache_notebook(page_notebook(page, edition)).pk).nb
    except KeyError:
        return None


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


@dataclass
class Attempt:
    """The result of running a chapter.

    Attributes:
        executed: the notebook with its outputs; None after a failure.
        folders: the caches for its outputs: those of the package as it was when the chapter began, even if it was
            edited since.
        seconds: how long it took.
        error: what went wrong.
    """

    executed: Path | None
    folders: list[Path]
    seconds: float = 0.0
    error: str = ""


def attempt(page: Path, edition: Edition, folders: list[Edition], timeout: int) -> Attempt:
    """Run a chapter that some editions show; a failure is reported, not raised."""
    found = Attempt(None, [cache_dir(ROOT, shown) for shown in folders])
    print(f"{page.stem} ({edition}): running", flush=True)
    start = time.perf_counter()
    try:
        found.executed = run(page, edition, ROOT / "_build/executed" / edition.framework, timeout)
    except FAILURES as error:
        found.error = str(error)
    found.seconds = time.perf_counter() - start
    return found


def run_all(pages: list[Path], editions: list[Edition], timeout: int, force: bool, jobs: int = 1) -> list[str]:
    """Bring the outputs of some editions up to date; returns the names of the chapters that failed.

    Args:
        pages: the chapters' sources.
        editions: for which they are run. A page that is the same in all of them is run once.
        timeout: seconds that one cell may take.
        force: run what is up to date, too.
        jobs: how many chapters are run side by side. A page that measures time is run alone, after the others.
    """
    shown_in: dict[tuple[Path, Edition], list[Edition]] = {}
    for edition in editions:
        for page in pages:
            shown_in.setdefault((page, edition.of_page(page.read_text("utf8"))), []).append(edition)
    caches, waiting = {edition: cache_dir(ROOT, edition) for edition in editions}, {}
    for (page, edition), shown in shown_in.items():
        if not force and all(kept(page, edition, caches[other]) for other in shown):
            print(f"{page.stem} ({edition}): up to date", flush=True)
        else:
            waiting[page, edition] = shown
    alone = {work for work in waiting if header(work[0]).get("zoobook", {}).get("alone")}
    failed = []

    def finish(page: Path, edition: Edition, found: Attempt) -> None:
        name = f"{page.stem} ({edition})"
        if found.executed is None:
            print(f"{name}: FAILED\n{found.error}", file=sys.stderr)
            failed.append(page.stem)
            return
        for folder in found.folders:
            keep(page, edition, folder, found.executed, found.seconds)
        print(f"{name}: done in {in_words(found.seconds)}", flush=True)

    took = {name: run["seconds"] for name, run in measured.load(ROOT / "book").items()}
    side_by_side = [work for work in waiting if jobs > 1 and work not in alone]
    side_by_side.sort(key=lambda work: took.get(work[0].stem, 0), reverse=True)  # no long one at the end
    if side_by_side:
        with ProcessPoolExecutor(jobs, initializer=_share_cores, initargs=(jobs,)) as pool:
            running = {pool.submit(attempt, *work, waiting[work], timeout): work for work in side_by_side}
            for future in as_completed(running):
                finish(*running[future], future.result())
    for work in waiting:
        if work not in side_by_side:
            finish(*work, attempt(*work, waiting[work], timeout))
    return failed


def measurement(page: Path, edition: Edition, folder: Path) -> dict:
    """What a chapter that is up to date measured, and when and with what, as `measured.json` holds it.

    Raises:
        KeyError: it has not run with these code cells, or does not glue a number that its text quotes.
    """
    cache = get_cache(str(folder))
    record = cache.match_cache_notebook(page_notebook(page, edition))
    return {
        "date": f"{record.created:%Y-%m-%d}",
        "seconds": round(record.data["execution_seconds"]),
        "cores": os.cpu_count(),
        "versions": measured.versions(None if header(page).get("zoobook", {}).get("once") else edition.framework),
        "numbers": numbers(page, cache.get_cache_bundle(record.pk).nb),
    }


def numbers(page: Path, executed: nbformat.NotebookNode) -> dict[str, str]:
    """The numbers that a chapter's text quotes, by name and format, as the page shows them."""
    glued = {}
    for output in (output for cell in executed.cells for output in cell.get("outputs", [])):
        book = output.get("metadata", {}).get("scrapbook", {})
        if "name" in book:
            glued[book["name"]] = output["data"].get(f"{book.get('mime_prefix', '')}text/plain", "")
    found = {}
    for wanted in measured.quoted(page.read_text("utf8")):
        name, _, form = wanted.partition(":")
        if name not in glued:
            raise KeyError(f"{page.name} quotes {name!r}, which none of its cells glues")
        found[wanted] = str(format_plain_text(glued[name], form))
    return found


def _share_cores(jobs: int) -> None:
    """Let the kernels that this process starts use their part of the machine."""
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(variable, str(max(1, (os.cpu_count() or 1) // jobs)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="names, such as data_notes; default: all")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each that is installed")
    parser.add_argument("--dataset", default=Edition.dataset)
    parser.add_argument("--scale", default=Edition.scale, choices=("quick", "full"))
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="chapters that run side by side (%(default)s)")
    parser.add_argument("--record", action="store_true", help=f"write what they measured to book/{measured.NAME}")
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    chosen = parser.parse_args()
    pages = {page.stem: page for page in chapters()}
    unknown = [name for name in chosen.chapters if name not in pages]
    if unknown:
        parser.error(f"no chapter {unknown[0]!r}; there are {', '.join(pages)}")
    wanted = [page for name, page in pages.items() if not chosen.chapters or name in chosen.chapters]
    editions = [Edition(framework, chosen.dataset, chosen.scale) for framework in chosen.framework or installed()]
    failed = run_all(wanted, editions, chosen.timeout, chosen.force, chosen.jobs)
    if (chosen.dataset, chosen.scale) != (Edition.dataset, Edition.scale):
        print(f"to render this: ZOOBOOK_EDITION={editions[0]} python book/_tools/build_site.py")
    if chosen.record:
        standard, done = Edition(), [page for page in wanted if page.stem not in failed]
        folder = cache_dir(ROOT, standard)
        measured.save(ROOT / "book", {page.stem: measurement(page, standard, folder) for page in done})
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
