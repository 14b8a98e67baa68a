"""When a reviewer's models are at fault, and not the takes that they cannot hear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from redis import Redis

from cloner.errors import WorkerBroken, WrongSchema
from cloner.names import reviewer_name
from cloner.protocol.reviews import REVIEW_RATE, ReviewRequest, pack_audio
from cloner.review.heard import Heard
from cloner.reviewer import reviewer_process
from cloner.reviewer.reviewer_process import MAX_FAILURES, ReviewerProcess
from cloner.settings import Settings

AUDIO = pack_audio(np.zeros(REVIEW_RATE, np.float32), REVIEW_RATE)


class Models:
    """Models that raise at takes whose text has a word of `failing`."""

    failing: tuple[str, ...] = ()

    def __init__(self, _recogniser: object) -> None:
        pass

    def hear(self, _samples: object, _rate: int, text: str, *_: Any, **__: Any) -> Heard:
        if any(word in text for word in self.failing):
            raise RuntimeError(f"cannot hear {text}")
        return Heard(None, 3.0)


@pytest.fixture
def reviewer(redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> ReviewerProcess:
    monkeypatch.setattr(reviewer_process, "ReviewModels", Models)
    monkeypatch.setattr(Models, "failing", ("bad",))
    found = ReviewerProcess(Settings(redis_url=valkey_url, fleet="main"), reviewer_name("box", 0), redis)
    found.load()
    return found


def take(text: str) -> ReviewRequest:
    return ReviewRequest(batch_id="b", what="1.1", text=text, audio=AUDIO)


def hear_failing(reviewer: ReviewerProcess, count: int) -> None:
    for number in range(count):
        with pytest.raises(RuntimeError, match=f"^cannot hear bad {number}$"):
            reviewer.hear(take(f"bad {number}"))


def test_models_that_have_heard_nothing_are_at_fault(reviewer: ReviewerProcess) -> None:
    hear_failing(reviewer, MAX_FAILURES - 1)
    with pytest.raises(
        WorkerBroken, match=f"none of {MAX_FAILURES} takes in a row; at last: RuntimeError: cannot hear"
    ):
        reviewer.hear(take("bad"))


def test_models_are_at_fault_that_no_longer_hear_what_they_have_heard(
    reviewer: ReviewerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewer.hear(take("good"))
    monkeypatch.setattr(Models, "failing", ("bad", "good"))
    hear_failing(reviewer, MAX_FAILURES - 1)
    with pytest.raises(WorkerBroken):
        reviewer.hear(take("bad"))


def test_takes_are_at_fault_as_long_as_the_models_hear_what_they_have_heard(reviewer: ReviewerProcess) -> None:
    reviewer.hear(take("good"))
    hear_failing(reviewer, 3 * MAX_FAILURES)


def test_failures_count_in_a_row(reviewer: ReviewerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    hear_failing(reviewer, MAX_FAILURES - 1)
    reviewer.hear(take("good"))
    monkeypatch.setattr(Models, "failing", ("bad", "good"))
    hear_failing(reviewer, MAX_FAILURES - 1)


def test_samples_that_cannot_be_read_say_nothing_of_the_models(reviewer: ReviewerProcess) -> None:
    for _ in range(2 * MAX_FAILURES):
        with pytest.raises(WrongSchema):
            reviewer.hear(take("good").model_copy(update={"audio": "UklGRg=="}))
