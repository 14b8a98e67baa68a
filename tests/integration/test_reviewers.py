"""Reviewers under a real launcher: real models, real speech."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.events import Event
from cloner.review.heard import Heard
from cloner.review.judge import Judge
from cloner.settings import Settings
from tests.support.judging import learn_and_judge
from tests.support.process_tree import celery_child
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner
from tests.support.recognition import MODEL
from tests.support.reviewing import answer, request_of, send
from tests.support.voices import Recording, find_recordings

pytestmark = pytest.mark.slow

NAMES = ("agent-alreadyon", "agent-incorrect", "agent-newlocation")
"""Recordings of three to eight seconds that all languages have."""


@pytest.fixture(scope="module")
def recordings() -> dict[tuple[str, str], Recording]:
    """By language and name."""
    return {
        (language, recording.name): recording
        for language, found in find_recordings().items()
        for recording in found
        if recording.name in NAMES
    }


def reviewer_parents(fleet: LoggedProcess) -> list[psutil.Process]:
    children = psutil.Process(fleet.process.pid).children()
    return [process for process in children if "cloner.reviewer" in process.cmdline()]


def test_takes_of_another_speaker_and_of_another_text_are_told_from_a_good_one(
    launch: Launch, client: Client, recordings: dict[tuple[str, str], Recording]
) -> None:
    fleet = launch("--workers", "1", "--reviewers", "1", recogniser=MODEL)
    sent = {
        "reference en": send(client, request_of(recordings["en", NAMES[1]])),
        "reference fr": send(client, request_of(recordings["fr", NAMES[1]])),
    }
    own, other = recordings["en", NAMES[0]], recordings["en", NAMES[2]]
    stranger = recordings["fr", NAMES[0]]
    sent |= {
        "good": send(client, request_of(own, own.text, "en")),
        "beginning": send(client, request_of(own, f"{own.text} {other.text * 3}").model_copy(update={"part": 0.3})),
        "another text": send(client, request_of(other, own.text, "en")),
        "another speaker": send(client, request_of(stranger, "Cet agent", "fr")),
        "no samples": send(client, request_of(own).model_copy(update={"audio": "UklGRg=="})),
        "no request": send(client, {"audio": 3}),
    }
    answers = {name: answer(one) for name, one in sent.items()}
    heard = {name: Heard.of_answer(found) for name, found in answers.items()}

    judge = Judge({"anna": heard["reference en"], "june": heard["reference fr"]}, {})
    assert learn_and_judge(judge, "anna", heard["good"]).failed == ()
    assert learn_and_judge(judge, "anna", heard["beginning"]).failed == ()
    assert "another_voice" in learn_and_judge(judge, "anna", heard["another speaker"]).failed
    assert "wrong_words" in learn_and_judge(judge, "anna", heard["another text"]).failed
    assert "logged on" in heard["good"].said
    assert heard["another speaker"].words is None  # the model knows English alone
    assert heard["reference en"].words is None
    assert "no FLAC file in base64" in answers["no samples"].error
    assert answers["no request"].error.startswith("a request for a review cannot be read: batch_id")
    assert [name for name, found in answers.items() if found.error] == ["no samples", "no request"]
    fleet.wait_for(Event.TAKE_NOT_HEARD, child="Reviewer 0", what=own.name)

    (reviewer,) = client.reviewers()
    assert (reviewer.name, reviewer.words, reviewer.loads, reviewer.heard) == ("reviewer-0@box", True, 1, 6)
    # Nothing that deals chunks sees it.
    assert [worker.name for worker in client.fleet()] == ["cpu.0@box"]
    (parent,) = reviewer_parents(fleet)
    for process in (parent, celery_child(parent)):
        assert process.nice() > os.nice(0)
        assert process.environ()["CUDA_VISIBLE_DEVICES"] == ""
    # Of torch's threads, only one computes.
    assert celery_child(parent).environ()["OMP_NUM_THREADS"] == "1"


def test_without_a_recogniser_words_are_not_compared(
    launch_reviewers: Launch, client: Client, recordings: dict[tuple[str, str], Recording]
) -> None:
    launch_reviewers()
    own = recordings["en", NAMES[0]]
    found = answer(send(client, request_of(own, "Quite another text, and a long one", "en")))
    assert found.words is None
    assert found.voice is not None
    assert found.naturalness is not None
    assert [reviewer.words for reviewer in client.reviewers()] == [False]


def test_fleet_and_status_list_reviewers(
    launch_reviewers: Launch, settings: Settings, launch: Launch, tmp_path: Path
) -> None:
    launch_reviewers().wait_for(Event.REVIEWER_READY)
    fleet = launch("--workers", "1", box="second")
    fleet.wait_for(Event.MODELS_LOADED)
    listed = run_cloner("fleet", cwd=tmp_path, env=environment(settings))
    assert listed.stdout.splitlines()[2].split("\t")[:4] == ["-", "reviewer-0@box", "ready", "cpu"]
    assert listed.stdout.splitlines()[2].split("\t")[7] == "review"
