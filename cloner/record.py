"""The record beside the outputs: what is finished, one line a segment. The truth, whatever becomes of Redis.

``OUT/.cloner/BATCH_ID/<worker>.jsonl`` is appended to by one worker only, so no two writers ever share a file; together
the files of a batch say which segments are finished. The collector puts ``result.json`` beside them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from cloner.errors import RecordFailed
from cloner.filenames import HOUSEKEEPING
from cloner.logs import get_logger
from cloner.results import SegmentResult


def batch_directory(root: Path, batch_id: str) -> Path:
    """Where the record of a batch lies."""
    return root / HOUSEKEEPING / batch_id


@contextmanager
def _keeping(directory: Path) -> Iterator[None]:
    """Whatever the file system refuses becomes a `RecordFailed`."""
    try:
        yield
    except OSError as error:
        raise RecordFailed(f"the record in {directory} cannot be kept: {error}") from error


class Record:
    """The record of one batch, read as it grows: each line is read once, however many workers write."""

    def __init__(self, root: Path, batch_id: str) -> None:
        self.directory = batch_directory(root, batch_id)
        self.results: dict[int, SegmentResult] = {}
        self._read_to: dict[Path, int] = {}
        self._finished: Counter[tuple[int, str]] = Counter()
        self._generated: Counter[tuple[int, str]] = Counter()
        self._from: set[tuple[str, int, str]] = set()

    def refresh(self) -> None:
        """Read what has been written since the last time. Raises `RecordFailed`."""
        with _keeping(self.directory):
            self._refresh()

    def _refresh(self) -> None:
        for path in sorted(self.directory.glob("*.jsonl")):
            start = self._read_to.get(path, 0)
            if path.stat().st_size == start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            # A line without its end is still being written, or was torn by a crash.
            whole = data.rfind(b"\n") + 1
            self._read_to[path] = start + whole
            for line in data[:whole].splitlines():
                if line:
                    self._take(path, line)

    def add(self, result: SegmentResult) -> None:
        """Count a result. A segment that was generated stays so, whatever a later line says."""
        known = self.results.get(result.segment)
        if not result.carried:
            self._from.add((result.worker, result.assignment, result.speaker))
        if known is None:
            self._finished[result.assignment, result.speaker] += 1
            self._finished[result.assignment, ""] += 1
        elif known.generated:
            # Spoken anew, as where a worker's checkpoint is not the one that earlier batches were spoken with.
            if result.generated and not result.carried:
                self.results[result.segment] = result
            return
        self.results[result.segment] = result
        if result.generated:
            self._generated[result.assignment, result.speaker] += 1
            self._generated[result.assignment, ""] += 1

    def finished(self, assignment: int, speaker: str = "") -> int:
        """Segments that were generated or failed of an assignment, or of one of its speakers."""
        return self._finished[assignment, speaker]

    def generated(self, assignment: int, speaker: str = "") -> int:
        """Segments generated of an assignment, or of one of its speakers."""
        return self._generated[assignment, speaker]

    def has_from(self, worker: str, assignment: int, speaker: str) -> bool:
        """Whether the worker has finished any of a speaker's texts."""
        return (worker, assignment, speaker) in self._from

    def _take(self, path: Path, line: bytes) -> None:
        try:
            self.add(SegmentResult.model_validate_json(line))
        except ValidationError:
            get_logger().warning(f"{path.name} has a torn line (a worker died while writing it); it is passed over")


class RecordWriter:
    """Appends to this worker's file of a batch's record. Raises `RecordFailed`."""

    def __init__(self, record: Record, worker: str) -> None:
        self._record = record
        with _keeping(record.directory):
            path = record.directory / f"{worker}.jsonl"
            try:
                self._file = _open(path)
            except FileNotFoundError:  # the batch's first chunk here
                record.directory.mkdir(parents=True, exist_ok=True)
                self._file = _open(path)
            end = os.fstat(self._file).st_size
            if end and os.pread(self._file, 1, end - 1) != b"\n":
                os.write(self._file, b"\n")

    def append(self, result: SegmentResult) -> None:
        """Write one line, in one piece, after the audio file has its final name."""
        line = result.model_dump_json().encode() + b"\n"
        with _keeping(self._record.directory):
            if os.write(self._file, line) < len(line):
                raise OSError("no room for a whole line")
        self._record.add(result)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _keeping(self._record.directory):
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
