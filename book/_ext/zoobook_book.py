"""The Sphinx side of the book: which edition is rendered, folded solutions, how chapters were run."""
from __future__ import annotations

import os
import posixpath
import re
import sys
from dataclasses import astuple, dataclass, fields, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.transforms import SphinxTransform

import zoobook

sys.path.insert(0, str(Path(__file__).parents[1] / "_tools"))
from measured import day, in_words, versions  # noqa: E402
from rerun_rule import cache_dir  # noqa: E402

FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}  # one edition of the book for each


def installed() -> list[str]:
    """The frameworks that are there."""
    return [name for name in FRAMEWORKS if find_spec(zoobook.FRAMEWORKS[name])]


@dataclass(frozen=True)
class Edition:
    """The values of the chapters' ``parameters`` cell."""

    framework: str = "pytorch"
    dataset: str = "simulated"
    scale: str = "quick"

    def __str__(self) -> str:
        return "/".join(astuple(self))

    @classmethod
    def of_build(cls) -> Edition:
        """The edition this build renders: ``$ZOOBOOK_EDITION``, such as ``pytorch/simulated/full``, or the default."""
        parts = os.environ.get("ZOOBOOK_EDITION", str(cls())).split("/")
        if len(parts) != len(fields(cls)):
            raise ValueError(f"ZOOBOOK_EDITION is {'/'.join(parts)!r}; it must look like {cls()!s}")
        return cls(*parts)

    def of_page(self, text: str) -> Edition:
        """What a page is run with: one whose header says ``once: true`` is the same in all editions of the book."""
        return replace(self, framework=Edition.framework) if _once(text) else self

    def source(self, text: str) -> str:
        """A chapter's MyST source with this edition's values in its parameters cell."""
        for name, value in vars(self).items():
            text = re.sub(rf'^({name}: str = )"[^"\n]*"', rf'\1"{value}"', text, count=1, flags=re.MULTILINE)
        return text


def _once(text: str) -> bool:
    return "\n  once: true" in text.split("\n---", 1)[0]


def _set_edition(app, config) -> None:
    edition = Edition.of_build()
    config.nb_execution_cache_path = str(cache_dir(Path(app.srcdir), edition))
    if edition.framework != Edition.framework:
        config.html_baseurl = f"{config.html_baseurl.rstrip('/')}/{edition.framework}"
    if len(installed()) < len(FRAMEWORKS):  # the chapter on both then has no results that its text could quote
        config.suppress_warnings.append("mystnb.glue")


def _set_parameters(app, docname: str, source: list[str]) -> None:
    edition = Edition.of_build()
    # Where code is shown in both frameworks, the tab of this edition is in front.
    in_front = re.sub(rf"^:sync: {edition.framework}$", r":selected:\n\g<0>", source[0], flags=re.MULTILINE)
    source[0] = edition.of_page(source[0]).source(in_front)


class FoldedSolutions(SphinxTransform):
    """Hidden cells tagged ``solution`` say so on their fold, and that they go on with what stands above them."""

    default_priority = 50

    def apply(self, **kwargs) -> None:
        for node in self.document.findall(nodes.container):
            if _is_solution(node):
                siblings = node.parent.children
                before = siblings[max(0, siblings.index(node) - 1)]
                in_words = isinstance(before, nodes.admonition) and before.astext().startswith("Solution")
                told = "The same in code" if in_words else "More of it" if _is_solution(before) else "Solution"
                node["prompt_show"] = node["prompt_hide"] = told


def _is_solution(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "solution" in node.get("cell_metadata", {}).get("tags", [])


def run_time(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role ``{run-time}`guess <chapter>` ``: a chapter's measured run time; the guess where nothing was measured.

    Without ``<chapter>`` it means the page it stands on.
    """
    guess, _, chapter = text.removesuffix(">").partition(" <")
    here = inliner.document.settings.env.docname
    chapter = posixpath.normpath(posixpath.join(posixpath.dirname(here), chapter)) if chapter else here
    return [nodes.inline("", guess, classes=["run-time"], chapter=chapter)], []


def _fill_run_times(app, doctree, docname: str) -> None:
    for node in doctree.findall(lambda n: isinstance(n, nodes.inline) and "run-time" in n["classes"]):
        data = NbMetadataCollector.get_exec_data(app.env, node["chapter"])
        if data and data["runtime"]:
            node.children = [nodes.Text(in_words(data["runtime"]))]


def _say_last_run(app, doctree) -> None:
    """End a chapter with when and with what it was run. Versions are those of now: with others it had run again."""
    data = NbMetadataCollector.get_exec_data(app.env, app.env.docname)
    if data and data["runtime"]:
        in_both = _once(Path(app.env.doc2path(app.env.docname)).read_text("utf8"))
        used = versions(None if in_both else Edition.of_build().framework)
        with_what = ", ".join(f"{name} {number}" for name, number in used.items())
        when = day(datetime.fromtimestamp(data["mtime"]))
        told = f"Last run on {when} in {in_words(data['runtime'])}, with {with_what}."
        next(doctree.findall(nodes.section)).append(nodes.paragraph("", told, classes=["zb-last-run"]))


def _letter_figures(app, env) -> list[str]:
    """Figures of a page that is no numbered chapter get its letter, as Fig. A.1: Fig. 10 would look like a chapter."""
    letters = iter(ascii_uppercase)
    for kinds in env.toc_fignumbers.values():  # in reading order
        if any(len(number) == 1 for figures in kinds.values() for number in figures.values()):
            letter = next(letters)
            for figures in kinds.values():
                figures.update({name: (letter, place) for place, name in enumerate(figures, 1)})
    return []


def setup(app):
    app.add_role("run-time", run_time)
    app.add_transform(FoldedSolutions)
    app.connect("config-inited", _set_edition)
    app.connect("source-read", _set_parameters)
    app.connect("env-get-updated", _letter_figures, priority=900)  # once all have a number
    app.connect("doctree-read", _say_last_run)
    app.connect("doctree-resolved", _fill_run_times)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
