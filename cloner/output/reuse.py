"""Segments that earlier batches have generated under the same output root, and that a new batch reuses.

The records of all earlier batches are searched, so this does not depend on what Redis still holds.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_json

from cloner.errors import RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.own_folder import OwnFolder
from cloner.output.record import batch_folder
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult

REUSED = "reused.jsonl"
"""The file of a batch's record with the lines of earlier batches. No worker has that name."""

_OUTPUT, _KEY, _GENERATED = b'"output":"', b'","key":"', b'"code":""'
"""Parts of a line of a record, a `SegmentResult` as JSON. They cannot occur in a string: its quotes are escaped."""


@dataclass(frozen=True)
class Found:
    """The state of wanted outputs, according to the records."""

    finished: Mapping[str, SegmentResult]
    """Output -> its line: generated with the wanted content key, and its file is as it was written."""
    changed: frozenset[str]
    """Outputs that were last generated with another key."""


def finished_outputs(outputs: OutputRoot, wanted: Mapping[str, str], except_batch: str = "") -> Found:
    """Search the records of all batches but one for the `wanted` outputs (output -> content key).

    A million lines about other outputs take about half a second, and no memory: one line is kept for each of `wanted`.
    Records that cannot be read are logged and skipped.
    """
    # Names as a line has them, so that lines about other outputs are skipped without parsing.
    written = {to_json(output)[1:-1]: output for output in wanted}
    last: dict[str, bytes] = {}
    for folder, file in _record_files(outputs.root, except_batch):
        for name, line in _lines_about(folder, file, written):
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
    """Add the segments that earlier batches have generated to a batch's own record, so that its workers skip them.

    Returns the added lines by chunk number. It may run again: then it returns the same lines. Raises `RecordFailed`.
    """
    folder = batch_folder(outputs.root, manifest.batch_id)
    path = folder.path / REUSED
    try:
        lines = [line for line in map(_parse, folder.read(REUSED).splitlines()) if line]
        return _by_chunk(manifest, {line.output: line for line in lines})
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RecordFailed(f"{path} cannot be read: {error}") from error
    wanted = wanted_outputs(manifest.speakers, manifest.generation, manifest.engine, manifest.fingerprint)
    found = finished_outputs(outputs, wanted, except_batch=manifest.batch_id)
    chunks = _by_chunk(manifest, found.finished)
    if chunks:
        pieces = (line.to_json() + b"\n" for chunk in chunks.values() for line in chunk)
        try:
            folder.write(REUSED, pieces, sync=True)
        except OSError as error:
            raise RecordFailed(f"what earlier batches have generated cannot be noted in {path}: {error}") from error
    return chunks


def _record_files(root: Path, except_batch: str) -> list[tuple[OwnFolder, str]]:
    """The files of all records but one batch's, in the order of their last change, by the file system's clock."""
    times = []
    for folder in OwnFolder(root).inner_folders():
        if folder.path.name != except_batch:
            try:
                times += [(status.st_mtime_ns, folder, name) for name, status in folder.files("*.jsonl").items()]
            except OSError as error:
                _log_skipped(folder.path, error)
    return [(folder, name) for _, folder, name in sorted(times, key=lambda file: (file[0], file[1].path, file[2]))]


def _lines_about(folder: OwnFolder, file_name: str, names: Container[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The lines of a record's file about generated files with one of these names: (name, line)."""
    try:
        with os.fdopen(folder.open_file(file_name, os.O_RDONLY), "rb") as file:
            for line in file:
                name = line.partition(_OUTPUT)[2].partition(_KEY)[0]
                # A crash may have left a line without its end.
                if name in names and _GENERATED in line and line.endswith(b"\n"):
                    yield name, line
    except OSError as error:
        _log_skipped(folder.path / file_name, error)


def _log_skipped(path: Path, error: OSError) -> None:
    log_event(Event.RECORD_UNREADABLE, path=path, error=error)


def _parse(line: bytes) -> SegmentResult | None:
    try:
        return SegmentResult.from_json(line)
    except ValidationError:
        return None


def _by_chunk(manifest: Manifest, finished: Mapping[str, SegmentResult]) -> dict[int, list[SegmentResult]]:
    """The finished segments as lines of this batch, each with the assignment of its chunk, by chunk number."""
    chunks: dict[int, list[SegmentResult]] = {}
    for chunk in manifest.chunks:
        for row in chunk.slices:
            speaker = manifest.speakers[row.speaker]
            for index, _, output, _ in speaker.segments[row.start : row.stop]:
                if line := finished.get(output):
                    own = replace(line, segment=index, speaker=speaker.id, assignment=chunk.assignment, reused=True)
                    chunks.setdefault(chunk.number, []).append(own)
    return chunks
