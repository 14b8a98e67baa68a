"""Encoding beside the engine: the order of answers, the threads, and when the engine waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from queue import SimpleQueue
from typing import NamedTuple

import pytest

from cloner.batch import AudioFormat, AudioOptions
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechResult
from cloner.protocol.messages import ChunkMessage
from cloner.worker import encoding
from cloner.worker.cancellation import Cancellation
from cloner.worker.encoding import EncodedAudio, Encoder
from cloner.worker.pending import PendingSegment
from cloner.worker.worker_process import WorkerProcess
from tests.support.polling import TIMEOUT_S
from tests.support.sounds import voice
from tests.support.workers import BATCH_ID
from tests.unit.worker.test_chunk_monitor import make_monitor

WAV, FLAC, OGG, OPUS, MP3 = AudioFormat


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
        return EncodedAudio(bytes([answer.segment]), 0.0, b"")

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


def test_what_is_encoded_is_written_before_the_engine_has_its_next_answer(
    scene: Scene, worker: WorkerProcess, chunk: ChunkMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: SimpleQueue[None] = SimpleQueue()
    monkeypatch.setattr(worker.engine, "wake", lambda: woken.put(None))
    written: list[int] = []

    def answers() -> Iterator[SpeechResult | None]:
        yield SegmentAudio(0, voice(0.1), 1)
        scene.let(0, 1)
        while not written:
            woken.get(timeout=TIMEOUT_S)
            yield None
        yield SegmentAudio(1, voice(0.1), 1)

    with scene.encoder:
        for answer, _ in scene.encoder.encoded(answers(), scene.pending("flac", chunk)):
            written.append(answer.segment)
    assert written == [0, 1]


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
