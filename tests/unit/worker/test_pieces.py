"""Long texts in pieces: what the engine is given for them, and what becomes of its results."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.batch import Generation
from cloner.engine.base import NULL_OBSERVER, ChunkObserver, SegmentAudio, SegmentFailure, SpeechRequest, SpeechResult
from cloner.engine.fake import FakeEngine
from cloner.errors import EngineBroken
from cloner.output.journal import Journal
from cloner.state.keys import RedisKeys
from cloner.text.splitting import split
from cloner.worker import pieces
from cloner.worker.chunk_run import run_chunk
from cloner.worker.pending import PendingSegment
from cloner.worker.pieces import FADE_SAMPLES, joinable_groups, speak_in_pieces
from tests.support.batches import write_batch
from tests.support.engine_requests import make_voice
from tests.support.workers import BATCH_ID, Workers

GENERATION = Generation()
LONG = "This sentence is one of many in a long text. " * 20
COUNT = len(split(LONG, GENERATION))
VOICE = make_voice(0)


def request(segment: int, text: str = LONG, generation: Generation = GENERATION) -> SpeechRequest:
    return SpeechRequest(segment, text, VOICE, generation, seed=10 + segment)


class Noting(FakeEngine):
    """Notes what it is given. Pieces with one of the words fail."""

    def __init__(self, failing: str = "nothing fails", slots: int = 2) -> None:
        super().__init__(slots)
        self.given: list[SpeechRequest] = []
        self._failing = failing

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        def noted() -> Iterable[SpeechRequest]:
            for request in requests:
                self.given.append(request)
                yield request

        for result, request in zip(super().speak(noted(), observer), self.given, strict=False):
            if self._failing in request.text:
                yield SegmentFailure(result.segment, "generation_failed", "the output is not a number")
            else:
                yield result


def speak(engine: FakeEngine, *requests: SpeechRequest, observer: ChunkObserver = NULL_OBSERVER) -> list[SpeechResult]:
    return [result for result in speak_in_pieces(engine.speak, requests, observer) if result]


def audio_of(result: SpeechResult) -> SegmentAudio:
    assert isinstance(result, SegmentAudio), result
    return result


def test_pieces_of_a_fixed_length_are_not_cut() -> None:
    fixed = Generation(min_new_tokens=12, max_new_tokens=12)
    (result,) = speak(FakeEngine(), request(3, "A first half of it. [pause:0.5] A second half of it.", fixed))
    assert audio_of(result).frames == 24


def test_a_text_that_is_not_long_is_generated_as_without_pieces() -> None:
    short = request(3, "A short text.")
    (result,), (alone,) = speak(FakeEngine(), short), FakeEngine().speak([short])
    assert np.array_equal(audio_of(result).audio, audio_of(alone).audio)


def test_the_first_piece_has_the_segments_seed_and_the_others_seeds_of_their_own() -> None:
    first, second = Noting(), Noting()
    speak(first, request(3), request(4))
    speak(second, request(4))
    seeds = [request.seed for request in first.given]
    assert len(set(seeds)) == 2 * COUNT
    assert (seeds[0], seeds[COUNT]) == (13, 14)
    assert [request.seed for request in second.given] == seeds[COUNT:], "they depend on their own segment alone"
    assert len({request.segment for request in first.given}) == 2 * COUNT


def test_pieces_are_joined_in_order_with_pauses_and_without_a_click() -> None:
    engine = Noting()
    (result,) = speak(engine, request(3))
    assert result.segment == 3
    audio = audio_of(result).audio.astype(np.int32)
    assert audio_of(result).audio.dtype == np.int16
    alone = [audio_of(next(FakeEngine().speak([given]))) for given in engine.given]
    pause = round(GENERATION.pause_s * SAMPLE_RATE)
    assert len(audio) == sum(len(piece.audio) for piece in alone) + pause * (COUNT - 1)
    assert audio_of(result).frames == sum(piece.frames for piece in alone)
    # In a tone of the fake engine, a sample differs from the next by so much at most.
    steps = np.abs(np.diff(audio))
    loudest = max(np.abs(np.diff(piece.audio)).max() for piece in alone) * 2**15 + 2
    assert steps.max() <= loudest
    start = 0
    for number, piece in enumerate(alone):
        end = start + len(piece.audio)
        whole = np.round(piece.audio * 2**15).astype(np.int32)
        inner = slice(FADE_SAMPLES, len(whole) - FADE_SAMPLES)
        assert np.abs(audio[start:end][inner] - whole[inner]).max() <= 1
        joins = [edge for edge, joined in ((start, number > 0), (end - 1, number < COUNT - 1)) if joined]
        assert [audio[edge] for edge in joins] == [0] * len(joins)
        assert not audio[end : end + pause].any()
        start = end + pause


def test_pauses_that_a_text_asks_for_are_silence_of_that_length() -> None:
    engine = Noting()
    (result,) = speak(engine, request(3, "[pause:0.5] One, [pause:0.8] and two. [pause:1.25]"))
    audio = audio_of(result).audio
    assert [given.text for given in engine.given] == ["One,", "and two."]
    first, second = [len(audio_of(next(FakeEngine().speak([given]))).audio) for given in engine.given]
    lengths = [SAMPLE_RATE // 2, first, SAMPLE_RATE * 4 // 5, second, SAMPLE_RATE * 5 // 4]
    parts = np.split(audio, np.cumsum(lengths)[:-1])
    assert [len(part) for part in parts] == lengths
    assert [bool(part.any()) for part in parts] == [False, True, False, True, False]
    assert [part[edge] for part in parts[1::2] for edge in (0, -1)] == [0, 0, 0, 0]


def test_pauses_that_no_file_can_hold_fail_before_they_take_memory() -> None:
    too_long = "Hello." + "[pause:30]" * 2000 + "And on."
    (failed,) = speak(FakeEngine(), request(3, too_long))
    assert isinstance(failed, SegmentFailure)
    assert (failed.segment, failed.code) == (3, "too_long")


def test_a_piece_that_fails_fails_its_segment_and_the_others_are_not_begun() -> None:
    long = "A sentence that can be spoken well enough. " * 20 + "This is broken. " + "And one more sentence. " * 100
    engine = Noting("broken")
    failed, short = speak(engine, request(3, long), request(4, "A short text."))
    message = f"piece 3 of {len(split(long, GENERATION))}: the output is not a number"
    assert failed == SegmentFailure(3, "generation_failed", message)
    assert audio_of(short).segment == 4
    assert len(engine.given) < 7 < len(split(long, GENERATION))


def test_a_piece_that_is_cut_fails_its_segment() -> None:
    (failed,) = speak(FakeEngine(), request(3, generation=Generation(max_new_tokens=300)))
    message = f"piece 1 of {COUNT} is cut after 300 frames (13.9 s): raise max_new_tokens, or lower piece_s"
    assert failed == SegmentFailure(3, "cut_off", message)


def test_what_is_longer_than_a_wav_file_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_WAV_SAMPLES", 25 * SAMPLE_RATE)
    (failed,) = speak(FakeEngine(), request(3))
    assert isinstance(failed, SegmentFailure)
    assert failed.code == "too_long"


def test_long_texts_are_given_together_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> None:
    monkeypatch.setattr(pieces, "MOST_JOINED_S", 150)
    texts = {0: LONG, 1: "short", 2: LONG, 3: LONG * 5, 4: LONG, 5: "short"}
    pending = {index: PendingSegment(index, text, "", 0, "", None) for index, text in texts.items()}  # type: ignore[arg-type]
    assert joinable_groups(texts, pending, GENERATION) == [[0, 1, 2], [3], [4, 5]]
    fixed = Generation(min_new_tokens=9, max_new_tokens=9)
    assert joinable_groups(texts, pending, fixed) == [[0, 1, 2, 3, 4, 5]]


def test_a_long_text_is_one_segment_of_record_progress_and_files(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [3], texts={1: LONG}))
    counts = run_chunk(workers.start(), chunk)
    assert (counts.generated, counts.failed) == (3, 0)
    results = workers.start().record(BATCH_ID).results
    assert sorted(results) == [0, 1, 2]
    info = soundfile.info(workers.settings.out_dir / results[1].output)
    pauses = round(GENERATION.pause_s * SAMPLE_RATE) * (COUNT - 1)
    assert info.frames == results[1].frames * FRAME_SAMPLES + pauses
    assert results[1].audio_s == pytest.approx(info.duration)
    assert len(list(workers.settings.out_dir.rglob("*.wav"))) == 3


def test_no_text_is_split_at_a_fixed_length(workers: Workers, tmp_path: Path) -> None:
    generation = {"min_new_tokens": 20, "max_new_tokens": 20}
    (chunk,) = workers.submit(write_batch(tmp_path, [1], generation, texts={0: LONG}))
    engine = Noting()
    run_chunk(workers.start(engine=engine), chunk)
    assert [given.text for given in engine.given] == [LONG]


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_long_text_is_written_in_every_format(workers: Workers, tmp_path: Path, ending: str) -> None:
    path = write_batch(tmp_path, [1], texts={0: LONG})
    path.write_text(path.read_text().replace(".wav", f".{ending}"))
    (chunk,) = workers.submit(path)
    assert run_chunk(workers.start(), chunk).generated == 1
    (written,) = workers.settings.out_dir.rglob(f"*.{ending}")
    audio, _ = soundfile.read(written)
    assert 0.2 < np.abs(audio).max() < 0.6


def test_a_crash_amid_pieces_makes_the_segment_a_suspect_and_it_is_generated_anew(
    workers: Workers, tmp_path: Path
) -> None:
    class Broken(Noting):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            for number, result in enumerate(super().speak(requests, observer)):
                if number == COUNT:
                    raise RuntimeError("the context is lost")
                yield result

    (chunk,) = workers.submit(write_batch(tmp_path, [3], texts={1: LONG}))
    worker = workers.start(engine=Broken(slots=1))
    with pytest.raises(EngineBroken):
        run_chunk(worker, chunk)
    (run,) = Journal(worker.outputs.root, BATCH_ID, chunk.number, worker.name).crashed
    assert set(run.started) == {0, 1}
    engine = Noting()
    assert run_chunk(workers.start(engine=engine), chunk).generated == 3
    assert [given.text for given in engine.given[:COUNT]] == [piece.text for piece in split(LONG, GENERATION)]


def test_a_cancellation_amid_pieces_leaves_nothing_of_the_segment(workers: Workers, tmp_path: Path) -> None:
    class Cancelling(Noting):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            results = super().speak(requests, observer)
            yield from (next(results), next(results))
            workers.redis.hset(RedisKeys(workers.settings.fleet).batch(BATCH_ID), "cancelled", "1")
            self._segment_s = 1e6
            yield from results

    (chunk,) = workers.submit(write_batch(tmp_path, [2], texts={0: LONG * 2}))
    counts = run_chunk(workers.start(engine=Cancelling()), chunk)
    assert (counts.generated, counts.failed) == (0, 0)
    left = {path.name for path in workers.settings.out_dir.rglob("*") if path.is_file()}
    assert left == {"cpu.0@box.jsonl", "cpu.0@box.ndjson"}, "its record, and what the worker generates with"


def test_a_text_of_100_000_characters_is_generated_beside_others(workers: Workers, tmp_path: Path) -> None:
    class Quick(Noting):
        def speak(
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult, None, None]:
            for result in super().speak(requests, observer):
                yield replace(audio_of(result), audio=audio_of(result).audio[:441])

    text = ("A sentence of a long text. " * 5000)[:100_000]
    (chunk,) = workers.submit(write_batch(tmp_path, [3], {"pause_s": 0}, texts={1: text}))
    assert run_chunk(workers.start(engine=Quick()), chunk).generated == 3
    results = workers.start().record(BATCH_ID).results
    assert results[1].audio_s > 300 * 0.01


def test_a_text_with_nothing_to_speak_fails_alone(workers: Workers, tmp_path: Path) -> None:
    (chunk,) = workers.submit(write_batch(tmp_path, [3], texts={1: "🎉 ...!"}))
    engine = Noting()
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert (counts.generated, counts.failed) == (2, 1)
    assert len(engine.given) == 2
    failed = workers.start().record(BATCH_ID).results[1]
    assert failed.code == "nothing_to_speak"
    assert failed.message == "its text has no letter and no digit, so there is nothing to speak"
