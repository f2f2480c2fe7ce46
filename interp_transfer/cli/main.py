"""The command line: one file for each command, assembled here with the commands of plugins.

Results go to stdout, progress and errors to stderr. An error is one line that says what is wrong and how to mend it, with exit
code 2. Commands import what they need when they run, so that the help is fast.
"""

import logging
import os
import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from interp_transfer.cli import models
from interp_transfer.cli.bake import bake
from interp_transfer.cli.chat import chat
from interp_transfer.cli.demo_real import demo_real
from interp_transfer.cli.explore import explore
from interp_transfer.cli.extract import extract
from interp_transfer.cli.features import features
from interp_transfer.cli.finetune import finetune
from interp_transfer.cli.judge import judge
from interp_transfer.cli.noise import noise
from interp_transfer.cli.output import say
from interp_transfer.cli.report import report
from interp_transfer.cli.run import run
from interp_transfer.cli.serve import serve
from interp_transfer.cli.sweep import sweep
from interp_transfer.cli.switch import switch
from interp_transfer.cli.transfer import transfer
from interp_transfer.escape import one_line
from interp_transfer.plugins import plugins

INTERRUPTED = 130
"""Exit code after Ctrl-C, which typer returns in place of the exception."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find an intervention on one language model and use it on another.",
)
app.add_typer(models.app, name="models")
for command in (run, explore, extract, transfer, chat, bake, serve, sweep, switch, noise, features, report, judge, finetune):
    app.command()(command)
app.command("demo-real")(demo_real)
for plugin in plugins().values():
    for name, command in plugin.commands.items():
        app.command(name)(command)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        typer.echo(version("interp-transfer"))
        raise typer.Exit


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _silence_libraries()
    try:
        code = app(args=argv, prog_name="interp-transfer", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except Exception as error:
        # What typer raises for wrong usage: newer versions bring their own copy of click, so its classes cannot be named.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        message = explain()
        if type(error).__name__ == "NoArgsIsHelpError":
            say(message, err=True)
            return 2
        return _fail(message)
    if code == INTERRUPTED:
        return _fail("stopped", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = 2) -> int:
    say(f"error: {one_line(message)}", err=True)
    return code


def _silence_libraries() -> None:
    """Turn off advice and progress bars of libraries, which would mix with the results; a warning is one line."""
    warnings.formatwarning = lambda message, *_: f"warning: {one_line(str(message))}\n"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
