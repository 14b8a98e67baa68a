"""A Redis that goes away and comes back, in two lines; Celery takes a dozen, with tracebacks.

Celery imports this module in every process of a worker (`app.run_worker` tells it to).


A process that held the model has died: one line of it in the parent's log, where Celery prints a traceback.

Celery imports this module with the tasks.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import after_setup_logger
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cloner.events import Event
from cloner.logs import log_event

CONSUMER = "celery.worker.consumer.consumer"
"""Celery's logger that tells of a lost connection, and then of each try."""

CONNECTION = "celery.worker.consumer.connection"
"""Celery's logger that tells, as mere information, of each connection that was made."""

LOST = (RedisConnectionError, RedisTimeoutError, OperationalError)
"""What clients of Redis, and Celery's, raise where it does not answer."""


class Outage(logging.Filter):
    """Makes one line of an outage's begin and one of its end, and leaves out the tracebacks of lost connections."""

    def __init__(self) -> None:
        super().__init__()
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether Celery is to print the record."""
        lost = _lost_connection(record)
        if record.name == CONNECTION:
            if self._away:
                log_event(Event.REDIS_BACK)
            wanted = self._away = False
        elif record.name == CONSUMER and lost:
            if not self._away:
                log_event(Event.REDIS_AWAY, error=lost)
            wanted, self._away = False, True
        else:
            # One of Celery's plans for a version to come, which it warns of at every lost connection.
            wanted = record.name != "py.warnings" or CPendingDeprecationWarning.__name__ not in record.getMessage()
        if lost:
            record.exc_info = record.exc_text = None
        return wanted


@after_setup_logger.connect
def filter_outages(logger: logging.Logger, **_: Any) -> None:
    """Celery has set up the root logger."""
    logging.getLogger(CONNECTION).setLevel(logging.INFO)
    outage = Outage()
    for handler in logger.handlers:
        handler.addFilter(outage)


def _lost_connection(record: logging.LogRecord) -> BaseException | None:
    """The lost connection that the record tells of, if it does."""
    told = [*(record.args or ()), *(record.exc_info or ())]
    return next((error for error in told if isinstance(error, LOST)), None)


REQUEST = "celery.worker.request"
"""Celery's logger that tells how a task ended."""


class Lost(logging.Filter):
    """Replaces what Celery prints of a lost process by one line; every other record passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = next((told for told in record.args or () if isinstance(told, WorkerLostError)), None)
        if record.name == REQUEST and error is not None:
            how = str(error).partition(" Job: ")[0].removeprefix("Worker exited prematurely: ")
            log_event(Event.CHILD_DIED, how=how)
            return False
        return True


@after_setup_logger.connect
def filter_lost(logger: logging.Logger, **_: Any) -> None:
    """Celery has set up the root logger."""
    for handler in logger.handlers:
        handler.addFilter(Lost())
