"""Readings of cards."""

from __future__ import annotations

from redis import Redis

from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys

ONE = GpuUsage("box", "GPU-1", "RTX 4090", 5, 24, 0.5)
TWO = GpuUsage("box", "MIG-2", "H100", 1, 10, None)


def test_a_reading_is_known_until_it_is_old_or_removed(redis: Redis) -> None:
    cards = GpuUsageTable(redis, RedisKeys("test"))
    cards.write([])
    cards.write([ONE, TWO])
    assert cards.read(alive_s=30) == {("box", "GPU-1"): ONE, ("box", "MIG-2"): TWO}
    assert cards.read(alive_s=-1) == {}
    cards.remove([ONE])
    cards.remove([])
    assert cards.read(alive_s=30) == {("box", "MIG-2"): TWO}
