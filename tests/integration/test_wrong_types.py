"""A key of a wrong type ends launchers, workers and collectors with a sentence: unlike an outage, it does not pass."""

from __future__ import annotations

import pytest

from cloner import Client
from cloner.events import Event
from cloner.names import PARENT, collector_name
from cloner.settings import Settings, WorkerSettings
from cloner.state.registry import expected_worker
from tests.support.fixtures import Alone
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess

pytestmark = pytest.mark.slow

MODULES = ["cloner.worker", "cloner.collector"]


def errors(process: LoggedProcess) -> list[str]:
    """The lines in which a process says why it ends."""
    process.wait()
    return [line for line in process.lines if "another program has written it" in line]


def damage(client: Client, key: str) -> None:
    with client.redis.pipeline() as pipe:
        pipe.delete(key)
        pipe.set(key, "x")
        pipe.execute()


@pytest.mark.parametrize("name", ["workers", "consumers", "batches"])
def test_a_launcher_does_not_start(launch: Launch, client: Client, name: str) -> None:
    damage(client, getattr(client.keys, name))
    launcher = launch("--workers", "1")
    assert launcher.wait() == 1
    (line,) = errors(launcher)
    assert f"Redis has a string under {getattr(client.keys, name)}, where the " in line


def test_a_launcher_that_runs_stops_its_fleet_and_ends(launch: Launch, client: Client) -> None:
    launcher = launch("--workers", "1", alive_s=5.0)
    launcher.wait_for(Event.MODELS_LOADED)
    damage(client, client.keys.batches)
    assert launcher.wait() == 1
    assert f"under {client.keys.batches}, where the list of batches keeps a sorted set" in errors(launcher)[-1]
    assert client.fleet() == []


@pytest.mark.parametrize("module", MODULES)
def test_a_process_without_a_launcher_does_not_start(alone: Alone, client: Client, module: str) -> None:
    damage(client, client.keys.process_heartbeats)
    process = alone(module)
    assert process.wait() == 1
    (line,) = errors(process)
    assert "process_heartbeats, where the launchers' health check keeps a hash" in line


def test_a_queue_that_is_no_list_ends_its_worker_without_a_traceback(
    alone: Alone, client: Client, settings: Settings
) -> None:
    worker = alone("cloner.worker")
    worker.wait_for(Event.MODELS_LOADED)
    queue = settings.queues.shared_queue()
    damage(client, queue)
    assert worker.wait() == 1
    (line,) = errors(worker)
    assert f"Redis has a string under {queue}, where Celery keeps a list" in line
    assert "Traceback" not in "\n".join(worker.lines)


@pytest.mark.parametrize("module", MODULES)
def test_a_process_without_a_launcher_stops(alone: Alone, client: Client, settings: Settings, module: str) -> None:
    process = alone(module)
    name = collector_name(settings.box)
    if module == "cloner.worker":
        name = expected_worker(settings, WorkerSettings()).name
        process.wait_for(Event.MODELS_LOADED)
    beats = client.keys.process_heartbeats, client.keys.process_heartbeat(name, PARENT)
    eventually(lambda: client.redis.hexists(*beats))
    damage(client, client.keys.process_heartbeats)
    assert "process_heartbeats, where the launchers' health check keeps a hash" in errors(process)[0]
