"""A batch that kills the collector's process again and again is given up.

Its message is delivered again after each death, so a batch that takes more memory than there is would stop the
collector for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from celery.signals import worker_shutting_down
from redis import Redis, RedisError

from cloner.errors import BatchBroken
from cloner.names import collector_name
from cloner.queueing.retry import retry_on_outage
from cloner.settings import Settings, load_settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.keys import RedisKeys
from cloner.state.open_attempts import OpenAttempts

MAX_DEATHS = 3
"""Deaths of this collector in a row, within an attempt to open or close a batch, after which the batch is broken."""


@contextmanager
def counted_attempt(redis: Redis, settings: Settings, batch_id: str) -> Iterator[None]:
    """Inside it, a batch is opened or closed. Raises `BatchBroken` if the last `MAX_DEATHS` attempts killed the
    process."""
    attempts = _attempts(redis, settings)
    try:
        if retry_on_outage(attempts.begin, batch_id) >= MAX_DEATHS:
            raise BatchBroken(
                f"the collector's process died {MAX_DEATHS} times in a row while it opened or closed the batch (is it"
                " too large for the memory there?): split it into several"
            )
        yield
    finally:
        # By a stop signal's exception, too. Where Redis is away, one attempt too many is counted.
        with suppress(RedisError):
            attempts.end(batch_id)


@worker_shutting_down.connect
def _forget_attempts(**_: object) -> None:
    """The parent process is stopped, and kills its child if that does not end in time."""
    settings = load_settings()
    with suppress(RedisError):
        redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
        _attempts(redis, settings).forget_all()


def _attempts(redis: Redis, settings: Settings) -> OpenAttempts:
    return OpenAttempts(redis, RedisKeys(settings.fleet), collector_name(settings.box), settings.batch_ttl_s)
