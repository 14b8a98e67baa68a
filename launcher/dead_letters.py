"""``launcher dead-letters``: shows the messages that are given to no process any more, and drops them."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cloner.console import print_rows
from cloner.errors import UsageError
from cloner.settings import load_settings
from cloner.state.connection import connect, translate_redis_errors
from cloner.state.dead_letters import DeadLetter, DeadLetters, printable_ascii
from cloner.state.keys import RedisKeys

COLUMNS = ("Id", "Added", "Bytes", "Reason", "Queue")

NARROW_COLUMNS = 4

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `launcher dead-letters` lists it.")]


@app.callback(invoke_without_command=True)
def list_letters(context: typer.Context) -> None:
    """List the messages that are given to no process any more, the newest first."""
    if context.invoked_subcommand:
        return
    with _dead_letters() as letters:
        found = letters.newest_first()
    rows = [(letter.id, _added(letter), str(letter.bytes), letter.reason, letter.queue) for letter in found]
    print_rows(COLUMNS, rows, NARROW_COLUMNS)


@app.command()
def show(letter_id: IdArgument) -> None:
    """Print a message: why it is in the list, its headers and its body."""
    with _dead_letters() as letters:
        letter = letters.get(letter_id)
    if letter is None:
        raise _unknown(letter_id)
    for line in _lines(letter):
        typer.echo(printable_ascii(line))


@app.command()
def drop(letter_id: IdArgument) -> None:
    """Remove a message from the list for good."""
    with _dead_letters() as letters:
        if not letters.drop(letter_id):
            raise _unknown(letter_id)


@contextmanager
def _dead_letters() -> Iterator[DeadLetters]:
    settings = load_settings()
    url = settings.require_redis_url()
    with translate_redis_errors(url):
        yield DeadLetters(connect(url), RedisKeys(settings.fleet))


def _unknown(letter_id: str) -> UsageError:
    return UsageError(
        f"{printable_ascii(letter_id)} is not in the dead-letter list: `launcher dead-letters` lists what is"
    )


def _added(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(letter.added_at))


def _lines(letter: DeadLetter) -> Iterator[str]:
    yield f"Id: {letter.id}"
    yield f"Added: {_added(letter)}"
    yield f"Queue: {letter.queue}"
    yield f"Reason: {letter.reason}"
    yield f"Bytes: {letter.bytes}"
    try:
        message = json.loads(letter.message)
        body = b64decode(message.pop("body"), validate=True).decode("latin-1")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # It is no message, or cut.
        yield f"Message: {letter.message}"
        return
    yield from f"Message: {json.dumps(message, indent=2)}".splitlines()
    yield f"Body: {body}"
