"""The collector's process dies at each point at which a batch waits until another one is reviewed: all are reviewed,
one after another, and no take is heard twice."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest

from cloner import Client
from cloner.collector.in_flight import batches_in_queue
from cloner.collector.review_turns import open_rounds
from cloner.events import Event
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch
from tests.support.stub_reviewer import GOOD, stub_reviewer

pytestmark = pytest.mark.slow

ONE_AT_ONCE = """
from cloner.state.batches import BatchStore
module.MOST_BATCHES = 1
begin_round, may_be_reviewed = BatchStore.begin_round, module.may_be_reviewed
def begin_or_die(self, batch_id, following, *args):
    if following.waits and {before} and once("died"):
        die()
    begun = begin_round(self, batch_id, following, *args)
    if following.waits and {after} and once("died"):
        die()
    return begun
def go_on_or_die(batch_id, takes, rounds):
    found = may_be_reviewed(batch_id, takes, rounds)
    if found and dict(rounds)[batch_id].waits and {goes_on}:
        die()
    return found
BatchStore.begin_round, module.may_be_reviewed = begin_or_die, go_on_or_die
"""
"""One batch is reviewed at once."""

POINTS = {
    "never": {},
    "before it waits": {"before": "True"},
    "after it has begun to wait": {"after": "True"},
    "before it is told to go on": {"goes_on": 'once("died")'},
    "when it goes on": {"goes_on": '(not once("told") and once("died"))'},
}


@pytest.mark.parametrize("point", POINTS)
def test_batches_that_wait_are_reviewed_one_after_another(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path, point: str
) -> None:
    dies = {"before": "False", "after": "False", "goes_on": "False"} | POINTS[point]
    patch_module("cloner.collector.review_turns", ONE_AT_ONCE.format(**dies))
    blobs = connect(settings.require_redis_url(), decode=False)
    batches, may_answer = BatchStore.of(settings, blobs), threading.Event()

    def answer(_: ReviewRequest) -> ReviewAnswer:
        assert may_answer.wait(100)
        return GOOD

    def waiting() -> int:
        return sum(present.waits for _, present in open_rounds(batches))

    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    with stub_reviewer(settings, answer) as reviewer:
        sent = [
            client.submit(write_batch(tmp_path / name, [3], outputs=name), prefix=name, review="all")
            for name in ("first", "second", "third")
        ]
        eventually(lambda: waiting() == 2)
        queued = batches_in_queue(blobs, settings.queues.review_queue)
        assert len(queued) == 1
        may_answer.set()
        results = [batch.wait(timeout=200) for batch in sent]
    assert (tmp_path / "patches/died").exists() == (point != "never")
    assert [(result.generated, result.review.state, result.review.reviewed) for result in results] == [
        (3, "complete", 3)
    ] * 3
    heard = [request.batch_id for request in reviewer.requests]
    assert len(heard) == 9
    assert sum(one != other for one, other in pairwise(heard)) == 2
