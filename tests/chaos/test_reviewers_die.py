"""A reviewer is killed, freezes, or dies of a take: every message gets an answer, and no process is left."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.errors import EXIT_LOAD_FAILED
from cloner.events import Event
from cloner.names import reviewer_name
from cloner.protocol.reviews import ReviewRequest, pack_audio
from cloner.reviewer.reviewer_process import MAX_FAILURES
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.process_tree import celery_child
from tests.support.processes import Launch
from tests.support.reviewing import answer, send
from tests.support.sounds import voice

pytestmark = pytest.mark.slow

KILLS_ONCE = """
hear = module.ReviewModels.hear
def replaced(self, samples, rate, text, *rest, **options):
    if text and once("killed"):
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    return hear(self, samples, rate, "", *rest, **options)
module.ReviewModels.hear = replaced
"""
"""The first take with a text kills the reviewer while it is heard."""

KILLS_ALWAYS = """
hear = module.ReviewModels.hear
def replaced(self, samples, rate, text, *rest, **options):
    if text:
        die()
    return hear(self, samples, rate, text, *rest, **options)
module.ReviewModels.hear = replaced
"""
"""Takes with a text kill the process that has the models, whenever they are heard."""


KILLS_AFTER_STOP = """
from cloner.review.heard import Heard
def loads(self, recogniser=None):
    pass
def hear(self, samples, rate, text, *rest, **options):
    if text == "held":
        wait_until("may be heard")
    if text == "kills":
        if not once("killed"):
            wait_until("may kill")
        die()
    return Heard(None, 3.0)
module.ReviewModels.__init__ = loads
module.ReviewModels.hear = hear
"""
"""One take is held, another kills the process that hears it: at once, and then when it may. No models are loaded."""


NEVER_LOADS = """
def fails(self, recogniser=None):
    raise RuntimeError("the weights are damaged")
module.ReviewModels.__init__ = fails
"""

HEARS_NOTHING = """
def loads(self, recogniser=None):
    pass
def hear(self, *rest, **options):
    raise RuntimeError("a package is broken")
module.ReviewModels.__init__ = loads
module.ReviewModels.hear = hear
"""


def take(text: str = "") -> ReviewRequest:
    return ReviewRequest(batch_id="b1", what="1.1", text=text, audio=pack_audio(voice(2), 16_000))


def test_a_killed_reviewers_take_is_heard_by_its_successor_and_none_is_lost(
    patch_module: ModulePatcher, launch_reviewers: Launch, client: Client
) -> None:
    patch_module("cloner.review.models", KILLS_ONCE)
    fleet = launch_reviewers()
    sent = [send(client, take("a text")), *(send(client, take()) for _ in range(3))]
    answers = [answer(one) for one in sent]
    assert [(found.error, found.naturalness is not None) for found in answers] == [("", True)] * 4
    (requeued,) = fleet.find(Event.MESSAGES_REQUEUED, title="Reviewer 0")
    (restarting,) = fleet.find(
        Event.RESTARTING, title="Reviewer 0", reason="was killed by SIGKILL (out of memory?)", delay_s=1
    )
    assert fleet.lines.index(requeued) < fleet.lines.index(restarting)
    assert [reviewer.loads for reviewer in client.reviewers()] == [2]
    keys = client.keys
    eventually(lambda: client.redis.keys(keys.unacked("*")) == [])
    assert client.redis.exists(keys.review_attempts, keys.reviews_under_way) == 0


def test_a_take_of_which_reviewers_die_gets_an_answer_and_the_next_one_is_heard(
    patch_module: ModulePatcher, launch_reviewers: Launch, client: Client
) -> None:
    patch_module("cloner.review.models", KILLS_ALWAYS)
    fleet = launch_reviewers()
    poison, good = send(client, take("a text")), send(client, take())
    assert answer(poison).error == "2 reviewers in a row died while they heard it"
    assert answer(good).naturalness is not None
    assert len(fleet.find(Event.CHILD_DIED, child="Reviewer 0")) == 2
    assert client.redis.exists(client.keys.review_attempts, client.keys.reviews_under_way) == 0
    assert client.redis.keys(client.keys.dead_letters) == []


def test_a_reviewer_that_is_stopped_does_not_reset_what_another_has_counted(
    patch_module: ModulePatcher, launch_reviewers: Launch, client: Client
) -> None:
    patch_module("cloner.review.models", KILLS_AFTER_STOP)
    stopped = launch_reviewers()
    held = send(client, take("held"))
    eventually(lambda: client.redis.hget(client.keys.reviews_under_way, reviewer_name("box", 0)) == held.id)
    other = launch_reviewers(box="second")
    kills = send(client, take("kills"))
    other.wait_for(Event.CHILD_DIED, child="Reviewer 0")
    stopped.stop()
    patch_module.allow("may be heard")
    patch_module.allow("may kill")
    assert answer(kills).error == "2 reviewers in a row died while they heard it"
    assert answer(held).error == ""
    assert len(other.find(Event.CHILD_DIED, child="Reviewer 0")) == 2
    assert client.redis.exists(client.keys.review_attempts, client.keys.reviews_under_way) == 0


def test_models_that_do_not_load_end_a_launcher_of_reviewers_alone(
    patch_module: ModulePatcher, launch_reviewers: Launch, client: Client
) -> None:
    patch_module("cloner.review.models", NEVER_LOADS)
    fleet = launch_reviewers()
    assert fleet.wait() == EXIT_LOAD_FAILED
    assert fleet.lines[-1] == "Reviewer 0 cannot load its model: RuntimeError: the weights are damaged"
    assert client.reviewers() == []


def test_a_reviewer_that_hears_nothing_is_given_up_and_leaves_its_take_to_others(
    patch_module: ModulePatcher, launch_reviewers: Launch, client: Client
) -> None:
    patch_module("cloner.review.models", HEARS_NOTHING)
    sent = [send(client, take()) for _ in range(MAX_FAILURES + 2)]
    fleet = launch_reviewers()
    assert fleet.wait() == EXIT_LOAD_FAILED
    reason = f"its models could hear none of {MAX_FAILURES} takes in a row; at last: RuntimeError: a package is broken"
    assert fleet.find(Event.REVIEWER_BROKEN, error=reason)
    assert fleet.lines[-1] == f"Reviewer 0 is broken: {reason}"
    answered = [answer(one).error for one in sent[: MAX_FAILURES - 1]]
    assert answered == ["RuntimeError: a package is broken"] * (MAX_FAILURES - 1)
    assert client.redis.llen(client.settings.queues.review_queue) == 3
    keys = client.keys
    assert client.redis.exists(keys.review_attempts, keys.reviews_under_way) == 0


def test_workers_go_on_without_a_reviewer_whose_models_do_not_load(
    patch_module: ModulePatcher, launch: Launch, client: Client, tmp_path: Path
) -> None:
    patch_module("cloner.review.models", NEVER_LOADS)
    fleet = launch("--workers", "1", "--reviewers", "1")
    fleet.wait_for(Event.REVIEWER_GIVEN_UP, title="Reviewer 0")
    assert client.reviewers() == []
    assert client.submit(write_batch(tmp_path, [3])).wait(timeout=100).generated == 3


def test_a_frozen_reviewer_is_replaced(launch_reviewers: Launch, client: Client) -> None:
    fleet = launch_reviewers(heartbeat_s=0.5, alive_s=5)
    fleet.wait_for(Event.REVIEWER_READY)
    (parent,) = (one for one in psutil.Process(fleet.process.pid).children() if "cloner.reviewer" in one.cmdline())
    celery_child(parent).send_signal(signal.SIGSTOP)
    sent = send(client, take())
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Reviewer 0", reason="has shown no sign of life for 5 s")
    assert answer(sent).naturalness is not None


def test_a_reviewer_that_redis_has_lost_registers_again(launch_reviewers: Launch, client: Client) -> None:
    fleet = launch_reviewers(heartbeat_s=0.5)
    fleet.wait_for(Event.REVIEWER_READY)
    before = client.reviewers()
    for key in client.redis.keys(f"cloner:{client.settings.fleet}:reviewer*"):
        client.redis.delete(key)
    eventually(lambda: [info.name for info in client.reviewers()] == [info.name for info in before])
    assert answer(send(client, take())).naturalness is not None
