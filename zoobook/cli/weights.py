"""`zoobook weights …`: list, fetch, convert and inspect weight files."""

import math
from pathlib import Path
from typing import Annotated

from typer import Argument, Typer, echo

import zoobook
from zoobook.cli import options

app = Typer(help="Weight files: Zoobot's published ones, and zoobook's own.", **options.APP)


@app.command("list")
def show() -> None:
    """The weights that come with zoobook, and those that Zoobot published in 2022."""
    shipped, published = zoobook.weights.shipped(), zoobook.weights.published()
    _print_table([list(shipped.columns[:5]), *shipped[shipped.columns[:5]].values.tolist()])
    for row in shipped.itertuples():
        echo(f"{row.name}, trained on: {row.trained_on}; licence: {row.licence}")
    echo("\nPublished by Zoobot, for `zoobook weights fetch`:")
    short = ["name", "architecture", "channels", "written_by", "on_disk"]
    _print_table([short, *published[short].values.tolist()])
    for column in ("trained_on", "licence", "location", "citation"):
        for text in published[column].unique():
            echo(f"{column.replace('_', ' ')}: {text}")


@app.command()
def fetch(
    name: Annotated[str, Argument(help="A published name that `zoobook weights list` shows.")],
    root: options.Root = None,
) -> None:
    """Get published weights, in the layout in which they were published."""
    echo(zoobook.weights.fetch(name, root))


@app.command()
def convert(
    source: Annotated[str, Argument(help="Weights that Zoobot published or wrote; a published name; hf_hub:…")],
    target: Annotated[Path, Argument(help="The weight file to write, usually ….safetensors.")],
    architecture: options.Architecture = None,
) -> None:
    """Write Zoobot's weights as a weight file for both frameworks."""
    from zoobook.cli import inputs

    inputs.refuse_overwriting(target, source)
    if inputs.is_own(source):
        raise ValueError(f"{source} is a weight file of zoobook, for both frameworks: there is nothing to convert")
    spec, tensors = zoobook.weights.legacy.read(inputs.find_published(source), architecture)
    echo(zoobook.weights.write(target, spec, tensors, source=Path(source).name))


@app.command()
def inspect(
    file: Annotated[str, Argument(help="A weight file of zoobook, or anything that `convert` reads.")],
    architecture: options.Architecture = None,
) -> None:
    """What a weight file holds."""
    from zoobook.cli import inputs
    from zoobook.learning.architectures import describe

    if inputs.is_own(file):
        about = zoobook.weights.inspect(file)
        spec, details, shapes = about["spec"], about["encoder"] | about["provenance"], about["tensors"].values()
    else:
        spec, tensors = zoobook.weights.legacy.read(inputs.find_published(file), architecture)
        details, shapes = describe(spec["architecture"]), [array.shape for array in tensors.values()]
    head, tree = spec["head"] or {"kind": "none: an encoder alone"}, spec["tree"] or {}
    described = {key: spec[key] for key in ("architecture", "channels", "image_size", "field_of_view", "dropout")}
    described |= {"head": head["kind"], "label": head.get("label"), "classes": head.get("classes")}
    described |= {"lowest concentration": head.get("lowest"), "hidden layers": head.get("hidden") or None}
    described |= {"decision tree": tree.get("name")}
    described |= details
    described |= {"tensors": len(shapes), "numbers": f"{sum(map(math.prod, shapes)):,}"}
    _print_table([[key.replace("_", " "), value] for key, value in described.items() if value is not None])


def _print_table(rows: list[list]) -> None:
    """Columns side by side, unbroken, so that a name can be copied and another program can read them."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
