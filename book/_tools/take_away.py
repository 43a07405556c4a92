"""What one can take away from the rendered site: a zip that opens from a disk, `llms.txt`, and links to these.

    python book/_tools/take_away.py

Run it after `build_site.py`, `print_book.py` and `make_epub.py`: it links what is there. All lies in `_build/html`.
"""
from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

import yaml
from layout import BRANCH, RAW, REPOSITORY, ROOT, SITE
from plain_markdown import plain_markdown

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS  # noqa: E402

ZIP = "zoobook-site.zip"
PLACE = re.compile(r'(<p class="zb-downloads">).*?(</p>)', re.DOTALL)


def llms_txt() -> str:
    """The book's contents as https://llmstxt.org asks for: each page's source, and what it teaches."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    lines = [
        "# zoobook",
        "",
        "> How deep learning reads the shapes of galaxies, from the votes of Galaxy Zoo's volunteers: a book whose "
        "every chapter runs, and a Python package that does the same in PyTorch and in TensorFlow.",
        "",
        f"The book: {SITE} The package: {REPOSITORY} The notebooks lie beside the sources below, as `.ipynb`.",
    ]
    for part in toc["parts"]:
        lines += ["", f"## {part['caption']}", ""]
        for item in part["chapters"]:
            page = ROOT / f"{item['file']}.md"
            text = page.read_text("utf8")
            title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)[1]
            taught = re.search(r"\*\*You will learn\*\* (.+?)\n\n", text, flags=re.DOTALL)
            about = f": {' '.join(plain_markdown(taught[1], page).split())}" if taught else ""
            lines.append(f"- [{title}]({RAW}/{item['file']}.md){about}")
    readme = f"- [README]({RAW}/README.md): how to install the package, and its commands"
    where = f"- [ARCHITECTURE]({REPOSITORY}/blob/{BRANCH}/ARCHITECTURE.md): what is where in the package"
    return "\n".join([*lines, "", "## The package", "", readme, where, ""])


def zip_site(site: Path, out: Path) -> None:
    """Write the site, without what else can be taken away, as a zip with one folder in it; index.html starts it."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(site.rglob("*")):
            if path.is_file() and path.suffix not in {".zip", ".pdf", ".epub", ".buildinfo"}:
                archive.write(path, Path("zoobook") / path.relative_to(site))


def link(site: Path) -> None:
    """Name on the first page of each edition what there is to take away."""
    there = {f"zoobook-{name}.{kind}": f"{kind.upper()} ({label})"
             for kind in ("pdf", "epub") for name, label in FRAMEWORKS.items()}  # fmt: skip
    there[ZIP] = "zip of these pages"
    for page in [*site.glob("book/index.html"), *site.glob("*/book/index.html")]:
        links = [
            f'<a href="{Path(os.path.relpath(site / name, page.parent)).as_posix()}">{label}, '
            f"{(site / name).stat().st_size / 1e6:.0f} MB</a>"
            for name, label in there.items()
            if (site / name).exists()
        ]
        told = f"To take away: {'; '.join(links)}." if links else ""
        page.write_text(PLACE.sub(rf"\g<1>{told}\g<2>", page.read_text("utf8")), "utf8")


def main() -> int:
    site = ROOT / "_build/html"
    (site / "llms.txt").write_text(llms_txt(), "utf8")
    zip_site(site, site / ZIP)
    link(site)
    print(f"{ZIP}: {(site / ZIP).stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
