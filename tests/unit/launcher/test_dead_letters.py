"""``launcher dead-letters`` and the count in ``launcher status``; nothing that they print controls a terminal."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from redis import Redis

from cloner.events import Event
from cloner.state.dead_letters import BURY, MAX_BYTES, DeadLetters
from cloner.state.registry import Registry
from tests.support.launcher_command import Run
from tests.support.log_lines import find_lines
from tests.support.unacked import KEYS, QUEUE
from tests.support.workers import worker_info


@pytest.fixture
def letters(redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> DeadLetters:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    return DeadLetters(redis, KEYS)


def bury(redis: Redis, message: str | bytes, reason: str = "headers.id: it is none") -> None:
    redis.hset(KEYS.unacked("w"), "1", "packed")
    redis.eval(BURY, 3, KEYS.unacked("w"), KEYS.unacked_since("w"), KEYS.dead_letters, "1", QUEUE, reason, message)


def message(body: bytes) -> str:
    content: dict[str, Any] = {"body": base64.b64encode(body).decode(), "headers": {"id": "\x1b[31m\x7f", "task": "t"}}
    return json.dumps(content)


def test_the_list_names_each_message_and_why_it_is_there(launcher: Run, redis: Redis, letters: DeadLetters) -> None:
    bury(redis, "first", "it is\x1b[31m red")
    bury(redis, "second")
    status, out, err = launcher("dead-letters")
    assert (status, err) == (0, "")
    newest, oldest = letters.newest_first()
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["Id", "Added", "Bytes", "Reason", "Queue"]
    assert [(row[0], *row[2:]) for row in rows[1:]] == [
        (newest.id, "6", "headers.id: it is none", QUEUE),
        (oldest.id, "5", r"it is\x1b[31m red", QUEUE),
    ]
    assert all(row[1].endswith(" UTC") for row in rows[1:])


def test_show_prints_headers_and_body(launcher: Run, redis: Redis, letters: DeadLetters) -> None:
    bury(redis, message(b'[[{"a": 1}], {}, {}] \x1b[0m\n\x7f\xff'))
    (letter,) = letters.newest_first()
    status, out, err = launcher("dead-letters", "show", letter.id)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Id: {letter.id}"
    assert lines[2:5] == [f"Queue: {QUEUE}", "Reason: headers.id: it is none", f"Bytes: {letter.bytes}"]
    assert r'    "id": "\u001b[31m\u007f",' in lines
    assert lines[-1] == r'Body: [[{"a": 1}], {}, {}] \x1b[0m\n\x7f\xff'
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize("text", ["junk \x1b", "[]", '{"body": 7}', "[" * 50_000, message(bytes(MAX_BYTES))])
def test_show_prints_what_cannot_be_read_as_it_is_kept(
    launcher: Run, redis: Redis, letters: DeadLetters, text: str
) -> None:
    bury(redis, text)
    (letter,) = letters.newest_first()
    status, out, _ = launcher("dead-letters", "show", letter.id)
    assert status == 0
    assert out.splitlines()[-1] == f"Message: {letter.message}"


def test_drop_removes_one_message(launcher: Run, redis: Redis, letters: DeadLetters) -> None:
    bury(redis, "first")
    bury(redis, "second")
    newest, oldest = letters.newest_first()
    assert launcher("dead-letters", "drop", newest.id) == (0, "", "")
    assert letters.newest_first() == [oldest]


@pytest.mark.parametrize("command", ["show", "drop"])
def test_an_id_that_is_not_in_the_list_is_a_sentence(launcher: Run, letters: DeadLetters, command: str) -> None:
    sentence = r"7-0\x1b is not in the dead-letter list: `launcher dead-letters` lists what is"
    assert launcher("dead-letters", command, "7-0\x1b") == (2, "", sentence + "\n")


def test_status_counts_the_messages_and_goes_on_where_another_program_wrote_the_key(
    launcher: Run, redis: Redis, letters: DeadLetters
) -> None:
    Registry(redis, KEYS, 30).register(worker_info(0, box="box"))
    assert launcher("status")[::2] == (0, "")
    bury(redis, "junk")
    status, _, err = launcher("status")
    assert status == 0
    assert find_lines(err.splitlines(), Event.DEAD_LETTERS, count=1) == err.splitlines()
    redis.set(KEYS.dead_letters, "text")
    status, out, err = launcher("status")
    assert (status, "cpu.0@box" in out) == (0, True)
    assert "is no dead-letter list: delete that key" in err
    assert launcher("dead-letters")[::2] == (1, err)
