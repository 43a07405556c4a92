"""Why a chapter runs again: one of its code cells changed, or something that the key of its run stands for.

The key is the name of the folder in which the outputs are kept. It stands for what a chapter's outputs depend on beside
its own code cells, which jupyter-cache compares: the parameters, the versions of the main dependencies, and the code
and data of the package. Comments, docstrings and line breaks are left out of it, as is the command line.
"""
from __future__ import annotations

import ast
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DEPENDENCIES = (  # a new version of any of these may change what a chapter shows
    "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "astropy", "pillow", "matplotlib", "umap-learn", "sep",
    "scikit-image", "torch", "torchvision", "pytorch-lightning", "timm", "tensorflow", "keras",
)  # fmt: skip
DATA = {".yaml", ".csv", ".json"}
NO_PART = "cli/"  # of the package; no chapter calls it


def cache_dir(root: Path, edition: object) -> Path:
    """The jupyter-cache folder of an edition, whose name is the key of its runs.

    Args:
        root: the project, with `zoobook/` in it.
        edition: the chapters' parameters, as `str` writes them.
    """
    digest = hashlib.sha256(str(edition).encode())
    for name in DEPENDENCIES:
        digest.update(f"{name}={_version(name)}\n".encode())
    package = root / "zoobook"
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package).as_posix()
        if path.suffix in {".py", *DATA} and not name.startswith(NO_PART):
            content = path.read_bytes() if path.suffix in DATA else code_of(path.read_text("utf8")).encode()
            digest.update(f"{name}={len(content)}\n".encode() + content)
    return root / "_build" / ".jupyter_cache" / digest.hexdigest()[:16]


def code_of(source: str) -> str:
    """What a module does, whatever its comments, docstrings and line breaks say.

    >>> code_of('def f():\\n    "Say one."\\n    return 1') == code_of("def f(): return 1  # one")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
