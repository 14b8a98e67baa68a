"""Requests to the collector: a client does not see the fleet's output folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from celery.exceptions import TimeoutError  # noqa: A004 - Celery's own
from kombu.exceptions import OperationalError
from pydantic_core import to_json
from redis import RedisError

from cloner.batch import SpeechOptions
from cloner.client.connection import FleetConnection
from cloner.errors import BrokerUnreachable, ClonerError, UsageError, reason_of
from cloner.names import FIND_FINISHED, FIND_PART
from cloner.protocol.messages import Manifest
from cloner.protocol.queries import FinishedRequest, FinishedResponse, PartRequest, PartResponse
from cloner.settings import redacted
from cloner.state.connection import server_time

RESPONSE_S = 30.0
"""Seconds in which the collector must respond: it may be working on a batch, and have a million lines to read."""


MOST_ASKED_BYTES = 8 * 1024**2
"""Of outputs and content keys in one request, compressed: in base64, twice, they are shorter than `MAX_MESSAGE_BYTES`,
above which no collector takes the message."""

KEY_BYTES = 45
"""More than what a content key's 64 hexadecimal digits take, compressed, with what is between them and the output."""


def ask_collector(connection: FleetConnection, wanted: Mapping[str, str]) -> FinishedResponse:
    """What the fleet has of `wanted`, outputs with their content keys. Those of a large batch are asked for in parts.

    Raises `BrokerUnreachable`, and `ClonerError` where no collector responds, or it cannot read the records.
    """
    finished: list[str] = []
    changed: list[str] = []
    earlier: list[SpeechOptions] = []
    for part in parts(wanted):
        request = FinishedRequest(wanted=part).pack()
        response = FinishedResponse.unpack(
            _ask(connection, FIND_FINISHED, request, f"({len(part)} outputs)", _FINISHED)
        )
        if response.error:
            raise ClonerError(f"the collector could not look: {response.error}")
        finished += response.finished
        changed += response.changed
        earlier = response.earlier
    return FinishedResponse(finished=finished, changed=changed, earlier=earlier)


def parts(wanted: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The outputs with their keys, in requests that a collector takes; at least one, of no output."""
    part: dict[str, str] = {}
    size = 0
    for output, key in wanted.items():
        part[output] = key
        size += len(to_json(output)) + KEY_BYTES
        if size >= MOST_ASKED_BYTES:
            yield part
            part, size = {}, 0
    if part or not wanted:
        yield part


def ask_for_part(connection: FleetConnection, request: PartRequest) -> Manifest:
    """A part of a batch that the fleet has kept on its disk; its references are in Redis then.

    Raises `BrokerUnreachable`, `UsageError` where there is no such part, and `ClonerError` as `ask_collector`.
    """
    response = PartResponse.unpack(
        _ask(connection, FIND_PART, request.pack(), f"(a part of batch {request.batch_id})", _PART)
    )
    if response.refused:
        raise UsageError(response.refused)
    if response.part is None:
        raise ClonerError(f"the collector could not look: {response.error}")
    return response.part


_FINISHED = (
    "so it is not known what is finished: start the fleet with `launcher up`, or look into its output folder with --out"
    " where you see it"
)
_PART = "and Redis has forgotten the batch: start the fleet with `launcher up`, or give --out where you see its outputs"


def _ask(connection: FleetConnection, task: str, request: bytes, summary: str, silence: str) -> bytes:
    """The collector's response. The request expires, by the server's clock, when this gives up on a response; then
    `silence` ends the sentence."""
    with connection.translate_redis_errors():
        try:
            return _call(connection, task, request, summary, silence)
        except OperationalError as error:
            raise BrokerUnreachable(f"nothing could be sent to {redacted(connection.url)}: {error}") from error
        except RuntimeError as error:
            # Celery's, where it could not listen for the result again.
            raise error.__cause__ if isinstance(error.__cause__, RedisError) else error from None


def _call(connection: FleetConnection, task: str, request: bytes, summary: str, silence: str) -> bytes:
    """The result of the collector's task, removed from Redis."""
    queue = connection.queues.collector_queue
    # By the server's clock: Celery's own expiry compares with the clock of the collector's box, which may differ.
    expires_at = server_time(connection.redis) + RESPONSE_S
    result = connection.app.send_task(task, (request, expires_at), queue=queue, argsrepr=summary)
    try:
        data = result.get(timeout=RESPONSE_S, propagate=False)
    except TimeoutError:
        _remove_message(connection, queue, result.id)
        raise ClonerError(f"no collector has answered within {RESPONSE_S:g} s, {silence}") from None
    finally:
        result.forget()
    if isinstance(data, bytes):
        return data
    reason = reason_of(data) if isinstance(data, Exception) else "what Redis holds as its response is damaged"
    raise ClonerError(f"the collector could not look: {reason}")


def _remove_message(connection: FleetConnection, queue: str, task_id: str) -> None:
    """Remove a message that no collector has taken: it may be large, and stay until there is a collector."""
    for message in map(str, connection.redis.lrange(queue, 0, -1)):
        if task_id in message:
            connection.redis.lrem(queue, 1, message)
