"""An engine without a model: it generates tones for every text. For tests, and for trying a fleet out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Sequence
from time import monotonic, sleep

import numpy as np

from cloner.audio import FRAME_SAMPLES, FRAMES_PER_CHARACTER, Audio, Codes, check_codes, check_recording
from cloner.batch import CODEBOOK_SIZES, NOT_IN_CONTENT_KEY
from cloner.engine.base import (
    NULL_OBSERVER,
    ChunkObserver,
    LogFunction,
    RequestQueue,
    SegmentAudio,
    SegmentFailure,
    SpeechRequest,
    SpeechResult,
)
from cloner.errors import SegmentFailed
from cloner.events import Event

SHORTEST_FRAMES = 11
"""Just over half a second."""

STEP_S = 0.05
"""Seconds between two steps."""

PARTIALS = 3
POSITIONS = np.arange(FRAME_SAMPLES, dtype=np.int32)
SINE = (0.15 * np.sin(2 * np.pi * POSITIONS / FRAME_SAMPLES)).astype(np.float32)


class FakeEngine:
    """Deterministic tones instead of speech; no torch, no checkpoint.

    A segment's audio depends on its voice, text, generation parameters and seed, and on nothing else. Its length
    grows with the text. Loading takes `load_s` seconds; up to `slots` segments take `segment_s` seconds together.
    References are checked as in a real engine.
    """

    name = "fake"
    warning = ""
    trained = False
    cache_gb = 0.0

    def __init__(self, slots: int = 1, load_s: float = 0.0, segment_s: float = 0.0) -> None:
        self.slots = slots
        self.steps = 0
        self._load_s = load_s
        self._segment_s = segment_s

    def load(self, log: LogFunction) -> None:
        log(Event.LOADING_TEXT2SEMANTIC.line())
        self._work(self._load_s / 2, NULL_OBSERVER)
        log(Event.LOADING_DAC.line())
        self._work(self._load_s / 2, NULL_OBSERVER)

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Codes ``[10, ceil(samples / 2048)]`` that depend on the recording alone."""
        return [_codes(recording) for recording in recordings]

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        queue = RequestQueue.of(requests)
        while together := queue.next_group(self.slots):
            for request in together:
                observer.started(request.segment)
            self._work(self._segment_s, observer)
            for request in together:
                if observer.stopped():
                    return
                self.steps += 1
                yield _generate(request)

    def wake(self) -> None:
        """Nothing: it generates in its caller's thread."""

    def close(self) -> None:
        """Nothing to release."""

    def _work(self, seconds: float, observer: ChunkObserver) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0 and not observer.stopped():
            sleep(min(left, STEP_S))
            self.steps += 1


def _codes(recording: Audio) -> Codes:
    check_recording(recording)
    frames = math.ceil(recording.size / FRAME_SAMPLES)
    digest = hashlib.sha256(np.ascontiguousarray(recording, dtype="<f4").tobytes()).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    return random.integers(0, np.array(CODEBOOK_SIZES)[:, None], (len(CODEBOOK_SIZES), frames), dtype=np.int32)


def _generate(request: SpeechRequest) -> SegmentAudio | SegmentFailure:
    try:
        check_codes(request.voice.codes)
    except SegmentFailed as failure:
        return SegmentFailure(request.segment, failure.code, failure.message)
    generation = request.generation
    wanted = math.ceil(len(request.text) * FRAMES_PER_CHARACTER)
    whole = max(wanted, SHORTEST_FRAMES, generation.min_new_tokens)
    frames = min(whole, generation.max_new_tokens)
    heard = generation.model_dump_json(exclude=NOT_IN_CONTENT_KEY)
    identity = "\n".join((request.voice.key, heard, str(request.seed), request.text))
    return SegmentAudio(request.segment, np.tile(_frame(identity), frames), frames, truncated=frames < whole)


def _frame(identity: str) -> Audio:
    """One frame of audio. Each partial has a whole number of periods in it, so frames follow without a click."""
    draws = np.frombuffer(hashlib.sha256(identity.encode()).digest(), dtype="<u2").astype(np.int32)[:, None]
    cycles = 5 + draws[:PARTIALS] % 100  # 108 to 2240 Hz
    offsets = draws[PARTIALS : 2 * PARTIALS]
    frame: Audio = SINE[(cycles * POSITIONS + offsets) % FRAME_SAMPLES].sum(axis=0)
    return frame
