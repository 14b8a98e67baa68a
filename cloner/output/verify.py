"""Whether audio files are what the record says of them.

The lock keeps other fleets out of the folder, where its file system has locks. What other programs write there all the
same is found here, before a batch is closed.
"""

from __future__ import annotations

from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.protocol.results import SegmentResult


def line_of_file(record: Record, segment: int, outputs: OutputRoot) -> SegmentResult | None:
    """The line about a generated segment that its file matches; None if there is none.

    If two workers have generated a segment, there are two lines, and the file of one has replaced that of the other.
    """
    return next((line for line in record.generated_lines(segment) if outputs.has_result(line)), None)


def choose_by_files(record: Record, outputs: OutputRoot) -> None:
    """Make the line that the file matches the result of segments that were generated more than once: the files of a
    record are read in no order of time."""
    for segment in record.generated_again():
        if line := line_of_file(record, segment, outputs):
            record.choose(line)


def withdraw_changed(record: Record, outputs: OutputRoot) -> dict[int, SegmentResult]:
    """Remove the results of segments whose files are missing, or not what a line of the record says.

    Returns them as failed, by segment. A file's size and modification time are compared, and its bytes only if the time
    differs: whatever writes a file sets its time, and reading all audio of a batch back would take as long as writing
    it. A million files on a local disk take about 10 s.
    """
    changed = {}
    for segment, result in list(record.results.items()):
        if not result.generated:
            continue
        if line := line_of_file(record, segment, outputs):
            record.choose(line)
        else:
            del record.results[segment]
            changed[segment] = _failed(result)
    return changed


def _failed(result: SegmentResult) -> SegmentResult:
    """The result of a segment whose file was changed."""
    return SegmentResult(
        segment=result.segment,
        speaker=result.speaker,
        output=result.output,
        key=result.key,
        assignment=result.assignment,
        worker=result.worker,
        code="changed",
        message=f"{result.output} was removed or written over after {result.worker} had written it: find out what else"
        " writes there, and submit the batch again, with --overwrite to replace what is there",
    )
