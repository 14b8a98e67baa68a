"""Processes of one kind in the registry: a hash of fields for each, and a heartbeat for each in one sorted set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from redis import Redis

from cloner.errors import one_line
from cloner.state.connection import server_time
from cloner.state.damage import UNREADABLE, finite, integer, pass_over, read_or, reply_or


class Info(Protocol):
    """An entry: a dataclass of texts, numbers and a state."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @classmethod
    def from_hash(cls, values: Mapping[Any, Any]) -> Self | None: ...


InfoT = TypeVar("InfoT", bound=Info)


def typed_values(kind: type[Info], values: Mapping[Any, Any], kinds: Mapping[str, Callable[[str], Any]]) -> Any:
    """The values of a hash by field, each of the field's type; `kinds` are the types besides numbers and texts.

    None if fields are missing or make no sense: Redis has lost the hash, and it was written to since. Texts are lines
    without control characters: all who can write to Redis can write them.
    """
    if any(field.default is MISSING and field.name not in values for field in fields(kind)):
        return None
    kinds = {"int": integer, "float": finite, "bool": str(True).__eq__, **kinds}
    known = [field for field in fields(kind) if field.name in values]
    try:
        return {field.name: kinds.get(str(field.type), one_line)(values[field.name]) for field in known}
    except UNREADABLE:
        return None


class Entries(Generic[InfoT]):
    """The entries of one kind; a process is alive for `alive_s` seconds after a heartbeat.

    `redis` must decode responses; `beats` is the key of the sorted set, `key_of` returns that of a name's hash.
    Heartbeats are timed by the server's clock alone.
    """

    def __init__(
        self, redis: Redis, kind: type[InfoT], beats: str, key_of: Callable[[str], str], alive_s: float
    ) -> None:
        self._redis = redis
        self._kind = kind
        self._beats = beats
        self.key_of = key_of
        """The key of a name's hash."""
        self._alive_s = alive_s

    def register(self, info: InfoT) -> None:
        """Enter a process that is about to start; an older entry of its name is replaced."""
        values: dict[Any, Any] = {key: str(value) for key, value in asdict(info).items()}
        now = server_time(self._redis)
        with self._redis.pipeline() as pipe:
            pipe.delete(self.key_of(info.name))
            pipe.hset(self.key_of(info.name), mapping=values)
            pipe.zadd(self._beats, {info.name: now})
            pipe.execute()

    def beat(self, name: str, steps: int | None = None) -> bool:
        """Note a heartbeat and the work done so far. False if there was no entry of that name."""
        now = server_time(self._redis)
        with self._redis.pipeline() as pipe:
            pipe.zadd(self._beats, {name: now})
            if steps is not None:
                pipe.hset(self.key_of(name), "steps", str(steps))
            added, *_ = pipe.execute()
        return not added

    def update(self, name: str, **values: str | float) -> None:
        """Change some fields of an entry."""
        mapping: dict[Any, Any] = {key: str(value) for key, value in values.items()}
        self._redis.hset(self.key_of(name), mapping=mapping)

    def count(self, name: str, field: str) -> None:
        """Add one to a field of an entry."""
        self._redis.hincrby(self.key_of(name), field, 1)

    def give_up(self, name: str, why: str) -> None:
        """The process will not come back: it counts as gone at once, and its entry says why."""
        silent_since = server_time(self._redis) - self._alive_s - 1
        with self._redis.pipeline() as pipe:
            pipe.zadd(self._beats, {name: silent_since})
            pipe.hset(self.key_of(name), "error", why)
            pipe.execute()

    def remove(self, name: str) -> None:
        """Remove the entry of a process that will not come back."""
        with self._redis.pipeline() as pipe:
            pipe.zrem(self._beats, name)
            pipe.delete(self.key_of(name))
            pipe.execute()

    def remove_others(self, box: str, kept: Collection[str]) -> None:
        """Remove the entries of a box but those that are `kept`, also of processes that never lived. One that does live
        enters itself again."""
        names: list[str] = read_or([], self._beats, lambda: self._redis.zrange(self._beats, 0, -1))
        if gone := [name for name in names if name.rpartition("@")[2] == box and name not in kept]:
            with self._redis.pipeline() as pipe:
                pipe.zrem(self._beats, *gone)
                pipe.delete(*map(self.key_of, gone))
                pipe.execute()

    def get(self, name: str) -> InfoT | None:
        """A process's entry, alive or not; None if there is none."""
        key = self.key_of(name)
        return self._kind.from_hash(read_or({}, key, lambda: self._redis.hgetall(key)))

    def all(self) -> list[tuple[InfoT, float]]:
        """All entries, of live processes or not, with the seconds since their last heartbeat. What is damaged is passed
        over."""
        now = server_time(self._redis)
        beats: list[tuple[str, float]] = read_or(
            [], self._beats, lambda: self._redis.zrange(self._beats, 0, -1, withscores=True)
        )
        with self._redis.pipeline(transaction=False) as pipe:
            for name, _ in beats:
                pipe.hgetall(self.key_of(name))
            hashes = pipe.execute(raise_on_error=False)
        found = []
        for (name, beat), reply in zip(beats, hashes, strict=True):
            values: dict[str, str] = reply_or({}, self.key_of(name), reply)
            if info := self._kind.from_hash(values):
                found.append((info, min(max(0.0, now - beat), now)))
            elif values:
                pass_over(self.key_of(name), "fields are missing, or make no sense")
        return found
