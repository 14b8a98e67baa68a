"""Messages of those who have died: given back to their queue, or moved to another one. No Celery needed.

A message is in one place at each moment: every step is one script, which Redis runs whole or not at all.
"""

from __future__ import annotations

import json

from redis import Redis

from cloner.queues import Names

GIVE_BACK = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
"""
"""From a holder's hash, and its index, to the end of a queue that is read next (kombu reads by BRPOP)."""

MOVE = """
if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then return 0 end
redis.call('RPOP', KEYS[1])
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""
"""From the end of a queue that is read next to that of another one that is read last."""

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""What comes of a message that kombu has not written."""

MOVED_AT_ONCE = 1000
"""Messages that are moved in one go, about half a second's worth: whoever moves them has other things to see to."""


def give_back(redis: Redis, names: Names, holder: str) -> int:
    """Put what a dead holder had in hand back into the queues it came from, to be read next, in the order in which it
    was taken; returns how many messages that were.

    The holder must be dead: what a living one has in hand would be worked on twice. What kombu cannot have packed is
    left where it is. Raises `RedisError`.
    """
    held, since = names.unacked(holder), names.unacked_since(holder)
    taken = redis.zrange(since, 0, -1)
    given = 0
    # Each is put before those that are there, so what was taken first comes last.
    for tag in map(str, reversed(taken)):
        packed = redis.hget(held, tag)
        try:
            # Our routing keys are queues.
            message, _exchange, queue = json.loads(str(packed))
            message["headers"]["redelivered"] = True
            message["properties"]["delivery_info"]["redelivered"] = True
        except UNREADABLE:
            continue
        given += int(redis.eval(GIVE_BACK, 3, held, since, queue, tag, json.dumps(message)))
    return given


def move(redis: Redis, source: str, target: str) -> int:
    """Move a queue's messages behind those of another one, in their order, at most `MOVED_AT_ONCE`; returns how many
    that were. Raises `RedisError`."""
    moved = 0
    while moved < MOVED_AT_ONCE and (last := redis.lindex(source, -1)) is not None:
        text = str(last)
        moved += int(redis.eval(MOVE, 2, source, target, text, _readdressed(text, target)))
    return moved


def _readdressed(text: str, queue: str) -> str:
    """The message as if it had been sent to that queue: a worker that stops gives it back there."""
    try:
        message = json.loads(text)
        # To a queue by its name, for which kombu need not know what is bound to an exchange.
        message["properties"]["delivery_info"].update(exchange="", routing_key=queue)
    except UNREADABLE:
        return text  # whoever reads the queue says so
    return json.dumps(message)
