"""Log lines for people: on standard error, in the words that people grep for.

A line is a sentence; its prefix (``[Main]``, ``[Worker 3]``) is put before it by whoever owns the screen.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

Log = structlog.typing.FilteringBoundLogger


def configure() -> None:
    """Send log lines to standard error, one sentence a line."""
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _sentence],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _sentence(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return str(event["event"])


def get_logger() -> Log:
    """A logger. Where nobody has configured one, lines go to standard error: standard output is for results."""
    if not structlog.is_configured():
        configure()
    log: Log = structlog.get_logger()
    return log
