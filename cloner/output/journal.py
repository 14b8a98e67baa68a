"""What a worker has in hand of a chunk, noted before it is spoken: after a crash it is known whose fault it may be.

``OUT/.cloner/BATCH_ID/<chunk>.<worker>.hand`` is appended to by one worker only, while it speaks the chunk, and removed
when the chunk is finished. A run that ends without a line of its own has died.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloner.errors import EngineBroken
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.record import append_line, batch_directory, keeping, open_to_append


class _Note(BaseModel):
    """A line: a run begins, a segment is taken in hand, or the run ends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: int
    part: str | None = Field(None, pattern="^part-[0-9a-f]{32}$")
    generated: int | None = None
    segment: int | None = None
    alone: bool = False
    ended: bool = False


@dataclass
class Run:
    """One run of a chunk, as its journal tells of it."""

    number: int
    """Its place among the chunk's runs, whichever workers they were on; from 1."""
    worker: str = ""
    """Name of the worker that it was on."""
    part: str = ""
    """Name of what its process had not finished writing, see `OutputRoot.part`."""
    generated: int = 0
    """Segments of the chunk that were generated when it began."""
    started: dict[int, bool] = field(default_factory=dict)
    """Segment that was taken in hand -> whether it was alone in the engine."""
    ended: bool = False
    """Whether it came to an end, or was told to stop, before its process did, though it may have been killed then."""


class Journal:
    """The runs of one chunk. Raises `RecordFailed`, and `RecordFull` where it may pass.

    A context manager around a run: a chunk that is finished needs no journal any more, one that is left for another
    reason has ended. Only after a broken engine, as after a death, what was in hand is still under suspicion.
    """

    def __init__(self, root: Path, batch_id: str, chunk: int, worker: str) -> None:
        self._directory = batch_directory(root, batch_id)
        self._chunk = chunk
        self._path = self._directory / f"{chunk}.{worker}.hand"
        self._file: int | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._is_torn = False
        with keeping(self._directory):
            self.runs = self._read()

    @property
    def dead(self) -> list[Run]:
        """Runs whose process died in the middle, in their order."""
        return [run for run in self.runs if not run.ended]

    def begin(self, part: str, generated: int) -> None:
        """A run begins, `generated` segments of the chunk being there already."""
        number = 1 + max((run.number for run in self.runs), default=0)
        with keeping(self._directory):
            self._file = self._file or open_to_append(self._path)
            append_line(self._file, _line(_Note(run=number, part=part, generated=generated)))
        self._number = number

    def started(self, segment: int, *, alone: bool) -> None:
        """A segment is taken in hand. May be called from any thread, and never fails."""
        with self._lock:
            if self._number:
                self._note(_Note(run=self._number, segment=segment, alone=alone))

    def end(self) -> None:
        """The run ends by itself, or because it was told to: nobody is to blame. As `started`, from any thread."""
        with self._lock:
            if self._number:
                self._note(_Note(run=self._number, ended=True))
                self._number = 0

    def remove(self) -> None:
        """The chunk is finished: no run of it will come, on whatever worker."""
        with keeping(self._directory):
            for path in self._files():
                path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.remove()
        elif not isinstance(error, EngineBroken):
            self.end()
        with self._lock:
            if self._file is not None:
                self._number = 0
                with suppress(OSError):
                    os.close(self._file)

    def _note(self, note: _Note) -> None:
        if self._file is None:
            return
        try:
            append_line(self._file, _line(note))
        except OSError as error:
            # Where the disk is full nothing is written either, and that is said; work must not end for a journal.
            if not self._is_torn:
                log_event(Event.JOURNAL_NOT_KEPT, path=self._path, error=error)
            self._is_torn = True

    def _files(self) -> Iterator[Path]:
        return self._directory.glob(f"{self._chunk}.*.hand")

    def _read(self) -> list[Run]:
        runs: dict[tuple[Path, int], Run] = {}
        for path in self._files():
            worker = path.name.removeprefix(f"{self._chunk}.").removesuffix(".hand")
            for line in path.read_bytes().splitlines():
                try:
                    note = _Note.model_validate_json(line)
                except ValidationError:
                    continue  # torn by a crash
                _take(runs.setdefault((path, note.run), Run(note.run, worker)), note)
        return sorted(runs.values(), key=lambda run: run.number)


def _take(run: Run, note: _Note) -> None:
    run.part = note.part or run.part
    run.generated = run.generated if note.generated is None else note.generated
    run.ended = run.ended or note.ended
    if note.segment is not None:
        run.started[note.segment] = run.started.get(note.segment, False) or note.alone


def _line(note: _Note) -> bytes:
    return note.model_dump_json(exclude_defaults=True).encode()
