"""A box that is switched off: in the end nothing is registered of it, and nothing is lost when it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import LaunchLoaded

pytestmark = pytest.mark.slow

HOME, OTHER = "cpu.0@box", "cpu.0@other"

TIMES = {"heartbeat_s": 0.2, "alive_s": 6.0}


def test_a_box_that_was_forgotten_is_a_part_of_the_fleet_again(
    launch_loaded: LaunchLoaded, client: Client, settings: Settings, tmp_path: Path
) -> None:
    home, other = launch_loaded(1, **TIMES), launch_loaded(1, box="other", **TIMES)
    redis, keys = client.redis, client.keys
    assert client.submit(write_batch(tmp_path, [2] * 2)).wait(timeout=100).workers == {HOME: 2, OTHER: 2}
    other.process.kill()
    other.wait()

    eventually(lambda: redis.zscore(keys.gone, OTHER) is not None)
    assert redis.exists(keys.worker(OTHER)), "it may come back, and is shown as gone"
    redis.zincrby(keys.gone, -settings.batch_ttl_s - 1, OTHER)
    home.wait_for(Event.GONE_FOR_GOOD, holder=OTHER)
    assert not redis.exists(keys.worker(OTHER))
    assert redis.hvals(keys.worker_queues) == redis.zrange(keys.workers, 0, -1) == [HOME]
    assert OTHER not in redis.smembers(keys.consumers)

    launch_loaded(1, box="other", **TIMES)
    batch = client.submit(write_batch(tmp_path, [3] * 2), prefix="again")
    assert batch.wait(timeout=100).workers == {HOME: 3, OTHER: 3}
    assert sorted(redis.hvals(keys.worker_queues)) == [HOME, OTHER]
