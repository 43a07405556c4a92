"""Render the site from the outputs that `execute_chapters.py` keeps: an edition a framework, a switch between them.

    python book/_tools/build_site.py                          each framework that is installed
    python book/_tools/build_site.py --framework tensorflow   one alone

The first edition is the site itself, in `_build/html`; another one lies in a folder of its name below it.
"""
from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from layout import ROOT

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS, Edition, installed  # noqa: E402

BUILD = ROOT / "_build"
SWITCH = re.compile(r'(<nav [^>]*class="zb-editions"[^>]*>).*?(</nav>)', re.DOTALL)  # whatever stands before the class

START = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>zoobook</title>
<meta http-equiv="refresh" content="0; url=book/index.html">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="_static/favicon.svg">
</head>
<body><p><a href="book/index.html">zoobook</a></p></body>
</html>
"""


def render(framework: str, out: Path, *options: str) -> int:
    """Render one edition into `out/_build/html`, or as the options say; gives the exit status of jupyter-book."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", out]
    edition = dataclasses.replace(Edition.of_build(), framework=framework)
    status = subprocess.run(
        [*command, "-W", "--keep-going", "--all", *options], env={**os.environ, "ZOOBOOK_EDITION": str(edition)}
    )
    return status.returncode


def link_editions(roots: dict[str, Path]) -> None:
    """Fill the switch of every page: to the same page of each edition, or to its start where it has no such page.

    Args:
        roots: framework to the folder of its edition; one may lie inside another. A lone edition gets no switch.
    """
    for root in roots.values():
        inside = [other for other in roots.values() if other != root and other.is_relative_to(root)]
        for page in root.rglob("*.html"):
            if any(page.is_relative_to(other) for other in inside):
                continue
            text = page.read_text("utf8")
            links = "".join(_link(page, root, FRAMEWORKS[name], other) for name, other in roots.items())
            filled = SWITCH.sub(rf"\g<1>{links if len(roots) > 1 else ''}\g<2>", text)
            if filled != text:
                page.write_text(filled, "utf8")


def _link(page: Path, root: Path, label: str, other: Path) -> str:
    if other == root:
        return f'<span aria-current="true">{label}</span>'
    same = other / page.relative_to(root)
    target = same if same.exists() else other / "index.html"
    address = Path(os.path.relpath(target, page.parent)).as_posix()
    return f'<a href="{address}" title="This page in {label}">{label}</a>'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each that is installed")
    first, *others = parser.parse_args().framework or installed()
    site = BUILD / "html"
    for framework in FRAMEWORKS:
        shutil.rmtree(site / framework, ignore_errors=True)
    failed = render(first, ROOT)
    roots = {first: site}
    for framework in others:
        out = BUILD / "editions" / framework
        failed |= render(framework, out)
        roots[framework] = site / framework
        shutil.copytree(out / "_build/html", roots[framework])
    link_editions(roots)
    for root in roots.values():
        (root / "index.html").write_text(START, "utf8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
