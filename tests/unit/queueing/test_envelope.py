"""Which messages reach Celery: those of this product, as Celery 5.7 writes them, and no others."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from redis import Redis

from cloner.names import COLLECTOR_TASKS, FIND_FINISHED, OPEN_BATCH, SPEAK_CHUNK, WORKER_TASKS
from cloner.queueing.app import make_app
from cloner.queueing.envelope import Malformed, read_message
from cloner.settings import Settings


def message(headers: dict[str, Any] | None = None, body: object = ((), {}, {}), **changes: Any) -> dict[str, Any]:
    """A message of a chunk, with changed headers."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {
        "body": base64.b64encode(data).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "1", "task": SPEAK_CHUNK} | (headers or {}),
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "delivery_tag": "1",
            "priority": 0,
        },
    } | changes


def read(changed: dict[str, Any]) -> dict[str, Any]:
    return read_message(json.dumps(changed).encode(), WORKER_TASKS)


@pytest.mark.parametrize(
    ("task", "arguments"), [(SPEAK_CHUNK, ({"number": 1},)), (OPEN_BATCH, ("b",)), (FIND_FINISHED, (b"\0\xff", 2.5))]
)
def test_what_celery_sends_is_accepted_and_not_changed(
    redis: Redis, valkey_url: str, task: str, arguments: tuple[Any, ...]
) -> None:
    app = make_app(Settings(redis_url=valkey_url))
    app.send_task(task, arguments, queue="q", task_id="b.7", argsrepr="(speakers [é])")
    app.send_task(task, arguments, queue="q", group_id="b", chord={"task": "cloner.close_batch"}, group_index=3)
    for _ in range(2):
        text = str(redis.rpop("q"))
        assert text.isascii()
        assert read_message(text.encode(), WORKER_TASKS | COLLECTOR_TASKS) == json.loads(text)


def test_a_plain_header_that_is_not_known_is_accepted() -> None:
    assert read(message({"retries_left": 3, "redelivered": True}))["headers"]["retries_left"] == 3


HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"timelimit": ["a", None]}, "headers.timelimit.0"),
    ({"timelimit": [1]}, "headers.timelimit"),
    ({"timelimit": [None, -1]}, "headers.timelimit.1"),
    ({"timelimit": [float("inf"), None]}, "headers.timelimit.0"),
    ({"timelimit": "none"}, "headers.timelimit"),
    ({"id": 7}, "headers.id"),
    ({"id": ""}, "headers.id"),
    ({"task": ["a"]}, "headers.task"),
    ({"task": OPEN_BATCH}, "headers.task: this process does not run that task"),
    ({"task": "celery.map"}, "headers.task: this process does not run that task"),
    ({"eta": "2999-01-01T00:00:00"}, "headers.eta"),
    ({"expires": 7}, "headers.expires"),
    ({"retries": "1"}, "headers.retries"),
    ({"group": {}}, "headers.group"),
    ({"stamps": {"a": 1}}, "headers.stamps"),
    ({"stamped_headers": ["a"]}, "headers.stamped_headers"),
    ({"ignore_result": {}}, "headers.ignore_result"),
    ({"argsrepr": 1}, "headers.argsrepr"),
    ({"chord": 1}, "headers.chord"),
    ({"unknown": {"a": 1}}, "headers.unknown"),
    ({"compression": "application/x-gzip"}, "headers.compression"),
]


@pytest.mark.parametrize(("headers", "where"), HEADERS, ids=str)
def test_a_malformed_header_is_refused_and_named(headers: dict[str, Any], where: str) -> None:
    with pytest.raises(Malformed, match=where):
        read(message(headers))


OTHERS: list[tuple[dict[str, Any], str]] = [
    (message(body=b"junk"), "body: DecodeError"),
    (message(body=[]), "body: ValueError"),
    (message(body=7), "body: TypeError"),
    (message(body=[["a"], 7, {}]), "body.kwargs"),
    (message(body=[{}, {}, {}]), "body.args"),
    (message(body=[[], {}, 8]), "body.embed"),
    (message(body=[[], {}, {"chord": 8}]), "body.embed.chord"),
    (message(body=[[], {}, {"errbacks": [8]}]), r"body.embed.errbacks\.0"),
    (message(body=b"[" * 100_000), "body: DecodeError"),
    (message(body=zlib.compress(bytes(100))), "body: DecodeError"),
    (message() | {"body": "*"}, "body: Error"),
    (message() | {"body": None}, "body"),
    (message() | {"content-type": "application/x-python-serialize"}, "content-type"),
    (message() | {"content-type": "application/data"}, "content-type"),
    (message() | {"content-encoding": "binary"}, "content-encoding"),
    (message() | {"headers": []}, "headers"),
    (message() | {"properties": message()["properties"] | {"priority": 9}}, "properties.priority"),
    (message() | {"properties": message()["properties"] | {"delivery_info": {}}}, "properties.delivery_info"),
    (message() | {"properties": message()["properties"] | {"body_encoding": "zlib"}}, "properties.body_encoding"),
]


@pytest.mark.parametrize(("changed", "where"), OTHERS, ids=range(len(OTHERS)))
def test_what_is_not_celerys_form_is_refused(changed: dict[str, Any], where: str) -> None:
    with pytest.raises(Malformed, match=where):
        read(changed)


@pytest.mark.parametrize("text", [b"junk", b"\xff", b"[]", b"7", b"null", b'{"a": ' * 5_000])
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        read_message(text, WORKER_TASKS)
