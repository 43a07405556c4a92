"""`zoobook data …`: the data sets that can be loaded by name, on the command line."""

from typing import Annotated

from typer import Argument, Exit, Option, Typer, echo

from zoobook.cli.options import APP, Root

app = Typer(help="Data sets by name: what there is, what is on disk, fetching and verifying it.", **APP)

_Name = Annotated[str, Argument(help="Name of the data set; `list` shows them.")]


@app.command("list")
def show() -> None:
    """List the data sets: name, galaxies, bytes, whether on disk, and what each is."""
    from zoobook import datasets

    table = datasets.available()
    width = table["name"].str.len().max()
    for row in table.to_dict("records"):
        rows = "" if row["rows"] != row["rows"] or row["rows"] is None else f"{row['rows']:,}"
        there = "on disk" if row["on_disk"] else ""
        echo(f"{row['name']:{width}}  {rows:>9}  {_size(row['bytes']):>8}  {there:7}  {row['title']}")


@app.command()
def fetch(
    name: _Name,
    root: Root = None,
    images: Annotated[bool, Option(help="Fetch the images of its galaxies too.")] = False,
) -> None:
    """Fetch a data set, or what is still missing of it."""
    from zoobook import datasets

    folder = datasets.fetch(name, root)
    if images:
        datasets.load(name, root, images=True)
    echo(folder)


@app.command()
def verify(name: _Name, root: Root = None) -> None:
    """Read every file of a data set and say whether it is whole; fails if one is missing or damaged."""
    from zoobook import datasets

    table = datasets.state(name, root)
    for row in table.itertuples():
        echo(f"{row.state:9}  {row.path}")
    if table["state"].isin(["missing", "damaged"]).any():
        raise Exit(1)


@app.command()
def where(
    name: Annotated[str | None, Argument(help="A data set; without it, the home of all.")] = None,
    root: Root = None,
) -> None:
    """Print the folder of the data, or of one data set, and nothing else."""
    from zoobook import datasets

    echo(datasets.folder_of(name, root) if name else datasets.home(root))


def _size(count: int | None) -> str:
    if count is None or count != count:
        return ""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if number >= 1000:
            number, unit = number / 1000, larger
    return f"{number:.3g} {unit}"
