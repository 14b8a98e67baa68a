"""Every key of a fleet gets a wrong type, or hostile values: commands and the fleet page pass over it and name it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from cloner import Client
from cloner.errors import ClonerError
from cloner.monitoring.flower.data import FleetData
from cloner.monitoring.prometheus import FleetMetrics
from cloner.names import PARENT, collector_name, reviewer_name
from cloner.protocol.results import BatchResult, SegmentError
from cloner.settings import Settings, WorkerSettings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.counters import Count, Counters
from cloner.state.damage import log_once
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.open_attempts import OpenAttempts, ReviewAttempts
from cloner.state.progress import ChunkProgress, Round
from cloner.state.registry import Registry, expected_reviewer, expected_worker
from launcher.__main__ import main as launcher
from tests.support.bad_inputs import RunCommand

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e\r\n[Worker 0] All done!"
WRONG_TYPES: dict[str, Callable[[Redis, str], object]] = {
    "string": lambda redis, key: redis.set(key, ESCAPES),
    "list": lambda redis, key: redis.rpush(key, ESCAPES),
    "hash": lambda redis, key: redis.hset(key, ESCAPES, ESCAPES),
    "sorted set": lambda redis, key: redis.zadd(key, {ESCAPES: 1.0}),
}
LAST_ID = 2**64 - 1
"""The largest number in an id of a stream's entry."""

VALUES: list[str | bytes] = [
    ESCAPES,
    b"\xff\xfe\x1b[2J",
    "",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 400,
    "9" * 5_000,
    "-1",
    "[]",
    "{}",
    "[" * 9_000,
    '[1e999, "\\u001b[2J", 1, 1, 1]',
    '{"generated": 1e400, "failed": [], "frames": 0, "samples": 0, "finished": 1}',
]


class Fleet:
    """A fleet with two workers that do not run, a batch that waits and one that is done; all keys can be restored."""

    def __init__(self, settings: Settings, url: str, client: Client, run: RunCommand) -> None:
        self.settings, self.client, self.run = settings, client, run
        self.blobs = connect(url, decode=False)
        self.keys = RedisKeys(settings.fleet)
        # Nothing renews the collector's while the test runs; `restore` renews the workers'.
        self._registry = Registry(client.redis, self.keys, alive_s=3600.0)
        self._workers = [expected_worker(settings, WorkerSettings(number=number, index=number)) for number in range(2)]
        for worker in self._workers:
            self._registry.register(worker)
        self._registry.reviewer_entries.register(expected_reviewer(settings, reviewer_name("box", 0)))
        self._registry.beat_collector(collector_name("box"))
        Counters(client.redis, self.keys).add("cpu.0@box", {Count.FRAMES: 10.0})
        GpuUsageTable(client.redis, self.keys).write([GpuUsage("box", "cpu", "RTX 4090", 1, 2, 0.5)])
        self.open, self.done = (client.submit(name).id for name in ("b.json", "c.json"))
        batches = BatchStore.of(settings, self.blobs)
        batches.report(self.open, {0: ChunkProgress(1, 0, 10, 100)})
        error = SegmentError(speaker="0", output="out/9.wav", code="crashed", message="It crashed.")
        result: dict[str, Any] = {"generated": 0, "failed": 1, "results": {}, "errors": {9: error}, "workers": {}}
        more: dict[str, Any] = {"audio_s": 0, "frames": 0, "elapsed_s": 1, "cancelled": False, "out_dir": "out"}
        batches.close(BatchResult(batch_id=self.done, total=1, **result, **more), Round(), 1)
        client.redis.xadd(self.keys.dead_letters, {"queue": "q", "bytes": "9", "reason": "junk", "message": "{}"})
        self._write_what_processes_write(client.redis)
        self._before: dict[bytes, Any] = {key: self.blobs.dump(key) for key in self._keys()}
        assert len(self._before) >= 12

    def _write_what_processes_write(self, redis: Redis) -> None:
        """What a launcher, a worker and a collector keep besides, as they would."""
        keys, worker = self.keys, "cpu.0@box"
        redis.set(keys.box_lease("box"), "process 1 on box x", px=600_000)
        redis.sadd(keys.box_launchers("box"), "process 1 on box x")
        redis.hset(keys.process_heartbeats, keys.process_heartbeat(worker, PARENT), "1 1")
        redis.sadd(keys.consumers, worker)
        redis.zadd(keys.gone, {worker: 1.0})
        redis.hset(keys.unacked(worker), "tag", "[]")
        redis.zadd(keys.unacked_since(worker), {"tag": 1.0})
        OpenAttempts(redis, keys, collector_name("box"), 600).begin(self.open)
        ReviewAttempts(redis, keys, reviewer_name("box", 0), 600).begin("task")

    def __iter__(self) -> Iterator[str]:
        """Every key; after each, all are as before."""
        for key in sorted(self._before):
            yield key.decode()
            self.restore()

    def keys_that_clients_do_not_read(self) -> set[str]:
        """Nor the fleet page and Prometheus."""
        keys, worker = self.keys, "cpu.0@box"
        return {
            keys.collector_heartbeat,
            keys.process_heartbeats,
            keys.box_lease("box"),
            keys.box_launchers("box"),
            keys.consumers,
            keys.gone,
            keys.manifest(self.open),  # those who submit read manifests of their own folder alone
            keys.unacked(worker),
            keys.unacked_since(worker),
            keys.open_attempts(collector_name("box")),
            keys.review_attempts,
            keys.reviews_under_way,
        }

    def restore(self) -> None:
        self.blobs.delete(*self._keys())
        for key, dump in self._before.items():
            self.blobs.restore(key, 0, dump)
        for worker in self._workers:
            self._registry.beat(worker.name)
        log_once.cache_clear()

    def read(self) -> str:
        """Read what clients, the fleet page and Prometheus read; returns all of it."""
        found: list[object] = [self.client.fleet()]
        for read in (self.client.batch(self.open).progress, self.client.batch(self.done).result):
            try:
                value = read()
                found.append(value.to_json() if isinstance(value, BatchResult) else value.error)
            except ClonerError as error:
                found.append(error.message)
        found.append(BatchStore.of(self.settings, self.blobs).age_s(self.open))
        found.append(json.dumps(FleetData(self.settings).snapshot(), allow_nan=False, ensure_ascii=False))
        registry = CollectorRegistry()
        registry.register(FleetMetrics(self.settings))
        assert b"cloner_redis_up 1.0" in generate_latest(registry)
        return check_text("\n".join(map(str, found)))

    def run_all(self) -> str:
        """Run the commands, those that write included; returns what was printed."""
        printed = []
        for command in (
            ["fleet"],
            ["submit", "d.json"],
            ["status", self.open],
            ["result", self.done],
            ["cancel", self.open],
            ["retry", self.done],
        ):
            status, stdout, stderr = self.run(*command)
            assert status in (0, 1, 2)
            assert stdout or stderr
            printed += [stdout, stderr]
        for command in (["dead-letters"], ["dead-letters", "show", "1-0"]):
            status, stdout, stderr = self.run(*command, entry=launcher)
            assert status in (0, 1, 2)
            printed += [stdout, stderr]
        return check_text("\n".join(printed))

    def _keys(self) -> list[bytes]:
        return [bytes(key) for key in cast("list[bytes]", self.blobs.keys("*")) if self.keys.fleet.encode() in key]


def check_text(text: str) -> str:
    """Check that a text has no control characters and no line that an attacker begins; returns it."""
    assert [character for character in text if not character.isprintable() and character not in "\n\t"] == []
    assert not any(line.startswith("[Worker 0] All done!") for line in text.splitlines())
    return text


@pytest.fixture
def fleet(
    settings: Settings,
    redis: Redis,
    valkey_url: str,
    batch_folder: Path,
    idle_fleet: Settings,
    run_command: RunCommand,
) -> Fleet:
    whole = (batch_folder / "b.json").read_text()
    for name in ("c", "d"):
        (batch_folder / f"{name}.json").write_text(whole.replace("out/", f"{name}/"))
    return Fleet(settings, valkey_url, Client(settings=settings), run_command)


def test_the_fleet_has_a_key_of_every_family(fleet: Fleet) -> None:
    there = list(fleet)
    for name, family in inspect.getmembers(RedisKeys):
        if name.startswith("_") or name in ("fleet", "process_heartbeat", "absent"):  # a field of a hash; never there
            continue
        key = getattr(fleet.keys, name)
        pattern = key if isinstance(family, property) else key("ANY")
        pattern = re.escape(pattern).replace("ANY", "[^:]+")
        assert any(re.fullmatch(pattern, found) for found in there), f"no key of the family {name}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_a_key_of_a_wrong_type_is_named_and_passed_over(fleet: Fleet, kind: str) -> None:
    unread = fleet.keys_that_clients_do_not_read()
    for key in fleet:
        if fleet.client.redis.type(key) == {"sorted set": "zset"}.get(kind, kind):
            continue
        fleet.client.redis.delete(key)
        WRONG_TYPES[kind](fleet.client.redis, key)
        text = fleet.run_all() + fleet.read() + fleet.run("fleet")[2]
        batch_id = next((found for found in (fleet.open, fleet.done) if found in key), None)
        if ":reference:" not in key and key not in unread and not key.startswith(("cloner.", "_kombu")):
            named = [key, f"batch {batch_id} makes no sense", f"batch {batch_id} cannot be read"]
            assert any(name in text for name in named), text
        if key not in (fleet.keys.workers, fleet.keys.batches) and not key.startswith("cloner."):
            assert fleet.run("submit", "d.json")[0] == 2, "the first one was submitted, and its outputs are taken"
            status, stdout, _ = fleet.run("fleet")
            assert (status, "@box" in stdout) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_hostile_values_harm_neither_terminals_nor_pages(fleet: Fleet, value: str | bytes) -> None:
    for key in fleet:
        match fleet.client.redis.type(key):
            case "hash":
                for field in fleet.blobs.hkeys(key):
                    fleet.blobs.hset(key, field, value)
                    fleet.read()
                    fleet.restore()
                fleet.blobs.hset(key, value, value)
            case "zset":
                first = cast("list[str]", fleet.client.redis.zrange(key, 0, 0))
                fleet.client.redis.zadd(key, dict.fromkeys(first, float("-inf")))
                fleet.blobs.zadd(key, {value: float("inf")})  # type: ignore[type-var]
            case "string":
                fleet.blobs.set(key, value)
            case "set":
                fleet.blobs.sadd(key, value)
            case "stream":
                fields: dict[Any, Any] = dict.fromkeys(("queue", "bytes", "reason", "message", value), value)
                fleet.blobs.xadd(key, fields)
                fleet.blobs.xadd(key, fields, id=f"{LAST_ID}-{LAST_ID}")
        fleet.read()
        if value in VALUES[:2]:
            fleet.run_all()
