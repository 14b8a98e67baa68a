"""The worker's only task: generate a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

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

if TYPE_CHECKING:
    from cloner.worker.worker_process import WorkerProcess


@shared_task(bind=True, name=SPEAK_CHUNK, throws=(WrongSchema,))
def speak_chunk(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Generate a chunk. The results of its segments are in the record; the chord gets the chunk's number only.

    Raises `WrongSchema` if the message is not of this version's form.
    """
    # What loads numpy is imported when a task runs: none does in the parent process.
    from cloner.worker.crash_recovery import PassedOn

    worker = lifecycle.current()
    try:
        version = schema_of(message)
        if version != SCHEMA:
            queue = worker.settings.queues.shared_queue(version)
            log_event(Event.CHUNK_OF_OTHER_SCHEMA, version=version, own_version=SCHEMA, queue=queue)
            _leave_in(queue, self)
        chunk = read_chunk(message)
    except WrongSchema as error:
        log_event(Event.MESSAGE_REFUSED, error=error.message)
        raise
    try:
        retry_on_outage(_speak, worker, chunk)
    except EngineBroken as error:
        lifecycle.end_process(error)
    except WorkerBroken as error:
        lifecycle.end_worker(worker, error)
    except PassedOn as passed:
        retry_on_outage(_leave_in, passed.queue, self)
    # Without counts: if a chunk runs twice, the chord takes two different return values for two chunks.
    return {"chunk": message["number"]}


def _speak(worker: WorkerProcess, chunk: ChunkMessage) -> None:
    """Run the chunk; segments that earlier runs have finished are not generated again."""
    from cloner.worker.chunk_run import run_chunk

    with bound_contextvars(batch=chunk.batch_id), worker.metrics.chunk(chunk.batch_id):
        run_chunk(worker, chunk)


def _leave_in(queue: str, task: Task) -> NoReturn:
    """Send the message to another queue, and ignore it here: the chord counts the chunk when it has run there."""
    task.signature_from_request(queue=queue).apply_async()
    raise Ignore
