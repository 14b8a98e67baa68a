"""The collector's process dies at each point of a review: no finished review and no take is repeated, none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch
from tests.support.records import generated_by_workers
from tests.support.stub_reviewer import BAD, GOOD, stub_reviewer

pytestmark = pytest.mark.slow

SEGMENTS = 41
"""Two windows."""

TASKS = "cloner.collector.tasks"
REVIEWING, NOTES, AGAIN = "cloner.collector.reviewing", "cloner.output.reviews", "cloner.collector.spoken_again"

BEFORE = """
function = module{owner}.{name}
def die_before(*args, **kwargs):
    if {condition} and once("died"):
        die()
    return function(*args, **kwargs)
module{owner}.{name} = die_before
"""

AFTER = """
function = module{owner}.{name}
def die_after(*args, **kwargs):
    found = function(*args, **kwargs)
    if {condition} and once("died"):
        die()
    return found
module{owner}.{name} = die_after
"""

POINTS = {
    "before the first window is noted": (NOTES, BEFORE, ".Reviews", "note_sent", "True"),
    "before the first window's round begins": (NOTES, AFTER, ".Reviews", "note_sent", "True"),
    "before the first window is sent": (REVIEWING, BEFORE, "", "publish_reviews", "args[1].number == 1"),
    "after the first window was sent": (REVIEWING, AFTER, "", "publish_reviews", "args[1].number == 1"),
    "before a window is judged": (REVIEWING, BEFORE, "", "_collect", "args[2].number == 1"),
    "between judging and writing": (NOTES, BEFORE, ".Reviews", "note_answers", "args[1] == 1"),
    "before the next window's round begins": (NOTES, AFTER, ".Reviews", "note_answers", "args[1] == 1"),
    "before the next window is sent": (REVIEWING, BEFORE, "", "publish_reviews", "args[1].number == 2"),
    "before what fails is noted": (AGAIN, BEFORE, "", "note_takes", "True"),
    "before the round begins that speaks it again": (AGAIN, AFTER, "", "note_takes", "True"),
    "before that round is published": (TASKS, BEFORE, "", "publish_chunks", "args[1].again"),
    "after that round was published": (TASKS, AFTER, "", "publish_chunks", "args[1].again"),
    "before the other take is sent": (REVIEWING, BEFORE, "", "publish_reviews", "args[1].number == 4"),
    "before the other take is judged": (REVIEWING, BEFORE, "", "_collect", "args[2].number == 4"),
}


def fails_once(request: ReviewRequest) -> ReviewAnswer:
    return BAD if request.what == "3.1" else GOOD


@pytest.mark.parametrize("point", POINTS)
def test_a_collector_that_is_killed_repeats_and_loses_nothing(
    patch_module: ModulePatcher, launch: Launch, client: Client, settings: Settings, tmp_path: Path, point: str
) -> None:
    module, template, owner, name, condition = POINTS[point]
    patch_module(module, template.format(owner=owner, name=name, condition=condition))
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    with stub_reviewer(settings, fails_once) as reviewer:
        batch = client.submit(write_batch(tmp_path, [SEGMENTS]), review="all")
        result = batch.wait(timeout=100)
    assert (tmp_path / "patches/died").exists()
    assert (result.generated, result.errors, result.suspects) == (SEGMENTS, {}, {})
    assert sorted(reviewer.heard) == sorted([*(f"{n}.1" for n in range(SEGMENTS)), "3.2"])
    assert generated_by_workers(settings, batch.id) == sorted([*range(SEGMENTS), 3])
    review = result.review
    assert (review.state, review.reviewed, review.failed, review.not_reviewed) == ("complete", SEGMENTS, 0, 0)
    assert review.spoken_again == 1
