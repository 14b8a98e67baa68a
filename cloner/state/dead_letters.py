"""The dead-letter list: messages that are given to no process any more, for a person to look at.

A message is there because it is malformed, or because it has killed its processes one after another. Nothing reads the
list to run a message, or to queue it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self, cast

from redis import Redis
from redis.exceptions import ResponseError

from cloner.errors import Damaged
from cloner.state.damage import UNREADABLE, integer, is_wrong_type
from cloner.state.keys import RedisKeys

MAX_LETTERS = 100
"""The oldest is dropped where there are more."""

MAX_BYTES = 64 * 1024
"""Bytes that are kept of a message."""

ADD_LETTER = """
local function printable(text, most)
    local shown = string.gsub(string.sub(text, 1, most), '[^ -~]', function(byte)
        return string.format('\\\\x%02x', string.byte(byte))
    end)
    return string.sub(shown, 1, most)
end
local function add_letter(key, queue, reason, message)
    local entry = {'XADD', key, 'MAXLEN', '=', MAX_LETTERS, '*', 'queue', printable(queue, 200), 'bytes', #message,
        'reason', printable(reason, 500), 'message', printable(message, MAX_BYTES)}
    local added = redis.pcall(unpack(entry))
    if type(added) == 'table' and added.err then
        -- Another program has written the key: what is there is no list.
        redis.call('DEL', key)
        redis.call(unpack(entry))
    end
end
""".replace("MAX_LETTERS", str(MAX_LETTERS)).replace("MAX_BYTES", str(MAX_BYTES))
"""Lua functions for scripts that move a message to the list, so that it is in one place at each moment. Celery's
messages are ASCII; any other byte is escaped."""

BURY = (
    ADD_LETTER
    + """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
add_letter(KEYS[3], ARGV[2], ARGV[3], ARGV[4])
return 1
"""
)
"""From a consumer's hash of unacknowledged messages, and its index, to the list: tag, queue, reason, message."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the list. All texts are printable ASCII."""

    id: str
    """As Redis numbers the entries of a stream: "milliseconds-count"."""
    queue: str
    reason: str
    bytes: int
    """Length of the message, of which `MAX_BYTES` are kept."""
    message: str

    @property
    def added_at(self) -> float:
        """Seconds since the epoch, by Redis's clock."""
        return int(self.id.partition("-")[0]) / 1000

    @classmethod
    def from_entry(cls, letter_id: str, fields: Mapping[str, str]) -> Self:
        """The entry, whatever another program has written into it: a length that makes no sense counts as 0."""
        length = 0
        with suppress(*UNREADABLE):
            length = max(0, integer(fields.get("bytes", "")))
        texts = {name: printable_ascii(fields.get(name, "")) for name in ("queue", "reason", "message")}
        return cls(id=letter_id, bytes=length, **texts)


class DeadLetters:
    """The list of a fleet. `redis` must decode responses. Every method raises `Damaged` if another program has written
    what is in its place, and `RedisError`.
    """

    def __init__(self, redis: Redis, keys: RedisKeys) -> None:
        self._redis = redis
        self._key = keys.dead_letters

    def __len__(self) -> int:
        with self._reading():
            return int(self._redis.xlen(self._key))

    def newest_first(self) -> list[DeadLetter]:
        """All of the list."""
        with self._reading():
            entries = cast("list[tuple[str, dict[str, str]]]", self._redis.xrevrange(self._key))
        return [DeadLetter.from_entry(letter_id, fields) for letter_id, fields in entries]

    def get(self, letter_id: str) -> DeadLetter | None:
        """None if there is none of that id."""
        return next((letter for letter in self.newest_first() if letter.id == letter_id), None)

    def drop(self, letter_id: str) -> bool:
        """Remove a message for good; False if there is none of that id."""
        return self.get(letter_id) is not None and bool(self._redis.xdel(self._key, letter_id))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            raise Damaged(f"what Redis holds at {self._key} is no dead-letter list: delete that key") from error


def printable_ascii(text: str) -> str:
    """The text as the list's scripts write it: what is not printable ASCII is escaped."""
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in text)
