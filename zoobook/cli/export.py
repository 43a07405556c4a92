"""`zoobook export`: a catalogue to give to others, on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd


def export(
    table: Annotated[Path, typer.Argument(help="Table with id_str, such as predictions.")],
    out: Annotated[Path, typer.Argument(help="The file to write: ….fits, ….vot or ….parquet.")],
    catalog: Annotated[
        Path | None, typer.Option(help="Table whose columns, such as positions, are added to the same galaxies.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column by which to sort the galaxies, the largest first.")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="Galaxies to write at most: the first ones.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="The model that predictions come from; its hash goes into the file.")
    ] = None,
) -> None:
    """Write a catalogue with units, descriptions and where its numbers come from, as FITS, VOTable or parquet."""
    from zoobook import export as made
    from zoobook.catalogs import crossmatch, tables
    from zoobook.cli import inputs

    inputs.refuse_overwriting(out, table, catalog)
    made.format_of(out, len(tables.column_names(table)))  # before anything is read
    rows = _galaxies(table)
    if catalog is not None:
        rows = crossmatch.by_id(rows, _galaxies(catalog))
        if rows.empty:
            raise ValueError(f"{catalog} and {table} have no galaxy in common: are they of the same survey?")
        left_out = rows.attrs["report"]["left_only"]
        if left_out:
            typer.echo(f"{left_out:,} galaxies of {table} are not in {catalog}: they are left out")
    rows = inputs.largest_first(rows, sort)
    chosen = rows if most is None else rows.head(most)
    typer.echo(f"{len(chosen):,} galaxies are in {made.write(chosen, out, weights=weights)}")


def _galaxies(path: Path) -> "pd.DataFrame":
    """The table of a file, but for the paths of its images: others have no use for those of this machine."""
    from zoobook import catalogs
    from zoobook.catalogs import tables

    rows = tables.read(path).drop(columns="file_loc", errors="ignore")
    try:
        return catalogs.read(rows)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('the table: ')}") from None
