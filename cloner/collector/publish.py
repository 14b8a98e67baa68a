"""Sending a round of a batch: its chunks to the workers, or takes to the reviewers, as one chord of Celery.

The ids of a chord and its tasks derive from the batch's id and the round's number: should a round be sent twice, the
chord counts each task once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from celery import Signature, chord, current_app
from pydantic import ValidationError

from cloner.collector.disk import retry_on_failing_disk
from cloner.errors import reason_of
from cloner.names import CLOSE_BATCH, REVIEW_TAKE, SPEAK_CHUNK
from cloner.output.audio_files import OutputRoot
from cloner.output.chosen_takes import chosen_takes
from cloner.output.redo import noted_takes
from cloner.protocol.messages import Manifest, Wire
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.protocol.rows import TakeRow
from cloner.settings import Settings
from cloner.state.cleanup import chord_id
from cloner.state.progress import Round


def publish_chunks(manifest: Manifest, present: Round, settings: Settings, given_up: Collection[int] = ()) -> None:
    """Send a round's chunks, except those `given_up`. Takes that have failed the review get one attempt."""
    wanted = None if present.chunks is None else set(present.chunks)
    takes = retry_on_failing_disk(settings)(_takes, OutputRoot(settings.out_dir), manifest, present)
    if present.again:
        manifest = manifest.model_copy(update={"generation": manifest.generation.model_copy(update={"attempts": 1})})
    chord_of_round = chord_id(manifest.batch_id, present.number)
    header = []
    for chunk in manifest.chunks:
        if chunk.number in given_up or (wanted is not None and chunk.number not in wanted):
            continue
        message = manifest.message(chunk, takes)
        signature = _signature(SPEAK_CHUNK, message, f"({message.summary()})")
        header.append(signature.set(queue=chunk.queue, task_id=f"{chord_of_round}.{chunk.number}"))
    _send(header, f"{len(header)} chunks", manifest.batch_id, present, settings)


def publish_reviews(batch_id: str, present: Round, settings: Settings, requests: Sequence[ReviewRequest]) -> None:
    """Send a round's takes to the reviewers."""
    chord_of_round = chord_id(batch_id, present.number)
    header = []
    for number, request in enumerate(requests):
        signature = _signature(REVIEW_TAKE, request, f"({request.what} of batch {batch_id})")
        header.append(signature.set(queue=settings.queues.review_queue, task_id=f"{chord_of_round}.{number}"))
    _send(header, f"{len(header)} takes", batch_id, present, settings)


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


def _send(header: Sequence[Signature], what: str, batch_id: str, present: Round, settings: Settings) -> None:
    closing: dict[str, Any] = {"batch_id": batch_id, "ended": present.number}
    close = current_app.signature(CLOSE_BATCH, kwargs=closing).set(queue=settings.queues.collector_queue)
    body = close.clone().set(argsrepr=f"({what} of batch {batch_id})")
    # With Redis, a chord with failed tasks calls its errback when all have ended.
    body.on_error(close)
    # No result of a task is awaited here; Celery would keep each, and listen for it as long as this process lives.
    current_app.backend.add_pending_result = lambda task, **_: task
    chord_of_round = chord_id(batch_id, present.number)
    chord(header).set(task_id=chord_of_round)(body, task_id=f"{chord_of_round}.close")


def _takes(outputs: OutputRoot, manifest: Manifest, present: Round) -> dict[int, TakeRow]:
    """The takes with which segments are generated that have had others, or have failed the review."""
    if not (manifest.redo or present.again):
        return chosen_takes(outputs, manifest)
    number = present.number if present.again else 0
    return {take.row.segment: take.row for take in noted_takes(outputs, manifest.batch_id) if take.round == number}
