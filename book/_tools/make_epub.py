"""Make one EPUB an edition, with Sphinx's builder (book/_ext/zoobook_epub.py).

    python book/_tools/make_epub.py                          each framework that is installed
    python book/_tools/make_epub.py --framework tensorflow   one alone

Run it after `build_site.py`. The EPUBs lie beside the pages: `_build/html/zoobook-pytorch.epub`.
"""
from __future__ import annotations

import argparse
import shutil
import sys

from build_site import BUILD, render
from layout import ROOT
from zoobook_book import FRAMEWORKS, installed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each that is installed")
    failed = 0
    for framework in parser.parse_args().framework or installed():
        out = BUILD / "epub" / framework
        failed |= render(framework, out, "--builder", "custom", "--custom-builder", "epub")
        for made in (out / "_build/epub").glob("*.epub"):
            shutil.copy(made, BUILD / "html" / made.name)
            print(f"{made.relative_to(ROOT)}: {made.stat().st_size / 1e6:.1f} MB")
    return failed


if __name__ == "__main__":
    sys.exit(main())
