from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cloner.batch import CODEBOOK_SIZES, Generation
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechRequest, Voice
from cloner.engine.fake import FakeEngine
from cloner.errors import BadReference
from tests.support.engine_requests import StopWhen

VOICE = Voice(np.zeros((10, 5), dtype=np.int32), "reference")
OTHER_VOICE = Voice(np.ones((10, 5), dtype=np.int32), "reference")


def fake_request(
    segment: int = 0, text: str = "Hello.", voice: Voice = VOICE, seed: int = 0, **generation: Any
) -> SpeechRequest:
    return SpeechRequest(segment, text, voice, Generation(**generation), seed)


def spoken(one: SpeechRequest) -> SegmentAudio:
    (result,) = FakeEngine().speak([one])
    assert isinstance(result, SegmentAudio)
    return result


def test_the_same_request_gives_the_same_audio_whatever_its_number() -> None:
    assert np.array_equal(spoken(fake_request(segment=3)).audio, spoken(fake_request(segment=4)).audio)


@pytest.mark.parametrize(
    "other",
    [
        fake_request(text="Hellow"),
        fake_request(voice=OTHER_VOICE),
        fake_request(seed=1),
        fake_request(min_new_tokens=1),
    ],
    ids=["text", "voice", "seed", "generation"],
)
def test_text_voice_seed_and_parameters_each_change_the_audio(other: SpeechRequest) -> None:
    one = spoken(fake_request())
    assert one.frames == spoken(other).frames
    assert not np.array_equal(one.audio, spoken(other).audio)


def test_length_grows_with_the_text_from_half_a_second_on() -> None:
    lengths = [spoken(fake_request(text="a" * letters)).audio.size / 44_100 for letters in (0, 1, 50, 100)]
    assert 0.5 <= lengths[0] == lengths[1] < lengths[2] < lengths[3]


def test_a_segment_keeps_to_its_minimum_and_maximum_number_of_frames() -> None:
    assert spoken(fake_request(text="a" * 500, max_new_tokens=30)).frames == 30
    assert spoken(fake_request(text="a" * 500, max_new_tokens=30)).truncated
    assert not spoken(fake_request(text="a" * 20, max_new_tokens=28)).truncated
    assert spoken(fake_request(text="a", min_new_tokens=40)).frames == 40
    assert spoken(fake_request(text="a", max_new_tokens=2)).audio.size == 2 * 2048


def test_audio_is_audible_without_clipping() -> None:
    audio = spoken(fake_request()).audio
    assert audio.dtype == np.float32
    assert 0.1 < np.sqrt(np.mean(audio**2)) < np.abs(audio).max() < 1


def test_frames_follow_each_other_without_a_click() -> None:
    audio = spoken(fake_request()).audio
    steps = np.abs(np.diff(audio))
    assert steps[2047::2048].max() <= steps[:2047].max() * 1.01


def test_half_a_second_of_audio_is_cheap() -> None:
    requests = [fake_request(segment=segment, seed=segment) for segment in range(200)]
    begin = time.process_time()
    assert len(list(FakeEngine().speak(requests))) == 200
    assert time.process_time() - begin < 200 * 0.002  # ten times what it takes


def test_a_request_with_unusable_codes_fails_alone() -> None:
    bad = Voice(np.zeros((9, 5), dtype=np.int32), "reference")
    first, second = FakeEngine().speak([fake_request(0, voice=bad), fake_request(1)])
    assert isinstance(first, SegmentFailure)
    assert first.code == "bad_reference"
    assert isinstance(second, SegmentAudio)


def test_as_many_requests_as_slots_are_drawn_at_once() -> None:
    drawn = []

    def requests() -> Iterator[SpeechRequest]:
        for segment in range(5):
            drawn.append(segment)
            yield fake_request(segment)

    results = FakeEngine(slots=3).speak(requests())
    assert next(results).segment == 0
    assert drawn == [0, 1, 2]
    assert [result.segment for result in results] == [1, 2, 3, 4]


def test_slots_take_the_time_of_one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(FakeEngine, "_work", lambda _engine, seconds, _watch: waits.append(seconds))
    engine = FakeEngine(slots=2, load_s=1.0, segment_s=0.25)
    engine.load(lambda _line: None)
    list(engine.speak([fake_request(segment) for segment in range(5)]))
    assert waits == [0.5, 0.5, 0.25, 0.25, 0.25]


def test_the_observer_gets_started_segments_and_they_are_dropped_when_it_stops() -> None:
    engine = FakeEngine(slots=2, segment_s=0.01)
    observer = StopWhen(lambda: len(observer.started_segments) > 2)
    assert [result.segment for result in engine.speak([fake_request(segment) for segment in range(5)], observer)] == [
        0,
        1,
    ]
    assert observer.started_segments == [0, 1, 2, 3]
    assert engine.steps > 2


def test_loading_takes_its_time_and_logs_both_models() -> None:
    lines: list[str] = []
    begin = time.monotonic()
    FakeEngine(load_s=0.05).load(lines.append)
    assert time.monotonic() - begin >= 0.05
    assert lines == ["Loading Text2Semantic model...", "Loading DAC model..."]


def test_codes_of_a_recording_fit_the_codec_and_depend_on_it_alone() -> None:
    recording = np.linspace(-0.5, 0.5, 3 * 2048 + 1, dtype=np.float32)
    codes, again, others = FakeEngine().encode([recording, recording.copy(), -recording])
    assert codes.shape == (10, 4)
    assert codes.dtype == np.int32
    assert (codes >= 0).all()
    assert (codes < np.array(CODEBOOK_SIZES)[:, None]).all()
    assert np.array_equal(codes, again)
    assert not np.array_equal(codes, others)


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(BadReference, match="one at least"):
        FakeEngine().encode([np.zeros(0, dtype=np.float32)])
