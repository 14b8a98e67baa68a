"""Log filters: an outage of Redis and a dead child process are a line each, where Celery logs tracebacks.

Celery imports this module in every process of a worker, as `app.run_worker` sets.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import after_setup_logger

from cloner.events import Event
from cloner.logs import log_event
from cloner.queueing.retry import CONNECTION_ERRORS
from cloner.state.damage import is_wrong_type

CONSUMER = "celery.worker.consumer.consumer"
"""Celery's logger of a lost connection, and of each try to connect again."""

CONNECTION = "celery.worker.consumer.connection"
"""Celery's logger, at level INFO, of each connection that was made."""

REQUEST = "celery.worker.request"
"""Celery's logger of how a task ended."""

WORKER = "celery.worker"
"""Celery's logger of why a whole worker ends."""


class OutageFilter(logging.Filter):
    """Logs a line when an outage begins and one when it ends, and drops the tracebacks of lost connections."""

    def __init__(self) -> None:
        super().__init__()
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether Celery is to log the record."""
        lost = _connection_error(record)
        if record.name == CONNECTION:
            if self._away:
                log_event(Event.REDIS_BACK)
            wanted = self._away = False
        elif record.name == CONSUMER and lost:
            if not self._away:
                log_event(Event.REDIS_AWAY, error=lost)
            wanted, self._away = False, True
        else:
            # Celery warns of a change in its next major version at every lost connection.
            wanted = record.name != "py.warnings" or CPendingDeprecationWarning.__name__ not in record.getMessage()
        if lost:
            record.exc_info = record.exc_text = None
        return wanted


class DeadProcessFilter(logging.Filter):
    """Logs a line where Celery logs the traceback of a child process that has died; all other records pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = next((value for value in record.args or () if isinstance(value, WorkerLostError)), None)
        if error is None or record.name not in {REQUEST, WORKER}:
            return True
        if record.name == REQUEST:
            how = str(error).partition(" Job: ")[0].removeprefix("Worker exited prematurely: ")
            log_event(Event.CHILD_DIED, how=how)
        else:
            log_event(Event.CHILD_NOT_STARTED, error=error)
        return False


class WrongTypeFilter(logging.Filter):
    """Drops the traceback of a whole worker that ends because a key has a wrong type: `app.run_worker` names it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return record.levelno < logging.CRITICAL or not (isinstance(error, Exception) and is_wrong_type(error))


@after_setup_logger.connect
def add_filters(logger: logging.Logger, **_: Any) -> None:
    """Add all filters once Celery has set up the root logger."""
    logging.getLogger(CONNECTION).setLevel(logging.INFO)
    filters = OutageFilter(), DeadProcessFilter(), WrongTypeFilter()
    for handler in logger.handlers:
        for one in filters:
            handler.addFilter(one)


def _connection_error(record: logging.LogRecord) -> BaseException | None:
    """The error of a lost connection that the record holds, if it does."""
    values = [*(record.args or ()), *(record.exc_info or ())]
    return next((value for value in values if isinstance(value, CONNECTION_ERRORS)), None)
