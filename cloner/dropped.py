"""Messages that Celery drops when it loses its connection, given back to their queues when it has a new one.

What was delivered and not begun, Celery forgets: another broker would deliver it again. Redis keeps it as in this
worker's hand, and kombu would never give it back.
"""

from __future__ import annotations

import json
from typing import Any

from celery.bootsteps import StartStopStep
from celery.worker.state import active_requests

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What comes of a message that kombu has not written."""


class GiveBack(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of Celery's consumer: it runs at each new connection, before the first message is taken."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Give back what this process holds, by its own key, and does not work on."""
        channel = consumer.task_consumer.channel
        begun = {request.id for request in active_requests}
        for tag, packed in channel.client.hgetall(channel.unacked_key).items():
            if _task(packed) not in {None, *begun}:
                channel.qos.restore_by_tag(tag)


def _task(packed: bytes) -> str | None:
    """The id of a message's task, as kombu packs what somebody has in hand; None if nobody can tell."""
    try:
        return str(json.loads(packed)[0]["headers"]["id"])
    except UNREADABLE:
        return None
