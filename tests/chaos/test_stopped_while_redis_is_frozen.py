"""A worker or collector without a launcher is stopped while Redis does not answer."""

from __future__ import annotations

import psutil
import pytest

from cloner.events import Event
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import connect
from tests.support.fixtures import Alone
from tests.support.fleet_processes import fleet_processes, stacks
from tests.support.polling import eventually
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

HEARTBEAT = "_send (celery/worker/heartbeat.py"


@pytest.mark.parametrize("module", ["cloner.worker", "cloner.collector"])
def test_it_ends_within_the_usual_time_and_so_does_its_child(
    alone: Alone, server: RedisServer, settings: Settings, module: str
) -> None:
    settings = settings.model_copy(update={"redis_url": server.url})
    process = alone(module, redis_url=server.url, stop_s=3.0)
    redis = psutil.Process(connect(server.url).info()["process_id"])
    eventually(lambda: bool(make_app(settings).control.ping(timeout=1.0)))
    redis.suspend()
    try:
        # Celery's own heartbeat waits for a reply.
        eventually(lambda: HEARTBEAT in stacks(fleet_processes(settings.fleet)))
        assert process.stop() == 1
        assert process.find(Event.NOT_STOPPED, stop_s=3)
        eventually(lambda: not list(fleet_processes(settings.fleet)))
    finally:
        redis.resume()
