"""The house, read without running it: every arrow points down, nothing goes in circles, public names have types."""
import ast
import doctest
import importlib
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

import zoobook

ROOT = Path(zoobook.__file__).parent
FRAMEWORK_PACKAGES = {
    "pytorch": {"torch", "torchvision", "pytorch_lightning", "timm"}, "tensorflow": {"tensorflow", "keras"}
}  # fmt: skip
FLOORS = {  # the rest: the ground
    "learning": 1, "weights": 1, "pytorch": 2, "tensorflow": 2, "chapters": 3, "cli": 3, "__main__": 3
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = ("zoobook", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf8"), feature_version=(3, 10))


def imports(module: str) -> set[str]:
    """What is imported when a module is, not within its functions; of zoobook the modules themselves."""
    found, waiting = set(), list(parsed(module).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)) and "TYPE_CHECKING" not in ast.dump(node):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def room(module: str) -> str:
    return (module.split(".") + [""])[1]


def test_arrows_point_down():
    """cli, chapters -> pytorch | tensorflow -> learning, weights -> everything else."""
    upward = []
    for module in MODULES:
        for other in imports(module) & set(MODULES):
            here, there = room(module), room(other)
            if FLOORS.get(there, 0) > FLOORS.get(here, 0) or {here, there} == {"pytorch", "tensorflow"}:
                upward.append(f"{module} imports {other}")
    assert not upward


def test_frameworks_are_imported_by_their_half_alone():
    """Readers of files that only a framework can open import it when they are called."""
    outside = []
    for module, path in MODULES.items():
        found = {name.split(".")[0] for name in imports(module)}
        if room(module) != "weights":  # within functions, too
            found |= set(re.findall(r"^\s+(?:import|from) (\w+)", path.read_text("utf8"), re.MULTILINE))
        others = [packages for name, packages in FRAMEWORK_PACKAGES.items() if name != room(module)]
        outside += [f"{module} imports {package}" for package in found & set().union(*others)]
    assert not outside


def test_what_is_imported_is_named_in_pyproject():
    """Else its lowest version is anybody's guess, and another library may stop to bring it."""
    brought = {"IPython": "every notebook", "traitlets": "anywidget", "huggingface_hub": "timm"}
    text = (ROOT.parent / "pyproject.toml").read_text("utf8")
    named = set(re.findall(r'"([a-z][\w.-]*)(?:\[[\w,]+\])?[<>=]', text))
    imported = set()
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in found}
    projects = packages_distributions()  # of each name that can be imported here
    wanted = imported & projects.keys() - {"zoobook", *sys.stdlib_module_names, *brought}
    assert len(wanted) > 10
    unnamed = {name for name in wanted if not named & {one.lower().replace("_", "-") for one in projects[name]}}
    assert not unnamed


def test_no_module_imports_itself_by_a_detour():
    arrows = {module: imports(module) & set(MODULES) - {module} for module in MODULES}
    while free := [module for module, found in arrows.items() if not found & set(arrows)]:
        for module in free:
            del arrows[module]
    assert not arrows, f"these modules import each other: {sorted(arrows)}"


def test_the_twins_share_few_lines():
    """What both frameworks would write alike stands in learning, once."""
    counts = []
    for path in (ROOT / "pytorch").glob("*.py"):
        ours, theirs = (
            [line.strip() for line in file.read_text("utf8").splitlines() if line.strip()]
            for file in (path, ROOT / "tensorflow" / path.name)
        )
        counts.append((sum(line in theirs for line in ours), len(ours)))
    shared, total = map(sum, zip(*counts, strict=True))
    assert shared < 0.15 * total


def public_functions(module: str):
    """Name and node of every function that others may call, methods of public classes included."""
    for node in parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and (inner.name[0] != "_" or inner.name == "__init__"):
                    yield f"{node.name}.{inner.name}", inner
        elif isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            yield node.name, node


def test_public_functions_state_their_types():
    untyped = []
    for module in MODULES:
        for name, node in public_functions(module) if "._" not in module else ():
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            lacking = [arg.arg for arg in given if arg.annotation is None and arg.arg not in ("self", "cls")]
            lacking += ["return"] * (node.returns is None and node.name != "__init__")
            if lacking:
                untyped.append(f"{module}.{name}: {', '.join(lacking)}")
    assert not untyped, "state the types of:\n" + "\n".join(untyped)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_are_right(module, tmp_path, monkeypatch):
    """Every module can be imported, and what stands after `>>>` gives what stands below it."""
    if room(module) in zoobook.FRAMEWORKS and find_spec(zoobook.FRAMEWORKS[room(module)]) is None:
        pytest.skip(f"{room(module)} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOOBOOK_HOME", str(tmp_path))
    ran = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert ran.failed == 0, f"{ran.failed} of {ran.attempted} examples: see the output"


def test_the_reference_names_what_there_is():
    """Sphinx would say so too, but only when the site is rendered."""
    module, missing = "", []
    for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)$", (ROOT.parent / "book/api.md").read_text("utf8"), re.M):
        if kind in ("automodule", "currentmodule"):
            module = name
        elif kind.startswith("auto") and kind != "autosummary":
            home, _, name = (name if name.startswith("zoobook.") else f"{module}.{name}").rpartition(".")
            home, class_name = (home, None) if home in MODULES else home.rsplit(".", 1)
            if find_spec(zoobook.FRAMEWORKS.get(room(home), "zoobook")):
                found = importlib.import_module(home)
                found = getattr(found, class_name) if class_name else found
                missing += [] if hasattr(found, name) else [f"{home}.{name}"]
    assert not missing
