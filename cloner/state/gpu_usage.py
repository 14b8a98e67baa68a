"""Memory and utilisation of the fleet's GPUs, in Redis; each box's launcher writes those of its own GPUs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloner.state.connection import server_time
from cloner.state.keys import RedisKeys


@dataclass(frozen=True)
class GpuUsage:
    """A reading of one GPU."""

    box: str
    card: str
    """The GPU's part of its workers' names."""
    gpu: str
    used_bytes: int
    total_bytes: int
    use: float | None
    """Recent utilisation, 0..1; None where the driver does not tell."""


class GpuUsageTable:
    """A fleet's readings. `redis` must decode responses."""

    def __init__(self, redis: Redis, keys: RedisKeys) -> None:
        self._redis = redis
        self._key = keys.gpu_usage

    def write(self, readings: Sequence[GpuUsage]) -> None:
        """Replace the readings of these GPUs."""
        now = server_time(self._redis)
        values: dict[Any, Any] = {
            self._field(r.box, r.card): json.dumps([now, r.gpu, r.used_bytes, r.total_bytes, r.use]) for r in readings
        }
        if values:
            self._redis.hset(self._key, mapping=values)

    def read(self, alive_s: float) -> dict[tuple[str, str], GpuUsage]:
        """(box, card) -> its reading, if it is not older than `alive_s` seconds."""
        since = server_time(self._redis) - alive_s
        readings = {}
        for field, value in self._redis.hgetall(self._key).items():
            card, _, box = str(field).partition("@")
            at, *figures = json.loads(value)
            if at >= since:
                readings[box, card] = GpuUsage(box, card, *figures)
        return readings

    def remove(self, readings: Sequence[GpuUsage]) -> None:
        """Remove the readings of GPUs that no launcher reads any more."""
        if readings:
            self._redis.hdel(self._key, *(self._field(reading.box, reading.card) for reading in readings))

    @staticmethod
    def _field(box: str, card: str) -> str:
        return f"{card}@{box}"
