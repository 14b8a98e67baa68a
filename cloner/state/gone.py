"""Workers, collectors and reviewers that are gone for good, and what Redis holds of them.

What is registered of them stays when their box is switched off, so that the fleet's page and alerts show it; and the
names of workers' queues stay even after a stop in order, because an open batch may still send messages there. It is
removed once they have been gone for as long as a batch is kept, if they have no message, and no open batch of before
may send them one. A box that comes back later enters itself again. The counters stay: they are the fleet's sums.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from redis import Redis

from cloner.names import CHILD, PARENT
from cloner.settings import Settings
from cloner.state.batch_list import BatchList
from cloner.state.connection import server_time
from cloner.state.keys import RedisKeys

FORGET = """
local gone, workers, reviewers, queues, consumers, heartbeats, usage = unpack(KEYS, 1, 7)
local name, since, parent, child, card = unpack(ARGV)
if tonumber(redis.call('ZSCORE', gone, name) or 'nan') ~= tonumber(since) then return 0 end
for place = 10, #KEYS do
    if redis.call('EXISTS', KEYS[place]) == 1 then return 0 end
end
for place = 11, #KEYS do redis.call('HDEL', queues, KEYS[place]) end
redis.call('ZREM', workers, name)
redis.call('ZREM', reviewers, name)
redis.call('DEL', KEYS[8], KEYS[9])
redis.call('SREM', consumers, name)
redis.call('HDEL', heartbeats, parent, child)
redis.call('HDEL', usage, card)
redis.call('ZREM', gone, name)
return 1
"""
"""Nothing is removed if the consumer has entered itself again, or has a message: unacknowledged (KEYS[10]), or in one
of its queues, which follow."""


class GoneConsumers:
    """Since when consumers of a fleet's messages are gone. `redis` must decode responses.

    Every method raises `RedisError` where Redis cannot be used.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._redis = redis
        self._keys = RedisKeys(settings.fleet)
        self._batches = BatchList(redis, self._keys)
        self._kept_s = settings.batch_ttl_s

    def registered(self) -> set[str]:
        """The names of all of whom anything is registered, gone or not."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrange(self._keys.workers, 0, -1)
            pipe.zrange(self._keys.reviewers, 0, -1)
            pipe.smembers(self._keys.consumers)
            pipe.hvals(self._keys.worker_queues)
            return {str(name) for names in pipe.execute() for name in names}

    def note(self, gone: Collection[str], present: Collection[str]) -> None:
        """Note that some are gone, if that is not noted yet, and that others are `present`."""
        noted = {str(name) for name in self._redis.zrange(self._keys.gone, 0, -1)}
        if back := noted.intersection(present):
            self._redis.zrem(self._keys.gone, *back)
        if new := set(gone) - noted:
            now = server_time(self._redis)
            self._redis.zadd(self._keys.gone, dict.fromkeys(new, now), nx=True)

    def forget(self) -> list[str]:
        """Remove what is registered of those that have been gone for as long as a batch is kept, and of which nothing
        is needed any more; returns their names."""
        until = server_time(self._redis) - self._kept_s
        old = cast(
            "list[tuple[str, float]]", self._redis.zrangebyscore(self._keys.gone, "-inf", until, withscores=True)
        )
        if not old:
            return []
        # Clients give chunks to workers that are alive: those of later batches do not name these queues.
        oldest = self._batches.oldest_open()
        queues = cast("dict[str, str]", self._redis.hgetall(self._keys.worker_queues))
        return [
            name
            for name, since in old
            if since + self._kept_s <= oldest
            and self._forget(name, since, [queue for queue, worker in queues.items() if worker == name])
        ]

    def _forget(self, name: str, since: float, queues: Collection[str]) -> bool:
        keys = self._keys
        place, _, box = name.partition("@")
        card = place.rpartition(".")[0]
        return bool(
            self._redis.eval(
                FORGET,
                10 + len(queues),
                *(keys.gone, keys.workers, keys.reviewers, keys.worker_queues, keys.consumers),
                *(keys.process_heartbeats, keys.gpu_usage, keys.worker(name), keys.reviewer(name), keys.unacked(name)),
                *queues,
                name,
                repr(since),
                keys.process_heartbeat(name, PARENT),
                keys.process_heartbeat(name, CHILD),
                f"{card}@{box}",
            )
        )
