"""Sending a round of a batch: its chunks to the workers, or takes to the reviewers, as one chord of Celery.

The ids of a chord and its tasks derive from the batch's id and the round's number: should a round be sent twice, the
chord counts each task once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from celery import Signature, current_app
from pydantic import ValidationError
from redis import Redis

from cloner.collector.disk import retry_on_failing_disk
from cloner.collector.in_flight import chunks_under_way
from cloner.collector.room import may_send
from cloner.errors import reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import CLOSE_BATCH, REVIEW_TAKE, SPEAK_CHUNK
from cloner.output.audio_files import OutputRoot
from cloner.output.chosen_takes import chosen_takes
from cloner.output.redo import noted_takes
from cloner.protocol.messages import ChunkRow, Manifest, Wire
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.protocol.rows import TakeRow
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.cleanup import chord_id
from cloner.state.keys import RedisKeys
from cloner.state.progress import Round


def publish_chunks(
    manifest: Manifest, present: Round, settings: Settings, redis: Redis, *, again: bool = False
) -> None:
    """Send a round's chunks, except those that are given up. Takes that have failed the review get one attempt.

    Where Redis has no room for all, the rest is sent when there is some. If the round is sent `again`, what is left of
    it: a chunk that is in a queue or in flight, or has finished, is not sent twice. `redis` must not decode responses.
    """
    batches = BatchStore.of(settings, redis)
    chunks = _chunks_of(manifest, present, batches.given_up_chunks(manifest.batch_id))
    left = _left_of(chunks, manifest, present, settings, redis) if again else chunks
    takes = retry_on_failing_disk(settings)(_takes, OutputRoot(settings.out_dir), manifest, present)
    if present.again:
        manifest = manifest.model_copy(update={"generation": manifest.generation.model_copy(update={"attempts": 1})})
    round_chord = RoundChord(manifest.batch_id, present, f"{len(chunks)} chunks", settings)
    round_chord.begin(len(chunks))
    for place, chunk in enumerate(left):
        if not may_send(redis, settings):
            # The batch is stalled, and is opened again when there is room: other batches do not wait for this one.
            log_event(Event.CHUNKS_WAIT_FOR_ROOM, batch=manifest.batch_id, chunks=len(left) - place)
            return
        message = manifest.message(chunk, takes)
        signature = _signature(SPEAK_CHUNK, message, f"({message.summary()})")
        round_chord.send(chunk.number, signature.set(queue=chunk.queue))
    batches.set_sent(manifest.batch_id, present.number)


def _chunks_of(manifest: Manifest, present: Round, given_up: Collection[int]) -> list[ChunkRow]:
    wanted = None if present.chunks is None else set(present.chunks)
    return [
        chunk
        for chunk in manifest.chunks
        if chunk.number not in given_up and (wanted is None or chunk.number in wanted)
    ]


def _left_of(
    chunks: Iterable[ChunkRow], manifest: Manifest, present: Round, settings: Settings, redis: Redis
) -> list[ChunkRow]:
    """Those of a round's chunks that are in no queue, not in flight, and not finished."""
    queues = [*{chunk.queue: None for chunk in manifest.chunks}, settings.queues.shared_queue()]
    chord = chord_id(manifest.batch_id, present.number)
    under_way = chunks_under_way(redis, queues, RedisKeys(settings.fleet), chord)
    # Last: a message is acknowledged after its chunk is reported as finished.
    reported = BatchStore.of(settings, redis).chunk_progress(manifest.batch_id)
    under_way.update(number for number, progress in reported.items() if progress.finished)
    return [chunk for chunk in chunks if chunk.number not in under_way]


def publish_reviews(batch_id: str, present: Round, settings: Settings, requests: Sequence[ReviewRequest]) -> None:
    """Send a round's takes to the reviewers."""
    round_chord = RoundChord(batch_id, present, f"{len(requests)} takes", settings)
    round_chord.begin(len(requests))
    for number, request in enumerate(requests):
        signature = _signature(REVIEW_TAKE, request, f"({request.what} of batch {batch_id})")
        round_chord.send(number, signature.set(queue=settings.queues.review_queue))


def read_answers(batch_id: str, present: Round) -> list[ReviewAnswer | None]:
    """What the reviewers have answered to a round that was sent to them, in its order; None where they have not. An
    answer of another form is an error."""
    chord_of_round = chord_id(batch_id, present.number)
    return [_answer(f"{chord_of_round}.{number}") for number in range(present.reviews)]


def _answer(task_id: str) -> ReviewAnswer | None:
    # Not through `AsyncResult`, which listens for each result as long as this process lives.
    found = current_app.backend.get_task_meta(task_id, cache=False)
    match found["status"]:
        case "SUCCESS":
            try:
                return ReviewAnswer.model_validate(found["result"])
            except ValidationError as error:
                return ReviewAnswer(error=f"a reviewer of another version has answered ({error.error_count()} errors)")
        case "FAILURE":
            return ReviewAnswer(error=f"the reviewer failed: {reason_of(found['result'])}")
        case _:
            return None


def _signature(task: str, message: Wire, shown: str) -> Signature:
    """The call of a task with a message; logs and Flower have what is `shown` in place of it."""
    signature = current_app.signature(task, args=(message.model_dump(mode="json"),), immutable=True)
    return signature.set(argsrepr=shown)


class RoundChord:
    """The chord of a round: its body, and its errback, end the round. What is sent need not be sent by one process, as
    Celery's own chord has to be."""

    def __init__(self, batch_id: str, present: Round, what: str, settings: Settings) -> None:
        self._id = chord_id(batch_id, present.number)
        closing: dict[str, Any] = {"batch_id": batch_id, "ended": present.number}
        close = current_app.signature(CLOSE_BATCH, kwargs=closing).set(queue=settings.queues.collector_queue)
        self._body = close.clone().set(argsrepr=f"({what} of batch {batch_id})")
        # With Redis, a chord with failed tasks calls its errback when all have ended.
        self._body.on_error(close)
        self._body.set(task_id=f"{self._id}.close")

    def begin(self, size: int) -> None:
        """Note how many tasks it has, before the first is sent. One without any ends at once."""
        if size:
            current_app.backend.set_chord_size(self._id, size)
        else:
            self._body.delay([])

    def send(self, number: int, task: Signature) -> None:
        """Send its task of that number."""
        options = {"task_id": f"{self._id}.{number}", "group_id": self._id, "group_index": number}
        task.apply_async(add_to_parent=False, chord=self._body, **options)


def _takes(outputs: OutputRoot, manifest: Manifest, present: Round) -> dict[int, TakeRow]:
    """The takes with which segments are generated that have had others, or have failed the review."""
    if not (manifest.redo or present.again):
        return chosen_takes(outputs, manifest)
    number = present.number if present.again else 0
    return {take.row.segment: take.row for take in noted_takes(outputs, manifest.batch_id) if take.round == number}
