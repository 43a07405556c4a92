"""Rewrite the MyST of a chapter into the plain Markdown that Colab, GitHub and JupyterLab show.

Directives and roles that are not known here are an error, so raw MyST never reaches a reader. A number that the page
quotes becomes ``{{name}}``: `make_notebooks.py` fills in what the book measured, a run of the notebook its own.
"""
from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from layout import BRANCH, RAW, REPOSITORY, ROOT, SITE
from measured import in_words, load
from pybtex.database import parse_file

ADMONITIONS = {"note", "tip", "important", "warning", "caution", "danger", "seealso", "hint", "attention", "margin"}
OPEN = re.compile(r"^(?P<indent> *)(?P<fence>:{3,}|`{3,}|~{3,})(?:\{(?P<name>[\w:-]+)\})?(?P<rest>.*)$")
EQUATION = re.compile(r"^\$\$[ \t]*\(([\w:.-]+)\)[ \t]*$", re.MULTILINE)
OPTION = re.compile(r"^:([\w-]+):\s*(.*)$")
NUMBER = re.compile(r"\{\{([^{}]+)\}\}")
SENTENCE_ENDS = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?][)*"])|(?<=[.!?]\*\*))\s+(?=[A-Z\[*_`{]|\((?!\d))""")


def plain_markdown(text: str, page: Path) -> str:
    """Plain Markdown that says what the MyST `text` of `page` says.

    Args:
        text: MyST Markdown, such as one cell.
        page: the chapter it stands in; relative paths start from its folder.

    Raises:
        ValueError: a directive or role that this function does not know.
    """
    lines, out, prose = text.split("\n"), [], []

    def flush():
        if prose:
            out.append(_inline("\n".join(prose), page))
            prose.clear()

    i = 0
    while i < len(lines):
        opening = OPEN.match(lines[i])
        if not opening or (opening["fence"][0] == ":" and not opening["name"]):
            prose.append(lines[i])
            i += 1
            continue
        flush()
        fence = opening["fence"]
        closing = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}} *$")
        end = next((j for j in range(i + 1, len(lines)) if closing.match(lines[j])), None)
        if end is None:
            raise ValueError(f"{page.name}: the block that starts with {lines[i]!r} never ends")
        block = lines[i : end + 1]
        if opening["name"]:
            block = _directive(opening["name"], opening["rest"].strip(), block[1:-1], page).split("\n")
        out.append("\n".join(opening["indent"] + line if opening["name"] and line else line for line in block))
        i = end + 1
    flush()
    return "\n".join(out)


def with_numbers(plain: str) -> list[str]:
    """The sentences, list items and whole tables of plain Markdown in which there is a ``{{name}}``, by paragraph."""
    found = []
    for paragraph in re.split(r"\n[> ]*\n", re.sub(r"^(```|~~~).*?^\1", "", plain, flags=re.MULTILINE | re.DOTALL)):
        if not NUMBER.search(paragraph):
            continue
        lines = [re.sub(r"^[> ]+", "", line) for line in paragraph.split("\n") if not line.startswith("#")]
        if lines[0].startswith("|"):
            found.append("\n".join(lines))
            continue
        items = re.split(r"\n(?=(?:[-*]|\d+\.) )", "\n".join(lines))
        said = [[one for one in SENTENCE_ENDS.split(item) if NUMBER.search(one)] for item in items]
        found.append("\n".join(" ".join(ones).replace("\n", " ") for ones in said if ones))
    return found


def _directive(name: str, title: str, body: list[str], page: Path) -> str:
    options, body = {}, list(body)
    while body and (option := OPTION.match(body[0].strip())):
        options[option[1]] = option[2]
        body.pop(0)
    raw = "\n".join(body).strip("\n")

    if name in ADMONITIONS or name in {"admonition", "dropdown"}:
        content = plain_markdown(raw, page)
        title = _inline(title, page)
        if name == "dropdown" or "dropdown" in options.get("class", "").split():
            return f"<details><summary><b>{title}</b></summary>\n\n{content}\n\n</details>"
        kind = {"admonition": "", "seealso": "See also", "margin": ""}.get(name, name.capitalize())
        head = ": ".join(part for part in (kind, title) if part)
        return "\n".join(f"> {line}".rstrip() for line in ([f"**{head}**", ""] if head else []) + content.split("\n"))
    if name in {"tab-set", "grid"}:
        return plain_markdown(raw, page)
    if name in {"tab-item", "grid-item"}:
        return f"**{title}**\n\n{plain_markdown(raw, page)}" if title else plain_markdown(raw, page)
    if name in {"figure", "image"}:
        picture = f"![{options.get('alt', '')}]({_address(title, page)})"
        return f"{picture}\n\n*{_inline(raw, page)}*" if raw else picture
    if name == "literalinclude":
        return _listing(title, options, page)
    if name == "code-block":
        return f"```{title}\n{raw}\n```"
    if name == "math":
        return f"$$\n{raw}\n$$"
    if name == "glue:figure":
        return "*(The cell that makes this figure shows it.)*" + (f"\n\n*{_inline(raw, page)}*" if raw else "")
    if name.startswith("glue"):
        return f"{{{{{title}}}}}"
    raise ValueError(f"{page.name}: book/_tools/plain_markdown.py cannot rewrite the directive {{{name}}}")


def _listing(target: str, options: dict[str, str], page: Path) -> str:
    path = (page.parent / target).resolve()
    source = path.read_text("utf8")
    unknown = options.keys() - {"language", "caption", "pyobject", "start-at", "start-after", "end-before", "end-at"}
    if unknown:
        raise ValueError(f"{page.name}: book/_tools/plain_markdown.py cannot follow `:{min(unknown)}:` of {target}")
    if "pyobject" in options:
        source = _python_object(source, options["pyobject"], path)
    source = _between(source, options, path)
    where = path.relative_to(ROOT).as_posix()
    language = options.get("language", path.suffix.removeprefix(".").replace("py", "python"))
    return f"From [`{where}`]({REPOSITORY}/blob/{BRANCH}/{where}):\n\n```{language}\n{source.strip()}\n```"


def _python_object(source: str, dotted: str, path: Path) -> str:
    node = ast.parse(source)
    for part in dotted.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise ValueError(f"{path} has no object {dotted!r}")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.split("\n")[first - 1 : node.end_lineno])


def _between(source: str, options: dict[str, str], path: Path) -> str:
    """The lines from the first that contains one text to the next that contains another."""
    lines = source.split("\n")

    def find(text: str, start: int) -> int:
        for number in range(start, len(lines)):
            if text in lines[number]:
                return number
        raise ValueError(f"{path} has no line with {text!r}")

    first, stop = 0, len(lines)
    for key, beyond in (("start-at", 0), ("start-after", 1)):
        if key in options:
            first = find(options[key], 0) + beyond
    for key, beyond in (("end-before", 0), ("end-at", 1)):
        if key in options:
            stop = find(options[key], first) + beyond
    return "\n".join(lines[first:stop])


@cache
def _bibliography():
    return parse_file(str(ROOT / "book/references.bib")).entries


def _cite(keys: str, textual: bool, page: Path) -> str:
    cited = []
    for key in keys.split(","):
        entry = _bibliography().get(key.strip())
        if entry is None:
            raise ValueError(f"{page.name} cites {key.strip()!r}, which is not in book/references.bib")
        names = [" ".join(str(part) for part in person.rich_last_names) for person in entry.persons["author"]]
        who = {1: names[0], 2: " and ".join(names[:2])}.get(len(names), f"{names[0]} et al.")
        year = entry.fields["year"]
        address = f"https://doi.org/{entry.fields['doi']}" if "doi" in entry.fields else f"{SITE}/book/references.html"
        cited.append(f"[{who} ({year})]({address})" if textual else f"[{who} {year}]({address})")
    return ", ".join(cited) if textual else f"({'; '.join(cited)})"


def _equation(label: str, page: Path) -> int:
    """The number of a labelled equation of the page."""
    labels = EQUATION.findall(page.read_text("utf8"))
    if label not in labels:
        raise ValueError(f"{page.name} has no equation {label}")
    return 1 + labels.index(label)


def _title(page: Path) -> str:
    return re.search(r"^# (.+)$", page.read_text("utf8"), flags=re.MULTILINE)[1]


def _address(link: str, page: Path) -> str:
    """Where a picture or file beside the page can be fetched from."""
    if "://" in link:
        return link
    return f"{RAW}/{(page.parent / link).resolve().relative_to(ROOT).as_posix()}"


def _inline(text: str, page: Path) -> str:
    """Roles, labels, links and comments of running text."""
    here = page.parent.relative_to(ROOT).as_posix()

    def role(match: re.Match) -> str:
        name, content = match["name"], match["content"]
        shown = re.sub(r"\s*<[^<>]*>$", "", content)
        if name == "term":
            return shown
        if name == "eq":
            return f"({_equation(content, page)})"
        if name in {"ref", "doc", "numref"}:
            if shown == content:
                raise ValueError(f"{page.name}: give {match[0]} its own words, as in {{{name}}}`words <{content}>`")
            return shown.replace(" %s", "")
        if name in {"cite", "cite:p", "cite:t"}:
            return _cite(content, name == "cite:t", page)
        if name.startswith("py:"):
            target = content.removeprefix("~")
            return f"[`{target.split('.')[-1] if content != target else target}`]({SITE}/book/api.html#{target})"
        if name.startswith("glue"):
            return f"{{{{{content}}}}}"
        if name == "run-time":
            chapter = Path(content[len(shown) :].strip(" <>") or page.stem).name
            run = load(page.parent).get(chapter)
            return in_words(run["seconds"]) if run else shown
        if name == "math":
            return f"${content}$"
        if name in {"file", "command", "code"}:
            return f"`{content}`"
        raise ValueError(f"{page.name}: book/_tools/plain_markdown.py cannot rewrite the role {match[0]}")

    text = re.sub(r"^%.*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\([\w:.-]+\)=\n", "", text, flags=re.MULTILINE)
    text = re.sub(EQUATION, lambda m: f"\\tag{{{_equation(m[1], page)}}}\n$$", text)
    text = re.sub(r"(?<!`)\{(?P<name>[\w:-]+)\}`(?P<content>[^`]+)`", role, text)
    text = re.sub(r"!\[([^\]]*)\]\(([^)\s]+)\)", lambda m: f"![{m[1]}]({_address(m[2], page)})", text)
    text = re.sub(r"(?<!!)\[\]\(([\w./-]+\.md)\)", lambda m: f"[{_title(page.parent / m[1])}]({m[1]})", text)
    text = re.sub(r"\]\((?!\w+:)([\w./-]+)\.md(#[\w-]*)?\)", rf"]({SITE}/{here}/\1.html\2)", text)
    return re.sub(r"\]\((#[\w-]+)\)", rf"]({SITE}/{here}/{page.stem}.html\1)", text)
