"""Which batches have messages in a queue, or messages that a process has not acknowledged."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from redis import Redis

from cloner.names import batch_of_task
from cloner.queueing.transport import task_of_unacked
from cloner.state.keys import RedisKeys

HEADERS_BYTES = 4096
"""The last bytes of a message, where kombu writes its headers, after its body."""

ENDS = """
local ends = {}
for place = 0, redis.call('LLEN', KEYS[1]) - 1 do
    ends[#ends + 1] = string.sub(redis.call('LINDEX', KEYS[1], place), -tonumber(ARGV[1]))
end
return ends
"""
"""The ends of a queue's messages: those of reviews have up to 14 MB of samples before."""

_TASK_ID = re.compile(rb'"id": ?"([^"]+)"')


def batches_in_flight(redis: Redis, keys: RedisKeys, consumes: Callable[[str], bool] = lambda _: True) -> set[str]:
    """Ids of the batches of which a process, dead or alive, has a message that it has not acknowledged; of the
    processes whose name `consumes` says. `redis` must not decode responses."""
    consumers = [name.decode() for name in cast("set[bytes]", redis.smembers(keys.consumers))]
    with redis.pipeline(transaction=False) as pipe:
        for consumer in filter(consumes, consumers):
            pipe.hvals(keys.unacked(consumer))
        packed = [message for messages in pipe.execute() for message in messages]
    return {batch_of_task(task_id) for task_id in map(task_of_unacked, packed) if task_id}


def batches_in_queue(redis: Redis, queue: str) -> set[str]:
    """Ids of the batches that have messages in a queue. `redis` must not decode responses."""
    ends = cast("list[bytes]", redis.eval(ENDS, 1, queue, str(HEADERS_BYTES)))
    return {batch_of_task(found[1].decode()) for end in ends if (found := _TASK_ID.search(end))}
