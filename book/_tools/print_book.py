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
from io import BytesIO
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import yaml
from layout import AUTHOR, ROOT, SITE
from measured import day
from PIL import Image, ImageStat
from playwright.sync_api import Browser, Route, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

sys.path.insert(0, str(ROOT / "book/_ext"))
from zoobook_book import FRAMEWORKS, installed  # noqa: E402
from zoobook_pages import DARK  # noqa: E402

LONG_CODE = 16  # lines: longer code may go on on the next page, and leaves no half of a page empty
# One page of the site as a part of the book: its anchors get the page's name, its links lead to other parts, what can
# be folded is open, each tab has its title; of long logs, and of what only works in a browser, there is a line.
PART = """([name, site, parts, root, LONG]) => {
  const article = document.querySelector("article.bd-article"), own = id => `${name}--${id}`;
  article.querySelectorAll("script, .headerlink, .copybtn, .zb-editions, .toctree-wrapper, .zb-downloads")
    .forEach(node => node.remove());
  article.querySelectorAll(".zb-log, .zoobook-gallery").forEach(fold => {
    const link = document.createElement("a"), line = document.createElement("p");
    link.href = `${site}/book/${name}.html`;
    link.textContent = "on the site";
    line.append(`${fold.querySelector("summary").textContent}: `, link);
    fold.replaceWith(line);
  });
  article.querySelectorAll("details").forEach(node => { node.open = true; });
  article.querySelectorAll("details.hide > summary").forEach(summary => {  // what is open is not to be opened or hidden
    const told = summary.textContent.match(/Hide code cell (source|output|content)/);
    if (told) summary.textContent = {source: "Code", output: "Output", content: "Code and output"}[told[1]];
  });
  article.querySelectorAll("pre").forEach(pre => {
    if (pre.textContent.split("\\n").length > LONG) (pre.closest(".cell_input") ?? pre).classList.add("zb-long");
  });
  article.querySelectorAll(".toggle").forEach(node => {
    node.classList.remove("toggle", "toggle-hidden", "dropdown");
    node.querySelectorAll(".toggle-button").forEach(button => button.remove());
  });
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
    if (to.protocol !== "file:") return;  // it leads out of the site
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
.zb-book :is(figure, img, tr, pre, .cell_input, .sd-col, .sd-card) { break-inside: avoid; }
.zb-book :is(.zb-long, .zb-long *) { break-inside: auto !important; overflow: visible !important; }
.zb-book summary { font-weight: 600; }
.zb-book .sd-card { box-shadow: none !important; border: 1px solid #ccc; }
.zb-book :is(.admonition-title, summary) { break-inside: avoid; break-after: avoid; }
.zb-book .sd-row:not(:has(> :nth-child(4))) { break-inside: avoid; }
.zb-book :is(div.highlight, div[class*="highlight-"]) { display: block; }
.zb-book table { break-inside: auto !important; }
.zb-book .zb-last-run { margin-top: 1em; break-before: avoid; }
.zb-book img { max-width: 100%; max-height: 215mm; height: auto; width: auto; }
.zb-book pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 8pt !important; line-height: 1.35; }
.zb-book :is(.cell_output, .output, .math, table, .pst-scrollable-table-container) { overflow: visible !important; }
.zb-book table { font-size: 8.5pt !important; }
.zb-book .cell_output table { max-width: 100%; font-size: 7.5pt !important; overflow-wrap: break-word; }
.zb-book .cell_output table :is(th, td) { padding: 0.2em 0.6em 0.2em 0.4em !important; }
.zb-book .cell_output table tbody th { white-space: normal; }
.zb-book details > summary { list-style: none; }
.zb-tab-title { font-weight: 600; margin: 1em 0 0.3em; break-after: avoid; }
.zb-book > nav .zb-tab-title { font-size: 20pt; }
"""
HEADINGS = """() => [...document.querySelectorAll(".zb-book :is(h1, h2, h3, h4, h5, h6)")]
  .map(heading => heading.textContent.trim())"""
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
    page.route("**/*.webp", lighter)
    collected = []
    for name in names:
        page.goto((root / f"book/{name}.html").as_uri())
        collected.append(page.evaluate(PART, [name, site, names, root.as_uri(), LONG_CODE]))
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
    name_bookmarks(out, page.evaluate(HEADINGS), title)
    page.close()


def name_bookmarks(out: Path, headings: list[str], title: str) -> None:
    """Give the bookmarks of a PDF the texts of its headings: Chromium writes one twice that begins a page.

    Args:
        out: the PDF.
        headings: in the order of the bookmarks.
        title: of the whole.

    Raises:
        ValueError: there are not as many bookmarks as headings.
    """
    writer = PdfWriter(clone_from=out)
    marks, waiting = [], [writer.root_object["/Outlines"].get("/First")]
    while waiting:
        mark = waiting.pop()
        if mark is not None:
            marks.append(mark.get_object())
            waiting += [marks[-1].get("/Next"), marks[-1].get("/First")]
    if len(marks) != len(headings):
        raise ValueError(f"{out}: {len(marks)} bookmarks, but {len(headings)} headings")
    for mark, heading in zip(marks, headings, strict=True):
        mark[NameObject("/Title")] = TextStringObject(heading)
    writer.add_metadata({"/Title": title, "/Author": AUTHOR, "/Creator": "zoobook", "/Producer": "Chromium"})
    writer.write(out)


def lighter(route: Route) -> None:
    """Give the printer a photograph as JPEG, which a PDF can hold as it is; it would unpack a WebP."""
    path = Path(url2pathname(urlparse(route.request.url).path))
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    drawing = ImageStat.Stat(picture.convert("L")).median[0] >= DARK and picture.getcolors(20_000) is not None
    if drawing:
        return route.continue_()
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return route.fulfill(body=buffer.getvalue(), content_type="image/jpeg")


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
