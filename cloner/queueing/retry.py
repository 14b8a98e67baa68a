"""Retries while Redis cannot be used: an outage must not end a task that a client waits for."""

from __future__ import annotations

from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from cloner.events import Event
from cloner.logs import log_event
from cloner.state.connection import is_refusal

CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, OperationalError)
"""What clients of Redis, and Celery, raise where it does not answer."""


def _is_outage(error: BaseException) -> bool:
    """Whether Redis does not answer, or refuses commands for a time. Celery's listener for results gives up after
    twenty seconds, with a `RuntimeError`."""
    if isinstance(error, RuntimeError) and error.__cause__:
        error = error.__cause__
    return isinstance(error, CONNECTION_ERRORS) or is_refusal(error)


def _log_first(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome:
        log_event(Event.REDIS_RETRYING, error=state.outcome.exception())


retry_on_outage = Retrying(
    retry=retry_if_exception(_is_outage), wait=wait_exponential(max=30), before_sleep=_log_first, reraise=True
)
"""Retries within the task. Celery's own retry sends a message, and drops the task for good where it cannot be sent."""
