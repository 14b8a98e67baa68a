"""The journal of a chunk: which segments were in flight when a worker's process crashed.

``OUT/.cloner/BATCH_ID/<chunk>.<worker>.journal`` is appended to by one worker only, before its engine starts a segment,
and removed when the chunk is finished. A run without a line for its end has crashed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloner.errors import EngineBroken, SegmentFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot, codes_part
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, append_line, batch_folder, open_to_append, translate_disk_errors
from cloner.protocol.results import Attempt


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed a check, whose file is there."""

    segment: int
    attempt: Attempt
    frames: int
    truncated: bool
    """Whether it is cut."""
    suspicion: float
    """As that of a line of the record."""
    model: str = ""
    """Engine and checkpoint that made it (`WorkerProcess.fingerprint`): no other takes it up."""


class _Note(BaseModel):
    """A line: a run begins, a segment starts, an attempt has failed a check, an audio file is about to get its name, or
    the run ends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: int
    part: str | None = Field(None, pattern="^part-[0-9a-f]{32}$")
    generated: int | None = None
    segment: int | None = None
    alone: bool = False
    ended: bool = False
    digest: str | None = None
    failed: FailedAttempt | None = None


@dataclass
class Run:
    """One run of a chunk, as read from its journal."""

    number: int
    """Its position among the chunk's runs on all workers, from 1."""
    worker: str = ""
    """Name of its worker."""
    part: str = ""
    """Name of its process's temporary file (`OutputRoot.part`)."""
    generated: int = 0
    """Segments of the chunk that were generated when the run began."""
    started: dict[int, bool] = field(default_factory=dict)
    """Segment that was started -> whether it was alone in the engine."""
    ended: bool = False
    """Whether it ended, or its process was asked to stop; the process may have been killed after that."""
    digests: set[str] = field(default_factory=set)
    """Digests of the audio files that it gave their names; their lines may be missing in the record."""
    failed: list[FailedAttempt] = field(default_factory=list)
    """Its attempts that failed a check."""


class Journal:
    """The runs of one chunk. Raises `RecordFailed`, and `RecordFull` where it may pass.

    A context manager around a run. At its end without an error, the chunk's journals are removed, or kept. After an
    error, the run is noted as ended, so that no segment is suspected; except after `EngineBroken`, which counts as a
    crash.
    """

    def __init__(self, root: Path, batch_id: str, chunk: int, worker: str) -> None:
        self._folder = batch_folder(root, batch_id)
        self._chunk = chunk
        self._name = f"{chunk}.{worker}.journal"
        self._file: int | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._has_ended = False
        self._is_kept = False
        self._is_torn = False
        with translate_disk_errors(self._folder.path):
            self.runs = self._read()

    @property
    def crashed(self) -> list[Run]:
        """Runs whose process crashed before their end, in their order."""
        return [run for run in self.runs if not run.ended]

    def begin(self, part: str, generated: int) -> None:
        """Note that a run begins, with `generated` segments of the chunk generated already."""
        number = 1 + max((run.number for run in self.runs), default=0)
        with translate_disk_errors(self._folder.path):
            self._append(_Note(run=number, part=part, generated=generated))
        self._number, self._has_ended = number, False

    def started(self, segment: int, *, alone: bool) -> None:
        """Note that a segment starts. May be called from any thread. Errors are only logged."""
        with self._lock:
            if self._number and not self._has_ended:
                self._note(_Note(run=self._number, segment=segment, alone=alone))

    def publishes(self, digest: str) -> None:
        """Note that an audio file with this digest is about to get its name, also after `end`: a process that is asked
        to stop may still write. As `started`, from any thread."""
        with self._lock:
            if self._number:
                self._note(_Note(run=self._number, digest=digest))

    def attempt_failed(self, failed: FailedAttempt) -> None:
        """Note an attempt, after its file is there. As `publishes`, from any thread."""
        with self._lock:
            if self._number:
                self._note(_Note(run=self._number, failed=failed))

    def end(self) -> None:
        """Note that the run ends, so that its segments are not suspected. As `started`, from any thread."""
        with self._lock:
            if self._number and not self._has_ended:
                self._note(_Note(run=self._number, ended=True))
                self._has_ended = True

    def keep(self) -> None:
        """Leave the chunk's journals to the batch's close: they have the digests of files without a line."""
        self._is_kept = True

    def remove(self) -> None:
        """Remove the chunk's journals, those of other workers too: no other run of it will come."""
        with translate_disk_errors(self._folder.path):
            for name in self._names():
                self._folder.remove(name)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._is_kept:
            self.remove()
        elif not isinstance(error, EngineBroken):
            self.end()
        with self._lock:
            self._number = 0
            self._close()

    def _append(self, note: _Note) -> None:
        """Append a line. After an error, the file is opened again: the line may be there in part, and the descriptor
        may be of use no more. Raises `OSError`."""
        if self._file is None:
            self._file = open_to_append(self._folder, self._name)
        try:
            append_line(self._file, note.model_dump_json(exclude_defaults=True).encode())
        except OSError:
            self._close()
            raise

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def _note(self, note: _Note) -> None:
        try:
            self._append(note)
        except OSError as error:
            # A chunk must not fail for its journal.
            if not self._is_torn:
                log_event(Event.JOURNAL_NOT_KEPT, path=self._folder.path / self._name, error=error)
            self._is_torn = True

    def _names(self) -> Iterable[str]:
        return self._folder.files(f"{self._chunk}.*.journal")

    def _read(self) -> list[Run]:
        runs = [run for name in self._names() for run in _read_runs(self._folder, name)]
        return sorted(runs, key=lambda run: run.number)


def discard_journals(record: Record, outputs: OutputRoot, names: Iterable[str], others: Set[str] = frozenset()) -> None:
    """Remove a batch's journals, the temporary files of the runs in them, and those of the outputs `names` that have
    no line in the record: after that, nothing would say whose they are. What cannot be removed stays, and so does what
    has one of the digests of `others`: files of other batches, with lines there.

    No chunk of the batch may run any more. A journal is left where the disk failed when its chunk ended.
    """
    folder = record.folder
    if unrecorded := published_digests(folder):
        unrecorded -= {line.digest for line in record.results.values()}
        unrecorded -= others
    for name in names if unrecorded else ():
        if outputs.is_taken(name) and outputs.digest_of(name) in unrecorded:
            with suppress(OSError, SegmentFailed):
                outputs.remove(name)
    with suppress(OSError):
        for name in folder.files("*.journal"):
            for run in _read_runs(folder, name):
                outputs.discard(run.part)
                outputs.discard(codes_part(run.part))
            folder.remove(name)


def published_digests(folder: OwnFolder) -> set[str]:
    """The digests in a batch's journals: of files whose lines the record may lack. Journals that cannot be read are
    passed over."""
    digests: set[str] = set()
    with suppress(OSError):
        for name in folder.files("*.journal"):
            for run in _read_runs(folder, name):
                digests |= run.digests
    return digests


def _read_runs(folder: OwnFolder, name: str) -> list[Run]:
    worker = name.partition(".")[2].removesuffix(".journal")
    runs: dict[int, Run] = {}
    for line in folder.read(name).splitlines():
        try:
            note = _Note.model_validate_json(line)
        except ValidationError:
            continue  # torn by a crash
        _take(runs.setdefault(note.run, Run(note.run, worker)), note)
    return list(runs.values())


def _take(run: Run, note: _Note) -> None:
    run.part = note.part or run.part
    run.generated = run.generated if note.generated is None else note.generated
    run.ended = run.ended or note.ended
    if note.digest:
        run.digests.add(note.digest)
    if note.failed:
        run.failed.append(note.failed)
    if note.segment is not None:
        run.started[note.segment] = run.started.get(note.segment, False) or note.alone
