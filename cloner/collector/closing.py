"""The end of a batch's last round, and the close of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis import Redis

from cloner.collector.disk import retry_on_failing_disk
from cloner.collector.files import write_files
from cloner.collector.result import gather
from cloner.collector.reviewing import Reviewing
from cloner.errors import RecordFailed, SegmentFailed, one_line
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.attempts import discard_unnamed_attempts
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import discard_journals
from cloner.output.record import Record
from cloner.output.redo import end_replacing, replaced_digests
from cloner.output.search import leftover_files
from cloner.output.verify import withdraw_changed
from cloner.protocol.messages import Manifest
from cloner.protocol.results import MAX_LEFTOVER, BatchResult, SegmentResult
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import server_time
from cloner.state.counters import Counters
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress, Round


@dataclass
class EndedRound:
    """A batch whose present round has ended, as Redis and the disk have it then."""

    round: Round
    manifest: Manifest
    outputs: OutputRoot
    record: Record
    """Without the segments in `changed`."""
    changed: dict[int, SegmentResult]
    """The segments whose files are not what the record says, as failed."""
    cancelled: bool
    progress: Mapping[int, ChunkProgress]
    """What the workers have reported of the chunks, by their numbers."""


def read_ended(batches: BatchStore, settings: Settings, manifest: Manifest, ended: Round) -> EndedRound:
    """The batch after the round that has `ended`. Raises `RecordFailed`."""
    batch_id, outputs = manifest.batch_id, OutputRoot(settings.out_dir)
    record, changed = retry_on_failing_disk(settings)(_verified_record, outputs, batch_id)
    cancelled, progress = batches.is_cancelled(batch_id), batches.chunk_progress(batch_id)
    return EndedRound(ended, manifest, outputs, record, changed, cancelled, progress)


def end_unrecorded(settings: Settings, batch: EndedRound) -> None:
    """Remove what takes without a line have left, and give back the names that failed takes were about to get; no chunk
    of the batch may run.

    An error is logged: without knowing what was replaced, nothing is removed. Raises `RecordFailed` if the record
    cannot be read again.
    """
    failed = {
        row.segment: row.output
        for speaker in batch.manifest.speakers
        for row in speaker.segments
        if not ((line := batch.record.results.get(row.segment)) and line.generated)
    }
    batch_id, retry = batch.manifest.batch_id, retry_on_failing_disk(settings)
    try:
        replaced = retry(replaced_digests, batch.outputs, batch_id, failed)
        discard_journals(batch.record, batch.outputs, failed.values(), replaced)
        retry(end_replacing, batch.outputs, batch_id, failed)
    except RecordFailed as error:
        log_event(Event.FAILED, error=error.message)
    if batch.changed:  # a take without a line has perhaps given its name back
        batch.record, batch.changed = retry(_verified_record, batch.outputs, batch_id)


def close(redis: Redis, settings: Settings, batch: EndedRound, reviewing: Reviewing) -> None:
    """Close the batch: gather the record's lines into one result, and write that, to the disk first."""
    batches = BatchStore.of(settings, redis)
    reviewing.end()
    review = reviewing.result()
    batch.record.results.update(batch.changed)
    result = gather(
        batch.manifest,
        batch.record,
        batch.outputs.root,
        cancelled=batch.cancelled,
        progress=batch.progress,
        now=server_time(redis),
        reviews=reviewing.present,
        review=review,
    )
    if not (batch.cancelled or result.failed or batch.manifest.partial):
        result = _with_leftover(result, batch.manifest, batch.outputs, batches.open_ids(cancelled=True))
    discard_unnamed_attempts(batch.record)
    # Before the state is set to done: a one-box run stops its collector then.
    write_files(settings, result, batch.record)
    batches.close(result, batch.round, len(batch.manifest.chunks))
    reviewing.count_failures(Counters(redis, RedisKeys(settings.fleet)))


def _with_leftover(
    result: BatchResult, manifest: Manifest, outputs: OutputRoot, open_batches: Sequence[str]
) -> BatchResult:
    """The result of a whole batch with the files of its earlier versions, which are removed if it asks for that."""
    try:
        leftover = leftover_files(outputs, manifest, set(open_batches) - {manifest.batch_id})
    except (OSError, RecordFailed) as error:
        log_event(Event.LEFTOVER_NOT_LISTED, batch=manifest.batch_id, error=error)
        return result
    if manifest.prune:
        for output in leftover:
            try:
                outputs.remove(output)
            except (OSError, SegmentFailed) as error:
                log_event(Event.LEFTOVER_NOT_REMOVED, output=output, error=error)
    shown = [one_line(output) for output in leftover[:MAX_LEFTOVER]]
    pruned = bool(leftover) and manifest.prune
    return result.model_copy(update={"leftover": shown, "leftover_total": len(leftover), "pruned": pruned})


def _verified_record(outputs: OutputRoot, batch_id: str) -> tuple[Record, dict[int, SegmentResult]]:
    """The batch's record without the segments whose files are not what it says, and those as failed. Raises
    `RecordFailed`."""
    record = Record(outputs.root, batch_id, with_keys=False)
    record.refresh()
    return record, withdraw_changed(record, outputs)
