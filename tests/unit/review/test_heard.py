"""What the models say of a take, as it travels."""

from __future__ import annotations

import numpy as np

from cloner.protocol.reviews import EMBEDDING_SIZE, ReviewAnswer
from cloner.review.heard import Heard, VoiceSample, WordErrors


def test_what_is_heard_arrives_as_it_was() -> None:
    embedding = np.linspace(-1, 1, EMBEDDING_SIZE, dtype=np.float32)
    embedding /= np.linalg.norm(embedding)
    heard = Heard(VoiceSample(embedding, 2.5), 3.25, WordErrors(1, 3, 1.5, 2.25), "Good evening")
    arrived = Heard.of_answer(ReviewAnswer.model_validate_json(heard.to_answer().model_dump_json()))
    assert arrived.voice is not None
    assert (arrived.voice.embedding == embedding).all()
    assert (arrived.voice.speech_s, arrived.naturalness, arrived.words, arrived.said) == (
        2.5,
        3.25,
        WordErrors(1, 3, 1.5, 2.25),
        "Good evening",
    )


def test_nothing_heard_is_nothing_in_the_answer() -> None:
    assert Heard(None, None).to_answer() == ReviewAnswer()
    assert Heard.of_answer(ReviewAnswer(error="the samples are no FLAC file")) == Heard(None, None)
