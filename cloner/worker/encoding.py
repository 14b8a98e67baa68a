"""Encoding a chunk's audio in threads of its own, while the engine generates the next segments.

Most batches do not need it: a WAV file whose sound stays as it is takes a millisecond, and is encoded where it is
written.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from cloner.audio import SAMPLE_RATE, Audio, Samples16, effects, format_of, sample_rate
from cloner.audio_bytes import MOST_WAV_SAMPLES, encode_blocks
from cloner.batch import AudioFormat, AudioOptions
from cloner.engine.base import SegmentAudio, SpeechResult
from cloner.errors import SegmentFailed
from cloner.output.audio_peaks import PeakMeter
from cloner.process import usable_cores
from cloner.worker.audio_effects import as_float, gain, resampled, trimmed
from cloner.worker.cancellation import CANCEL_INTERVAL_S, Cancellation
from cloner.worker.chunk_monitor import ChunkMonitor
from cloner.worker.pending import PendingSegment
from cloner.worker.worker_process import WorkerProcess

MOST_THREADS = 8
"""Threads that encode. One encodes about 50 s of MP3 in a second, or 35 s of Opus, and a GPU generates hundreds."""

MOST_BEHIND = 2
"""Segments a slot that may be begun and not written before the engine has to wait: their audio would fill the
memory."""


MOST_TAG = 1000
"""Most characters of a tag: with one of 100,000, libsndfile writes Opus files that it does not read itself."""


@dataclass(frozen=True)
class EncodedAudio:
    """An audio file in memory, its length in seconds, and its peaks."""

    data: bytes
    seconds: float
    peaks: bytes


Encoding = Callable[[], EncodedAudio]
"""Returns the encoded audio, or raises why there is none; the same each time."""


class Encoder:
    """Encodes what the engine answers. A context manager around a run of a chunk."""

    def __init__(
        self, worker: WorkerProcess, options: AudioOptions, monitor: ChunkMonitor, cancellation: Cancellation
    ) -> None:
        self._options = options
        self._is_wav_plain = not effects(options, AudioFormat.WAV)
        self._worker = worker
        self._closed = threading.Event()
        self._monitor = monitor
        self._cancellation = cancellation
        slots = worker.engine.slots
        threads = min(MOST_THREADS, usable_cores(), slots)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="encoding")
        self._most_ahead = threads - 1
        self._most_behind = MOST_BEHIND * slots

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was begun is of no use any more. It ends at its next block, and is not waited for.
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def encoded(
        self, answers: Iterable[SpeechResult | None], pending: Mapping[int, PendingSegment]
    ) -> Iterator[tuple[SpeechResult, Encoding | None]]:
        """The answers in their order, each with its audio; with None where the writer encodes it, or there is none.
        None among the answers is none: what is encoded meanwhile follows.

        While the engine generates the next, as many are encoded as there are threads. Ends early if the batch is
        cancelled while a thread is waited for.
        """
        ahead: deque[tuple[SpeechResult, Future[EncodedAudio] | None]] = deque()
        for answer in answers:
            if answer:
                ahead.append((answer, self._begin(answer, pending)))
            while ahead and (len(ahead) > self._most_ahead or _is_there(ahead[0][1])):
                if not self._wait(ahead[0][1]):
                    return
                yield _with_encoding(*ahead.popleft())
        while ahead and self._wait(ahead[0][1]):
            yield _with_encoding(*ahead.popleft())

    def _begin(self, answer: SpeechResult, pending: Mapping[int, PendingSegment]) -> Future[EncodedAudio] | None:
        if not isinstance(answer, SegmentAudio):
            return None
        segment = pending[answer.segment]
        audio_format = format_of(segment.output)
        if audio_format is AudioFormat.WAV and self._is_wav_plain:
            return None
        tags = tags_of(segment.speaker.id, segment.text)
        future = self._threads.submit(encode, answer, self._options, audio_format, tags, self._step)
        # The file is written at once, and not after the engine's next answer.
        future.add_done_callback(lambda _: self._worker.engine.wake())
        return future

    def _wait(self, future: Future[EncodedAudio] | None) -> bool:
        """Wait for a thread; returns false if the batch is cancelled meanwhile.

        The engine is paused as soon as too much of its audio is not written, until the thread is done.
        """
        with ExitStack() as stack:
            is_paused = False
            while future is not None and not future.done():
                if self._cancellation.stopped():
                    return False
                if not is_paused and self._monitor.unfinished > self._most_behind:
                    stack.enter_context(self._cancellation.paused())
                    is_paused = True
                wait([future], timeout=CANCEL_INTERVAL_S)
        return True

    def _step(self) -> None:
        """Count a block as the worker's step. In one of the threads; raises `CancelledError` if the encoder is closed,
        after which it would hide an engine that hangs."""
        if self._closed.is_set():
            raise CancelledError
        self._worker.note_step()


def _with_encoding(answer: SpeechResult, future: Future[EncodedAudio] | None) -> tuple[SpeechResult, Encoding | None]:
    return answer, None if future is None else future.result


def tags_of(speaker: str, text: str) -> dict[str, str]:
    """What a file says of itself."""
    return {"artist": speaker[:MOST_TAG], "title": " ".join(text[:MOST_TAG].split())}


def _is_there(future: Future[EncodedAudio] | None) -> bool:
    return future is None or future.done()


def encode(
    answer: SegmentAudio,
    options: AudioOptions,
    audio_format: AudioFormat,
    tags: Mapping[str, str],
    note_step: Callable[[], object],
) -> EncodedAudio:
    """The answer's audio as a file. `note_step` is called at each block, so that a long one does not seem to hang.

    Raises `SegmentFailed`, `OSError`, `soundfile.SoundFileError`.
    """
    rate = sample_rate(options, audio_format)
    audio = trimmed(answer.audio) if options.trim else answer.audio
    if audio_format is AudioFormat.WAV and len(audio) * rate / SAMPLE_RATE > MOST_WAV_SAMPLES:
        message = f"its audio would be longer than a WAV file of {rate} Hz can be: split the text, or lower the rate"
        raise SegmentFailed(message, code="too_long")

    def blocks() -> Iterator[Audio | Samples16]:
        for block in resampled(audio, rate):
            note_step()
            yield block

    processed = blocks()
    if options.loudness is not None:
        factor = np.float32(gain(blocks(), rate, options.loudness))
        processed = (as_float(block) * factor for block in blocks())
    meter = PeakMeter(round(len(audio) * rate / SAMPLE_RATE))
    data = encode_blocks(meter.metered(processed), rate, audio_format, tags)
    return EncodedAudio(data, len(audio) / SAMPLE_RATE, meter.peaks())
