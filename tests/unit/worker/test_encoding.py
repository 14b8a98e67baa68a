"""Files of every format, read back; and encoding them beside the engine."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from pyloudnorm import Meter

from cloner.audio import SAMPLE_RATE, Audio
from cloner.audio_bytes import encode_audio, to_16_bits
from cloner.batch import AudioFormat, AudioOptions
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechResult
from cloner.errors import SegmentFailed
from cloner.protocol.messages import ChunkMessage
from cloner.worker import encoding
from cloner.worker.cancellation import Cancellation
from cloner.worker.encoding import EncodedAudio, Encoder, encode, tags_of
from cloner.worker.pending import PendingSegment
from cloner.worker.worker_process import WorkerProcess
from tests.support.sounds import quiet, voice
from tests.support.workers import BATCH_ID
from tests.unit.worker.test_chunk_monitor import make_monitor

WAV, FLAC, OGG, OPUS, MP3 = AudioFormat
LOSSY = {OGG, OPUS, MP3}
TAGS = {"artist": "Ana Peña", "title": "Où est-elle ? 早上好。"}


def encoded(audio: Audio, audio_format: AudioFormat, **options: object) -> EncodedAudio:
    answer = SegmentAudio(0, audio, 1)
    return encode(answer, AudioOptions(format=audio_format, **options), audio_format, TAGS, lambda: None)  # type: ignore[arg-type]


def read_back(file: EncodedAudio) -> tuple[Audio, int]:
    audio, rate = soundfile.read(io.BytesIO(file.data), dtype="float32")
    return audio, rate


KINDS = {
    WAV: ("WAV", "PCM_16"),
    FLAC: ("FLAC", "PCM_16"),
    OGG: ("OGG", "VORBIS"),
    OPUS: ("OGG", "OPUS"),
    MP3: ("MP3", "MPEG_LAYER_III"),
}


@pytest.mark.parametrize("audio_format", AudioFormat)
@pytest.mark.parametrize("rate", [None, 24_000])
@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_a_file_has_its_format_its_rate_and_its_length(
    audio_format: AudioFormat, rate: int | None, seconds: float
) -> None:
    spoken = voice(seconds)
    file = encoded(spoken, audio_format, rate=rate)
    info = soundfile.info(io.BytesIO(file.data))
    assert (info.format, info.subtype) == KINDS[audio_format]
    assert info.channels == 1
    assert info.samplerate == (rate or (48_000 if audio_format is OPUS else SAMPLE_RATE))
    audio, _ = read_back(file)
    assert abs(len(audio) / info.samplerate - seconds) < 0.06, "within a frame of the format"
    assert file.seconds == pytest.approx(seconds)
    # The voice is in it, at its place.
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(np.sqrt(np.mean(spoken**2)), rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_mp3_has_the_rates_of_mpeg(rate: int) -> None:
    assert read_back(encoded(voice(1.0), MP3, rate=rate))[1] == rate


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_opus_has_five_rates(rate: int) -> None:
    assert read_back(encoded(voice(1.0), OPUS, rate=rate))[1] == rate


@pytest.mark.parametrize("audio_format", [WAV, FLAC, OGG])
@pytest.mark.parametrize("rate", [8_000, 11_111, 96_000, 192_000])
def test_the_other_formats_have_any_rate(audio_format: AudioFormat, rate: int) -> None:
    audio, found = read_back(encoded(voice(1.0), audio_format, rate=rate))
    assert found == rate
    assert len(audio) == pytest.approx(rate, abs=rate / 20)


@pytest.mark.parametrize("audio_format", AudioFormat)
@pytest.mark.parametrize("level", [0.004, 0.05])
def test_a_file_has_the_loudness_that_was_asked_for(audio_format: AudioFormat, level: float) -> None:
    audio, rate = read_back(encoded(voice(4.0, level), audio_format, loudness=-19.0))
    assert Meter(rate).integrated_loudness(audio) == pytest.approx(-19.0, abs=0.5)
    assert np.abs(audio).max() < (1 if audio_format in LOSSY else 10 ** (-1 / 20) + 1e-4)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_a_file_is_trimmed(audio_format: AudioFormat) -> None:
    file = encoded(np.concatenate([quiet(1.0), voice(2.0), quiet(1.5)]), audio_format, trim=True)
    audio, rate = read_back(file)
    assert 2.0 <= file.seconds <= 2.12
    assert len(audio) / rate == pytest.approx(file.seconds, abs=0.06)


@pytest.mark.parametrize("audio_format", [FLAC, OGG, OPUS, MP3])
@pytest.mark.parametrize("text", ["Où est-elle ?\n早上好。", "Good morning.", "Long. " * 20_000, "早" * 100_000])
def test_a_file_names_its_speaker_and_its_text(audio_format: AudioFormat, text: str) -> None:
    tags = tags_of("Ana Peña", text)
    file = encode(SegmentAudio(0, voice(0.5), 1), AudioOptions(), audio_format, tags, lambda: None)
    with soundfile.SoundFile(io.BytesIO(file.data)) as sound:
        assert sound.artist == "Ana Peña"
        assert sound.title == " ".join(text[:1000].split())
        assert sound.frames > 0


def test_lossless_files_of_16_bits_hold_them_as_they_are() -> None:
    samples = to_16_bits(voice(2.0))
    for audio_format in (WAV, FLAC):
        file = encode(SegmentAudio(0, samples, 1), AudioOptions(), audio_format, {}, lambda: None)
        found, _ = soundfile.read(io.BytesIO(file.data), dtype="int16")
        assert np.array_equal(found, samples)


@pytest.mark.slow
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_a_minute_and_more_is_encoded_in_blocks(audio_format: AudioFormat) -> None:
    steps: list[None] = []
    answer = SegmentAudio(0, np.tile(voice(3.0), 30), 1)
    file = encode(answer, AudioOptions(rate=48_000), audio_format, {}, lambda: steps.append(None))
    assert soundfile.info(io.BytesIO(file.data)).duration == pytest.approx(90, abs=0.06)
    assert len(steps) > 50, "each block counts as a step"


def test_a_wav_that_would_be_too_long_at_its_rate_fails() -> None:
    class Hours(np.ndarray):
        def __len__(self) -> int:
            return 4 * 3600 * SAMPLE_RATE

    answer = SegmentAudio(0, np.zeros(1, dtype=np.int16).view(Hours), 1)
    with pytest.raises(SegmentFailed, match="longer than a WAV file of 192000 Hz can be") as failure:
        encode(answer, AudioOptions(rate=192_000), WAV, {}, lambda: None)
    assert failure.value.code == "too_long"


class Wait(NamedTuple):
    """What is so when the encoder waits for a thread: the answers that it has drawn, and whether the engine waits."""

    drawn: list[int]
    paused: bool


class Scene:
    """An encoder of a worker with four slots, whose threads encode when the test lets them."""

    def __init__(self, worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch) -> None:
        worker.engine.slots = 4
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
        monkeypatch.setattr(encoding, "encode", self._encode)
        self.cancellation = Cancellation(worker, BATCH_ID)
        self.monitor = make_monitor(worker, chunk, cancellation=self.cancellation)
        self.encoder = Encoder(worker, AudioOptions(format=FLAC), self.monitor, self.cancellation)
        self.gates = {index: threading.Event() for index in range(6)}
        self.drawn: list[int] = []

    def let(self, *segments: int) -> None:
        """Let the threads encode these."""
        for index in segments:
            self.gates[index].set()

    def is_paused(self) -> bool:
        """Whether the engine may start no segment."""
        return not self.cancellation._unpaused.is_set()

    def watch_waits(self, monkeypatch: pytest.MonkeyPatch) -> list[Wait]:
        """What is so when the encoder begins to wait; then it is let encode all."""
        waits: list[Wait] = []

        def watched(futures: list[Future[EncodedAudio]], timeout: float) -> None:
            waits.append(Wait(list(self.drawn), self.is_paused()))
            self.let(*self.gates)
            wait(futures)

        monkeypatch.setattr(encoding, "wait", watched)
        return waits

    def _encode(self, answer: SegmentAudio, *_: object) -> EncodedAudio:
        assert self.gates[answer.segment].wait(60)
        return EncodedAudio(bytes([answer.segment]), 0.0)

    def answers(self) -> Iterator[SpeechResult]:
        for index in self.gates:
            self.drawn.append(index)
            yield SegmentFailure(2, "bad", "it is bad") if index == 2 else SegmentAudio(index, voice(0.1), 1)

    def pending(self, ending: str, chunk: ChunkMessage) -> dict[int, PendingSegment]:
        speaker = chunk.slices[0]
        return {index: PendingSegment(index, "Hi.", f"{index}.{ending}", 0, "k", speaker) for index in self.gates}


@pytest.fixture
def scene(worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(worker, chunk, monkeypatch)
    yield scene
    scene.let(*scene.gates)


def test_answers_keep_their_order(scene: Scene, chunk: ChunkMessage) -> None:
    with scene.encoder:
        results = scene.encoder.encoded(scene.answers(), scene.pending("flac", chunk))
        scene.let(5, 4, 3, 1, 0)
        found = list(results)
    assert [answer.segment for answer, _ in found] == [0, 1, 2, 3, 4, 5]
    assert [audio and audio().data for _, audio in found] == [b"\0", b"\1", None, b"\3", b"\4", b"\5"]


def test_the_engine_is_drawn_from_until_all_threads_are_busy(
    scene: Scene, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = scene.watch_waits(monkeypatch)
    scene.let(1, 3, 4, 5)
    with scene.encoder:
        results = scene.encoder.encoded(scene.answers(), scene.pending("flac", chunk))
        assert next(results)[0].segment == 0
        assert waits[0].drawn == [0, 1, 2], "three threads: the first is waited for"
        assert [answer.segment for answer, _ in results] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("unfinished", "is_paused"), [(8, False), (9, True)])
def test_the_engine_waits_while_much_of_its_audio_is_not_written(
    scene: Scene, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch, unfinished: int, is_paused: bool
) -> None:
    waits = scene.watch_waits(monkeypatch)
    monkeypatch.setattr(type(scene.monitor), "unfinished", unfinished)
    with scene.encoder:
        assert len(list(scene.encoder.encoded(scene.answers(), scene.pending("flac", chunk)))) == 6
    assert waits[0].paused is is_paused
    assert not scene.is_paused()


def test_the_engine_waits_if_more_is_begun_while_a_thread_is_waited_for(
    scene: Scene, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[Future[EncodedAudio], bool]] = []

    def more_begun(futures: list[Future[EncodedAudio]], **_: float) -> None:
        waits.append((futures[0], scene.is_paused()))
        monkeypatch.setattr(type(scene.monitor), "unfinished", 9)
        if len(waits) > 1:
            scene.let(*scene.gates)
            wait(futures)

    monkeypatch.setattr(encoding, "wait", more_begun)
    monkeypatch.setattr(type(scene.monitor), "unfinished", 8)
    with scene.encoder:
        assert len(list(scene.encoder.encoded(scene.answers(), scene.pending("flac", chunk)))) == 6
    (first, was_paused), (second, is_paused), *_ = waits
    assert first is second
    assert (was_paused, is_paused) == (False, True)
    assert not scene.is_paused()


def test_a_cancellation_ends_the_wait_for_a_thread(
    scene: Scene, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "wait", lambda _futures, **_: scene.cancellation._cancelled.set())
    with scene.encoder:
        assert list(scene.encoder.encoded(scene.answers(), scene.pending("flac", chunk))) == []
        assert scene.drawn == [0, 1, 2], "nothing more is drawn"


def test_what_the_threads_have_begun_ends_when_the_encoder_is_closed(
    worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed = threading.Event(), threading.Event()
    steps: list[None] = []
    threads: list[Future[EncodedAudio]] = []

    def step() -> None:
        steps.append(None)
        begun.set()
        assert closed.wait(60)

    def cancel(futures: list[Future[EncodedAudio]], **_: float) -> None:
        threads.extend(futures)
        assert begun.wait(60)
        cancellation._cancelled.set()

    monkeypatch.setattr(worker, "note_step", step)
    monkeypatch.setattr(encoding, "wait", cancel)
    cancellation = Cancellation(worker, BATCH_ID)
    monitor = make_monitor(worker, chunk, cancellation=cancellation)
    pending = {0: PendingSegment(0, "Hi.", "0.flac", 0, "k", chunk.slices[0])}
    with Encoder(worker, AudioOptions(), monitor, cancellation) as encoder:
        list(encoder.encoded([SegmentAudio(0, voice(30.0), 1)], pending))
    closed.set()
    (thread,) = threads
    assert isinstance(thread.exception(60), CancelledError)
    assert len(steps) == 1, "it does not count as progress any more"


def test_a_wav_is_left_to_the_writer_unless_its_sound_changes(worker: WorkerProcess, chunk: ChunkMessage) -> None:
    cancellation = Cancellation(worker, BATCH_ID)
    monitor = make_monitor(worker, chunk, cancellation=cancellation)
    pending = {0: PendingSegment(0, "Hi.", "0.wav", 0, "k", chunk.slices[0])}
    spoken = voice(1.0)
    for options, is_left in ((AudioOptions(format=MP3), True), (AudioOptions(rate=16_000), False)):
        with Encoder(worker, options, monitor, cancellation) as encoder:
            ((_, audio),) = encoder.encoded([SegmentAudio(0, spoken, 1)], pending)
            assert (audio is None) == is_left
    assert audio is not None
    assert len(audio().data) == pytest.approx(2 * 16_000, abs=100)


def test_a_wav_without_options_has_the_bytes_of_the_plain_one() -> None:
    spoken = voice(1.0)
    assert encoded(spoken, WAV).data == encode_audio(spoken, SAMPLE_RATE, WAV)


def test_what_a_thread_raises_is_raised_where_the_audio_is_wanted(
    worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> EncodedAudio:
        raise OSError("no memory")

    monkeypatch.setattr(encoding, "encode", fail)
    cancellation = Cancellation(worker, BATCH_ID)
    monitor = make_monitor(worker, chunk, cancellation=cancellation)
    pending = {0: PendingSegment(0, "Hi.", "0.mp3", 0, "k", chunk.slices[0])}
    with Encoder(worker, AudioOptions(), monitor, cancellation) as encoder:
        ((_, audio),) = encoder.encoded([SegmentAudio(0, voice(0.1), 1)], pending)
    assert audio is not None
    for _ in range(2):
        with pytest.raises(OSError, match="no memory"):
            audio()
