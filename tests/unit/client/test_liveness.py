"""What a waiting client logs when workers or collector are missing."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from cloner.client import liveness
from cloner.client.connection import FleetConnection
from cloner.client.liveness import Liveness
from cloner.errors import BatchBroken
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.batches import BatchState, Progress
from cloner.state.registry import expected_worker

NO_WORKER = "[Main] No worker is alive: the batch waits until one is; start the fleet with `launcher up`"
NO_COLLECTOR = "[Main] No collector is alive: the batch waits until one is; start it with `launcher up`"


@pytest.fixture
def connection(redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> FleetConnection:
    """A connection whose checks are due at once."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(liveness, "GIVE_UP_S", 0.0)
    return FleetConnection(Settings(redis_url=valkey_url, fleet="test", engine=EngineName.FAKE, alive_s=0.001))


def progress(state: BatchState = BatchState.RUNNING, cancelled: bool = False) -> Progress:
    return Progress("b", state, 2, 1, 0, 0, 0, 0.0, 0, cancelled)


def start(connection: FleetConnection, *, worker: bool = False, collector: bool = False) -> None:
    """Make a worker or a collector count as alive for longer than the test takes."""
    if worker:
        info = expected_worker(connection.settings, WorkerSettings())
        connection.registry.register(info)
        connection.redis.zadd(connection.keys.workers, {info.name: 2.0**40})
    if collector:
        connection.redis.set(connection.keys.collector_heartbeat, "1")


def collector_tasks(connection: FleetConnection) -> list[str]:
    """Names of the tasks in the collector's queue."""
    return [
        json.loads(message)["headers"]["task"]
        for message in connection.redis.lrange(connection.queues.collector_queue, 0, -1)
    ]


def test_missing_workers_are_reported_once_and_so_is_their_return(connection: FleetConnection) -> None:
    checks = Liveness(connection)
    assert [list(checks.check(progress())) for _ in range(3)] == [[NO_WORKER], [], []]
    start(connection, worker=True, collector=True)
    assert [list(checks.check(progress())) for _ in range(2)] == [["[Main] 1 workers are alive again"], []]
    connection.redis.delete(connection.keys.workers)
    assert list(checks.check(progress())) == [NO_WORKER]


def test_a_missing_collector_is_reported_once_and_so_is_its_return(connection: FleetConnection) -> None:
    start(connection, worker=True)
    checks = Liveness(connection)
    lines: list[str] = []
    while not lines:  # a collector counts as missing after `alive_s`
        lines = list(checks.check(progress()))
    assert lines == [NO_COLLECTOR]
    assert list(checks.check(progress())) == []
    start(connection, collector=True)
    assert list(checks.check(progress())) == ["[Main] A collector is alive again"]


def test_a_complete_fleet_is_not_reported(connection: FleetConnection) -> None:
    start(connection, worker=True, collector=True)
    assert list(Liveness(connection).check(progress())) == []


def test_without_workers_the_collector_closes_a_cancelled_batch_at_once(connection: FleetConnection) -> None:
    start(connection, collector=True)
    checks = Liveness(connection)
    for _ in range(3):
        list(checks.check(progress(cancelled=True)))
    assert collector_tasks(connection) == ["cloner.close_batch"]


def test_with_workers_the_collector_closes_it_after_they_had_time(
    connection: FleetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(connection, worker=True, collector=True)
    checks = Liveness(connection)
    list(checks.check(progress(cancelled=True)))
    assert collector_tasks(connection) == []
    monkeypatch.setattr(liveness, "CANCEL_S", 0.0)
    checks = Liveness(connection)
    list(checks.check(progress(cancelled=True)))
    assert collector_tasks(connection) == ["cloner.close_batch"]


def test_a_cancelled_batch_is_given_up_without_any_process(connection: FleetConnection) -> None:
    with pytest.raises(BatchBroken, match=r"batch b is cancelled, and nobody is alive .* `cloner wait b` prints"):
        list(Liveness(connection).check(progress(cancelled=True)))
