"""The dead-letter list: bounded, printable, and never queued or run again."""

from __future__ import annotations

import pytest
from redis import Redis

from cloner.errors import Damaged
from cloner.state.connection import server_time
from cloner.state.dead_letters import BURY, MAX_BYTES, MAX_LETTERS, DeadLetters
from cloner.state.keys import RedisKeys

KEYS = RedisKeys("test")


@pytest.fixture
def letters(redis: Redis) -> DeadLetters:
    return DeadLetters(redis, KEYS)


def bury(redis: Redis, tag: str, reason: str = "it is junk", message: str | bytes = "{}", queue: str = "q") -> int:
    redis.hset(KEYS.unacked("w"), tag, "packed")
    redis.zadd(KEYS.unacked_since("w"), {tag: 1.0})
    keys = KEYS.unacked("w"), KEYS.unacked_since("w"), KEYS.dead_letters
    return int(redis.eval(BURY, 3, *keys, tag, queue, reason, message))


def test_a_message_is_moved_once_with_all_that_is_known_of_it(redis: Redis, letters: DeadLetters) -> None:
    assert bury(redis, "1", "it is junk", '{"body": ""}') == 1
    redis.zadd(KEYS.unacked_since("w"), {"1": 1.0})
    assert redis.eval(BURY, 3, KEYS.unacked("w"), KEYS.unacked_since("w"), KEYS.dead_letters, "1", "q", "r", "") == 0
    (letter,) = letters.newest_first()
    assert (letter.queue, letter.reason, letter.bytes, letter.message) == ("q", "it is junk", 12, '{"body": ""}')
    assert letters.get(letter.id) == letter
    assert 0 <= server_time(redis) - letter.added_at < 60
    assert not redis.exists(KEYS.unacked("w"))


def test_the_oldest_go_where_there_are_more_than_a_hundred(redis: Redis, letters: DeadLetters) -> None:
    for number in range(MAX_LETTERS + 7):
        bury(redis, "1", message=str(number))
    assert len(letters) == MAX_LETTERS
    assert [letter.message for letter in letters.newest_first()] == [str(n) for n in range(MAX_LETTERS + 6, 6, -1)]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (b"\x1b[31m red \xe2\x82\xac\xff\r\n\x7f", r"\x1b[31m red \xe2\x82\xac\xff\x0d\x0a\x7f"),
        (b"a" * 3 * MAX_BYTES, "a" * MAX_BYTES),
        (b"\0" * 3 * MAX_BYTES, (r"\x00" * MAX_BYTES)[:MAX_BYTES]),
    ],
    ids=["controls", "long", "long when escaped"],
)
def test_what_is_kept_is_printable_and_bounded(redis: Redis, letters: DeadLetters, message: bytes, shown: str) -> None:
    bury(redis, "1", message=message, queue="q\x1b" * 5_000, reason="r\x1b" * 5_000)
    (letter,) = letters.newest_first()
    assert letter.message == shown
    assert letter.bytes == len(message)
    assert (len(letter.queue), len(letter.reason)) == (200, 500)
    assert all(text.isascii() and text.isprintable() for text in (letter.queue, letter.reason, letter.message))


def test_an_entry_of_another_program_is_printable_too(redis: Redis, letters: DeadLetters) -> None:
    redis.xadd(KEYS.dead_letters, {"reason": "\x1b[31m", "bytes": "many"})
    (letter,) = letters.newest_first()
    assert (letter.queue, letter.reason, letter.bytes, letter.message) == ("", r"\x1b[31m", 0, "")


def test_a_message_is_dropped_by_its_id_alone(redis: Redis, letters: DeadLetters) -> None:
    bury(redis, "1", message="a")
    bury(redis, "2", message="b")
    newest, oldest = letters.newest_first()
    assert [letters.drop(name) for name in ("", "7-0", "junk", "-", "+", "*")] == [False] * 6
    assert letters.drop(oldest.id)
    assert not letters.drop(oldest.id)
    assert letters.newest_first() == [newest]
    assert letters.get(oldest.id) is None


def test_a_key_that_is_no_list_is_named_and_replaced_by_the_next_message(redis: Redis, letters: DeadLetters) -> None:
    redis.set(KEYS.dead_letters, "text")
    for read in (letters.newest_first, letters.__len__, lambda: letters.drop("1-0")):
        with pytest.raises(Damaged, match=f"what Redis holds at {KEYS.dead_letters} is no dead-letter list"):
            read()
    bury(redis, "1")
    assert len(letters) == 1


def test_an_id_that_leaves_no_room_for_others_is_replaced(redis: Redis, letters: DeadLetters) -> None:
    redis.xadd(KEYS.dead_letters, {"reason": "last"}, id="18446744073709551615-18446744073709551615")
    bury(redis, "1")
    assert [letter.reason for letter in letters.newest_first()] == ["it is junk"]
