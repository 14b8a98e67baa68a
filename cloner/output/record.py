"""The record of a batch, beside its outputs: one line for each finished segment. It does not depend on Redis.

``OUT/.cloner/BATCH_ID/<worker>.jsonl`` is appended to by one worker only, so no two processes write the same file; the
files of a batch together list its finished segments. The collector writes ``result.json`` beside them.
"""

from __future__ import annotations

import errno
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pydantic import ValidationError

from cloner.errors import Damaged, RecordFailed, RecordFull, RecordUnavailable
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.atomic_file import NO_ROOM
from cloner.output.audio_files import UNAVAILABLE
from cloner.output.own_folder import OwnFolder
from cloner.protocol.results import BatchResult, SegmentResult
from cloner.validation import HOUSEKEEPING

RESULT = "result.json"

MANIFEST_JSONL = "manifest.jsonl"
"""A file beside the record that ends as its files do: what was generated, with its texts. No worker has that name."""


def batch_directory(root: Path, batch_id: str) -> Path:
    """The folder of a batch's record."""
    return root / HOUSEKEEPING / batch_id


@contextmanager
def translate_disk_errors(directory: Path) -> Iterator[None]:
    """Turn an `OSError` into a `RecordFailed`: `RecordFull` if the disk is full, `RecordUnavailable` if it fails for a
    while."""
    try:
        yield
    except OSError as error:
        kind = RecordFailed
        if error.errno in NO_ROOM:
            kind = RecordFull
        elif error.errno in UNAVAILABLE:
            kind = RecordUnavailable
        raise kind(f"the record in {directory} cannot be kept: {error}") from error


def record_files(folder: OwnFolder) -> dict[str, os.stat_result]:
    """The files of a batch's record, by name. Raises `OSError`."""
    files = folder.files("*.jsonl")
    files.pop(MANIFEST_JSONL, None)
    return files


def read_result(folder: OwnFolder) -> BatchResult:
    """The result of a closed batch, beside its record. Raises `OSError`, `FileNotFoundError` if the batch has none, and
    `Damaged`."""
    try:
        return BatchResult.model_validate_json(folder.read(RESULT))
    except ValidationError as error:
        raise Damaged(f"{folder.path / RESULT} is damaged ({error.error_count()} validation errors)") from None


def batch_folder(root: Path, batch_id: str) -> OwnFolder:
    """The folder of a batch's record, to open its files."""
    return OwnFolder(root, batch_id)


def open_to_append(folder: OwnFolder, name: str) -> int:
    """A descriptor of a file of lines, which is made if needed. A line that a crash left incomplete is ended.

    Lines are written without a buffer in this process, so they survive its crash. Raises `OSError`.
    """
    file = folder.open_file(name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        end = os.fstat(file).st_size
        if end and os.pread(file, 1, end - 1) != b"\n":
            append_line(file, b"")
    except OSError:
        os.close(file)
        raise
    return file


def append_line(file: int, line: bytes) -> tuple[int, int]:
    """Append a line in one piece, or nothing of it; returns where it begins and ends, bytes. Raises `OSError`."""
    data = line + b"\n"
    written = os.write(file, data)
    if written < len(data):  # the disk had room for a part only
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    stop = os.lseek(file, 0, os.SEEK_CUR)
    return stop - len(data), stop


class _Stretch(NamedTuple):
    """Lines of a file, from byte `start` to `stop`."""

    name: str
    start: int
    stop: int


def _assignment_of(line: bytes) -> int | None:
    """The assignment of a line, without parsing the rest; None if it has none, as where a crash has cut it. What is
    before it cannot occur in a string: its quotes are escaped."""
    digits = line.partition(b'","assignment":')[2].partition(b",")[0]
    return int(digits) if digits.isdigit() else None


class Record:
    """The record of one batch, read as it grows: each line is read once."""

    def __init__(self, root: Path, batch_id: str, *, with_keys: bool = True) -> None:
        """Without keys, each result's `key` is empty: those of a million segments take 110 MB."""
        self.folder = batch_folder(root, batch_id)
        self.directory = self.folder.path
        self._with_keys = with_keys
        self.results: dict[int, SegmentResult] = {}
        self._read_to: dict[str, int] = {}
        self._finished: Counter[tuple[int, str]] = Counter()
        self._generated: Counter[tuple[int, str]] = Counter()
        self._from: set[tuple[str, int, str]] = set()
        self._other_lines: dict[int, list[SegmentResult]] = {}
        """Segment -> the lines that say that it was generated, without that in `results`: few segments have any."""
        self._assignments: set[int] = set()
        self._passed: defaultdict[int, list[_Stretch]] = defaultdict(list)
        """Assignment -> where lines about it were passed over."""

    def refresh(self, assignment: int | None = None) -> None:
        """Read the lines that were written since the last call; with an assignment, those about it and about earlier
        ones that were given. Raises `RecordFailed`.

        Lines about others are passed over: a worker needs those of its own assignments, and a batch may have a million
        of 200 workers. They are read if their assignment is given later.
        """
        with translate_disk_errors(self.directory):
            if assignment is not None:
                self._assignments.add(assignment)
                for stretch in self._passed.get(assignment, ()):
                    for _ in self._read(*stretch):
                        pass
                self._passed.pop(assignment, None)
            self._refresh()

    def _refresh(self) -> None:
        for name, status in record_files(self.folder).items():
            start = self._read_to.get(name, 0)
            if status.st_size != start:
                for stop in self._read(name, start):
                    self._read_to[name] = stop

    def _read(self, name: str, start: int, end: float = math.inf) -> Iterator[int]:
        """Read the whole lines of a file from byte `start` to `end`; yields where each ends, once it is read."""
        for line in self.folder.lines(name, start):
            if start >= end or not line.endswith(b"\n"):  # it is still being written, or a crash left it incomplete
                break
            stop = start + len(line)
            if self._assignments and (other := _assignment_of(line)) is not None and other not in self._assignments:
                self._pass(other, name, start, stop)
            elif len(line) > 1:
                self._take(name, line)
            yield stop
            start = stop

    def _pass(self, assignment: int, name: str, start: int, stop: int) -> None:
        passed = self._passed[assignment]
        if passed and passed[-1].name == name and passed[-1].stop == start:
            start = passed.pop().start
        passed.append(_Stretch(name, start, stop))

    def appended(self, name: str, result: SegmentResult, start: int, stop: int) -> None:
        """Count a result whose line this process has written from byte `start` to `stop` of a file: it is not read."""
        if self._read_to.get(name, 0) == start:
            self._read_to[name] = stop
        self.add(result)

    def add(self, result: SegmentResult) -> None:
        """Count a result. A generated segment stays generated, even if a later line says that it failed."""
        known = self.results.get(result.segment)
        if not result.reused:
            self._from.add((result.worker, result.assignment, result.speaker))
        if known is None:
            self._finished[result.assignment, result.speaker] += 1
            self._finished[result.assignment, ""] += 1
        elif known.generated:
            if result.generated:
                self._add_other_line(known, result)
            return
        self.results[result.segment] = result
        if result.generated:
            self._generated[result.assignment, result.speaker] += 1
            self._generated[result.assignment, ""] += 1

    def _add_other_line(self, known: SegmentResult, result: SegmentResult) -> None:
        """Count a line about a segment that was generated before, as with another checkpoint than that of the earlier
        batches, or by another worker."""
        other = result
        if not result.reused:
            self.results[result.segment], other = result, known
        self._other_lines.setdefault(result.segment, []).append(other)

    def generated_lines(self, segment: int) -> list[SegmentResult]:
        """All lines that say that the segment was generated. The one in `results`, which was read last, comes first;
        but the files of two workers are read in no order of time."""
        known = self.results.get(segment)
        return [known, *reversed(self._other_lines.get(segment, []))] if known and known.generated else []

    def generated_again(self) -> Collection[int]:
        """The segments with more than one line that says so."""
        return self._other_lines.keys()

    def choose(self, line: SegmentResult) -> None:
        """Make one of a segment's `generated_lines` its result."""
        known, others = self.results[line.segment], self._other_lines.get(line.segment, [])
        if line != known and line in others:
            others[others.index(line)] = known
            self.results[line.segment] = line

    def finished(self, assignment: int, speaker: str = "") -> int:
        """Segments that were generated or failed of an assignment, or of one of its speakers."""
        return self._finished[assignment, speaker]

    def generated(self, assignment: int, speaker: str = "") -> int:
        """Segments generated of an assignment, or of one of its speakers."""
        return self._generated[assignment, speaker]

    def has_from(self, worker: str, assignment: int, speaker: str) -> bool:
        """Whether the worker has finished any of a speaker's texts."""
        return (worker, assignment, speaker) in self._from

    def _take(self, name: str, line: bytes) -> None:
        try:
            result = SegmentResult.from_json(line)
        except ValidationError:
            log_event(Event.RECORD_LINE_TORN, file=name)
        else:
            self.add(result if self._with_keys else replace(result, key=""))


class RecordWriter:
    """Appends to this worker's file of a batch's record.

    Raises `RecordFailed`, and where that may pass `RecordFull` and `RecordUnavailable`; then call the method again.
    """

    def __init__(self, record: Record, worker: str) -> None:
        self._record = record
        self._name = f"{worker}.jsonl"
        self._file: int | None = None

    def open(self) -> None:
        """Open the file, and create it if needed."""
        self._open()

    def append(self, result: SegmentResult) -> None:
        """Write one line after the audio file has its final name. After an error, the file is opened again: the line
        may be there in part, and the descriptor may be of use no more."""
        file = self._open()
        try:
            with translate_disk_errors(self._record.directory):
                stretch = append_line(file, result.to_json())
        except RecordUnavailable:
            self._file = None
            with suppress(OSError):
                os.close(file)
            raise
        self._record.appended(self._name, result, *stretch)

    def _open(self) -> int:
        if self._file is None:
            with translate_disk_errors(self._record.directory):
                self._file = open_to_append(self._record.folder, self._name)
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with translate_disk_errors(self._record.directory):
            os.close(file)

    def __enter__(self) -> RecordWriter:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
