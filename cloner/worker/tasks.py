"""The worker's one task: speak a chunk."""

from __future__ import annotations

from typing import Any, NoReturn

from celery import Task, shared_task
from celery.exceptions import Ignore
from structlog.contextvars import bound_contextvars

from cloner.errors import EngineBroken, WorkerBroken, WrongSchema
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import SCHEMA, SPEAK_CHUNK
from cloner.protocol.messages import ChunkMessage, read_chunk, schema_of
from cloner.queueing import log_filters as deaths  # noqa: F401 - it sets the parent's log up
from cloner.queueing.retry import retry_on_outage
from cloner.worker import lifecycle
from cloner.worker.chunk_run import run_chunk
from cloner.worker.crash_recovery import PassedOn
from cloner.worker.runtime import Runtime


@shared_task(bind=True, name=SPEAK_CHUNK, throws=(WrongSchema,))
def speak_chunk(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Speak a chunk. What came of each segment stands in the record; the chord gets the counts."""
    runtime = lifecycle.current()
    try:
        version = schema_of(message)
        if version != SCHEMA:
            queue = runtime.settings.queues.shared_queue(version)
            log_event(Event.CHUNK_OF_OTHER_SCHEMA, version=version, own_version=SCHEMA, queue=queue)
            _leave_in(queue, self)
        chunk = read_chunk(message)
    except WrongSchema as error:
        log_event(Event.MESSAGE_REFUSED, error=error.message)
        raise
    try:
        retry_on_outage(_speak, runtime, chunk)
    except EngineBroken as error:
        lifecycle.end_broken(error)
    except WorkerBroken as error:
        lifecycle.end_worker(runtime, error)
    except PassedOn as chance:
        retry_on_outage(_leave_in, chance.queue, self)
    # No counts: were the chunk run twice, different answers would count as two chunks of the chord.
    return {"chunk": message["number"]}


def _speak(runtime: Runtime, chunk: ChunkMessage) -> None:
    """A run of the chunk; what an earlier one has finished, it finds."""
    with bound_contextvars(batch=chunk.batch_id), runtime.meter.chunk(chunk.batch_id):
        run_chunk(runtime, chunk)


def _leave_in(queue: str, task: Task) -> NoReturn:
    """Hand the message on to another queue, and forget it. Its chord still waits for it, and whoever takes it there
    answers."""
    task.signature_from_request(queue=queue).apply_async()
    raise Ignore
