"""The type of each key that a fleet needs all the time, and what keeps it. Another program may have written another.

Redis refuses commands at such a key, and its error names no key. That is no outage: it does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from redis import Redis, RedisError

from cloner.errors import Damaged
from cloner.names import collector_name, is_collector
from cloner.settings import Settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.damage import is_wrong_type
from cloner.state.keys import RedisKeys

TYPES = {"zset": "sorted set"}
"""Redis's names of types, where people have another."""


class _Kept(NamedTuple):
    key: str
    type: str
    """As Redis names it."""
    owner: str


def check_key_types(redis: Redis, settings: Settings, consumers: Iterable[str] = ()) -> None:
    """Raise `Damaged` if a key of the fleet has another type than its owner keeps there.

    Keys of this box's collector and of the `consumers` are looked at, too. One round trip. Raises `RedisError`.
    """
    kept = list(_kept(settings, consumers))
    with redis.pipeline(transaction=False) as pipe:
        for one in kept:
            pipe.type(one.key)
        types = [found.decode() if isinstance(found, bytes) else str(found) for found in pipe.execute()]
    for (key, kind, owner), found in zip(kept, types, strict=True):
        if found not in (kind, "none"):
            raise Damaged(
                f"Redis has a {TYPES.get(found, found)} under {key}, where {owner} keeps a {TYPES.get(kind, kind)}:"
                " another program has written it; delete that key, or give the fleet another name (CLONER_FLEET)"
            )


def wrong_type(error: RedisError, redis: Redis, settings: Settings, consumers: Iterable[str] = ()) -> Damaged:
    """What to raise for an error of a wrong type: it names the key, if that is one which `check_key_types` knows."""
    try:
        check_key_types(redis, settings, consumers)
    except Damaged as damaged:
        return damaged
    except RedisError:
        pass  # an outage just now: the key is not known
    return Damaged(
        f"a key of fleet {settings.fleet} in Redis has a wrong type: another program has written it ({error})"
    )


@contextmanager
def translate_wrong_types(redis: Redis, settings: Settings) -> Iterator[None]:
    """Inside it, a key of a wrong type is `Damaged`, which names it."""
    try:
        yield
    except RedisError as error:
        if not is_wrong_type(error):
            raise
        raise wrong_type(error, redis, settings) from error


def _kept(settings: Settings, consumers: Iterable[str]) -> Iterator[_Kept]:
    keys, queues = RedisKeys(settings.fleet), settings.queues
    for name, beats, entries in (
        ("workers", keys.workers, keys.worker),
        ("reviewers", keys.reviewers, keys.reviewer),
    ):
        yield _Kept(beats, "zset", f"the registry of {name}")
        yield from (_Kept(entries(one), "hash", f"the registry of {name}") for one in consumers)
    yield _Kept(keys.worker_queues, "hash", "the registry of workers")
    yield _Kept(keys.process_heartbeats, "hash", "the launchers' health check")
    yield _Kept(keys.box_lease(settings.box), "string", "the launcher's lease of this box")
    yield _Kept(keys.box_launchers(settings.box), "set", "the launcher's lease of this box")
    yield _Kept(keys.gpu_usage, "hash", "the launchers' monitor of GPUs")
    yield _Kept(keys.consumers, "set", "the transport of messages")
    yield _Kept(keys.absent, "list", "the transport of messages")
    yield _Kept(keys.gone, "zset", "the launchers' list of consumers that are gone")
    yield _Kept(keys.dead_letters, "stream", "the dead-letter list")
    for one in (collector_name(settings.box), *(name for name in consumers if not is_collector(name))):
        yield _Kept(keys.unacked(one), "hash", "the transport of messages")
        yield _Kept(keys.unacked_since(one), "zset", "the transport of messages")
    yield _Kept(keys.open_attempts(collector_name(settings.box)), "hash", "the collector")
    yield _Kept(keys.batches, "zset", "the list of batches")
    yield _Kept(keys.review_attempts, "hash", "the reviewers")
    yield _Kept(keys.reviews_under_way, "hash", "the reviewers")
    yield _Kept(keys.counters, "hash", "the counters for monitoring")
    for queue in (queues.shared_queue(), queues.collector_queue, queues.review_queue):
        yield _Kept(queue, "list", "Celery")


def check_own_keys(settings: Settings, consumer: str) -> None:
    """`check_key_types` of a process that starts or has ended; not during an outage, which is no flaw of a key."""
    with suppress(RedisError):
        check_key_types(connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S), settings, [consumer])
