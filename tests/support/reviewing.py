"""Sending takes to reviewers, as a collector does."""

from __future__ import annotations

from typing import Any

import soundfile
from celery.result import AsyncResult

from cloner import Client
from cloner.names import REVIEW_TAKE
from cloner.protocol.reviews import ReviewAnswer, ReviewRequest, pack_audio
from cloner.queueing.app import make_client_app
from tests.support.voices import Recording

ANSWER_S = 240.0
"""Seconds until a wait for an answer fails its test."""


def request_of(recording: Recording, text: str = "", language: str = "") -> ReviewRequest:
    """A request to hear a recording; `text` is what it should say."""
    samples, rate = soundfile.read(recording.path, dtype="float32")
    audio = pack_audio(samples, rate)
    return ReviewRequest(batch_id="b1", what=recording.name, text=text, language=language, audio=audio)


def send(client: Client, request: ReviewRequest | dict[str, Any]) -> AsyncResult[dict[str, Any]]:
    """Send a request, or another message, to the fleet's reviewers."""
    message = request if isinstance(request, dict) else request.model_dump(mode="json")
    app = make_client_app(client.settings)
    return app.send_task(REVIEW_TAKE, args=[message], queue=client.settings.queues.review_queue)


def answer(sent: AsyncResult[dict[str, Any]]) -> ReviewAnswer:
    """Wait for the answer."""
    return ReviewAnswer.model_validate(sent.get(timeout=ANSWER_S))
