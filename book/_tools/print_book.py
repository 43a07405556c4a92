"""Print the rendered site as one PDF an edition, with headless Chromium.

    python book/_tools/print_book.py                          each framework that is installed
    python book/_tools/print_book.py --framework tensorflow   one alone

Run it after `build_site.py`, with the same options. The PDFs lie beside the pages: `_build/html/zoobook-pytorch.pdf`.
"""
from __future__ import annotations

import argparse
import shutil
import sys
from datetime import date
from pathlib import Path

import yaml
from layout import ROOT, SITE
from measured import day
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS, installed  # noqa: E402

# One page of the site as a part of the book: its anchors get the page's name, its links lead to other parts, what can
# be folded is open, save long logs, and each tab has its title.
PART = """([name, site, parts, root]) => {
  const article = document.querySelector("article.bd-article"), own = id => `${name}--${id}`;
  article.querySelectorAll("script, .headerlink, .copybtn, .zb-editions, .toctree-wrapper, .zb-downloads")
    .forEach(node => node.remove());
  article.querySelectorAll("details:not(.zb-log)").forEach(node => { node.open = true; });
  article.querySelectorAll("img").forEach(node => { node.src = node.src; node.loading = "eager"; });
  article.querySelectorAll(".sd-tab-set").forEach(set => {
    const shown = [...set.querySelectorAll(":scope > .sd-tab-content")].flatMap(content => {
      const title = document.createElement("p");
      title.className = "zb-tab-title";
      title.textContent = content.previousElementSibling.textContent;
      const body = document.createElement("div");
      body.append(...content.childNodes);
      return [title, body];
    });
    set.replaceWith(...shown);
  });
  article.querySelectorAll("a[href]").forEach(link => {
    const to = new URL(link.href);
    if (to.protocol !== "file:") return;
    const page = to.pathname.split("/").pop().replace(/\\.html$/, "");
    const anchor = decodeURIComponent(to.hash.slice(1));
    const inside = to.href.startsWith(`${root}/book/`) && parts.includes(page);
    const here = anchor ? `#${page}--${anchor}` : `#part-${page}`;
    link.setAttribute("href", inside ? here : to.href.replace(root, site));
  });
  article.querySelectorAll("[id]").forEach(node => { node.id = own(node.id); });
  return `<section class="zb-part" id="part-${name}">${article.innerHTML}</section>`;
}"""
# All parts together, with a title page and a list of contents.
BOOK = """([parts, title, lines]) => {
  document.documentElement.dataset.theme = document.documentElement.dataset.mode = "light";
  document.title = title;
  const book = document.createElement("article");
  book.className = "bd-article zb-book";
  book.innerHTML = `<header><h1>${lines[0]}</h1>${lines.slice(1).map(line => `<p>${line}</p>`).join("")}</header>`
    + '<nav><p class="zb-tab-title">Contents</p><ol></ol></nav>' + parts.join("");
  const list = book.querySelector("nav ol");
  book.querySelectorAll(".zb-part").forEach(part => part.querySelectorAll("h1, h2").forEach(heading => {
    const item = list.appendChild(document.createElement("li")), link = document.createElement("a");
    const target = heading.closest("section[id]").id;
    item.className = `zb-${heading.tagName}`;
    link.href = `#${target}`;
    link.textContent = heading.textContent;
    const number = document.createElement("span");
    number.dataset.target = target;
    item.append(link, number);
  }));
  document.body.className = "";
  document.body.replaceChildren(Object.assign(document.createElement("main"), {className: "bd-content"}));
  document.querySelector("main").append(book);
  return Promise.all([...document.images].map(image => image.decode().catch(() => image.src)))
    .then(images => images.filter(Boolean));
}"""
NUMBERS = """pages => document.querySelectorAll("nav span[data-target]")
  .forEach(number => { number.textContent = pages[number.dataset.target] ?? ""; })"""
STYLE = """
@page { size: A4; margin: 18mm 17mm 20mm; }
html, body { font-size: 10.5pt; background: white; }
html { scroll-padding: 0; }
main.bd-content { display: block; }
.zb-book { padding: 0 !important; max-width: none; overflow: visible; }
.zb-book > header { height: 235mm; display: flex; flex-direction: column; justify-content: center; }
.zb-book > header h1 { font-size: 44pt; margin: 0 0 0.5em; }
.zb-book > nav, .zb-part { break-before: page; }
.zb-book > nav ol { list-style: none; padding: 0; }
.zb-book > nav li { display: flex; justify-content: space-between; gap: 2em; line-height: 1.45; }
.zb-book > nav li a { color: inherit; text-decoration: none; }
.zb-book > nav .zb-H1 { font-weight: 600; margin-top: 0.6em; break-after: avoid; }
.zb-book > nav .zb-H2 { padding-left: 1.5em; font-size: 0.92em; }
.zb-book :is(h1, h2, h3, h4) { break-after: avoid; }
.zb-book h2 { font-size: 16pt; }
.zb-book h3 { font-size: 13pt; }
.zb-book :is(figure, img, tr, pre, .cell_input, .sd-card, .admonition-title) { break-inside: avoid; }
.zb-book img { max-width: 100%; max-height: 215mm; height: auto; width: auto; }
.zb-book pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 8pt !important; line-height: 1.35; }
.zb-book :is(.cell_output, .output, .math, table, .pst-scrollable-table-container) { overflow: visible !important; }
.zb-book table { font-size: 8.5pt !important; }
.zb-book .cell_output table { max-width: 100%; overflow-wrap: anywhere; }
.zb-book details > summary { list-style: none; }
.zb-tab-title { font-weight: 600; margin: 1em 0 0.3em; break-after: avoid; }
.zb-book > nav .zb-tab-title { font-size: 20pt; }
"""
FOOTER = '<p style="width: 100%; text-align: center; font-size: 8pt; color: #555"><span class="pageNumber"></span></p>'


def parts() -> list[str]:
    """The names of the pages, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    files = [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]
    return [file.split("/")[-1] for file in files]


def print_edition(browser: Browser, framework: str, root: Path, out: Path) -> None:
    """Write one edition as a PDF.

    Args:
        browser: of playwright.
        framework: whose edition it is.
        root: the folder in which the edition is rendered.
        out: the PDF.

    Raises:
        ValueError: a picture of a page cannot be loaded.
    """
    page, names = browser.new_page(color_scheme="light"), parts()
    site = f"{SITE}/{root.name}" if root.name == framework else SITE
    collected = []
    for name in names:
        page.goto((root / f"book/{name}.html").as_uri())
        collected.append(page.evaluate(PART, [name, site, names, root.as_uri()]))
    title = f"zoobook: the {FRAMEWORKS[framework]} edition"
    lines = ["zoobook", f"The {FRAMEWORKS[framework]} edition", f"Printed on {day(date.today())}",
             f'The pages, with their notebooks: <a href="{site}">{site}</a>']  # fmt: skip
    missing = page.evaluate(BOOK, [collected, title, lines])
    if missing:
        raise ValueError(f"{root}: {len(missing)} pictures cannot be loaded, such as {missing[0]}")
    page.add_style_tag(content=STYLE)
    for _ in range(2):  # the second time the page numbers are known
        page.pdf(path=out, prefer_css_page_size=True, print_background=True, outline=True, tagged=True,
                 display_header_footer=True, header_template="<span></span>", footer_template=FOOTER)  # fmt: skip
        reader = PdfReader(out)
        found = {name.lstrip("/"): 1 + reader.get_destination_page_number(to) for name, to in
                 reader.named_destinations.items()}  # fmt: skip
        page.evaluate(NUMBERS, found)
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each that is installed")
    site = ROOT / "_build/html"
    first, *others = parser.parse_args().framework or installed()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for framework, root in {first: site, **{other: site / other for other in others}}.items():
            out = site / f"zoobook-{framework}.pdf"
            print_edition(browser, framework, root, out)
            print(f"{out.relative_to(ROOT)}: {len(PdfReader(out).pages)} pages, {out.stat().st_size / 1e6:.1f} MB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
