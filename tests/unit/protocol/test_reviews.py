"""What travels between the collector and the reviewers."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
import pytest
from pydantic import ValidationError

from cloner.audio_bytes import encode_audio
from cloner.batch import AudioFormat
from cloner.errors import WrongSchema
from cloner.protocol.reviews import (
    EMBEDDING_SIZE,
    LONGEST_S,
    REVIEW_RATE,
    ReviewAnswer,
    ReviewRequest,
    VoiceRow,
    pack_audio,
    pack_embedding,
    read_request,
    unpack_audio,
    unpack_embedding,
)


def tone(seconds: float, rate: int) -> np.ndarray:
    """A tone of 440 Hz, at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def flac(seconds: float, rate: int) -> str:
    return b64encode(encode_audio(tone(seconds, rate), rate, AudioFormat.FLAC)).decode()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_samples_of_any_rate_arrive_as_the_same_sound(rate: int) -> None:
    arrived = unpack_audio(pack_audio(tone(1, rate), rate))
    assert len(arrived) == REVIEW_RATE
    inner = slice(800, -800)  # the filter rings at the ends
    assert np.abs(arrived[inner] - tone(1, REVIEW_RATE)[inner]).max() < 1e-3


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_the_longest_take_arrives(rate: int) -> None:
    longest = np.zeros(int(LONGEST_S * rate), dtype=np.float32)
    assert len(unpack_audio(pack_audio(longest, rate))) == LONGEST_S * REVIEW_RATE


def test_what_is_no_sample_is_clipped_and_spreads_to_no_other() -> None:
    samples = tone(1, 44_100)
    samples[20_000:20_003] = np.nan, np.inf, -np.inf
    arrived = unpack_audio(pack_audio(samples, 44_100))
    assert np.isfinite(arrived).all()
    assert np.abs(arrived[800:6_000] - tone(1, REVIEW_RATE)[800:6_000]).max() < 1e-3


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        ("no base64!", "no FLAC file in base64"),
        (b64encode(b"RIFF and no more").decode(), "no FLAC file in base64"),
        (flac(1, 44_100), "at 44100 Hz, and mono FLAC at 16000 Hz is heard"),
        (b64encode(encode_audio(tone(1, REVIEW_RATE), REVIEW_RATE, AudioFormat.WAV)).decode(), "WAV with 1 channels"),
        (flac(LONGEST_S + 1, REVIEW_RATE), "last 241.0 s"),
        (pack_audio(tone(0, REVIEW_RATE), REVIEW_RATE), "no FLAC file in base64"),
    ],
    ids=["text", "bytes", "another rate", "a WAV file", "too long", "nothing"],
)
def test_samples_of_another_form_are_refused_with_a_sentence(packed: str, reason: str) -> None:
    with pytest.raises(WrongSchema, match=reason):
        unpack_audio(packed)


def test_an_embedding_arrives_as_it_was() -> None:
    embedding = np.random.default_rng(0).standard_normal(EMBEDDING_SIZE).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    assert (unpack_embedding(pack_embedding(embedding)) == embedding).all()


@pytest.mark.parametrize(
    "embedding",
    [
        "no base64!",
        "AAAA",
        *(pack_embedding(np.full(EMBEDDING_SIZE, x, np.float32)) for x in (np.nan, -3e38, 0, 0.064)),
    ],
)
def test_an_answer_with_another_embedding_is_refused(embedding: str) -> None:
    with pytest.raises(ValidationError):
        ReviewAnswer.model_validate({"voice": {"embedding": embedding, "speech_s": 1.0}})


def test_a_request_that_is_refused_says_why_without_the_words_of_a_library() -> None:
    with pytest.raises(WrongSchema) as raised:
        read_request({"batch_id": "b", "what": "12.1", "language": "pt_BR", "audio": ""})
    reason = "language: it is no language as batches have it"
    assert raised.value.message == f"a request for a review cannot be read: {reason}"


def test_requests_and_answers_travel_as_json() -> None:
    request = ReviewRequest(batch_id="b1", what="12.1", text="Good morning", language="en", audio="AAAA")
    assert ReviewRequest.model_validate_json(request.model_dump_json()) == request
    voice = VoiceRow(embedding=pack_embedding(np.full(EMBEDDING_SIZE, 1 / 16, np.float32)), speech_s=2.5)
    answer = ReviewAnswer(voice=voice, naturalness=3.1)
    assert ReviewAnswer.model_validate_json(answer.model_dump_json()) == answer
    assert ReviewAnswer.model_validate(ReviewAnswer(error="no\nsound").model_dump()).error == "no sound"
