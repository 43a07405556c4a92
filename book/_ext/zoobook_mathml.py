"""Formulas as MathML, which browsers draw themselves: the book needs no script from elsewhere, so it reads offline."""
from __future__ import annotations

import re

from docutils import nodes
from latex2mathml import converter
from sphinx.locale import _
from sphinx.util.math import get_node_equation_number


def convert(formula: str, display: str = "inline") -> str:
    """A formula as MathML, in which ``max(`` and its like stand as closely as any function before its bracket."""
    return re.sub(r"<mo>(\w{2,4})</mo>(?=<mo[^>]*>(?:\(|&#x00028;))", r'<mo lspace="0.1em" rspace="0">\1</mo>',
                  converter.convert(formula, display=display))  # fmt: skip


def inline(self, node) -> None:
    """A formula within a line."""
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate") + convert(node.astext()) + "</span>")
    raise nodes.SkipNode


def block(self, node) -> None:
    """A formula on a line of its own, with its number where it has one."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body.append(convert(node.astext(), display="block") + "</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
