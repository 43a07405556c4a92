"""Check every link inside the built site: pages, anchors, pictures, scripts. It uses no network.

    python book/_tools/check_links.py [_build/html]
"""
from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors a page has and the addresses it points at."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")} - {None}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def broken(site: Path) -> list[str]:
    """One line for each broken internal link of the site: page, link, what is missing."""
    site = site.resolve()
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    if not files:
        raise SystemExit(f"{site} holds no HTML page: build the book first (make book)")
    pages = {path: Page(path.read_text("utf8")) for path in files}
    found = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link}: no such file")
            elif target in pages and unquote(url.fragment) not in pages[target].anchors:
                found.append(f"{path.relative_to(site)}: {link}: no such anchor")
    return found


def main() -> int:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    found = broken(site)
    print(*found, sep="\n" if found else "", file=sys.stderr)
    print(f"links inside {site}: {len(found)} broken")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
