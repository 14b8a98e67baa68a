"""What earlier batches have generated under the same output root, and a new batch need not speak again.

The records of all batches are looked through, old ones included: they are the truth, whatever Redis has lost.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_json

from cloner.errors import RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.atomic_file import write_atomically
from cloner.output.audio_files import OutputRoot
from cloner.output.record import batch_directory
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

REUSED = "reused.jsonl"
"""The file of a batch's record that holds lines of earlier batches. No worker has that name."""

_OUTPUT, _KEY, _GENERATED = b'"output":"', b'","key":"', b'"code":""'
"""Marks in a line of a record, which is a `SegmentResult` as JSON: within a string, their quotes would be escaped."""


@dataclass(frozen=True)
class Found:
    """What the records say of wanted outputs."""

    finished: Mapping[str, SegmentResult]
    """Output -> its line: generated with the wanted content key, and the file is there as it was written."""
    changed: frozenset[str]
    """Outputs that were last generated with another key."""


def finished_outputs(outputs: OutputRoot, wanted: Mapping[str, str], except_batch: str = "") -> Found:
    """Look for `wanted` outputs, each with its content key, in the records of all batches but one.

    A million lines about other outputs take about half a second, and no memory: what is remembered is a line for each
    of `wanted`. A record that cannot be read is said, and passed over.
    """
    # As they stand in a line, so that no line need be parsed to be passed over.
    written = {to_json(output)[1:-1]: output for output in wanted}
    last: dict[str, bytes] = {}
    for path in _record_files(outputs.root, except_batch):
        for name, line in _lines_about(path, written):
            last[written[name]] = line
    finished: dict[str, SegmentResult] = {}
    changed = set()
    for output, line in last.items():
        if not line.partition(_KEY)[2].startswith(wanted[output].encode()):
            changed.add(output)
        elif (result := _parse(line)) and outputs.has_result(result):
            finished[output] = result
    return Found(finished, frozenset(changed))


def reuse_finished(manifest: Manifest, outputs: OutputRoot) -> dict[int, list[SegmentResult]]:
    """Take what is there of a batch's segments into its own record, where its workers find it as finished.

    Returns the new lines by chunk number. May run again: it finds all that it wrote before, or nothing. Raises
    `RecordFailed`.
    """
    path = batch_directory(outputs.root, manifest.batch_id) / REUSED
    try:
        with path.open("rb") as file:
            lines = [line for line in map(_parse, file) if line]
        return _by_chunk(manifest, {line.output: line for line in lines})
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RecordFailed(f"{path} cannot be read: {error}") from error
    wanted = wanted_outputs(manifest.speakers, manifest.generation, manifest.engine, manifest.fingerprint)
    found = finished_outputs(outputs, wanted, except_batch=manifest.batch_id)
    chunks = _by_chunk(manifest, found.finished)
    if chunks:
        pieces = (line.model_dump_json().encode() + b"\n" for chunk in chunks.values() for line in chunk)
        try:
            write_atomically(path, pieces, sync=True)
        except OSError as error:
            raise RecordFailed(f"what earlier batches have generated cannot be noted in {path}: {error}") from error
    return chunks


def _record_files(root: Path, except_batch: str) -> list[Path]:
    """The files of all records but one batch's, by the time of their last line, by the file system's one clock."""
    times = []
    for path in (root / HOUSEKEEPING).glob("*/*.jsonl"):
        if path.parent.name != except_batch:
            try:
                times.append((path.stat().st_mtime_ns, path))
            except OSError as error:
                _passed_over(path, error)
    return [path for _, path in sorted(times)]


def _lines_about(path: Path, names: Container[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The lines that tell of a generated file with one of these names, each after the name."""
    try:
        with path.open("rb") as file:
            for line in file:
                name = line.partition(_OUTPUT)[2].partition(_KEY)[0]
                # A line without its end was torn by a crash.
                if name in names and _GENERATED in line and line.endswith(b"\n"):
                    yield name, line
    except OSError as error:
        _passed_over(path, error)


def _passed_over(path: Path, error: OSError) -> None:
    log_event(Event.RECORD_UNREADABLE, path=path, error=error)


def _parse(line: bytes) -> SegmentResult | None:
    try:
        return SegmentResult.model_validate_json(line)
    except ValidationError:
        return None


def _by_chunk(manifest: Manifest, finished: Mapping[str, SegmentResult]) -> dict[int, list[SegmentResult]]:
    """What is finished, as lines of this batch: it counts for the assignment that would have spoken it."""
    chunks: dict[int, list[SegmentResult]] = {}
    for chunk in manifest.chunks:
        for row in chunk.slices:
            speaker = manifest.speakers[row.speaker]
            for index, _, output in speaker.segments[row.start : row.stop]:
                if line := finished.get(output):
                    own = {"segment": index, "speaker": speaker.id, "assignment": chunk.assignment, "reused": True}
                    chunks.setdefault(chunk.number, []).append(line.model_copy(update=own))
    return chunks
