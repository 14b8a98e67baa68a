"""Every error that a person can meet, in one tree.

::

    ClonerError                    exit 1   something went wrong; the message says what and what to do
    ├── UsageError                 exit 2   nothing was queued, nothing was written
    │   ├── BadBatch                        the batch has bad rows; all of them are listed
    │   ├── BadSetting                      an option or environment variable makes no sense
    │   ├── BoxTaken                        another launcher runs the workers of this box
    │   ├── NoWorkers                       nobody is registered to do the work
    │   ├── OutputsTaken                    another batch that is not finished writes the same files
    │   ├── UnknownBatch                    no batch of that name is known
    │   └── WrongCheckpoint                 the batch asks for another checkpoint than the fleet's
    ├── LoadFailed                 exit 78  a worker cannot load its model; trying again will not help
    ├── RecordFailed                        the record of what is finished cannot be read or written
    │   └── RecordFull                      there is no room on the disk for its next line
    ├── EngineBroken               exit 75  the engine raised an error; a fresh process may do better
    ├── BatchBroken                exit 1   a batch could not be opened or closed
    ├── BrokerUnreachable          exit 1   Redis does not answer, or not as it should
    ├── MissingPackage             exit 1   an extra is not installed
    ├── WrongSchema                         a message of another version of the wire format
    ├── Damaged                    exit 1   what Redis holds of a batch cannot be read
    └── SegmentFailed                       one segment could not be spoken; carries a short `code`
        ├── BadReference                    a speaker's reference cannot be used (`code` "bad_reference")
        └── NoRoom                          there is no room on the disk for its audio (`code` "output")

The docstring of each class is its message when none is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_LOAD_FAILED = 78
"""Exit status of a worker whose model does not load (``EX_CONFIG`` of sysexits.h): it is not restarted, unless it has
loaded before; then, five times."""

EXIT_ENGINE_BROKEN = 75
"""Exit status of a model's process whose engine broke (``EX_TEMPFAIL`` of sysexits.h): Celery starts another."""


def printable(text: object) -> str:
    """`text` fit to be written as UTF-8: a file's name may have bytes in it that are none, and Python keeps those."""
    return str(text).encode("utf-8", "backslashreplace").decode()


class ClonerError(Exception):
    """Something went wrong."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(printable(message or "") or (type(self).__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class UsageError(ClonerError):
    """That cannot be done as asked."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a batch: where it is, what is wrong, what would be right."""

    where: str
    what: str
    right: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.right}"


class BadBatch(UsageError):
    """The batch cannot be used."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{source}: {count}, nothing was queued:{lines}")


class BadSetting(UsageError):
    """A setting makes no sense."""


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


class BatchBroken(ClonerError):
    """The batch could not be opened or closed."""


class BrokerUnreachable(ClonerError):
    """Redis does not answer."""


class MissingPackage(ClonerError):
    """A package that this needs is not installed."""


class RecordFailed(ClonerError):
    """The record of what is finished cannot be read or written."""


class RecordFull(RecordFailed):
    """There is no room for the record."""


class EngineBroken(ClonerError):
    """The engine broke."""

    exit_code = EXIT_ENGINE_BROKEN


class WrongSchema(ClonerError):
    """The message has another version of the wire format."""


class Damaged(ClonerError):
    """What Redis holds of the batch cannot be read."""


class SegmentFailed(ClonerError):
    """The segment could not be spoken."""

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


def reason_of(error: Exception) -> str:
    """What to tell people of any error: its sentence if it is ours, else its type and words."""
    return error.message if isinstance(error, ClonerError) else printable(f"{type(error).__name__}: {error}")
