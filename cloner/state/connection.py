"""The address of the fleet's Redis, and connections to it with the same timeouts everywhere."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from cloner.errors import BadSetting, BrokerUnreachable
from cloner.settings import redacted
from cloner.state.keys import RedisKeys

CONNECT_S = 3.0
"""Seconds to wait for a connection."""

ANSWER_S = 15.0
"""Seconds to wait for a response; blocking commands must ask for less."""

RETRIES = 2
"""Retries after a lost connection, 0.1 and 0.2 s apart: a command fails soon."""

HASTE_S = 2.0
"""Seconds that a launcher waits for a response, without retry: stopping it must not wait for a Redis that hangs."""

OUTAGE_RETRIES = 600
"""Retries of a worker, at most a second apart: it waits out an outage of ten minutes and keeps its chunk."""


def connect(url: str, *, decode: bool = True, retries: int = RETRIES, answer_s: float = ANSWER_S) -> Redis:
    """A client of ``redis://``, ``rediss://`` (TLS) or ``unix://``; it connects at its first command.

    With `decode`, responses are text, in which bytes that are not UTF-8 are escaped; else bytes. Each try waits
    `answer_s` seconds. Raises `BadSetting` as `check_address` does.
    """
    check_address(url)
    return Redis.from_url(
        url,
        decode_responses=decode,
        encoding_errors="backslashreplace",
        socket_connect_timeout=min(CONNECT_S, answer_s),
        socket_timeout=answer_s,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
    )


@contextmanager
def translate_redis_errors(url: str) -> Iterator[None]:
    """Inside it, a Redis that cannot be used is `BrokerUnreachable`, which names `url` without its password."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise BrokerUnreachable(f"Redis at {redacted(url)} does not answer: {error}") from error
    except RedisError as error:
        raise BrokerUnreachable(f"Redis at {redacted(url)} cannot be used: {error}") from error


def may_pass(error: RedisError, redis: Redis) -> bool:
    """Whether the error of that client's first command may be gone later: the server is away, or starts.

    False where the settings are wrong: the password, the host's name, a certificate.
    """
    cause = error.__context__
    is_local = issubclass(redis.connection_pool.connection_class, UnixDomainSocketConnection)
    return (
        isinstance(error, (RedisConnectionError, RedisTimeoutError))
        and not isinstance(error, (AuthenticationError, AuthorizationError))
        and not isinstance(cause, ssl.SSLCertVerificationError)
        # Of a Unix socket that does not exist, the server is not running; else a file of TLS does not exist.
        and (is_local or not isinstance(cause, FileNotFoundError))
        # EAI_AGAIN, the other error of names, is that of a name server which does not answer.
        and not (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME)
    )


REFUSALS = ("OOM", "READONLY", "UNBLOCKED", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BUSY")
"""How the error begins with which a server refuses commands for a time: its memory or its disk is full, it is a
replica, as after a failover (a command that waits is then unblocked), or has too few of them, or a long script runs."""


def is_refusal(error: BaseException | None) -> bool:
    """Whether the server has refused a command that it may take later: as with an outage, clients wait."""
    if isinstance(error, (OutOfMemoryError, ReadOnlyError, MasterDownError)):
        return True  # redis-py takes the codes of these out of the text
    # A pipeline puts it behind a sentence of its own (": "), and Redis 6 that of a command in a script ("-").
    return isinstance(error, ResponseError) and bool(re.search(rf"(^|: |-)({'|'.join(REFUSALS)}) ", str(error)))


def check_writable(redis: Redis, keys: RedisKeys) -> None:
    """Raise `RedisError` where the server does not answer, or refuses to write. Changes nothing."""
    redis.rpushx(keys.absent, "")


def server_time(redis: Redis) -> float:
    """Seconds since the epoch by the server's clock: the clocks of a fleet's boxes may differ."""
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Options of an address that concern TLS."""

TLS_CHECKS = ("required", "optional", "none")
"""Values of ``ssl_cert_reqs``."""


def check_address(url: str) -> None:
    """Raise `BadSetting` unless redis-py and Celery both understand `url`, and in the same way.

    The message does not contain it: in a misspelt address the password cannot be found and hidden.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        # urlsplit lowers the scheme's letters, redis-py does not.
        whole = url.startswith(parts.scheme) and _is_whole(parts)
    except ValueError:
        whole = False
    if not whole:
        raise BadSetting(
            "CLONER_REDIS_URL is not a Redis address: write redis://:password@host:6379/0, rediss://... or "
            "unix:///path/to/socket, with special characters of the password as in %2F"
        )
    if not all(_is_option(parts.scheme, name, value) for name, value in options.items()):
        raise BadSetting(
            'CLONER_REDIS_URL has an option behind its "?" that cannot stand there: write password and database as in '
            "redis://:password@host:6379/2 or unix://:password@/path/to/socket?db=2; rediss:// may have ssl_cert_reqs "
            f"({', '.join(TLS_CHECKS)}) and {', '.join(TLS_OPTIONS[1:])}"
        )


def celery_address(url: str) -> str:
    """Celery's spelling of a checked address."""
    if url.startswith("unix://"):
        return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=")
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        # redis-py's own default; Celery requires it in the address.
        return url + ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return url


def _is_whole(parts: SplitResult) -> bool:
    """Whether everything before the options is valid. Raises `ValueError` for a port that is no number."""
    if parts.fragment or not parts.netloc.isascii():
        return False
    if parts.scheme == "unix":
        return not parts.hostname and len(parts.path) > 1
    # redis-py would take any other path for database 0.
    return parts.scheme in ("redis", "rediss") and parts.port != 0 and bool(re.fullmatch(r"(/\d*)?", parts.path))


def _is_option(scheme: str, name: str, value: str) -> bool:
    """Whether redis-py and Celery understand an option in the same way."""
    if scheme == "unix":
        return name == "db" and value.isdecimal()
    if scheme == "rediss":
        return value in TLS_CHECKS if name == "ssl_cert_reqs" else name in TLS_OPTIONS and bool(value)
    return False
