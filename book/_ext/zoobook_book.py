"""The Sphinx side of the book: which edition is rendered, where its outputs are kept, how long chapters took."""
from __future__ import annotations

import ast
import hashlib
import os
import posixpath
import re
from dataclasses import astuple, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.transforms import SphinxTransform

import zoobook

FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}  # one edition of the book for each

# A new version of any of these may change what a chapter shows.
DEPENDENCIES = (
    "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "astropy", "pillow", "matplotlib", "umap-learn",
    "torch", "torchvision", "pytorch-lightning", "timm", "tensorflow", "keras",
)  # fmt: skip


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
        header = text.split("\n---", 1)[0]
        return replace(self, framework=Edition.framework) if "\n  once: true" in header else self

    def source(self, text: str) -> str:
        """A chapter's MyST source with this edition's values in its parameters cell."""
        for name, value in vars(self).items():
            text = re.sub(rf'^({name}: str = )"[^"\n]*"', rf'\1"{value}"', text, count=1, flags=re.MULTILINE)
        return text


def cache_dir(root: Path, edition: Edition) -> Path:
    """The jupyter-cache folder of an edition.

    jupyter-cache compares code cells only, so the folder's name stands for the rest of what outputs depend on: the
    package's code (without comments, docstrings and the command line) and data, the parameters, and the versions of
    the main dependencies.
    """
    digest = hashlib.sha256(str(edition).encode())
    for name in DEPENDENCIES:
        try:
            digest.update(f"{name}={version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{name}=none\n".encode())
    package = root / "zoobook"
    for path in sorted(path for path in package.rglob("*") if path.suffix in {".py", ".yaml", ".csv", ".json"}):
        name = path.relative_to(package).as_posix()
        if not name.startswith("cli/"):
            content = _code(path) if path.suffix == ".py" else path.read_bytes()
            digest.update(f"{name}={len(content)}\n".encode() + content)
    return root / "_build" / ".jupyter_cache" / digest.hexdigest()[:16]


def _code(path: Path) -> bytes:
    """What a module does, whatever its comments, docstrings and line breaks say."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            del node.body[0]
    return ast.dump(tree).encode()


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
    """Hidden cells tagged ``solution`` say so on their fold."""

    default_priority = 50

    def apply(self, **kwargs) -> None:
        for node in self.document.findall(nodes.container):
            if "solution" in node.get("cell_metadata", {}).get("tags", []):
                node["prompt_show"] = node["prompt_hide"] = "Solution"


def run_time(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role ``{run-time}`guess <chapter>` ``: a chapter's measured run time; the guess where nothing was measured.

    Without ``<chapter>`` it means the page it stands on.
    """
    guess, _, chapter = text.removesuffix(">").partition(" <")
    return [nodes.inline("", guess, classes=["run-time"], chapter=chapter)], []


def _fill_run_times(app, doctree, docname: str) -> None:
    for node in doctree.findall(lambda n: isinstance(n, nodes.inline) and "run-time" in n["classes"]):
        chapter = node["chapter"]
        other = posixpath.normpath(posixpath.join(posixpath.dirname(docname), chapter)) if chapter else docname
        data = NbMetadataCollector.get_exec_data(app.env, other)
        if data and data["runtime"]:
            node.children = [nodes.Text(in_words(data["runtime"]))]


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


def setup(app):
    app.add_role("run-time", run_time)
    app.add_transform(FoldedSolutions)
    app.connect("config-inited", _set_edition)
    app.connect("source-read", _set_parameters)
    app.connect("doctree-resolved", _fill_run_times)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
