"""The collector's tasks about batches, on a queue of their own: open a batch, and close it when its chord is complete.

Never imports torch: a box with nothing but a collector needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task
from celery.signals import worker_process_init
from redis import Redis
from structlog.contextvars import bound_contextvars

from cloner.collector import requests  # noqa: F401 - the other tasks
from cloner.collector.closing import close, end_unrecorded, read_ended
from cloner.collector.disk import retry_on_failing_disk
from cloner.collector.files import keep_batch, renew_references
from cloner.collector.open_attempts import counted_attempt
from cloner.collector.publish import publish_chunks
from cloner.collector.reviewing import Reviewing, send_next_window
from cloner.collector.rounds import next_round
from cloner.errors import (
    ClonerError,
    Damaged,
    RecordFailed,
    UnknownBatch,
    UsageError,
    reason_of,
)
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, OPEN_BATCH, collector_name
from cloner.output.audio_files import OutputRoot
from cloner.output.lock import share_output_lock
from cloner.output.redo import open_redo
from cloner.output.reuse import reuse_finished
from cloner.protocol.fields import check_batch_id
from cloner.protocol.messages import Manifest
from cloner.queueing.retry import retry_on_outage
from cloner.settings import Settings, load_settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.progress import ChunkProgress, Round


@worker_process_init.connect
def _share_output_lock(**_: object) -> None:
    """In the child process, which runs the tasks."""
    settings = load_settings()
    share_output_lock(settings.out_dir, settings.fleet)


@contextmanager
def _breaking_batch_on_error(redis: Redis, settings: Settings, batch_id: str) -> Iterator[None]:
    """Inside it, an error that ends the task marks the batch as broken, so that clients do not wait for it; and so does
    the death of this process, if it happens again and again."""
    try:
        with (
            bound_contextvars(batch=batch_id, worker=collector_name(settings.box)),
            counted_attempt(redis, settings, batch_id),
        ):
            yield
    except Exception as error:
        retry_on_outage(BatchStore.of(settings, redis).set_broken, batch_id, reason_of(error))
        raise


@shared_task(name=OPEN_BATCH)
def open_batch(batch_id: str) -> None:
    """Publish the batch's chunks as one chord.

    The client sends one message, so a batch is in Redis as a whole or not at all. The ids of chord and chunks derive
    from the batch's: should this run twice, the chord counts each chunk once, and a chunk's second run finds all of its
    segments finished.
    """
    check_batch_id(batch_id)
    settings = load_settings()
    redis = connect(settings.require_redis_url(), decode=False)
    with _breaking_batch_on_error(redis, settings, batch_id):
        retry_on_outage(_open, redis, settings, batch_id)


@shared_task(name=CLOSE_BATCH, ignore_result=True)
def close_batch(
    _results: list[dict[str, Any]] | str = "", *, batch_id: str, ended: int | None = None, end_review: bool = False
) -> None:
    """The body of a round's chord, and its errback: begin another round, or gather the record's lines into one result.

    `ended` is the round's number, None for the present one; does nothing if another round has begun, or the batch is
    closed. With `end_review`, no more takes are reviewed. Celery passes what the tasks return to the body, and the
    body's id to an errback.
    """
    check_batch_id(batch_id)
    settings = load_settings()
    redis = connect(settings.require_redis_url(), decode=False)
    with _breaking_batch_on_error(redis, settings, batch_id):
        retry_on_outage(_end_round, redis, settings, batch_id, ended, end_review)


def _open(redis: Redis, settings: Settings, batch_id: str) -> None:
    manifest = _manifest(redis, settings, batch_id)
    batches = BatchStore.of(settings, redis)
    if batches.is_done(batch_id):
        return
    if batches.is_cancelled(batch_id):
        keep_batch(redis, settings, manifest)
        _end_round(redis, settings, batch_id, None)
        return
    reused = 0
    if manifest.redo:
        retry_on_failing_disk(settings)(open_redo, manifest, OutputRoot(settings.out_dir))
    else:
        reused = _reuse_finished(batches, manifest, settings)
    keep_batch(redis, settings, manifest)
    # Before its chunks are sent: another box's collector may close it as soon as they are finished. After what is
    # reused was reported: a run starts its workers when a running batch has segments left.
    again = batches.is_running(batch_id)
    batches.set_running(batch_id)
    present = batches.round(batch_id)
    if present.is_review:
        return  # this message was delivered again
    if reused == manifest.total and not present.number:
        del manifest  # it is read again, and may take a gigabyte
        _end_round(redis, settings, batch_id, present.number)
        return
    publish_chunks(manifest, present, settings, redis, again=again)


def _reuse_finished(batches: BatchStore, manifest: Manifest, settings: Settings) -> int:
    """Add what earlier batches have generated to the record, for the workers, and to the progress, for clients; returns
    the number of segments."""
    batch_id = manifest.batch_id
    try:
        others = batches.open_ids(cancelled=True)
        chunks = retry_on_failing_disk(settings)(reuse_finished, manifest, OutputRoot(settings.out_dir), others)
    except RecordFailed as error:
        outputs = OutputRoot(settings.out_dir)
        if any(map(outputs.is_taken, manifest.outputs())):
            # Workers would take the files of earlier versions for those of others.
            raise ClonerError(
                f"what earlier batches have generated cannot be taken over: {error.message}; submit the batch again"
            ) from error
        log_event(Event.FAILED, error=error.message)
        return 0
    if not chunks:
        return 0
    progress: dict[int, ChunkProgress] = {}
    for number, lines in chunks.items():
        progress[number] = ChunkProgress()
        for line in lines:
            progress[number].add(line)
    # If this is not the first run, the chunk's worker may have reported more by now.
    batches.report(batch_id, progress, replace=False)
    there = sum(map(len, chunks.values()))
    log_event(Event.SEGMENTS_REUSED, batch=batch_id, reused=there, total=manifest.total)
    return there


def _end_round(redis: Redis, settings: Settings, batch_id: str, ended: int | None, end_review: bool = False) -> None:
    batches = BatchStore.of(settings, redis)
    present = batches.round(batch_id)
    if batches.is_done(batch_id) or ended not in {None, present.number}:
        return
    end_review = end_review or batches.is_cancelled(batch_id)
    if send_next_window(batches, settings, batch_id, present, end_review=end_review):
        return
    if following := _continue_or_close(redis, settings, batch_id, present, end_review):
        # If this process dies before it has published the round, the batch is stalled, and opened again.
        _publish_round(redis, settings, batch_id, following)


def _continue_or_close(
    redis: Redis, settings: Settings, batch_id: str, present: Round, end_review: bool
) -> Round | None:
    """After a round, begin the next: of chunks with segments that have no line, or of the review; or close the batch.

    Returns the round whose chunks are to be published, None if there is none. They are published after this has
    returned, since the manifest and the record that it reads may take a gigabyte each, and the manifest is read again
    for its texts.
    """
    batches = BatchStore.of(settings, redis)
    manifest = _manifest(redis, settings, batch_id)
    if manifest.review == "none":
        manifest.drop_texts()
    batch = read_ended(batches, settings, manifest, present)
    goes_on = not (batch.cancelled or end_review)
    if goes_on:
        following, progress = next_round(manifest, batch.record, batch.progress, present)
        if following:
            if present.reviews:
                # Before the answers are removed, by the round that begins.
                Reviewing(manifest, batch.record, batch.outputs, settings).collect(present)
            if not batches.begin_round(batch_id, following, progress, len(manifest.chunks)):
                return None
            log_event(Event.ROUND_BEGUN, batch=batch_id, missing=following.missing, chunks=len(progress))
            return following
    end_unrecorded(settings, batch)
    reviewing = Reviewing(manifest, batch.record, batch.outputs, settings)
    reviewing.collect(present)  # only now: the random sample is drawn from a whole record
    manifest.drop_texts()  # the review has those that it needs
    if goes_on and reviewing.go_on(batches, present, batch.progress):
        return reviewing.again
    close(redis, settings, batch, reviewing)
    return None


def _publish_round(redis: Redis, settings: Settings, batch_id: str, following: Round) -> None:
    """Send the chunks of a round after the first; a review before it may have outlasted the references in Redis."""
    manifest = _manifest(redis, settings, batch_id)
    try:
        renew_references(redis, settings, manifest.speakers)
    except (OSError, UsageError) as error:
        log_event(Event.FAILED, error=reason_of(error))  # its segments fail, each with a sentence of its own
    publish_chunks(manifest, following, settings, redis)


def _manifest(redis: Redis, settings: Settings, batch_id: str) -> Manifest:
    manifest = BatchStore.of(settings, redis).manifest(batch_id)
    if manifest is None:
        raise UnknownBatch(f"batch {batch_id} is not in Redis (any more); submit it again")
    if manifest.batch_id != batch_id:
        raise Damaged(f"what Redis holds as batch {batch_id} is batch {manifest.batch_id}")
    return manifest
