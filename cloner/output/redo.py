"""Segments that are generated again as other takes, although their files are there.

A take has the content key of its segment, so that later batches take it for the segment's audio, and a seed of its own.
The file that it replaces stays until it is written, and then lies among the takes of the batch (`takes.py`). What is
replaced is noted in ``OUT/.cloner/BATCH_ID/redo.ndjson`` when the batch is opened, a line a segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from cloner.batch import Redo, take_seed
from cloner.errors import OutputsTaken, RecordFailed, RecordUnavailable, SegmentFailed, some_of
from cloner.output.audio_files import OutputRoot
from cloner.output.origin import Origin
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, batch_folder, translate_disk_errors
from cloner.output.reuse import SHOWN, check_files
from cloner.output.search import Found, find_outputs, last_takes
from cloner.output.takes import Takes
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import Manifest
from cloner.protocol.rows import TakeRow

REDO = "redo.ndjson"


class NotedTake(NamedTuple):
    """A take, as it was noted."""

    row: TakeRow
    output: str
    key: str
    """Content key of its segment."""
    round: int = 0
    """The round of its batch that speaks it, as the take before failed the review; 0 if `cloner redo` asked for it."""


_LINES = TypeAdapter(NotedTake)


def check_redo(manifest: Manifest, outputs: OutputRoot) -> None:
    """Raise `OutputsTaken` if the takes of a batch would replace what is not the batch's, and `RecordFailed`."""
    _find(manifest, outputs, _wanted(manifest))


def open_redo(manifest: Manifest, outputs: OutputRoot) -> None:
    """Note the takes of a batch that is opened; does nothing if they are noted. Raises as `check_redo`."""
    folder = batch_folder(outputs.root, manifest.batch_id)
    with translate_disk_errors(folder.path):
        if folder.files(REDO):
            return
    wanted = _wanted(manifest)
    found = _find(manifest, outputs, wanted)
    with translate_disk_errors(folder.path):
        takes = _takes(manifest, outputs, wanted, found)
        Origin.of(manifest).write(folder)
        note_takes(folder, takes)


def note_takes(folder: OwnFolder, takes: Iterable[NotedTake]) -> None:
    """Note the takes of a batch in its folder. Raises `OSError`."""
    folder.write(REDO, (_LINES.dump_json(take) + b"\n" for take in takes), sync=True)


def noted_takes(outputs: OutputRoot, batch_id: str) -> Iterator[NotedTake]:
    """The takes of a batch, as `open_redo` has noted them, one by one: there may be a million. Raises
    `RecordFailed`."""
    return _read_notes(batch_folder(outputs.root, batch_id))


def spoken_again(record: Record) -> Counter[int]:
    """Segment -> how many other takes of it the review of a batch has had generated; what is noted but was never
    generated does not count. Raises `RecordFailed`."""
    folder = record.folder
    with translate_disk_errors(folder.path):
        if not folder.files(REDO):
            return Counter()
    return Counter(
        take.row.segment
        for take in _read_notes(folder)
        if take.round and any(line.take == take.row.number for line in record.generated_lines(take.row.segment))
    )


def _read_notes(folder: OwnFolder) -> Iterator[NotedTake]:
    with translate_disk_errors(folder.path):
        for line in folder.lines(REDO):
            try:
                take = _LINES.validate_json(line)
            except ValidationError as error:
                raise RecordFailed(f"{folder.path / REDO} is damaged: redo the segments again") from error
            yield take


def replaced_digests(outputs: OutputRoot, batch_id: str, failed: Collection[int]) -> set[str]:
    """The digests of the files that takes of `failed` segments were about to replace. A take may have the same, as if
    its seed is given again. Raises `RecordFailed`."""
    return {take.row.replaces for take in _takes_of(failed, outputs, batch_id)}


def end_replacing(outputs: OutputRoot, batch_id: str, failed: Collection[int]) -> None:
    """Give the files that takes of `failed` segments were about to replace their names again: of a segment that was
    spoken again more than once, the last of them, as it was the best.

    A file with an error does not keep the others from it. Raises `RecordFailed` at the end, `RecordUnavailable` if
    another call may do better.
    """
    folder = batch_folder(outputs.root, batch_id)
    takes = Takes(outputs, batch_id)
    refused: RecordFailed | None = None
    last = {take.row.segment: take.round for take in _takes_of(failed, outputs, batch_id) if take.round}
    for take in _takes_of(failed, outputs, batch_id):
        if not take.row.replaces or take.round < last.get(take.row.segment, 0):
            continue
        try:
            with translate_disk_errors(folder.path):
                takes.end_replacing(take.output, take.key, take.row.replaces)
        except RecordUnavailable as error:
            refused = error
        except (RecordFailed, SegmentFailed) as error:
            refused = refused or RecordFailed(f"{take.output} cannot be given its earlier take again: {error.message}")
    if refused:
        raise refused


def without_later_takes(outputs: OutputRoot, batch_id: str, failed: Collection[int]) -> set[int]:
    """Those of a redo's `failed` segments of which no later take has been generated. Raises `RecordFailed`."""
    takes = list(_takes_of(failed, outputs, batch_id))
    last = last_takes(outputs, {take.key for take in takes}, failed=False) if takes else {}
    return set(failed) - {take.row.segment for take in takes if last.get(take.key, 0) > take.row.number}


def _takes_of(segments: Collection[int], outputs: OutputRoot, batch_id: str) -> Iterator[NotedTake]:
    """The noted takes of some segments; none if the batch was cancelled before it was opened. Raises `RecordFailed`."""
    folder = batch_folder(outputs.root, batch_id)
    with translate_disk_errors(folder.path):
        if not (segments and folder.files(REDO)):
            return
    yield from (take for take in noted_takes(outputs, batch_id) if take.row.segment in segments)


def _wanted(manifest: Manifest) -> dict[str, str]:
    return wanted_outputs(manifest.speakers, manifest.speech)


def _find(manifest: Manifest, outputs: OutputRoot, wanted: Mapping[str, str]) -> Found:
    with translate_disk_errors(batch_folder(outputs.root, manifest.batch_id).path):
        found = find_outputs(outputs, wanted, Origin.of(manifest), manifest.batch_id)
    check_files(found, manifest)
    newer = [output for output, line in found.replaced.items() if line]
    newer += [output for output, source in found.elsewhere.items() if source.is_own and not source.is_take]
    if newer:
        some = some_of(newer, SHOWN)
        raise OutputsTaken(
            f"{len(newer)} of the outputs: {some}: another version of the batch has since given each another text,"
            " reference or parameter, or its audio another name: redo the segments of that version"
        )
    return found


def _takes(manifest: Manifest, outputs: OutputRoot, wanted: Mapping[str, str], found: Found) -> Iterator[NotedTake]:
    redo = manifest.redo or Redo()
    last = last_takes(outputs, set(wanted.values()), failed=True)
    for speaker in manifest.speakers:
        for row in speaker.segments:
            output, key = row.output, wanted[row.output]
            number = last.get(key, 1) + 1
            line, digest = found.finished.get(output), ""
            if line:
                digest = line.digest or outputs.digest_of(output)
            elif output in found.replaced:  # a take whose process died before it could write the line
                digest = outputs.digest_of(output)
                number += 1
            yield NotedTake(TakeRow(row.segment, number, take_seed(row.seed, number, redo), digest), output, key)
