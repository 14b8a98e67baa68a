"""Attempts at work, such as opening a batch, that have not ended: each killed the process, or is going on."""

from __future__ import annotations

from redis import Redis

from cloner.state.keys import RedisKeys


class OpenAttempts:
    """The attempts of one collector, by batch, or those of all reviewers, by task; kept for `ttl_s` seconds after the
    last.

    Each collector has its own, as several may open one batch at the same time. Every method raises `RedisError` where
    Redis cannot be used.
    """

    def __init__(self, redis: Redis, keys: RedisKeys, by: str, ttl_s: int) -> None:
        self._redis = redis
        self._key = keys.open_attempts(by)
        self._ttl_s = ttl_s

    def begin(self, work: str) -> int:
        """Count an attempt; returns how many before it have not ended."""
        with self._redis.pipeline() as pipe:
            pipe.hincrby(self._key, work, 1)
            pipe.expire(self._key, self._ttl_s)
            count, _ = pipe.execute()
        return int(count) - 1

    def end(self, work: str) -> None:
        """This process has survived the attempt: forget it, and those before it."""
        self._redis.hdel(self._key, work)

    def forget_all(self) -> None:
        """The process is stopped, by a signal: no attempt under way is to blame for its end."""
        self._redis.delete(self._key)
