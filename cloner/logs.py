"""Log lines, on standard error: plain text for people, or, for programs, one JSON object a line.

A text line is the event's text; the process that prints it puts a prefix (``[Worker 3]``) before it. A JSON line has
``time`` (UTC), ``level``, ``event`` (the same text), ``id`` (the event's), the event's fields and, where they are
known, ``worker``, ``batch``, ``speaker`` and ``segment``: `configure` takes what is fixed for a process, structlog's
contextvars hold what is fixed for a while.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import MutableMapping
from logging import INFO
from typing import Any

import structlog

from cloner.errors import BadSetting
from cloner.events import Event, LogLine
from cloner.settings import LogFormat, load_settings, misspelt_variables

Entry = MutableMapping[str, Any]


def configure(**fields: str) -> None:
    """Send log lines to standard error in the format of `CLONER_LOG_FORMAT`; every JSON line gets `fields`.

    An invalid environment gets text lines: the next reader of the settings reports it.
    """
    try:
        wanted = load_settings().log_format
    except BadSetting:
        wanted = LogFormat.TEXT

    def with_fields(_logger: Any, _method: str, entry: Entry) -> Entry:
        return {**fields, **entry}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            with_fields,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _as_json if wanted is LogFormat.JSON else _as_text,
        ],
        # Lines of level DEBUG are for developers.
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def log_event(event: Event, **fields: object) -> None:
    """Log the event's line with these fields."""
    log_line(event.line(**fields))


def log_line(line: str) -> None:
    """Log a finished line: a `LogLine` at its event's level, any other text at INFO."""
    if not structlog.is_configured():
        configure()
    level = line.event.level if isinstance(line, LogLine) else INFO
    structlog.get_logger().log(level, line)


def warn_of_misspelt_variables() -> None:
    """Log a warning for each variable in the environment whose name is nearly a setting's."""
    for name, meant in misspelt_variables(os.environ):
        log_event(Event.MISSPELT_SETTING, name=name, meant=meant)


def in_json() -> bool:
    """Whether log lines are JSON."""
    if not structlog.is_configured():
        configure()
    return structlog.get_config()["processors"][-1] is _as_json


def passed_on(title: str, text: str) -> str:
    """A child process's line as its launcher logs it: with the child's title, or unchanged if it is a JSON line."""
    return text if in_json() and _is_json_line(text) else f"[{title}] {text}".rstrip()


def _as_text(_logger: Any, _method: str, entry: Entry) -> str:
    return _without_passwords(str(entry["event"]))


def _as_json(_logger: Any, _method: str, entry: Entry) -> str:
    line = entry.pop("event")
    text = _without_passwords(str(line))
    if _is_json_line(text):
        return text
    head = {"time": entry.pop("time"), "level": entry.pop("level"), "event": text}
    if isinstance(line, LogLine):
        head["id"] = line.event.id
        entry.update({name: _json_value(value) for name, value in line.fields.items()})
    return json.dumps({**head, **entry}, ensure_ascii=False, default=str)


def _json_value(value: object) -> object:
    return value if isinstance(value, int | float) else _without_passwords(str(value))


def _is_json_line(text: str) -> bool:
    """Whether the text is a JSON log line, as a child process writes it."""
    if not text.startswith('{"time": '):
        return False
    try:
        return "event" in json.loads(text)
    except ValueError:
        return False


def _without_passwords(text: str) -> str:
    """The text without passwords in addresses: the product's own errors hide them, those of libraries may not."""
    return re.sub(r"(\b[a-z+]+://[^\s:/@]*:)[^\s/@]+@", r"\1***@", text)
