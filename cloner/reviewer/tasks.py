"""The reviewer's only task: hear a take."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery import Task, shared_task
from celery.signals import worker_shutting_down
from redis import RedisError

from cloner.errors import WorkerBroken, WrongSchema, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.names import REVIEW_TAKE
from cloner.protocol.reviews import ReviewAnswer, read_request
from cloner.queueing.heartbeat import CONSUMER
from cloner.reviewer import lifecycle
from cloner.reviewer.reviewer_process import review_attempts
from cloner.settings import load_settings
from cloner.state.connection import HASTE_S, connect


@shared_task(bind=True, name=REVIEW_TAKE)
def review_take(self: Task, message: dict[str, Any]) -> dict[str, Any]:
    """Hear a take: returns a `ReviewAnswer`.

    It has an error where the take cannot be heard: an exception would end the chord, which has other takes, too.
    """
    try:
        request = read_request(message)
    except WrongSchema as error:
        log_event(Event.MESSAGE_REFUSED, error=error.message)
        return ReviewAnswer(error=error.message).model_dump(mode="json")
    reviewer = lifecycle.current()
    try:
        with reviewer.counted_attempt(str(self.request.id)):
            answer = reviewer.hear(request)
    except WorkerBroken as error:
        lifecycle.end_reviewer(reviewer, error)
    except Exception as error:  # noqa: BLE001 - the models raise errors of many libraries
        reason = reason_of(error)
        log_event(Event.TAKE_NOT_HEARD, batch=request.batch_id, what=request.what, error=reason)
        answer = ReviewAnswer(error=reason)
    return answer.model_dump(mode="json")


@worker_shutting_down.connect
def _withdraw_attempt(**_: object) -> None:
    """The parent process is stopped, and ends its child: the take is not to blame."""
    settings = load_settings()
    with suppress(RedisError):
        redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
        review_attempts(settings, redis, os.environ[CONSUMER]).withdraw()
