"""A reviewer that answers what the test says: a real Celery worker in the test's process, without models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.contrib.testing.worker import start_worker

from cloner.names import REVIEW_TAKE, REVIEWER_TASKS, reviewer_name
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest, WordsRow, unpack_audio
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, ReviewerInfo

GOOD = ReviewAnswer(words=WordsRow(units=10, errors=0, longest_run=0))
BAD = ReviewAnswer(words=WordsRow(units=10, errors=10, longest_run=10))
WORSE = ReviewAnswer(words=WordsRow(units=10, errors=20, longest_run=20))

BAD_CHECKS = ["wrong_run", "wrong_words"]

BEAT_S = 0.5

Answer = Callable[[ReviewRequest], ReviewAnswer]


class StubReviewer:
    """What it has heard, as "segment.take" or "reference ...", in the order of the answers."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[str] = []
        self.requests: list[ReviewRequest] = []

    def review(self, message: dict[str, Any]) -> dict[str, Any]:
        request = ReviewRequest.model_validate(message)
        assert len(unpack_audio(request.audio))
        answer = self.answer(request)
        self.heard.append(request.what)
        self.requests.append(request)
        return answer.model_dump(mode="json")


@contextmanager
def stub_reviewer(settings: Settings, answer: Answer) -> Iterator[StubReviewer]:
    """Runs a reviewer, which is alive in the registry, until the end of the context."""
    stub, name, ended = StubReviewer(answer), reviewer_name("test", 0), threading.Event()
    app = make_app(settings, name, REVIEWER_TASKS)
    app.task(stub.review, name=REVIEW_TAKE, shared=False)
    registry = Registry(connect(settings.require_redis_url()), RedisKeys(settings.fleet), settings.alive_s)
    registry.reviewer_entries.register(ReviewerInfo(name=name, box="test", words=True))

    def beat() -> None:
        while not ended.wait(BEAT_S):
            registry.reviewer_entries.beat(name)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        with start_worker(app, perform_ping_check=False, queues=[settings.queues.review_queue]):
            yield stub
    finally:
        ended.set()
        beating.join()
        registry.redis.zrem(registry.keys.reviewers, name)
