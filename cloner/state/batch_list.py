"""The list of a fleet's batches in Redis: which there are, which are open, and where the outputs of those lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from redis import Redis

from cloner.errors import one_line
from cloner.protocol.fields import is_batch_id
from cloner.state.damage import pass_over, read_or, reply_or
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState


class BatchList:
    """The ids of a fleet's batches. Every method raises `RedisError`."""

    def __init__(self, redis: Redis, keys: RedisKeys) -> None:
        self._redis = redis
        self._keys = keys

    def newest(self, count: int) -> list[str]:
        """Ids of the newest batches, the last one submitted first."""
        return self._ids(lambda key: self._redis.zrevrange(key, 0, count - 1))

    def open_ids(self, *, cancelled: bool) -> list[str]:
        """Ids of the batches that are neither done nor broken, oldest first; with or without those that are
        `cancelled`."""
        return [batch_id for batch_id, is_cancelled, _ in self._open() if cancelled or not is_cancelled]

    def oldest_open(self) -> float:
        """When the oldest open batch was submitted, cancelled or not, seconds since the epoch; infinity if none is
        open."""
        for batch_id, _, _ in self._open():
            score = self._redis.zscore(self._keys.batches, batch_id)
            return -math.inf if score is None else float(score)  # it was removed at this moment
        return math.inf

    def open_beside(self, prefix: str) -> list[str]:
        """Ids of the batches that are neither done, broken nor cancelled, oldest first, and whose outputs may be those
        of a batch with that prefix: an output that has two prefixes lies in one folder, which lies in the other."""
        return [
            batch_id
            for batch_id, is_cancelled, other in self._open()
            if not is_cancelled and (other is None or _is_within(prefix, other) or _is_within(other, prefix))
        ]

    def expired(self, pipe: Any, before: float) -> list[bytes]:
        """Those of the batches submitted before a time that Redis has no more: some are kept for longer. `pipe` runs
        its commands at once."""
        ids: list[bytes] = pipe.zrangebyscore(self._keys.batches, "-inf", before)
        return [batch_id for batch_id in ids if not pipe.exists(self._keys.batch(text_of(batch_id)))]

    def _open(self) -> Iterator[tuple[str, bool, str | None]]:
        """The open batches, oldest first: id, whether it is cancelled, and its prefix, None if that was not noted, as
        by an earlier version."""
        ids = self._ids(lambda key: self._redis.zrange(key, 0, -1))
        with self._redis.pipeline(transaction=False) as pipe:
            for batch_id in ids:
                pipe.hmget(self._keys.batch(batch_id), "state", "cancelled", "prefix")
            replies = pipe.execute(raise_on_error=False)
        for batch_id, reply in zip(ids, replies, strict=True):
            state, cancelled, prefix = reply_or((None, None, None), self._keys.batch(batch_id), reply)
            if is_open(state):
                yield batch_id, bool(cancelled), None if prefix is None else _decoded(prefix)

    def _ids(self, read: Callable[[str], Any]) -> list[str]:
        """The ids that `read` finds in the key of all batches; what is no id is passed over."""
        key = self._keys.batches
        found: list[bytes] = read_or([], key, lambda: read(key))
        ids = [text_of(batch_id) for batch_id in found]
        for wrong in (batch_id for batch_id in ids if not is_batch_id(batch_id)):
            pass_over(key, f"{wrong} is no batch's id")
        return [batch_id for batch_id in ids if is_batch_id(batch_id)]


def text_of(value: object) -> str:
    """A line of a value that Redis holds; empty if it is not there."""
    return one_line(_decoded(value)) if isinstance(value, bytes | str) else ""


def is_open(state: object) -> bool:
    """Whether a batch of which Redis holds this state is neither done nor broken, and known."""
    return text_of(state) in {other for other in BatchState if other.is_open}


def _decoded(value: bytes | str) -> str:
    """A text of Redis, by a connection that decodes responses or one that does not."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_within(inner: str, outer: str) -> bool:
    """Whether a folder lies in another one, or is it; each is relative to the output root, which is empty."""
    return not outer or f"{inner}/".startswith(f"{outer}/")
