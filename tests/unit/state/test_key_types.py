"""Keys of a wrong type are told from outages, and named with what keeps them."""

from __future__ import annotations

import inspect

import pytest
from redis import Redis, RedisError
from redis.exceptions import ReadOnlyError, ResponseError

from cloner.errors import Damaged
from cloner.names import collector_name, reviewer_name
from cloner.settings import Settings
from cloner.state import key_types
from cloner.state.damage import is_wrong_type
from cloner.state.key_types import check_key_types, translate_wrong_types
from cloner.state.keys import RedisKeys

SETTINGS = Settings(fleet="test")
KEYS = RedisKeys("test")
CONSUMERS = ("cpu.0@box", reviewer_name("box", 0))
KEPT = list(key_types._kept(SETTINGS, CONSUMERS))


@pytest.mark.parametrize("kept", KEPT, ids=[kept.key for kept in KEPT])
def test_each_key_of_a_wrong_type_is_named_with_its_owner(redis: Redis, kept: key_types._Kept) -> None:
    check_key_types(redis, SETTINGS, CONSUMERS)
    if kept.type == "list":
        redis.set(kept.key, "x")
    else:
        redis.rpush(kept.key, "x")
    with pytest.raises(Damaged) as raised:
        check_key_types(redis, SETTINGS, CONSUMERS)
    found = "string" if kept.type == "list" else "list"
    kind = "sorted set" if kept.type == "zset" else kept.type
    assert raised.value.message.startswith(
        f"Redis has a {found} under {kept.key}, where {kept.owner} keeps a {kind}: another program has written it;"
    )


def test_every_key_of_a_fleet_is_looked_at_but_those_of_batches(redis: Redis) -> None:
    looked_at = {kept.key for kept in KEPT}
    names = [collector_name("box"), *CONSUMERS]
    for name, family in inspect.getmembers(RedisKeys):
        if name.startswith("_") or name in ("fleet", "process_heartbeat"):
            continue
        if isinstance(family, property):
            # Writing a heartbeat replaces a key of any type.
            assert getattr(KEYS, name) in looked_at or name == "collector_heartbeat"
        elif name not in ("batch", "manifest", "progress", "result", "reference"):
            of_box = name in ("box_lease", "box_launchers")
            assert looked_at & {getattr(KEYS, name)(one) for one in (["box"] if of_box else names)}, name


def test_the_types_are_those_that_the_owners_write(redis: Redis) -> None:
    redis.zadd(KEYS.workers, {"cpu.0@box": 1.0})
    redis.sadd(KEYS.consumers, "cpu.0@box")
    redis.hset(KEYS.worker_queues, "q", "cpu.0@box")
    redis.xadd(KEYS.dead_letters, {"queue": "q"})
    redis.set(KEYS.box_lease("box"), "x")
    redis.rpush(SETTINGS.queues.shared_queue(), "{}")
    check_key_types(redis, SETTINGS, CONSUMERS)


def test_an_error_of_a_wrong_type_names_the_key_or_the_fleet(redis: Redis) -> None:
    redis.rpush(KEYS.batches, "x")
    named = "under cloner:test:batches, where the list of batches keeps a sorted set"
    with pytest.raises(Damaged, match=named), translate_wrong_types(redis, SETTINGS):
        redis.zrange(KEYS.batches, 0, -1)
    redis.delete(KEYS.batches)
    redis.rpush(KEYS.batch("b"), "x")
    unnamed = "a key of fleet test in Redis has a wrong type"
    with pytest.raises(Damaged, match=unnamed), translate_wrong_types(redis, SETTINGS):
        redis.hgetall(KEYS.batch("b"))


@pytest.mark.parametrize(
    "error", [ReadOnlyError("READONLY You can't write"), ResponseError("MISCONF Redis is configured to save")]
)
def test_other_errors_stay_as_they_are(redis: Redis, error: RedisError) -> None:
    assert not is_wrong_type(error)
    with pytest.raises(type(error), match=str(error)[:8]), translate_wrong_types(redis, SETTINGS):
        raise error
