"""A batch that kills the collector's process whenever it is opened or closed is given up; the next one is generated."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.errors import BatchBroken
from cloner.events import Event
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch

pytestmark = pytest.mark.slow

DIES = """
def die_of_three(function):
    def run(manifest, *args, **kwargs):
        if manifest.total == 3:
            die()
        return function(manifest, *args, **kwargs)
    return run
module.{function} = die_of_three(module.{function})
"""


@pytest.mark.parametrize(("module", "function"), [("tasks", "publish_chunks"), ("closing", "gather")])
def test_a_batch_that_kills_the_collector_is_given_up(
    patch_module: ModulePatcher,
    launch: Launch,
    client: Client,
    settings: Settings,
    tmp_path: Path,
    module: str,
    function: str,
) -> None:
    patch_module(f"cloner.collector.{module}", DIES.format(function=function))
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    with pytest.raises(BatchBroken, match="the collector's process died 3 times in a row while it opened or closed"):
        client.submit(write_batch(tmp_path, [3])).wait(timeout=150)
    assert client.submit(write_batch(tmp_path, [4])).wait(timeout=100).generated == 4
    eventually(lambda: client.redis.keys(RedisKeys(settings.fleet).open_attempts("*")) == [])
