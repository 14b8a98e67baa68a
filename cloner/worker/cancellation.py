"""Whether a batch is cancelled, asked beside the speaking of a chunk: a step may take long, and a segment longer."""

from __future__ import annotations

import threading
from typing import Self

from redis import Redis, RedisError

from cloner.logs import get_logger

LOOK_S = 0.5
"""Seconds between two looks."""


class Cancellation:
    """A context manager: within it, a thread looks at the batch's hash `key` in Redis until it says "cancelled"."""

    def __init__(self, redis: Redis, key: str, cancelled: bool) -> None:
        """`cancelled` if that is known already."""
        self._redis = redis
        self._key = key
        self._cancelled = cancelled
        self._over = threading.Event()

    def stopped(self) -> bool:
        """Whether to drop what is not finished; answers at once."""
        return self._cancelled

    def __enter__(self) -> Self:
        if not self._cancelled:
            threading.Thread(target=self._look, name="cancellation", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._cancelled and not self._over.wait(LOOK_S):
            try:
                self._cancelled = bool(self._redis.hexists(self._key, "cancelled"))
            except RedisError as error:
                # Redis is away: nobody can cancel anything meanwhile.
                get_logger().debug(f"whether {self._key} is cancelled cannot be seen: {error}")
