"""What one who waits is told of a fleet that is not there."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from cloner.client import liveness as attendance
from cloner.client.connection import FleetConnection
from cloner.client.liveness import Liveness
from cloner.errors import BatchBroken
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.batches import BatchState, Progress
from cloner.state.registry import expected_worker

NO_WORKER = "[Main] No worker is alive: the batch waits until one is; start the fleet with `launcher up`"
NO_COLLECTOR = "[Main] No collector is alive: the batch waits until one is; start it with `launcher up`"


@pytest.fixture
def link(redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> FleetConnection:
    """The patience of a second, at most."""
    monkeypatch.setattr(attendance, "LOOK_S", 0.0)
    monkeypatch.setattr(attendance, "NOBODY_S", 0.0)
    return FleetConnection(Settings(redis_url=valkey_url, fleet="test", engine=EngineName.FAKE, alive_s=0.001))


def progress(state: BatchState = BatchState.RUNNING, cancelled: bool = False) -> Progress:
    return Progress("b", state, 2, 1, 0, 0, 0, 0.0, 0, cancelled)


def come(link: FleetConnection, *, worker: bool = False, collector: bool = False) -> None:
    """Let a worker or a collector be alive, for longer than the test takes."""
    if worker:
        info = expected_worker(link.settings, WorkerSettings())
        link.registry.register(info)
        link.redis.zadd(link.keys.workers, {info.name: 2.0**40})
    if collector:
        link.redis.set(link.keys.collector_heartbeat, "1")


def closing(link: FleetConnection) -> list[str]:
    """The tasks that wait for the collector."""
    return [json.loads(message)["headers"]["task"] for message in link.redis.lrange(link.queues.collector_queue, 0, -1)]


def test_a_worker_that_is_missing_is_said_once_and_so_is_its_return(link: FleetConnection) -> None:
    attending = Liveness(link)
    assert [list(attending.look(progress())) for _ in range(3)] == [[NO_WORKER], [], []]
    come(link, worker=True, collector=True)
    assert [list(attending.look(progress())) for _ in range(2)] == [["[Main] 1 workers are alive again"], []]
    link.redis.delete(link.keys.workers)
    assert list(attending.look(progress())) == [NO_WORKER]


def test_so_is_a_collector(link: FleetConnection) -> None:
    come(link, worker=True)
    attending = Liveness(link)
    said: list[str] = []
    while not said:  # one that has just been started takes its time: `alive_s`
        said = list(attending.look(progress()))
    assert said == [NO_COLLECTOR]
    assert list(attending.look(progress())) == []
    come(link, collector=True)
    assert list(attending.look(progress())) == ["[Main] A collector is alive again"]


def test_a_whole_fleet_says_nothing(link: FleetConnection) -> None:
    come(link, worker=True, collector=True)
    assert list(Liveness(link).look(progress())) == []


def test_a_cancelled_batch_is_closed_by_the_collector_where_its_workers_are_gone(link: FleetConnection) -> None:
    come(link, collector=True)
    attending = Liveness(link)
    for _ in range(3):
        list(attending.look(progress(cancelled=True)))
    assert closing(link) == ["cloner.close_batch"]


def test_or_do_not_give_it_back(link: FleetConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    come(link, worker=True, collector=True)
    attending = Liveness(link)
    list(attending.look(progress(cancelled=True)))
    assert closing(link) == []
    monkeypatch.setattr(attendance, "CANCEL_S", 0.0)
    attending = Liveness(link)
    list(attending.look(progress(cancelled=True)))
    assert closing(link) == ["cloner.close_batch"]


def test_a_cancelled_batch_that_nobody_can_gather_is_not_waited_for(link: FleetConnection) -> None:
    with pytest.raises(BatchBroken, match=r"batch b is cancelled, and nobody is alive .* `cloner wait b` prints"):
        list(Liveness(link).look(progress(cancelled=True)))
