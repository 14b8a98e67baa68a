"""The command line, put together from its groups of commands.

Results go to standard output, everything else to standard error. Exit status: 0 all generated, 1 some segments failed
or an error occurred, 2 the batch or the command is invalid, 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from cloner.cli import again, box, check, checkpoint, encode, fleet, listing, recogniser, reproduce, serving
from cloner.logs import warn_of_misspelt_variables


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cloner {version('cloner')}")
        raise typer.Exit


def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Batch voice cloning on your own GPU box."""
    warn_of_misspelt_variables()


COMMANDS = (
    box.run,
    box.plan,
    fleet.submit,
    fleet.status,
    fleet.wait,
    fleet.result,
    fleet.cancel,
    again.retry,
    again.redo,
    reproduce.reproduce,
    fleet.fleet,
    listing.list_batches,
    listing.report,
    serving.flower,
    serving.metrics,
    encode.encode,
    check.check,
)
"""In the order of the help."""

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,  # in its boxes, flags look as if they took a value
    pretty_exceptions_enable=False,
    callback=_common,
)
for command in COMMANDS:
    app.command("list" if command is listing.list_batches else None)(command)

checkpoint_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Get or make the model's files.")
checkpoint_app.command()(checkpoint.init)
checkpoint_app.command()(checkpoint.pull)
app.add_typer(checkpoint_app, name="checkpoint")

recogniser_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Get a model that writes missing transcripts."
)
recogniser_app.command()(recogniser.pull)
app.add_typer(recogniser_app, name="recogniser")

command_line = typer.main.get_command(app)
"""The command that the program runs. Typer builds it here once; each call of `app()` would build it again."""
