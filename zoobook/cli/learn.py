"""`zoobook train`, `finetune`, `predict` and `represent`."""

from typing import Annotated

from typer import Option, echo

from zoobook.cli import options
from zoobook.cli.options import Framework, Galaxies, Images, Model, Out, Training


@options.grouped
def train(
    galaxies: Galaxies,
    out: Out,
    *,
    tree: Annotated[str, Option(help="The decision tree voted on: a name, or a YAML file.")] = "decals_dr5",
    model: Annotated[str | None, Option(help="A model to go on from, as for predict; else from scratch.")] = None,
    architecture: Annotated[str | None, Option(help="The encoder; else the model's, or efficientnet_b0.")] = None,
    channels: Annotated[int | None, Option(help="1: grey, 3: colour; else the model's, or 1.")] = None,
    image_size: Annotated[int | None, Option(help="Image side in pixels; else the model's, or 224.")] = None,
    field_of_view: Annotated[
        float | None, Option(help="Side of what the model sees, in R50; else the model's, or 14.7, as Zoobot.")
    ] = None,
    lowest: Annotated[float | None, Option(help="Lowest concentration, 0.01 to 1; else the model's, or 1.")] = None,
    epochs: options.Epochs = 100,
    batch_size: options.BatchSize = 128,
    patience: options.Patience = 10,
    training: Training,
    images: Images,
    framework: Framework = None,
) -> None:
    """Train a network to predict votes: from scratch, or going on from a trained one."""
    from zoobook.cli import inputs
    from zoobook.images.views import FIELD_OF_VIEW
    from zoobook.learning.architectures import check_options

    half, trained = inputs.load(model, framework, training.devices)
    questions = inputs.load_tree(tree)
    view = trained.spec if trained else {"image_size": 224, "field_of_view": FIELD_OF_VIEW, "channels": 1, "dropout": 0}
    asked = {"image_size": image_size, "field_of_view": field_of_view, "channels": channels}
    view = check_options({**view, **{name: value for name, value in asked.items() if value is not None}})
    catalog, store = inputs.read_labelled(galaxies, view, images, questions)
    result = half.train(
        store, catalog, questions, model=trained, architecture=architecture, channels=channels,
        image_size=view["image_size"], field_of_view=field_of_view, lowest=lowest, epochs=epochs,
        batch_size=batch_size, patience=patience, out_dir=out, **vars(training),
    )  # fmt: skip
    echo(f"the best model is in {result.checkpoint}")


@options.grouped
def finetune(
    model: Model,
    galaxies: Galaxies,
    out: Out,
    label: Annotated[str, Option(help="The column to learn, or tree:NAME for votes on a decision tree.")],
    *,
    unfreeze: Annotated[str, Option(help="What learns: head (the new head alone), top or all.")] = "head",
    all_stages: options.AllStages = False,
    epochs: options.Epochs = 60,
    batch_size: Annotated[int | None, Option(help="Galaxies in a batch; else 128 for votes, or 32.")] = None,
    patience: options.Patience = 15,
    training: Training,
    images: Images,
    framework: Framework = None,
) -> None:
    """Give a trained encoder a new head and train it on a new question."""
    from zoobook.cli import inputs

    half, trained = inputs.load(model, framework, training.devices)
    tree = inputs.load_tree(label.removeprefix("tree:")) if label.startswith("tree:") else None
    catalog, store = inputs.read_labelled(galaxies, trained.spec, images, tree)
    result = half.finetune(
        half.with_all_stages(trained) if all_stages else trained, store, catalog, tree or label, unfreeze=unfreeze,
        epochs=epochs, batch_size=batch_size, patience=patience, out_dir=out, **vars(training),
    )  # fmt: skip
    echo(f"the best model is in {result.checkpoint}")


@options.grouped
def predict(
    model: Model,
    galaxies: Galaxies,
    out: Out,
    *,
    passes: Annotated[int, Option(help="Answers per galaxy; with more than one, dropout stays on.")] = 1,
    orientations: options.Orientations = 1,
    devices: options.Devices = "auto",
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    images: Images,
    framework: Framework = None,
) -> None:
    """Let a model answer for every galaxy."""
    from zoobook.cli import inputs

    half, trained = inputs.load(model, framework, devices)
    _, store = inputs.read_galaxies(galaxies, trained.spec, images)
    table = half.predict(
        trained, store, out=out, passes=passes, orientations=orientations, devices=devices, batch_size=batch_size,
        seed=seed,
    )  # fmt: skip
    echo(f"the answers are in {table}")


@options.grouped
def represent(
    model: Model,
    galaxies: Galaxies,
    out: Out,
    *,
    all_stages: options.AllStages = False,
    orientations: options.Orientations = 1,
    devices: options.Devices = "auto",
    batch_size: options.BatchSize = 256,
    images: Images,
    framework: Framework = None,
) -> None:
    """Describe every galaxy by the features that a model's encoder finds in its image."""
    from zoobook.cli import inputs

    half, trained = inputs.load(model, framework, devices)
    _, store = inputs.read_galaxies(galaxies, trained.spec, images)
    encoder = half.with_all_stages(trained) if all_stages else trained
    table = half.represent(
        encoder, store, out=out, orientations=orientations, devices=devices, batch_size=batch_size
    )  # fmt: skip
    echo(f"the features are in {table}")
