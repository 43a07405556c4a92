"""The rendered site in a browser: every page of each edition, light and dark, on a wide screen and on a phone.

They look at `_build/html`, which `make book` renders; where it is not there, they are skipped.
"""
import functools
import http.server
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from browser import axe_source, violations

pytest.importorskip("bs4", reason="needs the `book` extra")
import zoobook_book  # noqa: E402
import zoobook_epub  # noqa: E402
import zoobook_pages  # noqa: E402
from bs4 import BeautifulSoup  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build/html"
STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"
MOST_BYTES = 3_000_000
BYTES = """async () => {
    for (const picture of document.images) { picture.loading = "eager"; await picture.decode().catch(() => 0); }
    return performance.getEntries().map(entry => entry.encodedBodySize || 0).reduce((a, b) => a + b);
}"""
# Of the source of a module one piece of each colour is left to look at, instead of tens of thousands.
ONE_OF_EACH = """() => {
    const seen = new Set();
    for (const piece of document.querySelectorAll(".highlight pre span[class]:not(:has(*))"))
        seen.has(piece.className) ? piece.remove() : seen.add(piece.className);
}"""


@pytest.fixture(scope="module")
def pages():
    """Every page, as its address within the site."""
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
    if not found:
        pytest.skip("needs the rendered book in _build/html: run `make book` first")
    return [page for page in found if not re.search(r"(^|/)index\.html$", page) or "book/" in page]  # no redirections


@pytest.fixture(scope="module")
def address():
    """The site, served as a web server would."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def handle(self):
            try:
                super().handle()
            except ConnectionError:  # the browser has turned to the next page
                pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.book
def test_every_page_is_accessible_and_light_fits_a_phone_and_asks_nobody_else_for_anything(
    page, pages, address, tmp_path
):
    """Each is visited once: its bytes, uncompressed, as of a first visit to its end; then axe, on light and dark."""
    source, sizes, wrong = axe_source(tmp_path), {}, []
    page.context.set_extra_http_headers({"Cache-Control": "no-store"})
    page.on("request", lambda request: request.url.startswith((address, "data:")) or wrong.append(request.url))
    for name in pages:
        page.goto(f"{address}/{name}")
        page.add_style_tag(content=STILL)
        if "_modules/" in name:
            page.evaluate(ONE_OF_EACH)
        else:
            sizes[name] = page.evaluate(BYTES)
        wrong += [f"{name} (light): {one}" for one in violations(page, source)]
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        colours = '{"runOnly": ["color-contrast", "link-in-text-block"]}'  # nothing else depends on the theme
        wrong += [f"{name} (dark): {one}" for one in violations(page, within=f"document, {colours}")]
        page.set_viewport_size({"width": 390, "height": 844})
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        wrong += [f"{name}: {beyond} pixels wider than a phone"] * (beyond > 0)
        page.set_viewport_size({"width": 1200, "height": 950})
    wrong += [f"{name}: {size:,} bytes" for name, size in sizes.items() if size > MOST_BYTES]
    assert not wrong, "\n".join(wrong)
    assert max(sizes.values()) > 300_000  # it measures something


def test_every_page_says_what_it_is_about_describes_its_pictures_and_leads_to_the_other_edition(pages):
    titles, bad, two_editions = {}, [], any(name.startswith("tensorflow/") for name in pages)
    for name in pages:
        text = (SITE / name).read_text("utf8")
        if "_modules/" in name:  # long, and without pictures
            text = text.partition("</head>")[0]
        soup = BeautifulSoup(text, "html.parser")
        head = soup.head
        titles.setdefault(head.title.get_text(), []).append(name)
        if Path(name).parent.name == "book":
            told = head.find("meta", attrs={"name": "description"})
            card = head.find("meta", attrs={"property": "og:image"})
            if told is None or not 40 <= len(told["content"]) <= 203:
                bad.append(f"{name}: {told}")
            if card is None or not (SITE / name).parents[1].joinpath("_static", Path(card["content"]).name).exists():
                bad.append(f"{name}: {card}")
        for picture in soup.select("article img"):
            told = picture.get("alt", "").strip()
            if len(told) < 12 or re.search(r"\.(png|webp|svg|jpe?g)\b|_images/", told):
                bad.append(f"{name}: {told!r}")
        if name.endswith("book/api.html"):  # a result whose description became a list of definitions
            bad += [f"{name}: {term.get_text()}" for term in soup.select("dl.field-list dd > dl > dt")]
        if two_editions and not re.search("404|_modules/", name) and not soup.select(".zb-editions > a"):
            bad.append(f"{name} does not lead to the other edition")
    alike = {title: names for title, names in titles.items() if len(names) > 1 and not title.startswith("No such page")}
    assert not bad and not alike, "\n".join([*bad, str(alike)])


@pytest.mark.book
def test_a_word_of_the_glossary_is_explained_to_pointer_and_keyboard(page, pages, address):
    page.goto(f"{address}/book/index.html")
    link = page.locator('article a[href*="glossary.html#term-"]').first
    tip = page.locator("#zb-tip")
    for reach in (link.hover, link.focus):
        reach()
        tip.wait_for(state="visible")
        assert len(tip.inner_text()) > 20 and link.get_attribute("aria-describedby") == "zb-tip"
        page.keyboard.press("Escape")
        tip.wait_for(state="hidden")
        page.mouse.move(0, 0)


def test_what_finishing_does_to_a_page(tmp_path):
    for folder in ("_images", "_static"):
        (tmp_path / folder).mkdir()
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    noise.save(tmp_path / "_images/a.png")
    renamed = zoobook_pages.shrink(tmp_path / "_images")
    assert renamed == {"a.png": "a.webp"} and not (tmp_path / "_images/a.png").exists()
    log = "".join(f"epoch {n:3}/9 loss 1\n" for n in range(10))  # 0: before the training
    text = f"""<html><head><title>zoobook — zoobook</title>
        <script src="_static/scripts/fontawesome.js"></script><script src="x.js"></script></head>
        <body><article><img src="_images/a.png" alt="x"><img src="_images/a.png" alt="y">
        <table><tr><th></th><th>b</th></tr></table><ul><li>a</li><ul><li>b</li></ul></ul>
        <div class="cell_output"><div class="output stream"><pre>{log}</pre></div></div>
        <a href="glossary.html#term-ring">ring</a><p>{"A first line that is long enough. " * 2}</p>
        <p>You will learn {"much " * 50}</p></article></body></html>"""
    finished = zoobook_pages.finish(text, tmp_path / "p.html", renamed, {"term-ring": "a <b>"}, "https://a.b/c", " (X)")
    soup = BeautifulSoup(finished, "html.parser")
    assert [script.get("src") for script in soup.select("script[defer]")] == ["x.js"] and not soup.select("[src*=font]")
    assert [picture.get("loading") for picture in soup.select("img")] == [None, "lazy"]
    assert soup.img["src"] == "_images/a.webp" and (soup.img["width"], soup.img["height"]) == ("200", "200")
    assert len(soup.select("th")) == 1 and soup.select_one("li > ul") and not soup.select("ul > ul")
    assert soup.select_one("details.zb-log > summary").get_text() == "What the training wrote, 9 epochs"
    assert "a \\u003cb>" in soup.find(id="zb-terms").get_text()
    assert soup.title.get_text() == f"zoobook: {zoobook_pages.TAGLINE} (X)"
    about = {tag.get("property", tag.get("name")): tag["content"] for tag in soup.select("head meta")}
    assert about["description"].startswith("You will learn much") and about["description"].endswith("much …")
    assert len(about["description"]) < 203 and about["og:url"] == "https://a.b/c/p.html"
    assert about["og:image"].startswith("https://a.b/c/") and (ROOT / "book" / zoobook_pages.CARD).exists()


def test_what_finishing_does_to_numbers_names_and_line_breaks(tmp_path):
    text = """<article><h2><span class="section-number">8.3. </span>3. Look</h2><a href="#look">8.3. 3. Look</a>
        <p>about 1 ± 2, 3 % or <span class="math">x</span>, and</p><pre>1 ± 2 3 %</pre>
        <p id="units">64 pixels, <em>5</em> GB, 3 sigma, 2 shares</p>
        <code class="literal"><span class="pre">--unfreeze</span> <span class="pre">top</span></code>
        <div class="cell_output"><table><tr><td>a_long_name_of_one</td><td>a_b</td>
            <td>a.b/c.de/f 1.5\ng</td></tr></table>
        <div class="output stream"><pre>a sentence</pre></div><div class="output stream"><pre>a   b</pre></div></div>"""
    soup = BeautifulSoup(zoobook_pages.finish(text, tmp_path / "p.html", {}, {}), "html.parser")
    assert [tag.get_text() for tag in soup.select("h2, a")] == ["3. Look", "3. Look"]
    assert "1\u00a0±\u00a02, 3\u00a0% or" in soup.p.get_text() and soup.pre.get_text() == "1 ± 2 3 %"
    assert soup.find(id="units").get_text() == "64\u00a0pixels, 5\u00a0GB, 3 sigma, 2 shares"
    assert [tag.get_text() for tag in soup.select(".zb-together")] == ["x,", "--unfreeze"]
    assert soup.select_one(".math").parent.get_text() == "x," and soup.p.get_text().endswith("x, and")
    assert [len(cell("wbr")) for cell in soup("td")] == [4, 0, 4]
    assert soup.select("td")[2].get_text() == "a.b/c.de/f 1.5\ng"
    assert soup.select("td")[0].get_text() == "a_long_name_of_one"
    assert ["zb-sentences" in output["class"] for output in soup.select(".stream")] == [True, False]


def test_a_page_of_the_epub_is_xml_and_hides_nothing():
    page = """<html><body><style>a {}</style><details class="hide" open><summary>Solution</summary>x</details>
        <details class="hide"><summary><p class="collapsed">Show code cell source</p>
        <p class="expanded">Hide code cell source</p></summary></details>
        <div class="sd-tab-set"><input checked type="radio"><label for="a">PyTorch</label></div><br>
        <table border=1><tr><td>&nbsp;1</td></tr></table><img src="../_images/a.png" alt="a"></body></html>"""
    tree = ElementTree.fromstring(zoobook_epub.mend(page, {"a.png": "a.jpg"}))
    assert [tag.text for tag in tree.iter("p")] == ["Solution", "Code", "PyTorch"]
    assert not [*tree.iter("details"), *tree.iter("style"), *tree.iter("input")]
    assert "border" not in tree.find(".//table").attrib
    assert tree.find(".//img").get("src") == "../_images/a.jpg"


def test_figures_of_the_back_matter_have_letters():
    chapter, knobs, card = {"a": (2, 1)}, {"b": (1,), "c": (2,)}, {"d": (3,)}
    env = SimpleNamespace(toc_fignumbers={page: {"figure": numbers} for page, numbers in
                                          {"chapter": chapter, "knobs": knobs, "card": card}.items()})  # fmt: skip
    zoobook_book._letter_figures(None, env)
    assert (chapter, knobs, card) == ({"a": (2, 1)}, {"b": ("A", 1), "c": ("A", 2)}, {"d": ("B", 1)})
