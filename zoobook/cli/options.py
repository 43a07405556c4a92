"""The options that several commands share, each stated once."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from typer import Argument, Option

APP: dict[str, Any] = {  # what every group of commands is made with
    "no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # help without rich comes in half the time
}  # fmt: skip


def _device(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


Galaxies = Annotated[str, Argument(help="A table of galaxies with id_str and file_loc, or a data set by name.")]
Model = Annotated[str, Argument(help="A weight file, a run folder, a name of `zoobook weights list`, or hf_hub:…")]
Out = Annotated[Path, Option(help="Folder for the result; the same command completes it after an interruption.")]
Framework = Annotated[str | None, Option(help="pytorch or tensorflow; by default what is installed, PyTorch first.")]
Devices = Annotated[str, Option(help="auto, cpu, or how many GPUs.", parser=_device, metavar="TEXT")]
Orientations = Annotated[int, Option(help="Quarter turns and mirror images to average over, up to 8.")]
AllStages = Annotated[bool, Option("--all-stages", help="Use the features of all stages of the encoder.")]
BatchSize = Annotated[int, Option(help="Galaxies in a batch.")]
Epochs = Annotated[int, Option(help="Passes over the galaxies, at most.")]
Patience = Annotated[int, Option(help="Epochs without improvement after which to stop.")]
Seed = Annotated[int, Option(help="Decides everything random.")]
Root = Annotated[Path | None, Option(help="Folder of the data; by default $ZOOBOOK_HOME or the user's cache.")]
Architecture = Annotated[str | None, Option(help="timm's name of the encoder, where the file does not say it.")]


@dataclass
class Images:
    """How the images of a table of galaxies are read."""

    framing: Annotated[
        float | None, Option(help="Side of the images in half-light radii R50; else the data set's, or DECaLS' 17.")
    ] = None
    skip_bad_images: Annotated[bool, Option(help="Leave out galaxies with a bad image instead of stopping.")] = False
    max_blank: Annotated[float, Option(help="Fraction of an image that may be blank before it counts as bad.")] = 0.75


@dataclass
class Training:
    """The arguments that ``train`` and ``finetune`` share, with the same default."""

    photometric: Annotated[
        bool, Option("--photometric", help="Vary what differs from telescope to telescope, to serve other surveys.")
    ] = False
    accumulate_grad_batches: Annotated[
        int,
        Option("--accumulate-grad-batches", "--accumulate", help="Parts that a batch is computed in, to save memory."),
    ] = 1
    learning_rate: Annotated[float, Option(help="Highest learning rate.")] = 1e-3
    precision: Annotated[str, Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    devices: Devices = "auto"
    num_nodes: Annotated[int, Option(help="Machines, each started by SLURM or torchrun.")] = 1
    seed: Seed = 0
    resume: Annotated[bool, Option(help="Go on with an interrupted run, or start afresh.")] = True


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take such a group as one argument, while typer shows an option for each of its fields.

    Settings are checked before the command reads its first file.
    """
    groups: dict[str, Any] = {name: kind for name, kind in get_type_hints(command).items() if is_dataclass(kind)}
    parameters = []
    for parameter in signature(command, eval_str=True).parameters.values():
        group = groups.get(parameter.name)
        found = signature(group, eval_str=True).parameters.values() if group else [parameter]
        parameters += [each.replace(kind=Parameter.KEYWORD_ONLY) for each in found]

    def flat(**given: Any) -> None:
        from zoobook.learning.settings import checked

        checked({name: value for name, value in given.items() if value is not None})
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return flat
