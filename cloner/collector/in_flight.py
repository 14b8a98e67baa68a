"""Which batches have messages in a queue, or messages that a process has not acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from redis import Redis

from cloner.names import batch_of_task
from cloner.state.keys import RedisKeys

FIND_TASK = """
local found = {}
local function task_of(message)
    local headers = string.find(message, '"headers"', 1, true)
    return headers and string.match(message, '"id": ?"([^"]+)"', headers)
end
"""
"""The id of a message's task, which is in its headers, as kombu writes them: behind the body, which has no quotation
mark. Those of reviews have up to 14 MB of samples, which are not sent to this process."""

TASKS_IN_QUEUE = f"""{FIND_TASK}
for place = 0, redis.call('LLEN', KEYS[1]) - 1 do
    found[#found + 1] = task_of(redis.call('LINDEX', KEYS[1], place))
end
return found
"""

UNACKED_TASKS = f"""{FIND_TASK}
for _, tag in ipairs(redis.call('HKEYS', KEYS[1])) do
    found[#found + 1] = task_of(redis.call('HGET', KEYS[1], tag))
end
return found
"""

REMOVE = f"""{FIND_TASK}
for place = 0, redis.call('LLEN', KEYS[1]) - 1 do
    local task = task_of(redis.call('LINDEX', KEYS[1], place))
    if task and string.sub(task, 1, #ARGV[1]) == ARGV[1] then redis.call('LSET', KEYS[1], place, '') end
end
return redis.call('LREM', KEYS[1], 0, '')
"""
"""Removes the messages of the tasks whose ids begin so."""


def batches_in_flight(redis: Redis, keys: RedisKeys, consumes: Callable[[str], bool] = lambda _: True) -> set[str]:
    """Ids of the batches of which a process, dead or alive, has a message that it has not acknowledged; of the
    processes whose name `consumes` says. `redis` must not decode responses."""
    consumers = [name.decode() for name in cast("set[bytes]", redis.smembers(keys.consumers))]
    with redis.pipeline(transaction=False) as pipe:
        for consumer in filter(consumes, consumers):
            pipe.eval(UNACKED_TASKS, 1, keys.unacked(consumer))
        return _batches(task for tasks in pipe.execute() for task in tasks)


def batches_in_queue(redis: Redis, queue: str) -> set[str]:
    """Ids of the batches that have messages in a queue. `redis` must not decode responses."""
    return _batches(cast("list[bytes]", redis.eval(TASKS_IN_QUEUE, 1, queue)))


def remove_from_queue(redis: Redis, queue: str, batch_id: str) -> None:
    """Remove a batch's messages from a queue, if there are any."""
    redis.eval(REMOVE, 1, queue, f"{batch_id}.")


def _batches(tasks: Iterable[bytes]) -> set[str]:
    return {batch_of_task(task.decode(errors="replace")) for task in tasks}
