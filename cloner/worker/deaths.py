"""A process that held the model has died: one line of it in the parent's log, where Celery prints a traceback.

Celery imports this module with the tasks.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.signals import after_setup_logger

REQUEST = "celery.worker.request"
"""Celery's logger that tells how a task ended."""


class Lost(logging.Filter):
    """Rewords what is said of a lost process; everything else passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = next((told for told in record.args or () if isinstance(told, WorkerLostError)), None)
        if record.name == REQUEST and error is not None:
            how = str(error).partition(" Job: ")[0].removeprefix("Worker exited prematurely: ")
            record.msg, record.args = "The process with the model died (%s): its chunk goes back to the queue", (how,)
            record.exc_info = record.exc_text = None
        return True


@after_setup_logger.connect
def filter_lost(logger: logging.Logger, **_: Any) -> None:
    """Celery has set up the root logger."""
    for handler in logger.handlers:
        handler.addFilter(Lost())
