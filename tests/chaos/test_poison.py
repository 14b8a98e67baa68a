"""A message that kills the worker which has it: after three it is in the dead-letter list, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from cloner.state.dead_letters import DeadLetters
from cloner.state.keys import RedisKeys
from launcher.requeue import KILLS, MAX_DEATHS
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

KILLS_ITS_WORKER = """
read_message = module.read_message
def read_or_die(text, tasks):
    message = read_message(text, tasks)
    if "3 texts, chunk 0 of" in message["headers"]["argsrepr"]:
        {how}
    return message
module.read_message = read_or_die
"""


@pytest.mark.parametrize("how", ["die()", "raise TypeError"])
def test_a_message_that_kills_three_workers_is_given_up_and_its_batch_is_closed(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path, how: str
) -> None:
    patch_module("cloner.queueing.envelope", KILLS_ITS_WORKER.format(how=how))
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    result = client.submit(write_batch(tmp_path, [3, 4])).wait(timeout=200)
    assert {index: error.code for index, error in result.errors.items()} == dict.fromkeys(range(3), "crashed")
    assert (result.generated, result.failed) == (4, 3)
    assert recorded_segments(settings, result.batch_id) == [3, 4, 5, 6]

    (letter,) = DeadLetters(client.redis, RedisKeys(settings.fleet)).newest_first()
    assert letter.reason == KILLS
    assert len(fleet.find(Event.RESTARTING)) == MAX_DEATHS
    # The worker lives on, and the batch is not opened again.
    assert client.submit(write_batch(tmp_path, [2, 2], outputs="others")).wait(timeout=200).generated == 4
    assert fleet.find(Event.STALLED_BATCH_REOPENED) == []
    assert len(fleet.find(Event.RESTARTING)) == MAX_DEATHS
