"""Which batches and chunks have messages in a queue, or messages that a process has not acknowledged."""

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

SLICE_BYTES = 4 * 1024**2
"""Bytes of messages, with `MESSAGE_BYTES` more for each, that a script reads at once: Redis serves no client meanwhile.
With 512 messages of 0.5 MB, of 16 batches in review, it would take 0.4 s."""

MESSAGE_BYTES = 4096

_SLICE = f"""{FIND_TASK}
local place, size, length = tonumber(ARGV[1]), 0, redis.call('LLEN', KEYS[1])
while place < length and size < {SLICE_BYTES} do
    local message = redis.call('LINDEX', KEYS[1], place)
    size = size + #message + {MESSAGE_BYTES}
    local task = task_of(message)
"""
"""Reads the messages of a queue from a place on. Messages are taken from the end of the list and sent to its beginning,
so none is passed over between two slices; one may be read twice."""

TASKS_IN_QUEUE = f"""{_SLICE}
    found[#found + 1] = task
    place = place + 1
end
return {{place < length and place or -1, found}}
"""
"""The place of the next slice, -1 if there is none, and the ids of the tasks of this one."""

UNACKED_TASKS = f"""{FIND_TASK}
for _, tag in ipairs(redis.call('HKEYS', KEYS[1])) do
    found[#found + 1] = task_of(redis.call('HGET', KEYS[1], tag))
end
return found
"""

REMOVE = f"""{_SLICE}
    if task and string.sub(task, 1, #ARGV[2]) == ARGV[2] then redis.call('LSET', KEYS[1], place, '') end
    place = place + 1
end
local next = place - redis.call('LREM', KEYS[1], 0, '')
return place < length and next or -1
"""
"""Removes the messages of the tasks whose ids begin so; returns the place of the next slice."""


def batches_in_flight(redis: Redis, keys: RedisKeys, consumes: Callable[[str], bool] = lambda _: True) -> set[str]:
    """Ids of the batches of which a process, dead or alive, has a message that it has not acknowledged; of the
    processes whose name `consumes` says. `redis` must not decode responses."""
    return set(map(batch_of_task, tasks_in_flight(redis, keys, consumes)))


def tasks_in_flight(redis: Redis, keys: RedisKeys, consumes: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Ids of the tasks of such messages."""
    consumers = [name.decode() for name in cast("set[bytes]", redis.smembers(keys.consumers))]
    with redis.pipeline(transaction=False) as pipe:
        for consumer in filter(consumes, consumers):
            pipe.eval(UNACKED_TASKS, 1, keys.unacked(consumer))
        return _decoded(task for tasks in pipe.execute() for task in tasks)


def batches_in_queue(redis: Redis, queue: str) -> set[str]:
    """Ids of the batches that have messages in a queue. `redis` must not decode responses."""
    return set(map(batch_of_task, tasks_in_queue(redis, queue)))


def tasks_in_queue(redis: Redis, queue: str) -> list[str]:
    """Ids of the tasks that have messages in a queue. `redis` must not decode responses."""
    found: list[bytes] = []
    place = 0
    while place >= 0:
        place, tasks = cast("tuple[int, list[bytes]]", redis.eval(TASKS_IN_QUEUE, 1, queue, place))
        found += tasks
    return _decoded(found)


def chunks_under_way(redis: Redis, queues: Iterable[str], keys: RedisKeys, chord: str) -> set[int]:
    """Numbers of the chunks of a chord whose messages are in one of the queues, in the order in which launchers move
    them, or in flight. `redis` must not decode responses."""
    # First the queues: that is the way of a message. One that goes the other way meanwhile is sent twice.
    tasks = [task for queue in queues for task in tasks_in_queue(redis, queue)] + tasks_in_flight(redis, keys)
    numbers = (task.removeprefix(f"{chord}.") for task in tasks if task.startswith(f"{chord}."))
    return {int(number) for number in numbers if number.isdecimal()}


def remove_from_queue(redis: Redis, queue: str, batch_id: str) -> None:
    """Remove a batch's messages from a queue, if there are any."""
    place = 0
    while place >= 0:
        place = cast("int", redis.eval(REMOVE, 1, queue, place, f"{batch_id}."))


def _decoded(tasks: Iterable[bytes]) -> list[str]:
    return [task.decode(errors="replace") for task in tasks]
