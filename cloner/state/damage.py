"""What is damaged in Redis: keys of a wrong type, values that cannot be read. One of them must not hide the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from cloner.errors import Damaged, one_line, reason_of
from cloner.events import Event
from cloner.logs import log_event

T = TypeVar("T")

WRONG_TYPE = "it has a wrong type"

UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What reading a value raises if other programs have written it."""

MAX_NUMBER = 2**63


SHOWN = 300
"""Most characters of a key or a reason in a log line."""


def pass_over(key: str, reason: str) -> None:
    """Log that a key, or a part of it, is left out: once a process, because many readers poll."""
    log_once(one_line(key[:SHOWN]), one_line(reason[:SHOWN]))


@lru_cache(maxsize=1000)
def log_once(key: str, reason: str) -> None:
    """Log a warning, if it is not among the last thousand."""
    log_event(Event.DAMAGED_PASSED_OVER, key=key, reason=reason)


def read_or(missing: T, key: str, read: Callable[[], Any]) -> T:
    """What the command `read` returns; `missing` if the key has a wrong type."""
    try:
        found: T = read()
    except ResponseError as error:
        return reply_or(missing, key, error)
    return found


def reply_or(missing: T, key: str, reply: Any) -> T:
    """A reply of a pipeline that does not raise errors; `missing` if the key has a wrong type. Raises other errors."""
    if not isinstance(reply, Exception):
        found: T = reply
        return found
    if not is_wrong_type(reply):
        raise reply
    pass_over(key, WRONG_TYPE)
    return missing


def is_wrong_type(error: Exception) -> bool:
    """Whether Redis has refused a command because the key is of another type than the command's."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


@contextmanager
def unpacking(batch_id: str) -> Iterator[None]:
    """Raise `Damaged` where a value of the batch cannot be read, or a key of it has a wrong type."""
    try:
        yield
    except UNREADABLE as error:
        raise Damaged(f"what Redis holds of batch {batch_id} makes no sense ({reason_of(error)})") from error
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        raise Damaged(f"what Redis holds of batch {batch_id} makes no sense (a key of it has a wrong type)") from error


def finite(value: Any) -> float:
    """A number that can be calculated with. Raises `ValueError`, `TypeError` or `OverflowError`."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


def integer(value: Any) -> int:
    """A whole number of 64 bits. Raises `ValueError`, `TypeError` or `OverflowError`."""
    number = int(value)
    if abs(number) > MAX_NUMBER:
        raise ValueError("it has more than 64 bits")
    return number
