"""Trying on where Redis cannot be used: a Redis that falters must not end a task that somebody waits for."""

from __future__ import annotations

from redis.exceptions import OutOfMemoryError, ReadOnlyError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from cloner.events import Event
from cloner.logs import log_event
from cloner.queueing.log_filters import LOST


def _is_outage(error: BaseException) -> bool:
    """Redis does not answer, or answers that it cannot now. Celery's listener for results gives up after twenty
    seconds, by an error of no kind."""
    lost = (*LOST, ReadOnlyError, OutOfMemoryError)
    return isinstance(error, lost) or (isinstance(error, RuntimeError) and isinstance(error.__cause__, lost))


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome:
        log_event(Event.REDIS_RETRYING, error=state.outcome.exception())


retry_on_outage = Retrying(
    retry=retry_if_exception(_is_outage), wait=wait_exponential(max=30), before_sleep=_say_once, reraise=True
)
"""The task itself goes on trying. Celery's own retry is a message, and where Redis is away it cannot be sent: Celery
then drops the task for good."""
