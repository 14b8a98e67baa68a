"""Attempts at work, such as opening a batch, that have not ended: each killed the process, or is going on."""

from __future__ import annotations

from redis import Redis

from cloner.state.keys import RedisKeys


class OpenAttempts:
    """The attempts of one collector, by batch; kept for `ttl_s` seconds after the last.

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


WITHDRAW = """
local task = redis.call('HGET', KEYS[2], ARGV[1])
if not task then return end
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HINCRBY', KEYS[1], task, -1) <= 0 then redis.call('HDEL', KEYS[1], task) end
"""


class ReviewAttempts:
    """The attempts of all reviewers, by task, as each takes the messages of the dead ones; kept for `ttl_s` seconds
    after the last. Besides, which of them is under way in one `reviewer`.

    Every method raises `RedisError` where Redis cannot be used.
    """

    def __init__(self, redis: Redis, keys: RedisKeys, reviewer: str, ttl_s: int) -> None:
        self._redis = redis
        self._attempts, self._under_way = keys.review_attempts, keys.reviews_under_way
        self._reviewer = reviewer
        self._ttl_s = ttl_s

    def begin(self, task: str) -> int:
        """Count an attempt; returns how many before it have not ended, of this reviewer and of others."""
        with self._redis.pipeline() as pipe:
            pipe.hincrby(self._attempts, task, 1)
            pipe.hset(self._under_way, self._reviewer, task)
            pipe.expire(self._attempts, self._ttl_s)
            pipe.expire(self._under_way, self._ttl_s)
            count, *_ = pipe.execute()
        return int(count) - 1

    def end(self, task: str) -> None:
        """This reviewer has survived the attempt: forget it, and those before it."""
        with self._redis.pipeline() as pipe:
            pipe.hdel(self._attempts, task)
            pipe.hdel(self._under_way, self._reviewer)
            pipe.execute()

    def withdraw(self) -> None:
        """This reviewer is stopped, by a signal: the attempt under way is not to blame, if there is one; those before
        it are. May be called twice."""
        self._redis.eval(WITHDRAW, 2, self._attempts, self._under_way, self._reviewer)

    def note_death(self) -> None:
        """The reviewer's process has just started: the attempt under way has killed the one before, and counts."""
        self._redis.hdel(self._under_way, self._reviewer)
