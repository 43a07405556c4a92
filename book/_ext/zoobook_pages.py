"""The last touch to every finished page: what the theme leaves heavy, or closed to keyboards and screen readers.

It runs when Sphinx has written the pages. The pictures of the site become WebP where that is smaller, are loaded when
they come into view, know their size and, if wide, lead to themselves in full; scripts wait until the page can be read;
those that are never used are dropped; long logs of a training fold, and their long warnings keep the first sentence;
the words of the glossary travel with the page that uses them, for `zoobook.js` to show; and each page says in its head
what it is about, for search engines and for whoever gets its link in a message.
"""
from __future__ import annotations

import json
import re
import textwrap
from io import BytesIO
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from PIL import Image, ImageStat
from zoobook_book import FRAMEWORKS

UNUSED = re.compile(r"fontawesome\.js|sphinx-thebe\.|THEBE_JS_URL|kernelName = ")  # icons come from the font
NEEDED_AT_ONCE = "documentation_options.js"  # scripts within the page use what it defines
LONG_LOG = 6  # epochs
LINE = 80  # characters: a warning in a log wraps there
ADVICE = re.compile(r"^(WARNING:.+?\.) .{200,}$", flags=re.MULTILINE)  # the first sentence of a long one is enough
LONG_NAME = 12  # letters
DARK = 100  # of 255: a picture is of the sky, and no drawing on white, if half of it is darker
WIDE = 500  # pixels: a wider figure shrinks on a phone, and leads to the whole one, in which one can zoom
BROAD = 700  # pixels: the letters of a figure that is wider would be too small on a phone, where it moves sideways
TERM = "glossary.html#term-"
TAGLINE = "deep learning on galaxies, from the votes of Galaxy Zoo"
CARD = "_static/card.jpg"  # what a link to a page looks like in a message: 1200 by 630 pixels
CARD_ALT = "The word zoobook on a dark sky, with simulated galaxies: spirals, rings, edge-on disks and ellipticals."
UNITS = "%|px|pixels|[kMGT]B|ms|s|seconds|min|minutes|hours|nats|arcsec|arcseconds"
UNIT = re.compile(rf"(?:(?<=\d)|^) (?=(?:{UNITS})(?!\w))")  # a number may stand in a span of its own, before the text
MOST_TOLD = 200  # characters of a description: what search engines show


def shrink(folder: Path) -> dict[str, str]:
    """Turn the pictures of a folder into WebP where that is smaller by a fifth.

    Photographs lose what nobody sees; drawings, of which few colours tell, lose nothing.

    Args:
        folder: with PNG files; those that are replaced are deleted.

    Returns:
        dict: old name to new name.
    """
    renamed = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        few_colours = picture.convert("RGB").getcolors(20_000) is not None
        buffer = BytesIO()
        picture.save(buffer, "WEBP", lossless=few_colours, quality=80, method=4)
        if len(buffer.getvalue()) < 0.8 * path.stat().st_size:
            path.with_suffix(".webp").write_bytes(buffer.getvalue())
            path.unlink()
            renamed[path.name] = path.with_suffix(".webp").name
    return renamed


def definitions(glossary: str) -> dict[str, str]:
    """The terms of the finished glossary page: anchor to definition, as plain text."""
    found = {}
    for term in BeautifulSoup(glossary, "html.parser").select("dl.glossary dt[id]"):
        told = term.find_next_sibling("dd")
        if told:
            found[term["id"]] = " ".join(told.get_text().split())
    return found


def finish(
    text: str, page: Path, renamed: dict[str, str], terms: dict[str, str], site: str = "", edition: str = ""
) -> str:
    """A finished page.

    Args:
        text: HTML as the theme wrote it.
        page: its file; pictures are looked up from there.
        renamed: what :func:`shrink` returned.
        terms: what :func:`definitions` returned.
        site: the address at which this edition is published.
        edition: whose name the title ends with; none for the first edition.
    """
    soup = BeautifulSoup(text, "html.parser")
    _describe(soup, page, site, edition)
    _scripts(soup)
    _pictures(soup, page, renamed)
    _landmarks_and_names(soup)
    _lists_and_tables(soup)
    _numbers_and_breaks(soup)
    _fold_logs(soup)
    _take_out_frames(soup, page)
    _add_terms(soup, terms)
    return str(soup)


def _describe(soup: BeautifulSoup, page: Path, site: str, edition: str) -> None:
    for again in soup.select('head meta[name="viewport"]')[1:]:
        again.decompose()
    if not soup.title:
        return
    name, _, book = soup.title.get_text().partition(" — ")
    book = book or name.rpartition(" - ")[2]
    title = f"{name} — {book}".replace(f" - {book} — ", " — ") if name != book else f"{book}: {TAGLINE}"
    soup.title.string = title + edition
    told = _about(soup)
    if told:
        address = f"{site}/{page.relative_to(_root(page)).as_posix()}"
        about = {"og:type": "article", "og:site_name": book + edition, "og:title": title, "og:description": told,
                 "og:url": address, "og:image": f"{site}/{CARD}", "og:image:alt": CARD_ALT}  # fmt: skip
        named = {"description": told, "twitter:card": "summary_large_image"}
        for key, value in about.items():
            soup.head.append(soup.new_tag("meta", attrs={"property": key, "content": value}))
        for key, value in named.items():
            soup.head.append(soup.new_tag("meta", attrs={"name": key, "content": value}))


def _about(soup: BeautifulSoup) -> str:
    """What a page teaches, or else how it begins; in whole words."""
    texts = [" ".join(text.get_text().split()) for text in soup.select("article p:not([class]), article .zb-lead p")]
    taught = [text for text in texts if text.startswith("You will")]
    told = next(iter([*taught, *(text for text in texts if len(text) > 40)]), "")
    return told if len(told) <= MOST_TOLD else told[:MOST_TOLD].rpartition(" ")[0].rstrip(",;:") + " …"


def _scripts(soup: BeautifulSoup) -> None:
    for tag in soup.select("script, link[rel=stylesheet]"):
        address = tag.get("src") or tag.get("href") or ""
        if UNUSED.search(address or tag.get_text()) or tag.get("type") == "text/x-thebe-config":
            tag.decompose()
        elif tag.name == "script" and address and NEEDED_AT_ONCE not in address:
            tag["defer"] = ""


def _pictures(soup: BeautifulSoup, page: Path, renamed: dict[str, str]) -> None:
    for link in soup.select("a[href]"):  # a picture that links to itself in full size
        link["href"] = _new_name(link["href"], renamed)
    for n, picture in enumerate(soup.select("article img")):
        picture["src"] = _new_name(picture["src"], renamed)
        file = page.parent / picture["src"]
        if file.suffix in {".png", ".webp", ".jpg"} and file.exists() and not picture.get("height"):
            with Image.open(file) as opened:
                picture["width"], picture["height"] = map(str, opened.size)
                if ImageStat.Stat(opened.convert("L").resize((64, 64))).median[0] < DARK:
                    picture["class"] = [*picture.get("class", []), "zb-sky"]
                if opened.width >= WIDE and not picture.find_parent("a") and "zb-hero" not in picture.get("class", []):
                    whole = soup.new_tag("a", attrs={"class": "zb-whole", "href": picture["src"]})
                    picture.wrap(whole)
                    has = picture.get("class", [])
                    if opened.width >= BROAD and ("zb-sky" not in has or "zb-lettered" in has):
                        picture["class"] = [*has, "zb-broad"]
                        picture["style"] = f"{picture.get('style', '')}; --zb-width: {opened.width}px".lstrip("; ")
        if n:
            picture["loading"] = "lazy"
        picture["decoding"] = "async"


def _new_name(address: str, renamed: dict[str, str]) -> str:
    folder, slash, name = address.rpartition("/")
    return folder + slash + renamed.get(name, name) if folder.endswith("_images") else address


def _landmarks_and_names(soup: BeautifulSoup) -> None:
    for toggle in soup.select("img.toggler"):
        toggle["alt"] = "show or hide the modules of this package"
    for key in soup.select(".search-button__kbd-shortcut"):
        key["aria-hidden"] = "true"
    for named in soup.select("summary[aria-label], .search-button-field[aria-label]"):  # what they show is their name
        del named["aria-label"]
    sidebar = soup.find(id="pst-primary-sidebar")
    if sidebar:
        sidebar["role"], sidebar["aria-label"] = "complementary", "The book"


def _lists_and_tables(soup: BeautifulSoup) -> None:
    for head in soup.select("th"):
        if not head.get_text(strip=True) and not head.find("img"):
            head.name = "td"
    for cell in soup.select(".cell_output :is(th, td), :is(table code, dt.sig) .pre"):  # long names break after _ / .
        # but not before the last letter or two
        first, *rest = re.findall(r"(?s).+?(?:[_/](?!.{0,2}\Z)|\.(?=[A-Za-z])|\Z)", cell.string or "") or [""]
        if rest and len(cell.string) > LONG_NAME:
            cell.string = first
            for part in rest:
                cell.extend([soup.new_tag("wbr"), part])
    for entry in soup.select(".citation-list, .citation"):
        del entry["role"]
    for inner in soup.select("ul > ul"):
        before = inner.find_previous_sibling("li")
        if before:
            before.append(inner)


def _numbers_and_breaks(soup: BeautifulSoup) -> None:
    """Numbered steps get no second number; what belongs together stays on one line: ±, options, units, commas."""
    for number in soup.select(":is(h2, h3, h4) > .section-number"):
        if re.match(r"\d+\. ", number.next_sibling or ""):
            number.decompose()
    for link in soup.select('a[href^="#"]'):
        twice = re.fullmatch(r"\s*\d+(?:\.\d+)+\. (\d+\. .+?)\s*", link.get_text(), flags=re.DOTALL)
        if twice:
            link.string = twice[1]
    for text in soup.find_all(string=re.compile(rf"\S ± \S|{UNIT.pattern}")):
        if not text.find_parent(["pre", "code", "script", "style"]):
            text.replace_with(UNIT.sub("\u00a0", text.replace(" ± ", "\u00a0±\u00a0")))
    for word in soup.select("code.literal .pre"):
        if word.get_text().startswith("--"):
            word["class"] = [*word["class"], "zb-together"]
    for formula in soup.select("span.math"):
        after = formula.next_sibling
        mark = re.match(r"[.,;:!?)]+", after) if isinstance(after, NavigableString) else None
        if mark:
            together = formula.wrap(soup.new_tag("span", attrs={"class": "zb-together"}))
            after.replace_with(after[mark.end() :])
            together.append(mark[0])


def _fold_logs(soup: BeautifulSoup) -> None:
    for log in soup.select(".cell_output > .output.stream"):
        if not re.search(r"\S {2,}\S", log.get_text()):  # no columns that must stay below each other
            log["class"] = [*log["class"], "zb-sentences"]
        for text in log.find_all(string=ADVICE):
            text.replace_with(ADVICE.sub(lambda said: textwrap.fill(f"{said[1]} …", LINE), text))
        epochs = len(re.findall(r"^\s*epoch +[1-9]", log.get_text(), re.IGNORECASE | re.MULTILINE))  # 0: the start
        if epochs >= LONG_LOG:
            fold, summary = soup.new_tag("details", attrs={"class": "zb-log"}), soup.new_tag("summary")
            summary.string = f"What the training wrote, {epochs} epochs"
            log.wrap(fold)
            fold.insert(0, summary)


def _take_out_frames(soup: BeautifulSoup, page: Path) -> None:
    """What stands in a frame becomes a file of its own, so that it is loaded only when somebody opens it."""
    for n, frame in enumerate(soup.select("iframe[srcdoc]")):
        root = Path(*[".."] * len(page.parent.relative_to(_root(page)).parts))
        name = f"_static/{page.stem}-{n}.html"
        (_root(page) / name).write_text(frame["srcdoc"], "utf8")
        frame["src"] = (root / name).as_posix()
        del frame["srcdoc"]


def _root(page: Path) -> Path:
    """The folder of the site in which a page lies."""
    return next(folder for folder in page.parents if (folder / "_static").is_dir())


def _add_terms(soup: BeautifulSoup, terms: dict[str, str]) -> None:
    anchors = [link["href"].rpartition("#")[2] for link in soup.select(f'article a[href*="{TERM}"]')]
    used = {anchor: terms[anchor] for anchor in anchors if anchor in terms}
    if used and isinstance(soup.body, Tag):
        told = soup.new_tag("script", attrs={"type": "application/json", "id": "zb-terms"})
        told.string = json.dumps(used, ensure_ascii=False).replace("<", "\\u003c")
        soup.body.append(told)


def _finish_all(app, failed) -> None:
    if failed or app.builder.name not in ("html", "dirhtml"):
        return
    out = Path(app.outdir)
    glossary = out / "book/glossary.html"
    terms = definitions(glossary.read_text("utf8")) if glossary.exists() else {}
    renamed, site = shrink(out / "_images"), app.config.html_baseurl.rstrip("/")
    name = site.rpartition("/")[2]
    edition = f" ({FRAMEWORKS[name]})" if name in FRAMEWORKS else ""
    for page in sorted(out.rglob("*.html")):
        if "_static" not in page.parts and page.relative_to(out).parts[0] not in FRAMEWORKS:
            page.write_text(finish(page.read_text("utf8"), page, renamed, terms, site, edition), "utf8")


def setup(app):
    app.connect("build-finished", _finish_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
