from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from loguru import logger

from cloner.audio import FRAME_SAMPLES
from cloner.batch import CODEBOOK_SIZES
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechRequest, Voice
from cloner.engine.checkpoint import fish, fish_inference
from cloner.engine.upstream import UpstreamEngine
from cloner.errors import BadReference, LoadFailed
from tests.support.engine_requests import CPU, StopWhen, make_request, make_voice

pytestmark = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # upstream's, silenced outside tests


def spoken(engine: UpstreamEngine, one: SpeechRequest) -> SegmentAudio:
    (result,) = engine.speak([one])
    assert isinstance(result, SegmentAudio), result
    return result


def not_spoken(engine: UpstreamEngine, one: SpeechRequest) -> SegmentFailure:
    (result,) = engine.speak([one])
    assert isinstance(result, SegmentFailure), result
    return result


@contextmanager
def changed(weight: torch.Tensor, value: float) -> Iterator[None]:
    """Fills `weight` with `value` within the context."""
    kept = weight.clone()
    weight.fill_(value)
    yield
    weight.copy_(kept)


def test_half_a_second_is_audible_without_clipping(engine: UpstreamEngine, voice: Voice) -> None:
    result = spoken(engine, make_request(voice, segment=7))
    assert result.segment == 7
    assert result.audio.dtype == np.float32
    assert result.audio.shape == (result.frames * FRAME_SAMPLES,)
    assert result.audio.size >= 0.5 * 44_100
    assert 10 ** (-30 / 20) < np.sqrt(np.mean(result.audio**2)) < 10 ** (-10 / 20)
    assert np.abs(result.audio).max() < 0.99


def test_a_segment_does_not_depend_on_segments_before_it(engine: UpstreamEngine, voice: Voice) -> None:
    first = spoken(engine, make_request(voice))
    spoken(engine, make_request(make_voice(1, frames=50), text="Something longer than that.", seed=5))
    assert np.array_equal(spoken(engine, make_request(voice, segment=1)).audio, first.audio)


def test_seed_text_and_voice_each_change_a_segment(engine: UpstreamEngine, voice: Voice) -> None:
    audios = [
        spoken(engine, one).audio
        for one in (
            make_request(voice),
            make_request(voice, seed=1),
            make_request(voice, text="Goodbye."),
            make_request(make_voice(1)),
            make_request(Voice(voice.codes, "Something else.")),
        )
    ]
    assert len({audio.tobytes() for audio in audios}) == len(audios)


def test_codes_are_those_of_upstream(engine: UpstreamEngine, tiny: Path, voice: Voice) -> None:
    model = fish.load_text2semantic(tiny, CPU, torch.float32)
    codec = fish.load_codec(tiny, CPU)
    torch.manual_seed(3)
    responses = fish_inference.generate_long(
        model=model,
        device="cpu",
        decode_one_token=fish_inference.decode_one_token,
        text="Hello.",
        max_new_tokens=300,
        top_p=0.7,
        repetition_penalty=1.2,
        temperature=0.7,
        prompt_text=voice.text,
        prompt_tokens=torch.tensor(voice.codes),
    )
    codes = next(responses).codes
    frames = codes.shape[1]
    assert 1 < frames < 299, "the segment should end by itself"
    with torch.inference_mode():
        audio, _ = codec.decode(codes[None].long(), torch.tensor([frames]))
    result = spoken(engine, make_request(voice, seed=3, max_new_tokens=300, min_new_tokens=0))
    assert np.array_equal(result.audio, audio[0, 0].numpy())
    assert not result.truncated


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_a_segment_has_at_least_the_minimum_and_at_most_the_maximum_of_frames(
    engine: UpstreamEngine, voice: Voice, frames: int
) -> None:
    head = engine._model.embeddings.weight
    end = fish.end_token(engine._model)
    with changed(head[end, 0], 1e6):  # the end comes as soon as it is allowed
        ended = spoken(engine, make_request(voice, min_new_tokens=frames))
        assert (ended.frames, ended.truncated) == (frames, False)
        # Its end may come right after its maximum number of frames.
        whole = spoken(engine, make_request(voice, min_new_tokens=frames, max_new_tokens=frames))
        assert (whole.frames, whole.truncated) == (frames, False)
    with changed(head[end, 0], -1e6):  # it never comes
        cut = spoken(engine, make_request(voice, max_new_tokens=frames, min_new_tokens=0))
        assert (cut.frames, cut.truncated) == (frames, True)


@pytest.mark.parametrize("sign", [1, -1])  # with one of them the end is the likeliest token after the prompt
def test_a_segment_does_not_begin_with_its_end(
    sign: int, engine: UpstreamEngine, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = MagicMock(wraps=engine._decode)
    monkeypatch.setattr(engine, "_decode", decode)
    with changed(engine._model.embeddings.weight[fish.end_token(engine._model)], sign * 1e3):
        spoken(engine, make_request(voice, min_new_tokens=0))
    (codes,) = decode.call_args.args
    assert codes[0, 0] != 0, "upstream writes an end token as code 0"


def test_segments_are_never_longer_than_the_codec_takes(
    engine: UpstreamEngine, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_max_frames", 5)
    assert spoken(engine, make_request(voice)).frames == 5


def test_requests_are_drawn_one_by_one(engine: UpstreamEngine, voice: Voice) -> None:
    drawn = []

    def requests() -> Iterator[SpeechRequest]:
        for segment in range(2):
            drawn.append(segment)
            yield make_request(voice, segment, max_new_tokens=1)

    results = engine.speak(requests())
    assert next(results).segment == 0
    assert drawn == [0]
    assert [result.segment for result in results] == [1]


def test_a_segment_is_dropped_within_a_step_when_it_is_stopped(engine: UpstreamEngine, voice: Voice) -> None:
    begin = engine.steps
    observer = StopWhen(lambda: engine.steps >= begin + 5)
    assert list(engine.speak([make_request(voice, n, max_new_tokens=12) for n in range(2)], observer)) == []
    assert (observer.started_segments, engine.steps) == ([0], begin + 5)
    assert spoken(engine, make_request(voice)).frames == 12


def test_kv_caches_are_made_at_load_and_kept_from_segment_to_segment(tiny: Path, voice: Voice) -> None:
    engine = UpstreamEngine(tiny, CPU, torch.float32)
    engine.load(lambda _line: None)
    caches = [layer.attention.kv_cache for layer in engine._model.layers]
    spoken(engine, make_request(make_voice(1, frames=100), max_new_tokens=1))
    assert [layer.attention.kv_cache for layer in engine._model.layers] == caches
    assert [cache.k_cache.shape for cache in caches] == [(1, 2, 4096, 16)] * 2


def test_generating_logs_and_prints_nothing(
    engine: UpstreamEngine, voice: Voice, capfd: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    sink = logger.add(logged.append)
    spoken(engine, make_request(voice))
    logger.remove(sink)
    assert logged == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "codes",
    [np.zeros((9, 4)), np.zeros((10, 0)), np.full((10, 4), 1024), np.full((10, 4), -1)],
    ids=["nine codebooks", "no frames", "too high", "negative"],
)
def test_unusable_codes_fail_their_request_alone(engine: UpstreamEngine, voice: Voice, codes: Any) -> None:
    bad = make_request(Voice(codes.astype(np.int32), "reference"), segment=0)
    results = list(engine.speak([bad, make_request(voice, segment=1, max_new_tokens=1)]))
    assert isinstance(results[0], SegmentFailure)
    assert (results[0].segment, results[0].code) == (0, "bad_reference")
    assert isinstance(results[1], SegmentAudio)


def test_a_prompt_that_does_not_fit_fails_its_request_alone(engine: UpstreamEngine, voice: Voice) -> None:
    result = not_spoken(engine, make_request(make_voice(0, frames=2100)))
    assert result.code == "prompt_too_long"
    assert "> 2048" in result.message
    spoken(engine, make_request(voice, max_new_tokens=1))


def test_a_model_that_computes_nan_fails_its_request_and_no_other(engine: UpstreamEngine, voice: Voice) -> None:
    before = spoken(engine, make_request(voice))
    with changed(engine._model.layers[0].attention_norm.weight, torch.nan):
        result = not_spoken(engine, make_request(make_voice(1, frames=50)))
    assert result.code == "generation_failed"
    assert "the model's output is not a number" in result.message
    assert np.array_equal(spoken(engine, make_request(voice)).audio, before.audio)


def test_a_codec_that_computes_nan_fails_its_request(engine: UpstreamEngine, voice: Voice) -> None:
    with changed(engine._codec.decoder.model[0].conv.bias, torch.nan):
        result = not_spoken(engine, make_request(voice, max_new_tokens=1))
    assert "the codec's output is not a number" in result.message


def test_a_gpu_without_memory_for_a_segment_fails_it_alone(
    engine: UpstreamEngine, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate_long(**_options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(fish_inference, "generate_long", generate_long)
        assert not_spoken(engine, make_request(voice)).code == "out_of_memory"
    spoken(engine, make_request(voice, max_new_tokens=1))


def test_a_gpu_without_memory_for_a_recording_refuses_it(
    engine: UpstreamEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(_samples: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine._codec, "encode", encode)
    with pytest.raises(BadReference, match="could not be encoded: the device's memory ran out"):
        engine.encode([np.zeros(5000, dtype=np.float32)])


def test_recordings_become_codes_of_the_codec(engine: UpstreamEngine) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * FRAME_SAMPLES + 1).astype(np.float32)
    codes, short = engine.encode([noise, noise[:100]])
    assert codes.shape == (10, 31)
    assert codes.dtype == np.int32
    assert (codes >= 0).all()
    assert (codes < np.array(CODEBOOK_SIZES)[:, None]).all()
    assert len(np.unique(codes[0])) > 10
    assert short.shape == (10, 1)
    assert np.array_equal(engine.encode([noise])[0], codes)
    spoken(engine, make_request(Voice(codes, "Noise."), max_new_tokens=1))


@pytest.mark.parametrize(
    ("recording", "word"),
    [
        (np.zeros(0, dtype=np.float32), "one at least"),
        (np.full(5000, np.nan, dtype=np.float32), "NaN"),
        (np.zeros(4097 * FRAME_SAMPLES, dtype=np.float32), "lasts 190 s, and the codec takes 190 s at most"),
    ],
    ids=["empty", "no numbers", "too long"],
)
def test_unusable_recordings_are_refused(engine: UpstreamEngine, recording: Any, word: str) -> None:
    with pytest.raises(BadReference, match=word):
        engine.encode([recording])


def test_a_missing_checkpoint_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(LoadFailed, match="does not exist"):
        UpstreamEngine(tmp_path / "nothing", CPU, torch.float32).load(lines.append)
    assert lines == []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), torch.AcceleratorError("CUDA error: out of memory")]
)
def test_models_that_do_not_fit_on_the_gpu_are_reported(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def to(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(LoadFailed, match=r"do not fit.*start fewer workers on it, or raise FISH_MODEL_MEMORY_GB"):
        UpstreamEngine(tiny, CPU, torch.float32).load(lambda _line: None)


def test_closing_releases_the_models(tiny: Path, voice: Voice) -> None:
    engine = UpstreamEngine(tiny, CPU, torch.float32)
    engine.load(lambda _line: None)
    spoken(engine, make_request(voice, max_new_tokens=1))
    models = weakref.ref(engine._model), weakref.ref(engine._codec)
    engine.close()
    gc.collect()
    assert [model() for model in models] == [None, None]
