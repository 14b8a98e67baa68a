"""References in Redis."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.references import MOST_TOGETHER, TOGETHER_BYTES, ReferenceStore
from tests.support.round_trips import counted_round_trips

KEYS = RedisKeys("test")


@pytest.fixture
def references(redis: Redis, valkey_url: str) -> ReferenceStore:
    return ReferenceStore(connect(valkey_url, decode=False), KEYS, batch_ttl_s=60)


def test_a_reference_outlasts_its_batch(redis: Redis, references: ReferenceStore) -> None:
    references.put("a", b"\x00\xff")
    assert references.get("a") == b"\x00\xff"
    assert 60 < redis.ttl(KEYS.reference("a")) <= 120


def test_an_expired_reference_is_left_out(references: ReferenceStore) -> None:
    references.put("a", b"a")
    assert references.get("b") is None
    assert references.get_all(["b", "a"]) == {"a": b"a"}
    assert references.get_all([]) == {}


def test_renewing_names_the_expired_references_and_keeps_the_others(redis: Redis, references: ReferenceStore) -> None:
    references.put("a", b"a")
    redis.expire(KEYS.reference("a"), 5)
    assert references.renew(["a", "b"]) == ["b"]
    assert redis.ttl(KEYS.reference("a")) > 60


@pytest.mark.parametrize(
    ("count", "size", "trips"), [(0, 1, 0), (1, 1, 1), (3 * MOST_TOGETHER, 1, 3), (5, TOGETHER_BYTES // 2, 3)]
)
def test_many_references_are_sent_without_waiting_for_each(
    redis: Redis, valkey_url: str, count: int, size: int, trips: int
) -> None:
    blobs = connect(valkey_url, decode=False)
    references = ReferenceStore(blobs, KEYS, batch_ttl_s=60)
    with counted_round_trips(blobs) as found:
        references.put_all((str(number), bytes([number % 256]) * size) for number in range(count))
    assert found.count == trips
    assert redis.dbsize() == count
    if count:
        assert references.get(str(count - 1)) == bytes([(count - 1) % 256]) * size
        assert 60 < redis.ttl(KEYS.reference("0")) <= 120
