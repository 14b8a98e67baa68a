"""Messages in queues and unacknowledged messages, as kombu keeps them."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from cloner.names import QueueNames
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from launcher.requeue import Requeuer

KEYS = RedisKeys("main")

QUEUES = QueueNames("main")

QUEUE = QUEUES.worker_queue("box", "cpu", 0)


def message(number: int, queue: str = QUEUE) -> dict[str, Any]:
    """As kombu writes it, in short."""
    info = {"exchange": "cloner", "routing_key": queue}
    return {"body": str(number), "headers": {"id": str(number)}, "properties": {"delivery_info": info}}


def take(redis: Redis, consumer: str, tag: str, queue: str = QUEUE, taken: float = 1.0) -> None:
    """As kombu does."""
    redis.hset(KEYS.unacked(consumer), tag, json.dumps([message(int(tag), queue), "cloner", queue]))
    redis.zadd(KEYS.unacked_since(consumer), {tag: taken})


def requeue(redis: Redis, consumer: str, *, stopped: bool = False, fleet: str = "main") -> int:
    """As a launcher does."""
    return Requeuer(Settings(fleet=fleet), redis, print).requeue(consumer, stopped=stopped)


def next_ones(redis: Redis, queue: str) -> list[dict[str, Any]]:
    """The messages of a queue, in the order in which they will be read."""
    return [json.loads(text) for text in reversed(redis.lrange(queue, 0, -1))]


def bodies(redis: Redis, queue: str) -> list[str]:
    return [found["body"] for found in next_ones(redis, queue)]
