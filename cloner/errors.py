"""Every error that a user can meet, in one tree.

::

    ClonerError                    exit 1   the message says what is wrong and what to do
    ├── UsageError                 exit 2   nothing was queued, nothing was written
    │   ├── BadBatch                        the batch has bad rows; the first 1,000 are listed
    │   │   └── BadTexts                    so has a list of takes that are to be checked
    │   ├── BadSetting                      an option or environment variable has a bad value
    │   ├── BoxTaken                        another launcher runs the workers of this box
    │   ├── NoWorkers                       no worker is registered
    │   ├── OutputsTaken                    another fleet writes in the folder, or an open batch the same files
    │   ├── UnknownBatch                    Redis holds no batch of that id, or no result of it yet
    │   └── WrongCheckpoint                 the batch asks for another checkpoint than the fleet's
    ├── LoadFailed                 exit 78  the model cannot be loaded; a restart will not help
    ├── NoUsableGpu                exit 1   the box has GPUs, and none that can be used
    ├── BatchBroken                exit 1   the batch could not be opened or closed
    ├── NotReproduced              exit 1   a take that is generated again is not as its file has it
    ├── BrokerUnreachable          exit 1   Redis does not answer, or not as expected
    ├── MissingPackage             exit 1   an optional package is not installed
    ├── RecordFailed               exit 1   the record of what is finished cannot be read or written
    │   ├── RecordFull             exit 1   the disk has no room for the record's next line
    │   └── RecordUnavailable      exit 1   the record cannot be used at the moment: the disk fails
    ├── EngineBroken               exit 75  the engine raised an error; a new process may succeed
    ├── WorkerBroken               exit 78  the worker's engine fails on every chunk, a reviewer's models on every take
    ├── WrongSchema                exit 1   a message has another version of the wire format
    ├── CheckBroken                exit 1   a check of takes raised an error
    ├── Damaged                    exit 1   what Redis holds of a batch cannot be read
    └── SegmentFailed              exit 1   one segment could not be generated; has a short `code`
        ├── BadReference           exit 1   a speaker's reference cannot be used (`code` "bad_reference")
        ├── NoRoom                 exit 1   the disk has no room for the segment's audio (`code` "output")
        └── OutputUnavailable      exit 1   audio cannot be written at the moment: the disk fails (`code` "output")

`UsageError` and all below it have exit status 2. The first line of a class's docstring is its message when none is
given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_LOAD_FAILED = 78
"""Exit status of a worker whose model does not load or whose engine fails on every chunk (``EX_CONFIG`` of sysexits.h).
The launcher does not restart it, unless its model has loaded before: then up to five times."""

EXIT_ENGINE_BROKEN = 75
"""Exit status of a worker's child process whose engine broke (``EX_TEMPFAIL`` of sysexits.h). Celery replaces it."""


def printable(text: object) -> str:
    """`text` with what UTF-8 cannot encode escaped: Python keeps a file name's invalid bytes as half surrogates."""
    return str(text).encode("utf-8", "backslashreplace").decode()


# Escape sequences for terminals, what starts a line, and what changes the direction of text.
_LINE_BREAKS = re.compile(r"[\t\n\r]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_controls(text: str) -> str:
    """`text` with control characters escaped, except tabs and line feeds: a terminal would obey them."""
    return text if text.isprintable() else _CONTROLS.sub(_escaped, text)


def one_line(text: str) -> str:
    """`text` as one line without control characters. All text that is read from Redis and shown goes through this."""
    return text if text.isprintable() else without_controls(_LINE_BREAKS.sub(" ", text))


def some_of(names: Sequence[str], most: int) -> str:
    """The first `most` of some names, with commas, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class ClonerError(Exception):
    """An error occurred."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(without_controls(message or "") or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class UsageError(ClonerError):
    """The request is invalid."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a batch: `where` it is, `what` is wrong, what would be `right`."""

    where: str
    what: str
    right: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.right}"


class BadBatch(UsageError):
    """The batch cannot be used."""

    undone = "queued"
    """What was not done with it."""

    def __init__(self, source: str, problems: Sequence[Problem], count: int, *, whole: bool = True) -> None:
        """`problems` are the first of `count`; without `whole`, the rest of the batch was not read."""
        self.source = source
        self.problems = tuple(problems)
        self.count = count
        said = f"{count} problem" + ("s" if count != 1 else "")
        if not whole:
            said += " and more (the rest was not read)"
        some = f" the first {len(problems)} are:" if len(problems) < count else ""
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{source}: {said}, nothing was {self.undone}:{some}{lines}")


class BadTexts(BadBatch):
    """The list of takes cannot be used."""

    undone = "checked"


class BadSetting(UsageError):
    """A setting has a bad value."""


class BoxTaken(UsageError):
    """Another launcher runs the workers of this box."""


class NoWorkers(UsageError):
    """No worker is registered: start one with `launcher up`, or use `cloner run`."""


class OutputsTaken(UsageError):
    """Another batch of the fleet that is not finished writes the same files."""


class UnknownBatch(UsageError):
    """No such batch is known."""


class WrongCheckpoint(UsageError):
    """The batch asks for another checkpoint than the fleet's."""


class LoadFailed(ClonerError):
    """The model could not be loaded."""

    exit_code = EXIT_LOAD_FAILED


class NoUsableGpu(ClonerError):
    """The box has a GPU, and none that can be used."""


class BatchBroken(ClonerError):
    """The batch could not be opened or closed."""


class NotReproduced(ClonerError):
    """The take could not be reproduced."""


class BrokerUnreachable(ClonerError):
    """Redis does not answer."""


class MissingPackage(ClonerError):
    """A package that this command needs is not installed."""


class RecordFailed(ClonerError):
    """The record of what is finished cannot be read or written."""


class RecordFull(RecordFailed):
    """There is no room for the record."""


class RecordUnavailable(RecordFailed):
    """The record cannot be used at the moment."""


class EngineBroken(ClonerError):
    """The engine raised an error."""

    exit_code = EXIT_ENGINE_BROKEN


class WorkerBroken(ClonerError):
    """The worker's engine fails on every chunk, or the reviewer's models on every take."""

    exit_code = EXIT_LOAD_FAILED


class WrongSchema(ClonerError):
    """The message has another version of the wire format."""


class Damaged(ClonerError):
    """What Redis, or a file of our own, holds of the batch cannot be read."""


class CheckBroken(ClonerError):
    """A check of takes raised an error."""

    def __init__(self, check: str, error: Exception) -> None:
        self.check = check
        super().__init__(f"the check {check} broke: {reason_of(error)}")


class SegmentFailed(ClonerError):
    """The segment could not be generated."""

    def __init__(self, message: str | None = None, *, code: str = "generation_failed") -> None:
        self.code = code
        super().__init__(message)


class BadReference(SegmentFailed):
    """The speaker's reference cannot be used."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, code="bad_reference")


class NoRoom(SegmentFailed):
    """There is no room for the segment's audio."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, code="output")


class OutputUnavailable(SegmentFailed):
    """The audio cannot be written at the moment."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, code="output")


def reason_of(error: Exception) -> str:
    """The message of a `ClonerError`; the type and message of any other error."""
    return error.message if isinstance(error, ClonerError) else without_controls(f"{type(error).__name__}: {error}")


def first_line(error: Exception) -> str:
    """The kind of an error of another library, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
