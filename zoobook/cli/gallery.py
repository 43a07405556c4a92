"""`zoobook gallery`: a page of stamps to give to others, on the command line."""

from pathlib import Path
from typing import Annotated

import typer


def gallery(
    images: Annotated[str, typer.Argument(help="An image store (….arrow), or a table with id_str and file_loc.")],
    out: Annotated[Path, typer.Option(help="The page to write, such as rings.html.")],
    scores: Annotated[
        Path | None, typer.Option(help="Table with id_str and what to show, such as predictions; else the images'.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column by which to show the galaxies, the largest first.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Galaxies to show at most: the first ones.")] = 5000,
    column: Annotated[list[str] | None, typer.Option(help="Column to show; repeatable. By default all.")] = None,
    map_: Annotated[
        tuple[str, str] | None, typer.Option("--map", help="Two columns that place the galaxies on a map.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Galaxies",
    about: Annotated[str, typer.Option(help="A sentence under the title.")] = "",
    size: Annotated[int, typer.Option(help="Side of a stamp in pixels, a multiple of 16.")] = 96,
) -> None:
    """One self-contained HTML page of stamps and scores, which sorts and filters without network or Python."""
    import pandas as pd

    from zoobook import catalogs
    from zoobook import gallery as made
    from zoobook.cli import inputs
    from zoobook.images import ImageStore

    source = ImageStore.open(images) if images.endswith(".arrow") else catalogs.read(images)
    if scores is not None:
        table = catalogs.read(scores)
    else:
        table = pd.DataFrame({"id_str": source.ids}) if isinstance(source, ImageStore) else source
    table = inputs.largest_first(table, sort)
    if len(table) > most:
        typer.echo(f"the first {most:,} of {len(table):,} galaxies are shown; --most says how many")
    typer.echo(made.write(out, source, table.head(most), columns=column or None, places=map_, title=title,
                          about=about, size=size))  # fmt: skip
