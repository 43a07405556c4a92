"""The book as an EPUB: Sphinx's builder, and what it leaves undone for e-readers, who run no scripts and want XML."""
from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup
from PIL import Image
from sphinx.builders.epub3 import Epub3Builder
from zoobook_book import FRAMEWORKS, Edition

import zoobook

DROPPED = "script, noscript, iframe, input, body style, button, .headerlink, .zoobook-gallery, .prompt, .zb-downloads"
STYLES = {"epub.css", "pygments.css", "reader.css"}  # the site's own mean nothing to an e-reader
OPEN = {"details": "div", "summary": "p", "label": "p"}  # what folds in a browser lies open, tabs one below the other
CODE = {f"Hide code cell {what}": name for what, name in
        {"source": "Code", "output": "Output", "content": "Code and output"}.items()}  # fmt: skip
FEW = 20_000  # colours: a drawing has fewer


def lighten(folder: Path) -> dict[str, str]:
    """Turn the photographs among the PNG files of a folder into JPEG, and give each drawing a palette.

    Returns:
        dict: old name to new name, of those that became JPEG.
    """
    renamed = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if picture.getcolors(FEW) is None:
            path.unlink()
            picture.save(path.with_suffix(".jpg"), quality=82, optimize=True)
            renamed[path.name] = path.with_suffix(".jpg").name
        else:
            picture.quantize(128).save(path, optimize=True)
    return renamed


def mend(text: str, renamed: dict[str, str]) -> str:
    """A page as well-formed XML, all of it open, with its pictures under their new names."""
    soup = BeautifulSoup(text, "html.parser")
    for tag in soup.select(DROPPED):
        tag.decompose()
    for tag in soup.select("link[rel=stylesheet]"):
        if tag["href"].split("?")[0].rpartition("/")[2] not in STYLES:
            tag.decompose()
    for tag in soup("summary"):
        told = (tag.select_one(".expanded") or tag).get_text(strip=True)
        tag.string = CODE.get(told, told)
    for tag in soup(list(OPEN)):
        tag.name, tag.attrs = OPEN[tag.name], {"class": tag.get("class", [])}
    for tag in soup.select("img[src], a[href]"):
        name = "src" if tag.name == "img" else "href"
        folder, slash, file = tag[name].rpartition("/")
        tag[name] = folder + slash + renamed.get(file, file)
    for tag in soup.select("[border], [align], [open]"):
        for name in ("border", "align", "open"):
            tag.attrs.pop(name, None)
    return str(soup)


class Epub(Epub3Builder):
    """Sphinx's builder, which mends its pages before it packs them."""

    def handle_finish(self) -> None:
        out = Path(self.outdir)
        renamed = lighten(out / self.imagedir)
        for page in out.rglob("*.xhtml"):
            page.write_text(mend(page.read_text("utf8"), renamed), "utf8")
        for file in [*(out / "_static").rglob("*"), *(out / "_sources").rglob("*"), out / ".nojekyll"]:
            if file.is_file() and file.name not in STYLES:
                file.unlink()
        super().handle_finish()

    def build_content(self) -> None:
        super().build_content()  # it does not say which pages hold formulas; without that some readers show none
        file = Path(self.outdir, "content.opf")
        item = r'<item [^>]*href="([^"]+\.xhtml)"[^>]*?(?= ?/>)'
        file.write_text(re.sub(item, self._kinds, file.read_text("utf8")), "utf8")

    def _kinds(self, item: re.Match) -> str:
        page = Path(self.outdir, item[1])
        text = page.read_text("utf8") if page.exists() else ""
        kinds = [kind for tag, kind in (("<math", "mathml"), ("<svg", "svg")) if tag in text]
        return f'{item[0]} properties="{" ".join(kinds)}"' if kinds else item[0]



def _name_edition(app, config) -> None:
    framework = Edition.of_build().framework
    config.version, config.epub_version = zoobook.__version__, 3.0
    config.epub_title = f"{config.html_title}: the {FRAMEWORKS[framework]} edition"
    config.epub_basename = f"{config.html_title}-{framework}"
    config.epub_identifier, config.epub_uid = config.html_baseurl, "address"


def _leave_the_site_out(app) -> None:
    """An EPUB has neither the site's extra pages nor its theme, whose buttons fail without it."""
    if app.builder.name == "epub":
        app.config.html_additional_pages, app.config.html_domain_indices = {}, False
        for listener in app.events.listeners["html-page-context"][:]:
            if listener.handler.__module__.startswith(("sphinx_book_theme", "pydata_sphinx_theme")):
                app.disconnect(listener.id)


def setup(app):
    app.add_builder(Epub, override=True)
    app.connect("config-inited", _name_edition, priority=600)  # once the edition has its address
    app.connect("builder-inited", _leave_the_site_out, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
