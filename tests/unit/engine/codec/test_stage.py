from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES, Audio
from cloner.engine.base import NULL_OBSERVER, RequestQueue, SegmentAudio, SegmentFailure, StopCheck
from cloner.engine.codec.padded import CodecDecoder
from cloner.engine.codec.stage import CodecStage
from cloner.engine.segment_codes import SegmentCodes
from cloner.errors import LoadFailed
from cloner.events import Event
from tests.support.engine_requests import CPU, make_request, make_voice


def finished(segment: int, frames: int) -> SegmentCodes:
    codes = torch.full((10, frames), segment, dtype=torch.int32)
    return SegmentCodes(make_request(make_voice(0), segment), codes, truncated=False)


class StubCodec:
    """A codec whose samples are the segment's number; for segment 13, one of them is NaN."""

    device = CPU
    dtype = torch.float16

    def decode(
        self, codes: Sequence[Tensor], _stopped: StopCheck = NULL_OBSERVER.stopped
    ) -> Iterator[tuple[int, Audio]]:
        for place in reversed(range(len(codes))):
            audio = np.full(codes[place].shape[1] * FRAME_SAMPLES, codes[place][0, 0], dtype=np.float32)
            audio[-1] = np.nan if audio[0] == 13 else audio[0]
            yield place, audio


@pytest.fixture
def stage() -> CodecStage:
    return CodecStage(cast(CodecDecoder, StubCodec()))


def test_on_a_cpu_the_result_comes_at_once(tiny: Path) -> None:
    stage = CodecStage(CodecDecoder(tiny, CPU, 1024))
    results: list[SegmentAudio | SegmentFailure] = []
    for segment, frames in ((5, 3), (2, 1)):
        stage.add(finished(segment, frames), results.append)
        result = results[-1]
        assert isinstance(result, SegmentAudio)
        assert (result.segment, result.frames, result.audio.shape) == (segment, frames, (frames * FRAME_SAMPLES,))
    stage.finish()
    assert len(results) == 2


def test_a_stopped_chunk_ends_within_a_piece_and_the_next_one_is_decoded(tiny: Path) -> None:
    codec = CodecDecoder(tiny, CPU, 1024)
    codec._piece_frames = 4
    stage, results, asked = CodecStage(codec), list[SegmentAudio | SegmentFailure](), []

    def after_two_pieces() -> bool:
        asked.append(True)
        return len(asked) > 2

    stage.begin(after_two_pieces)
    stage.add(finished(1, 40), results.append)
    assert (results, len(asked)) == ([], 3)
    stage.begin(NULL_OBSERVER.stopped)
    stage.add(finished(2, 40), results.append)
    assert [(type(result), result.segment) for result in results] == [(SegmentAudio, 2)]
    assert stage.pieces == 3 + 10


def test_audio_that_is_not_finite_fails_its_segment_alone(stage: CodecStage) -> None:
    results: list[SegmentAudio | SegmentFailure] = []
    # Waiting together, as on a GPU.
    stage._waiting.extend((finished(segment, 2 + segment % 2), results.append, None) for segment in (12, 13, 14))
    stage._decode()
    failed, *spoken = sorted(results, key=lambda result: isinstance(result, SegmentAudio))
    assert isinstance(failed, SegmentFailure)
    assert (failed.segment, failed.code) == (13, "generation_failed")
    assert "the codec's output is not a number" in failed.message
    for result in spoken:
        assert isinstance(result, SegmentAudio)
        assert result.audio.size == result.frames * FRAME_SAMPLES
        assert (result.audio == result.segment).all()
    assert {result.segment for result in spoken} == {12, 14}
    assert not stage._waiting


class WideCodec(StubCodec):
    """In fp32, where the samples of segment 13 are finite."""

    dtype = torch.float32

    def decode(
        self, codes: Sequence[Tensor], stopped: StopCheck = NULL_OBSERVER.stopped
    ) -> Iterator[tuple[int, Audio]]:
        for place, item in enumerate(codes):
            if not stopped():
                yield place, np.full(item.shape[1] * FRAME_SAMPLES, item[0, 0], dtype=np.float32)


def test_what_is_too_great_for_half_precision_is_decoded_in_fp32_by_a_codec_that_is_loaded_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[WideCodec] = []

    def load() -> WideCodec:
        loaded.append(WideCodec())
        return loaded[-1]

    stage, results = CodecStage(StubCodec(), load), list[SegmentAudio | SegmentFailure]()
    for segment in (12, 13, 13, 14):
        stage.add(finished(segment, 2), results.append)
    assert [(type(result), result.segment) for result in results] == [(SegmentAudio, n) for n in (12, 13, 13, 14)]
    assert len(loaded) == 1
    line = Event.CODEC_NOT_FINITE.line(segment=13, dtype=torch.float16)
    assert capsys.readouterr().err.splitlines() == [line, line]
    stage.begin(lambda: True)
    stage.add(finished(13, 2), results.append)
    assert len(results) == 4, "a chunk that is stopped drops it"


def test_what_is_not_finite_in_fp32_either_fails() -> None:
    stage, results = CodecStage(StubCodec(), StubCodec), list[SegmentAudio | SegmentFailure]()
    stage.add(finished(13, 2), results.append)
    (failed,) = results
    assert isinstance(failed, SegmentFailure)
    assert failed.code == "generation_failed"


def test_without_the_codecs_file_only_the_segment_that_needs_it_fails() -> None:
    def load() -> StubCodec:
        raise LoadFailed("there is no codec.pth")

    stage, results = CodecStage(StubCodec(), load), list[SegmentAudio | SegmentFailure]()
    for segment in (13, 14):
        stage.add(finished(segment, 2), results.append)
    message = "the codec broke: RuntimeError: it cannot be loaded in fp32: there is no codec.pth"
    assert results[0] == SegmentFailure(13, "codec_failed", message)
    assert isinstance(results[1], SegmentAudio)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("too much"), torch.AcceleratorError("CUDA error: out of memory")]
)
def test_segments_that_are_too_much_together_are_decoded_alone(stage: CodecStage, error: RuntimeError) -> None:
    whole = StubCodec()

    def decode(codes: Sequence[Tensor], _stopped: StopCheck) -> Iterator[tuple[int, Audio]]:
        if len(codes) > 1 or codes[0][0, 0] == 7:
            raise error
        return whole.decode(codes)

    stage._codec = cast(CodecDecoder, SimpleNamespace(decode=decode))
    results: list[SegmentAudio | SegmentFailure] = []
    stage._waiting.extend((finished(segment, 2), results.append, None) for segment in (6, 7, 8))
    stage._decode()
    assert [(result.segment, isinstance(result, SegmentAudio)) for result in results] == [
        (6, True),
        (7, False),
        (8, True),
    ]
    assert isinstance(results[1], SegmentFailure)
    message = f"the codec broke: {type(error).__name__}: {error}"
    assert (results[1].code, results[1].message) == ("out_of_memory", message)


def test_a_codec_that_breaks_for_another_reason_has_a_code_of_its_own(stage: CodecStage) -> None:
    def decode(_codes: Sequence[Tensor], _stopped: StopCheck) -> Iterator[tuple[int, Audio]]:
        raise RuntimeError("a size does not fit")

    stage._codec = cast(CodecDecoder, SimpleNamespace(decode=decode))
    results: list[SegmentAudio | SegmentFailure] = []
    stage._waiting.append((finished(6, 2), results.append, None))
    stage._decode()
    message = "the codec broke: RuntimeError: a size does not fit"
    assert results == [SegmentFailure(6, "codec_failed", message)]


def test_a_lost_device_is_no_segments_fault(stage: CodecStage) -> None:
    def decode(_codes: Sequence[Tensor], _stopped: StopCheck) -> Iterator[tuple[int, Audio]]:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    stage._codec = cast(CodecDecoder, SimpleNamespace(decode=decode))
    results: list[SegmentAudio | SegmentFailure] = []
    stage._waiting.extend((finished(segment, 2), results.append, None) for segment in (6, 7))
    with pytest.raises(torch.AcceleratorError):
        stage._decode()
    assert results == []


def test_an_error_in_the_codecs_thread_is_told_at_once(stage: CodecStage, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_codes: Sequence[Tensor], _stopped: StopCheck) -> Iterator[tuple[int, Audio]]:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    stage._codec = cast(CodecDecoder, SimpleNamespace(decode=decode))
    stage._stream = cast(torch.cuda.Stream, None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    queue = RequestQueue(())
    stage.begin(NULL_OBSERVER.stopped, on_error=queue.close)
    stage._waiting.append((finished(6, 2), lambda _result: None, None))
    with pytest.raises(torch.AcceleratorError):
        stage._decode_on_stream()
    assert not queue.wait(), "a scheduler that waits for another attempt ends"


def test_codes_that_cannot_be_read_leave_no_segment_without_a_result(
    stage: CodecStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = finished(6, 2)
    segment.request.__dict__["with_codes"] = True
    calls = iter([RuntimeError("out of a stream"), None])

    def read(codes: Tensor) -> Tensor:
        if error := next(calls):
            raise error
        return codes

    monkeypatch.setattr(Tensor, "cpu", read)
    results: list[SegmentAudio | SegmentFailure] = []
    stage._waiting.append((segment, results.append, None))
    stage._decode()
    assert [result.segment for result in results] == [6]
