"""Connections to the fleet's Redis, with the same patience everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from cloner.address import check_address
from cloner.errors import BrokerUnreachable
from cloner.settings import redacted

CONNECT_S = 3.0
"""Seconds to wait for a connection."""

ANSWER_S = 15.0
"""Seconds to wait for an answer; blocking commands must ask for less."""

RETRIES = 2
"""Further tries after a lost connection, 0.1 and 0.2 s apart: who asks for something is soon told."""

HASTE_S = 2.0
"""Seconds that a launcher waits for an answer, at one try: whoever stops it must not wait for a Redis that hangs."""

OUTAGE_RETRIES = 600
"""Further tries of a worker, at most a second apart: it sits out an outage of ten minutes with its work in hand."""


def connect(url: str, *, decode: bool = True, retries: int = RETRIES, answer_s: float = ANSWER_S) -> Redis:
    """A client of ``redis://``, ``rediss://`` (TLS) or ``unix://``; it connects at its first command.

    With `decode`, answers are text, else bytes; they may take `answer_s` seconds, at each try. Raises `BadSetting` if
    `url` is not an address as in `address.py`.
    """
    check_address(url)
    return Redis.from_url(
        url,
        decode_responses=decode,
        socket_connect_timeout=min(CONNECT_S, answer_s),
        socket_timeout=answer_s,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
    )


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Inside it, a Redis that cannot be used is `BrokerUnreachable`, which names `url` without its password."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise BrokerUnreachable(f"Redis at {redacted(url)} does not answer: {error}") from error
    except RedisError as error:
        raise BrokerUnreachable(f"Redis at {redacted(url)} cannot be used: {error}") from error


def server_time(redis: Redis) -> float:
    """Seconds since the epoch by the server's clock, which is one for all: those of a fleet's boxes may differ."""
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6
