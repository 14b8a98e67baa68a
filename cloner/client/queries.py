"""Asking the collector what is there of some outputs: a client does not see the fleet's output folder."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from cloner.client.connection import FleetConnection
from cloner.errors import ClonerError
from cloner.names import FIND_FINISHED
from cloner.protocol.messages import Answer, Question

ASK_S = 30.0
"""Seconds that the collector gets to answer: it may have a batch in hand, and a million lines to read."""

POLL_S = 0.1
"""Seconds between two looks for the answer."""


def ask_collector(link: FleetConnection, wanted: Mapping[str, str]) -> Answer:
    """What the fleet has of `wanted`, outputs with their content keys.

    Question and answer expire, by the server's clock. Raises `ClonerError` where no collector answers, and takes the
    message back.
    """
    number = secrets.token_hex(8)
    keep_s = int(2 * ASK_S)
    with link.translate_redis_errors():
        link.blobs.set(link.keys.question(number), Question(wanted=dict(wanted)).pack(), ex=keep_s)
        link.tell_collector(FIND_FINISHED, [number, keep_s], task_id=number)
        deadline = time.monotonic() + ASK_S
        while not isinstance(data := link.blobs.getdel(link.keys.answer(number)), bytes):
            if time.monotonic() > deadline:
                _take_back(link, number)
                raise ClonerError(
                    f"no collector has answered within {ASK_S:g} s, so nobody knows what is there: start the fleet with"
                    " `launcher up`, or look into its output folder with --out where you see it"
                )
            time.sleep(POLL_S)
    answer = Answer.unpack(data)
    if answer.error:
        raise ClonerError(f"the collector could not look: {answer.error}")
    return answer


def _take_back(link: FleetConnection, number: str) -> None:
    link.redis.delete(link.keys.question(number))
    queue = link.queues.collector_queue
    for message in map(str, link.redis.lrange(queue, 0, -1)):
        if number in message:
            link.redis.lrem(queue, 1, message)
