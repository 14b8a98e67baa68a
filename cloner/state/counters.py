"""Counters of the work of each worker, in Redis, for Prometheus.

Counters outlive the workers' processes and only grow. They are sent with the heartbeats: what a process has not sent
when it is killed is not counted. The truth about a batch is its record; these are for graphs and alerts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from redis import Redis

from cloner.errors import one_line, reason_of
from cloner.state.damage import UNREADABLE, finite, pass_over, read_or
from cloner.state.keys import RedisKeys


class Count(StrEnum):
    """What is counted."""

    SEGMENTS_GENERATED = "segments_generated"
    SEGMENTS_FAILED = "segments_failed"
    CHUNKS_FINISHED = "chunks_finished"
    CHUNKS_FAILED = "chunks_failed"
    FRAMES = "frames"
    AUDIO_S = "audio_s"
    CHUNKS_TAKEN = "chunks_taken"
    QUEUED_S = "queued_s"
    """Seconds from a chunk's batch's submission until a worker took it, over all `CHUNKS_TAKEN`."""
    LOADS = "loads"
    RESTARTS = "restarts"
    ATTEMPTS_AGAIN = "attempts_again"
    """Attempts after the first at a segment, or at a piece of one."""
    SUSPECTS = "suspects"
    """Generated segments of which the best attempt fails a check."""
    REVIEW_SUSPECTS = "review_suspects"
    """Generated segments that pass the checks and at last fail their batch's review."""


FAILED_CHECK = "failed_check:"


def failed_check(name: str) -> str:
    """The counter of attempts that failed a check. Counters do not know which checks there are."""
    return FAILED_CHECK + name


class Counters:
    """A fleet's counters. `redis` must decode responses."""

    def __init__(self, redis: Redis, keys: RedisKeys) -> None:
        self._redis = redis
        self._key = keys.counters

    def add(self, worker: str, growth: Mapping[str, float]) -> None:
        """Add to a worker's counters, all or none. Each is a `Count`, or that of a `failed_check`."""
        with self._redis.pipeline() as pipe:
            for what, much in growth.items():
                pipe.hincrbyfloat(self._key, f"{worker} {what}", much)
            pipe.execute()

    def read(self) -> dict[str, dict[str, float]]:
        """Worker -> its counters: each `Count`, 0 where nothing was counted, and those of checks that failed. What is
        damaged is passed over."""
        counts: dict[str, dict[str, float]] = {}
        found: dict[str, str] = read_or({}, self._key, lambda: self._redis.hgetall(self._key))
        for field, value in found.items():
            worker, _, what = one_line(field).rpartition(" ")
            try:
                count, number = what if what.startswith(FAILED_CHECK) else Count(what), finite(value)
            except UNREADABLE as error:
                pass_over(f"{self._key} {field}", reason_of(error))
                continue
            counts.setdefault(worker, dict.fromkeys(map(str, Count), 0.0))[count] = number
        return counts
