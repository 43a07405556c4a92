"""A page of galaxies to give to others: one HTML file with stamps and scores that needs neither network nor Python.

It sorts, filters and shows galaxies one by one; with positions (of UMAP, say, or right ascension and
declination) it is a map too, whose points show their stamp. All stamps travel as sprites: a few large JPEG images.
"""

import base64
import html
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zoobook import arguments
from zoobook.catalogs import keyed
from zoobook.catalogs.columns import floats, listed, require
from zoobook.files import atomic_write, ensure_writable_dir
from zoobook.images import BadImage, ImageStore
from zoobook.images.stamps import by_id

_STATIC = Path(__file__).parent / "static"
_ACROSS = 24  # stamps in a row of a sprite, and rows in it
MOST = 20_000  # galaxies that a browser still moves smoothly


def page(
    images: ImageStore | pd.DataFrame, table: pd.DataFrame, *, columns: Sequence[str] | None = None,
    places: tuple[str, str] | None = None, title: str = "Galaxies", about: str = "", size: int = 96, quality: int = 85,
) -> str:  # fmt: skip
    """The page as text.

    Args:
        images: an :class:`~zoobook.images.ImageStore`, or a catalogue with ``id_str`` and ``file_loc``.
        table: the galaxies to show, in the order to show them: ``id_str`` and their scores. It may be the catalogue.
        columns: which columns to show; by default all numbers, truths and short texts, but not the file names.
        places: two columns, across and up, that place the galaxies on a map.
        title: of the page.
        about: a sentence or two under the title, such as where the scores come from.
        size: side of a stamp in pixels, a multiple of 16.
        quality: of the JPEG compression, 1 to 95. A stamp of 96 pixels takes about 3 kB at 85; one of 48 at 70, 1 kB.

    Returns:
        str: HTML.

    Raises:
        ValueError: galaxies have no image, a column is missing or holds lists, there are no galaxies or more than
            20,000, a position is not a number, or no image can be used (of some, a warning says it).
    """
    table = keyed(table, "the table")
    size, quality = arguments.whole("size", size, 16, 512), arguments.whole("quality", quality, 1, 95)
    if size % 16:
        raise ValueError(f"size must be a multiple of 16, so that stamps do not bleed into each other, not {size}")
    if not 1 <= len(table) <= MOST:
        raise ValueError(f"a page shows 1 to {MOST:,} galaxies, not {len(table):,}: give it some of the rows")
    columns = _shown_columns(table) if columns is None else arguments.names("columns", columns)
    if places is not None and len(arguments.names("places", places)) != 2:
        raise ValueError(f"places must be two columns, across and up, not {places!r}")
    require([*columns, *(places or ())], table, "the table")
    data: dict = {"size": size, "across": _ACROSS, "ids": table["id_str"].tolist(), "columns": {}}
    for name in columns:
        data["columns"][str(name)] = _json_values(table[name])
    if places:
        spots = np.stack([floats(table[name]) for name in places], axis=1)
        if not np.isfinite(spots).all():
            lost = table["id_str"][~np.isfinite(spots).all(1)]
            raise ValueError(f"{len(lost)} galaxies, such as {lost.iloc[0]!r}, lack a place: {listed(places)}")
        data["places"] = {"names": list(places), "xy": _rounded(spots).tolist()}
    bad: list[str] = []
    sprites = _sprites(by_id(images, bad), table["id_str"], size, quality)
    data["sprites"] = [base64.b64encode(sprite).decode() for sprite in sprites]
    if len(bad) == len(table):
        raise BadImage(f"none of {len(bad)} images can be used, such as {bad[0]}")
    if bad:
        warnings.warn(f"{len(bad)} of {len(table)} images cannot be used and are grey, such as {bad[0]}", stacklevel=2)
    text = (_STATIC / "gallery.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": html.escape(str(title)),
        "ABOUT": html.escape(str(about)),
        "STYLE": (_STATIC / "gallery.css").read_text(encoding="utf-8"),
        "SCRIPT": (_STATIC / "gallery.js").read_text(encoding="utf-8"),
        "DATA": json.dumps(data, separators=(",", ":"), default=arguments.plain).replace("<", "\\u003c"),
    }
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], text)


def write(path: str | os.PathLike, images: ImageStore | pd.DataFrame, table: pd.DataFrame, **options) -> Path:
    """Write the :func:`page` of these images, table and options to a file, such as ``rings.html``; returns its path."""
    path = arguments.path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path.name}: the name of a page must end in .html")
    text = page(images, table, **options)
    ensure_writable_dir(path.parent)
    atomic_write(path, text)
    return path


class Embedded:
    """A page inside a notebook, or a chapter, that is loaded when its line is opened.

    Args:
        text: what :func:`page` returned.
        summary: the line.
        height: of the page, in pixels.
    """

    def __init__(self, text: str, summary: str = "Show the galaxies", height: int = 640):
        self.text, self.summary, self.height = text, summary, arguments.whole("height", height)

    def _repr_html_(self) -> str:
        summary = html.escape(self.summary, quote=True)
        return (
            f'<details class="zoobook-gallery"><summary>{summary}</summary><iframe loading="lazy" title="{summary}" '
            f'style="width:100%;height:{self.height}px;border:1px solid #999" srcdoc="{html.escape(self.text)}">'
            "</iframe></details>"
        )


def _shown_columns(table: pd.DataFrame) -> list[str]:
    """Numbers, truths, and texts that sort the galaxies into few kinds."""
    def fits(column: pd.Series) -> bool:
        return _holds_numbers(column) or (
            all(map(pd.api.types.is_scalar, column)) and column.astype(object).nunique() <= 50
        )

    return [name for name in table.columns if name not in ("id_str", "file_loc") and fits(table[name])]


def _holds_numbers(column: pd.Series) -> bool:
    """Whether these are numbers, or true and false, by type or, in a column of objects, one by one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.api.types.is_numeric_dtype(column.cat.categories)
    if column.dtype != object:
        return pd.api.types.is_numeric_dtype(column)
    cells = [cell for cell in column if not (pd.api.types.is_scalar(cell) and pd.isna(cell))]
    return bool(cells) and all(isinstance(cell, (Real, Decimal)) and not isinstance(cell, bool) for cell in cells)


def _json_values(column: pd.Series) -> list:
    """Numbers with four digits that tell, and texts; nothing where there is no value, which JSON has no NaN for."""
    if not all(map(pd.api.types.is_scalar, column)):
        raise ValueError(f"the column {column.name!r} holds lists or other objects, which a page cannot show")
    if not _holds_numbers(column) or pd.api.types.is_bool_dtype(column):
        return [None if pd.isna(value) else str(value) for value in column]
    values = floats(column)
    known = np.isfinite(values)
    if (values[known] % 1 == 0).all():  # longer ones than JavaScript has numbers for, such as ids, are text
        kind = int if (np.abs(values[known]) < 2**53).all() else lambda value: str(int(value))
        return [kind(value) if there else None for value, there in zip(column, known, strict=True)]
    return [float(f"{v:.4f}" if abs(v) >= 1 else f"{v:.4g}") if np.isfinite(v) else None for v in values]


def _rounded(spots: np.ndarray) -> np.ndarray:
    """Positions from 0 to 1000, one scale for both axes."""
    low, high = spots.min(0), spots.max(0)
    scaled = (spots - (low + high) / 2) / max((high - low).max(), np.finfo(float).tiny)
    return (1000 * (scaled + 0.5)).round(1)


def _sprites(read: Callable[[str], np.ndarray], ids: pd.Series, size: int, quality: int) -> Iterator[bytes]:
    """JPEG files with the stamps in rows."""
    for start in range(0, len(ids), _ACROSS**2):
        part = ids.iloc[start : start + _ACROSS**2]
        sheet = Image.new("RGB", (_ACROSS * size, -(-len(part) // _ACROSS) * size))
        for n, galaxy in enumerate(part):
            stamp = Image.fromarray(read(galaxy)).resize((size, size), Image.Resampling.LANCZOS)
            sheet.paste(stamp, (n % _ACROSS * size, n // _ACROSS * size))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True)
        yield buffer.getvalue()
