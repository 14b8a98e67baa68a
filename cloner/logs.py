"""Log lines, on standard error: sentences in the words that people grep for, or, for programs, one JSON object a line.

A line is a sentence; its prefix (``[Main]``, ``[Worker 3]``) is put before it by whoever owns the screen. A JSON line
has ``time`` (UTC), ``level``, ``event`` (the same sentence) and, where they are known, ``worker``, ``batch``,
``speaker`` and ``segment``: what a process knows of itself is given to `configure`, what holds for a while is bound by
structlog's contextvars, the rest is said with the line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from cloner.errors import BadSetting
from cloner.settings import LogFormat, load_settings

Log = structlog.typing.FilteringBoundLogger
Event = MutableMapping[str, Any]


def configure(**fields: str) -> None:
    """Send log lines to standard error, as `CLONER_LOG_FORMAT` says; `fields` go with every JSON line.

    An environment that makes no sense gets sentences: it is complained of by whoever reads it next.
    """
    try:
        wanted = load_settings().log_format
    except BadSetting:
        wanted = LogFormat.TEXT

    def with_fields(_logger: Any, _method: str, event: Event) -> Event:
        return {**fields, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            with_fields,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _as_json if wanted is LogFormat.JSON else _sentence,
        ],
        # What is said as "debug" is for who looks into the program itself.
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger() -> Log:
    """A logger. Where nobody has configured one, lines go to standard error: standard output is for results."""
    if not structlog.is_configured():
        configure()
    log: Log = structlog.get_logger()
    return log


def in_json() -> bool:
    """Whether log lines are for programs."""
    get_logger()
    return structlog.get_config()["processors"][-1] is _as_json


def passed_on(title: str, text: str) -> str:
    """A line of a child process as its launcher says it: under the child's title, or as it is if it is JSON already."""
    return text if in_json() and _is_whole(text) else f"[{title}] {text}".rstrip()


def _sentence(_logger: Any, _method: str, event: Event) -> str:
    return _without_passwords(str(event["event"]))


def _as_json(_logger: Any, _method: str, event: Event) -> str:
    sentence = _without_passwords(str(event.pop("event")))
    if _is_whole(sentence):
        return sentence
    head = {"time": event.pop("time"), "level": event.pop("level"), "event": sentence}
    return json.dumps({**head, **event}, ensure_ascii=False, default=str)


def _is_whole(text: str) -> bool:
    """Whether it is such a line already: a child's."""
    if not text.startswith('{"time": '):
        return False
    try:
        return "event" in json.loads(text)
    except ValueError:
        return False


def _without_passwords(text: str) -> str:
    """Without those in addresses: ours are hidden where they are written, but other people's errors may tell them."""
    return re.sub(r"(\b[a-z+]+://[^\s:/@]*:)[^\s/@]+@", r"\1***@", text)
