"""Segments that earlier batches have generated under the same output root, and that a new batch reuses.

What has another name now is given its new one. A process that dies on the way loses nothing: each file has its old
name, its new one, or is among the takes of the batch (`takes.py`), and its line is in ``moving.jsonl`` or
``reused.jsonl``, which other batches find. Its old name is removed where an earlier version of the same batch gave it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import replace

from cloner.errors import OutputsTaken, RecordFailed, SegmentFailed, some_of
from cloner.output.audio_files import FOREIGN, OutputRoot
from cloner.output.origin import Origin
from cloner.output.own_folder import OwnFolder
from cloner.output.record import batch_folder, translate_disk_errors
from cloner.output.record_lines import parse_line
from cloner.output.search import Found, find_outputs, held_outputs
from cloner.output.takes import Takes
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult

REUSED = "reused.jsonl"
"""The file of a batch's record with the lines of earlier batches. No worker has that name."""

MOVING = "moving.jsonl"
"""Its name until all files have their new names."""

SHOWN = 10
"""Most files that an error names."""


def reuse_finished(
    manifest: Manifest, outputs: OutputRoot, open_batches: Collection[str] = ()
) -> dict[int, list[SegmentResult]]:
    """Add the segments that earlier batches have generated to a batch's own record, so that its workers skip them.

    Of the `open_batches` that are not yet closed, by their ids, files are copied and not moved.

    Returns the added lines by chunk number. It may run again: then it returns the same lines. Raises `RecordFailed`,
    and `OutputsTaken` if files that are not the batch's are where it would write.
    """
    folder = batch_folder(outputs.root, manifest.batch_id)
    try:
        noted = folder.read(REUSED)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RecordFailed(f"{folder.path / REUSED} cannot be read: {error}") from error
    else:
        return _by_chunk(manifest, filter(None, map(parse_line, noted.splitlines())))
    try:
        return _take_over(manifest, outputs, folder, open_batches)
    except SegmentFailed as error:  # a link leads out of the output root
        raise RecordFailed(error.message) from error


def check_files(found: Found, manifest: Manifest) -> None:
    """Raise `OutputsTaken` if any of the names that a batch wants has a file that is not the batch's."""
    altered = [output for output in found.foreign if output in found.altered]
    others = [output for output in found.foreign if output not in found.altered]
    flaws = []
    if altered:
        flaws.append(
            f"{len(altered)} of the outputs: {some_of(altered, SHOWN)}: this batch has written each, and something else"
            " has changed, cut or replaced it since: move it if it is to be kept, or submit the batch with --overwrite,"
            " by which it is generated again"
        )
    if others:
        some = some_of(others, SHOWN)
        elsewhere = "under another --prefix" if manifest.prefix else "with another --out"
        flaws.append(f"{len(others)} of the outputs: {some}: each {FOREIGN}, or {elsewhere}")
    if flaws:
        raise OutputsTaken("; ".join(flaws))


def _take_over(
    manifest: Manifest, outputs: OutputRoot, folder: OwnFolder, open_batches: Collection[str]
) -> dict[int, list[SegmentResult]]:
    """Note the lines of what is reused, and give each file the name that the batch wants. Raises `RecordFailed`,
    `SegmentFailed`, `OutputsTaken`."""
    wanted = wanted_outputs(manifest.speakers, manifest.speech)
    origin = Origin.of(manifest)
    # Its own record, too: an opening that was killed has noted there what it was about to move.
    with translate_disk_errors(folder.path):
        found = find_outputs(outputs, wanted, origin, manifest.batch_id)
    if not manifest.overwrite:
        check_files(found, manifest)
    takes = Takes(outputs, manifest.batch_id)
    losing = {
        source.line.output
        for source in found.elsewhere.values()
        if (source.is_take and source.line.output != takes.path(source.line))
        or (source.is_own and not manifest.partial and source.line.output not in wanted)
    }
    with translate_disk_errors(folder.path):
        losing -= held_outputs(outputs, set(open_batches) - {manifest.batch_id}, losing)
    with translate_disk_errors(folder.path):
        origin.write(folder)
    with translate_disk_errors(folder.path):
        _keep(found, takes, losing)
        moved = [replace(source.line, output=output) for output, source in found.elsewhere.items()]
        chunks = _by_chunk(manifest, [*found.finished.values(), *moved])
        folder.write(MOVING, (line.to_json() + b"\n" for lines in chunks.values() for line in lines), sync=True)
        for output in (*found.replaced, *found.foreign):
            outputs.remove(output)
        _place(chunks, outputs, takes, found.finished)
        placed = {line.output for lines in chunks.values() for line in lines if outputs.has_result(line)}
        kept = {source.line.output for output, source in found.elsewhere.items() if output not in placed}
        for output in losing - kept:
            outputs.remove(output)
        folder.rename(MOVING, REUSED)
    return chunks


def _keep(found: Found, takes: Takes, losing: Container[str]) -> None:
    """Add to the takes what gets another name, and what the batch replaces. `losing` are files that lose their names
    and are not replaced."""
    for source in found.elsewhere.values():
        output = source.line.output
        takes.keep(source.line, shared=not (output in losing or output in found.replaced))
    for line in found.replaced.values():
        if line:
            takes.keep(line, shared=False)


def _place(
    chunks: Mapping[int, Iterable[SegmentResult]],
    outputs: OutputRoot,
    takes: Takes,
    finished: Mapping[str, SegmentResult],
) -> None:
    moved = [
        line
        for lines in chunks.values()
        for line in lines
        if line.output not in finished and not outputs.has_result(line)
    ]
    left = Counter(line.key for line in moved)
    for line in moved:
        left[line.key] -= 1
        takes.place(line, line.output, again=left[line.key] > 0)


def _by_chunk(manifest: Manifest, lines: Iterable[SegmentResult]) -> dict[int, list[SegmentResult]]:
    """Lines about the batch's outputs as its own, each with the assignment of its chunk, by chunk number."""
    finished = {line.output: line for line in lines}
    chunks: dict[int, list[SegmentResult]] = {}
    for chunk in manifest.chunks:
        for part in chunk.slices:
            speaker = manifest.speakers[part.speaker]
            for row in speaker.segments[part.start : part.stop]:
                if line := finished.get(row.output):
                    own = replace(
                        line,
                        segment=row.segment,
                        speaker=speaker.id,
                        assignment=chunk.assignment,
                        reused=True,
                        attempts=[replace(attempt, file="") for attempt in line.attempts],  # they lie with that batch
                    )
                    chunks.setdefault(chunk.number, []).append(own)
    return chunks
