"""`zoobook …` on the command line: the functions of the package, for those who script.

Nothing but typer is imported before a command runs, so that help comes at once.
"""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

import zoobook
from zoobook.cli import cutouts as cli_cutouts
from zoobook.cli import data as cli_data
from zoobook.cli import gallery as cli_gallery


class _Commands(TyperGroup):
    """Says what is wrong in one message, without a traceback; only a fault of zoobook itself shows one."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output had enough
            raise
        except (ValueError, OSError, ImportError) as error:
            message = str(error)
            for advice, option in _ADVICE.items():
                message = message.replace(advice, option)
            typer.secho(f"Error: {message}", fg="red", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            typer.secho(str(stop) or "stopped", err=True)
            raise typer.Exit(130) from None


_ADVICE = {  # what messages advise in Python, as options
    "bad='quarantine'": "--skip-bad-images",
    "outside='drop'": "--skip-bad-images",
    "Give `zero_points`": "Give --zero-point",
    "pass resume=False": "give --no-resume",
    "another out_dir": "another --out",
    "`root=`": "`--root`",
    "precision='float32'": "--precision float32",
}
_OPTIONS = {
    "no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # help without rich comes in half the time
}  # fmt: skip
app = typer.Typer(cls=_Commands, help="Galaxy Zoo deep learning, equally in PyTorch and TensorFlow.", **_OPTIONS)
weights_app = typer.Typer(help="Weight files: Zoobot's published ones, and zoobook's own.", **_OPTIONS)
app.add_typer(weights_app, name="weights")
app.add_typer(cli_data.app, name="data")
app.command()(cli_cutouts.cutouts)
app.command()(cli_gallery.gallery)

_Source = Annotated[str, typer.Argument(help="A table of galaxies with id_str and file_loc, or a data set by name.")]
_Model = Annotated[
    str,
    typer.Argument(help="A weight file, the folder of a training, a name of `zoobook weights list`, or hf_hub:…"),
]
_Out = Annotated[Path, typer.Option(help="Folder for the result; the same command completes it after an interruption.")]
_Framework = Annotated[
    str | None, typer.Option(help="pytorch or tensorflow; by default what is installed, PyTorch first.")
]
_Devices = Annotated[str, typer.Option(help="auto, cpu, or how many GPUs.")]
_Skip = Annotated[bool, typer.Option(help="Leave out galaxies with a bad image instead of stopping.")]
_MaxBlank = Annotated[float, typer.Option(help="Share of an image that may be blank before it counts as bad.")]
_Epochs = Annotated[int, typer.Option(help="Passes over the galaxies, at most.")]
_Batch = Annotated[int, typer.Option(help="Galaxies at a time.")]
_Parts = Annotated[int, typer.Option(help="Parts in which a batch is computed, to need less memory.")]
_Rate = Annotated[float, typer.Option(help="Highest learning rate.")]
_Patience = Annotated[int, typer.Option(help="Epochs without improvement after which to stop.")]
_Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
_Nodes = Annotated[int, typer.Option(help="Machines, each started by SLURM or torchrun.")]
_Seed = Annotated[int, typer.Option(help="Decides everything random.")]
_Resume = Annotated[bool, typer.Option(help="Go on with an interrupted run, or start afresh.")]
_Framing = Annotated[
    float | None,
    typer.Option(
        help="Side of the images in half-light radii R50 of the galaxy, where it is not that of the data set, or of "
        "DECaLS: 17."
    ),
]
_Photometric = Annotated[
    bool, typer.Option("--photometric", help="Vary what differs from telescope to telescope, to serve other surveys.")
]
_Architecture = Annotated[str | None, typer.Option(help="timm's name of the encoder, where the file does not say it.")]


@app.callback(invoke_without_command=True)
def _start(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        typer.echo(f"zoobook {zoobook.__version__}")
        raise typer.Exit()


@app.command()
def train(
    galaxies: _Source,
    out: _Out,
    tree: Annotated[str, typer.Option(help="The decision tree voted on: a name, or a YAML file.")] = "decals_dr5",
    model: Annotated[
        str | None, typer.Option(help="A trained model to go on from: as for predict. Without it, from scratch.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Name of the encoder; else the model's, or efficientnet_b0.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1: grey, 3: colour; else the model's, or 1.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images, in pixels; else the model's, or 224.")
    ] = None,
    field_of_view: Annotated[
        float | None, typer.Option(help="Side of what the model sees, in R50; else the model's, or 14.7, as Zoobot.")
    ] = None,
    photometric: _Photometric = False,
    epochs: _Epochs = 100,
    batch_size: _Batch = 128,
    accumulate: _Parts = 1,
    learning_rate: _Rate = 1e-3,
    patience: _Patience = 10,
    precision: _Precision = "auto",
    devices: _Devices = "auto",
    num_nodes: _Nodes = 1,
    seed: _Seed = 0,
    resume: _Resume = True,
    framing: _Framing = None,
    skip_bad_images: _Skip = False,
    max_blank: _MaxBlank = 0.75,
    framework: _Framework = None,
) -> None:
    """Train a network to predict votes: from scratch, or going on from a trained one."""
    twin, trained = _twin(framework), _load(model, framework) if model else None
    questions = _tree(tree)
    size = image_size or (trained.spec["image_size"] if trained else 224)
    view = field_of_view or (trained.spec["field_of_view"] if trained else zoobook.images.views.FIELD_OF_VIEW)
    catalog, store = _split_galaxies(galaxies, (size, view), framing, skip_bad_images, max_blank, questions)
    result = twin.train(
        store, catalog, questions, model=trained, architecture=architecture, channels=channels, image_size=size,
        field_of_view=field_of_view, photometric=photometric, epochs=epochs, batch_size=batch_size,
        accumulate=accumulate, learning_rate=learning_rate, patience=patience, precision=precision,
        devices=_devices(devices), num_nodes=num_nodes, seed=seed, out_dir=out, resume=resume,
    )  # fmt: skip
    typer.echo(f"the best model is in {result.checkpoint}")


@app.command()
def finetune(
    model: _Model,
    galaxies: _Source,
    out: _Out,
    label: Annotated[str, typer.Option(help="The column to learn, or tree:NAME for votes on a decision tree.")],
    unfreeze: Annotated[str, typer.Option(help="What learns: head (the new head alone), top or all.")] = "head",
    photometric: _Photometric = False,
    epochs: _Epochs = 60,
    batch_size: Annotated[
        int | None, typer.Option(help="Galaxies at a time; by default 128 for votes, else 32.")
    ] = None,
    accumulate: _Parts = 1,
    learning_rate: _Rate = 1e-3,
    patience: _Patience = 15,
    precision: _Precision = "auto",
    devices: _Devices = "auto",
    num_nodes: _Nodes = 1,
    seed: _Seed = 0,
    resume: _Resume = True,
    framing: _Framing = None,
    skip_bad_images: _Skip = False,
    max_blank: _MaxBlank = 0.75,
    framework: _Framework = None,
) -> None:
    """Give a trained encoder a new head and train it on a new question."""
    twin, trained = _twin(framework), _load(model, framework)
    task = _tree(label.removeprefix("tree:")) if label.startswith("tree:") else label
    catalog, store = _split_galaxies(
        galaxies, _seen_by(trained), framing, skip_bad_images, max_blank, None if isinstance(task, str) else task
    )
    result = twin.finetune(
        trained, store, catalog, task, unfreeze=unfreeze, photometric=photometric, epochs=epochs, batch_size=batch_size,
        accumulate=accumulate, learning_rate=learning_rate, patience=patience, precision=precision,
        devices=_devices(devices), num_nodes=num_nodes, seed=seed, out_dir=out, resume=resume,
    )  # fmt: skip
    typer.echo(f"the best model is in {result.checkpoint}")


@app.command()
def predict(
    model: _Model,
    galaxies: _Source,
    out: _Out,
    passes: Annotated[int, typer.Option(help="Answers per galaxy; with more than one, dropout stays on.")] = 1,
    devices: _Devices = "auto",
    batch_size: _Batch = 256,
    seed: _Seed = 0,
    framing: _Framing = None,
    skip_bad_images: _Skip = False,
    max_blank: _MaxBlank = 0.75,
    framework: _Framework = None,
) -> None:
    """Let a model answer for every galaxy."""
    trained = _load(model, framework)
    _, store = _galaxies(galaxies, _seen_by(trained), framing, skip_bad_images, max_blank)
    options = {"devices": _devices(devices), "batch_size": batch_size}
    table = _twin(framework).predict(trained, store, out=out, passes=passes, seed=seed, **options)
    typer.echo(f"the answers are in {table}")


@app.command()
def represent(
    model: _Model,
    galaxies: _Source,
    out: _Out,
    devices: _Devices = "auto",
    batch_size: _Batch = 256,
    framing: _Framing = None,
    skip_bad_images: _Skip = False,
    max_blank: _MaxBlank = 0.75,
    framework: _Framework = None,
) -> None:
    """Describe every galaxy by the features that a model's encoder finds in its image."""
    trained = _load(model, framework)
    _, store = _galaxies(galaxies, _seen_by(trained), framing, skip_bad_images, max_blank)
    table = _twin(framework).represent(trained, store, out=out, devices=_devices(devices), batch_size=batch_size)
    typer.echo(f"the features are in {table}")


@weights_app.command("list")
def weights_list() -> None:
    """The weights that come with zoobook, and those that Zoobot published in 2022."""
    shipped, table = zoobook.weights.shipped(), zoobook.weights.published()
    _print_table([list(shipped.columns[:5]), *shipped[shipped.columns[:5]].values.tolist()])
    for row in shipped.itertuples():
        typer.echo(f"{row.name}, trained on: {row.trained_on}; licence: {row.licence}")
    typer.echo("\nPublished by Zoobot, for `zoobook weights fetch`:")
    short = ["name", "architecture", "channels", "written_by", "on_disk"]
    _print_table([short, *table[short].values.tolist()])
    for column in ("trained_on", "licence", "location", "citation"):
        for text in table[column].unique():
            typer.echo(f"{column.replace('_', ' ')}: {text}")


@weights_app.command("fetch")
def weights_fetch(
    name: Annotated[str, typer.Argument(help="A published name that `zoobook weights list` shows.")],
    root: Annotated[Path | None, typer.Option(help="The folder of the data, instead of $ZOOBOOK_HOME.")] = None,
) -> None:
    """Get published weights, in the layout in which they were published."""
    typer.echo(zoobook.weights.fetch(name, root))


@weights_app.command("convert")
def weights_convert(
    source: Annotated[str, typer.Argument(help="Weights that Zoobot published or wrote; a published name; hf_hub:…")],
    target: Annotated[Path, typer.Argument(help="The weight file to write, by custom ….safetensors.")],
    architecture: _Architecture = None,
) -> None:
    """Write Zoobot's weights as a weight file for both frameworks."""
    spec, tensors = zoobook.weights.legacy.read(_published(source), architecture)
    typer.echo(zoobook.weights.write(target, spec, tensors, source=Path(source).name))


@weights_app.command("inspect")
def weights_inspect(
    file: Annotated[str, typer.Argument(help="A weight file of zoobook, or anything that `convert` reads.")],
    architecture: _Architecture = None,
) -> None:
    """What a weight file holds."""
    if _is_ours(file):
        about = zoobook.weights.inspect(file)
    else:
        spec, tensors = zoobook.weights.legacy.read(_published(file), architecture)
        about = {
            "spec": spec,
            "encoder": zoobook.learning.architectures.describe(spec["architecture"]),
            "provenance": {},
            "tensors": {name: list(array.shape) for name, array in tensors.items()},
        }
    spec, head = about["spec"], about["spec"]["head"] or {"kind": "none: an encoder alone"}
    plain = ("architecture", "channels", "image_size", "field_of_view", "dropout")
    rows = [[key.replace("_", " "), spec[key]] for key in plain]
    rows += [["head", head["kind"]], ["label", head.get("label")], ["classes", head.get("classes")]]
    rows += [["hidden layers", head.get("hidden") or None], ["decision tree", (spec["tree"] or {}).get("name")]]
    rows += [[key.replace("_", " "), value] for key, value in (about["encoder"] | about["provenance"]).items()]
    shapes = about["tensors"].values()
    rows += [["tensors", len(shapes)], ["numbers", f"{sum(_product(shape) for shape in shapes):,}"]]
    _print_table([row for row in rows if row[1] is not None])


def _twin(framework: str | None):
    """The half of the package that a framework stands for."""
    installed = next((name for name, package in zoobook.FRAMEWORKS.items() if find_spec(package)), "pytorch")
    return zoobook.load_framework(framework or installed)


def _load(model: str, framework: str | None):
    twin = _twin(framework).__name__.split(".")[1]
    if _is_ours(model):
        return zoobook.weights.load(model, twin)
    return zoobook.weights.read_legacy(_published(model), twin)


def _is_ours(model: str) -> bool:
    """Whether weights are in zoobook's own format: a file, the folder of a training, or what comes with zoobook."""
    trained = (_path(model) / "best.safetensors").is_file()
    return trained or model.endswith(".safetensors") or bool(zoobook.weights.find_shipped(model))


def _path(name: str) -> Path:
    from zoobook import arguments

    return arguments.path(name)


def _published(source: str) -> str | Path:
    """Where weights are, if they are named as they were published."""
    return zoobook.weights.fetch(source) if source in set(zoobook.weights.published()["name"]) else source


def _seen_by(model) -> tuple[int, float]:
    """The side of what a model sees, in pixels and in R50."""
    return model.spec["image_size"], model.spec["field_of_view"]


def _galaxies(
    source: str, seen: tuple[int, float], framing: float | None, skip_bad_images: bool, max_blank: float, tree=None
):
    """The catalogue, and its images as the model sees them; of an image store, which needs no catalogue, that alone."""
    framing = framing if framing is None else zoobook.images.views.check_radii("framing", framing)
    if source.endswith(".arrow"):
        store = zoobook.images.ImageStore.open(source)
        if framing not in (None, store.framing):
            raise ValueError(f"the images in {source} have a framing of {store.framing:g}: leave out --framing")
        return None, store
    if source in zoobook.datasets.registry() and not _path(source).exists():
        catalog = zoobook.datasets.load(source)
    else:
        catalog = zoobook.catalogs.read(source, tree)
    if "file_loc" not in catalog:
        raise ValueError(f"{source} has no column `file_loc` with the paths of the images")
    key = zoobook.files.fingerprint(catalog["id_str"].tolist(), catalog["file_loc"].tolist())
    framing = zoobook.datasets.framing(source) if framing is None else framing
    size = zoobook.images.views.stored_size(*seen, framing)
    path = zoobook.datasets.home() / "stores" / f"{key}-{size}.arrow"
    bad = "quarantine" if skip_bad_images else "error"
    store = zoobook.images.ImageStore.build(catalog, path, size, bad, framing, max_blank)
    return catalog[catalog["id_str"].isin(store.ids)], store


def _split_galaxies(
    source: str, seen: tuple[int, float], framing: float | None, skip_bad_images: bool, max_blank: float, tree
):
    if source.endswith(".arrow"):
        raise ValueError(f"{source} is an image store, without labels to learn from; give the table of the galaxies")
    catalog, store = _galaxies(source, seen, framing, skip_bad_images, max_blank, tree)
    return (catalog if "subset" in catalog else zoobook.catalogs.split(catalog)), store


def _tree(name: str):
    return zoobook.trees.DecisionTree.from_yaml(name) if _path(name).is_file() else zoobook.trees.load(name)


def _devices(devices: str) -> str | int:
    return int(devices) if devices.isdigit() else devices


def _print_table(rows: list[list]) -> None:
    """Columns side by side, unbroken, so that a name can be copied and another program can read them."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _product(shape: list[int]) -> int:
    return shape[0] * _product(shape[1:]) if shape else 1
