"""`zoobook …` on the command line: the functions of the package, for those who script.

Nothing but typer is imported before a command runs, so that help comes at once.
"""

import warnings
from typing import Annotated

import typer
from typer.core import TyperGroup

import zoobook
from zoobook.cli import data, learn, options, weights
from zoobook.cli.cutouts import cutouts
from zoobook.cli.export import export
from zoobook.cli.gallery import gallery

_AS_OPTIONS = {  # what messages advise in Python, said as options
    "bad='quarantine'": "--skip-bad-images",
    "outside='drop'": "--skip-bad-images",
    "Give `zero_points`": "Give --zero-point",
    "pass resume=False": "give --no-resume",
    "another out_dir": "another --out",
    "`root=`": "`--root`",
    "precision='float32'": "--precision float32",
    "architecture=…": "--architecture (of `zoobook weights convert`)",
    "leave out zero_points": "leave out --zero-point",
    "leave out max_magnitude": "leave out --max-magnitude",
}


class _Commands(TyperGroup):
    """Says what is wrong in one message, without a traceback; only a fault of zoobook itself shows one."""

    def invoke(self, ctx):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: typer.secho(f"Note: {message}", fg="yellow", err=True)
                return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output had enough
            raise
        except (ValueError, OSError, ImportError) as error:
            message = str(error)
            for python, option in _AS_OPTIONS.items():
                message = message.replace(python, option)
            typer.secho(f"Error: {message}", fg="red", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            typer.secho(str(stop) or "stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(cls=_Commands, help="Galaxy Zoo deep learning, equally in PyTorch and TensorFlow.", **options.APP)
for _command in (learn.train, learn.finetune, learn.predict, learn.represent, cutouts, gallery, export):
    app.command()(_command)
app.add_typer(weights.app, name="weights")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _start(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        typer.echo(f"zoobook {zoobook.__version__}")
        raise typer.Exit()
