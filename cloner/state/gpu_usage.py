"""Memory and utilisation of the fleet's GPUs, in Redis; each box's launcher writes those of its own GPUs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloner.errors import one_line, reason_of
from cloner.state.connection import server_time
from cloner.state.damage import UNREADABLE, finite, integer, pass_over, read_or
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
        """(box, card) -> its reading, if it is not older than `alive_s` seconds. What is damaged is passed over."""
        since = server_time(self._redis) - alive_s
        readings = {}
        found: dict[str, str] = read_or({}, self._key, lambda: self._redis.hgetall(self._key))
        for field, value in found.items():
            card, _, box = one_line(field).partition("@")
            try:
                at, gpu, used, total, use = json.loads(value)
                usage = GpuUsage(
                    box, card, one_line(gpu), integer(used), integer(total), None if use is None else finite(use)
                )
                is_recent = finite(at) >= since
            except (*UNREADABLE, AttributeError) as error:
                pass_over(f"{self._key} {field}", reason_of(error))
                continue
            if is_recent:
                readings[box, card] = usage
        return readings

    def remove(self, readings: Sequence[GpuUsage]) -> None:
        """Remove the readings of GPUs that no launcher reads any more."""
        if readings:
            self._redis.hdel(self._key, *(self._field(reading.box, reading.card) for reading in readings))

    @staticmethod
    def _field(box: str, card: str) -> str:
        return f"{card}@{box}"
