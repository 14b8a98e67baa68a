"""The batched engine: many segments at once through one model, in slots that are never empty while a text waits.

Three stages: references and texts become prompts (`prompt.py`), a scheduler decodes them together
(`slots/scheduler.py`, and on a GPU `token_rows/scheduler.py`), the codec makes audio (`codec/stage.py`). Decoding has
a thread of its own, so it does not wait while the caller writes files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import torch

from cloner.audio import Audio, Codes
from cloner.engine.base import (
    NULL_OBSERVER,
    ChunkObserver,
    LogFunction,
    RequestQueue,
    SegmentFailure,
    SpeechRequest,
    SpeechResult,
)
from cloner.engine.checkpoint.folder import check_checkpoint, has_random_weights
from cloner.engine.checkpoint.weights import check_device
from cloner.engine.codec.padded import CODEC_FRAMES, CodecEncoder
from cloner.engine.kernel_trial.support import missing_for_kernels
from cloner.engine.memory import GB, is_out_of_memory
from cloner.engine.pipeline import Options, Pipeline, load_pipeline
from cloner.errors import EngineBroken, LoadFailed, reason_of
from cloner.events import Event as LogEvent
from cloner.logs import log_event


class _Wake:
    """Stands among the results where `wake` was called."""


class BatchedEngine:
    """Continuous batching over slots; their number follows from the memory that the worker may use."""

    name = "batched"

    def __init__(self, checkpoint_dir: Path, device: torch.device, precision: torch.dtype, options: Options) -> None:
        self.slots = options.slots
        self.warning = ""
        self.trained = not has_random_weights(checkpoint_dir)
        self._checkpoint_dir = checkpoint_dir
        self._device = device
        self._precision = precision
        self._options = options
        self._pipeline: Pipeline | None = None
        self._encoder: CodecEncoder | None = None
        self._results = 0
        self._answers: SimpleQueue[SpeechResult | _Wake | None] = SimpleQueue()
        """Results of the chunk that is generated, None after the last."""
        self._encoded = 0
        # A captured graph belongs to the thread that captured it, so this thread does all work on the device.
        self._decoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding")

    @property
    def pipeline(self) -> Pipeline:
        """The loaded models. Raises `RuntimeError` before `load` and after `close`."""
        if self._pipeline is None:
            raise RuntimeError("the engine is not loaded")
        return self._pipeline

    @property
    def cache_gb(self) -> float:
        pipeline = self._pipeline
        return pipeline.scheduler.cache_bytes / GB if pipeline else 0.0

    @property
    def steps(self) -> int:
        pipeline = self._pipeline  # read once: another thread may close the engine
        return (pipeline.steps if pipeline else 0) + self._encoded + self._results

    def load(self, log: LogFunction) -> None:
        check_checkpoint(self._checkpoint_dir)
        try:
            check_device(self._device)
            self._decoding.submit(self._load, log).result()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LoadFailed("the models do not fit into the device's memory: start fewer workers on it") from None

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """Raises `EngineBroken`, too, where the device is lost or has no memory, which is no recording's fault: a new
        process plans its cache by the memory that is free."""
        try:
            return self._decoding.submit(self._encode, recordings).result()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
                raise EngineBroken(f"the engine broke: {reason_of(error)}") from error
            raise

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult | None, None, None]:
        """The first requests are drawn at once, since the longest are decoded first. Closing the generator stops the
        chunk within a step."""
        queue = RequestQueue.of(requests)
        queue.draw_first()
        results = self._answers = SimpleQueue()
        closed = Event()
        work = self._decoding.submit(self._speak, queue, results.put, _ClosableObserver(observer, closed))
        try:
            while (result := results.get()) is not None:
                if isinstance(result, _Wake):
                    yield None
                    continue
                self._results += 1
                yield result
        finally:
            closed.set()
            work.result()

    def wake(self) -> None:
        self._answers.put(_Wake())

    def close(self) -> None:
        self._decoding.shutdown(wait=True)
        self._encoder = self._pipeline = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self, log: LogFunction) -> None:
        load = load_pipeline
        if self._device.type == "cuda":
            if missing := missing_for_kernels():
                log_event(LogEvent.KERNELS_UNAVAILABLE, missing=missing)
                self.warning = LogEvent.KERNELS_UNAVAILABLE.line(missing=missing)
            else:
                if self._options.kernel_cache:
                    self._options.kernel_cache.open()
                from cloner.engine.gpu_pipeline import load_gpu_pipeline as load  # imports Triton
        self._pipeline = load(self._checkpoint_dir, self._device, self._precision, self._options, log)
        self.slots = self._pipeline.scheduler.slots
        self.warning = self.warning or self._pipeline.warning

    def _encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        """In the decoding thread: encode recordings together, or one by one if memory runs out."""
        try:
            return self._encode_together(recordings)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler: the exception's frames hold references to the memory that is to be released.
        log_event(LogEvent.ENCODING_OUT_OF_MEMORY, recordings=len(recordings))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return [codes for recording in recordings for codes in self._encode_together([recording])]

    def _encode_together(self, recordings: Sequence[Audio]) -> list[Codes]:
        if self._encoder is None:  # most batches bring codes, and do not need it
            self._encoder = CodecEncoder(self._checkpoint_dir, self._device, CODEC_FRAMES)
        codes = self._encoder.encode(recordings)
        self._encoded += len(recordings)
        return codes

    def _speak(
        self,
        requests: RequestQueue,
        on_result: Callable[[SpeechResult | None], None],
        observer: ChunkObserver,
    ) -> None:
        """In the decoding thread: call `on_result` with each result, then with None."""
        scheduler, codec_stage = self.pipeline.scheduler, self.pipeline.codec_stage
        codec_stage.begin(observer.stopped, on_error=requests.close)
        try:
            for result in scheduler.run(requests, observer):
                if isinstance(result, SegmentFailure):
                    on_result(result)
                else:
                    codec_stage.add(result, on_result)
        finally:
            self.slots = scheduler.slots
            try:
                codec_stage.finish()
            finally:
                on_result(None)


@dataclass(frozen=True)
class _ClosableObserver:
    """Also stops the chunk when the caller has closed the generator of results."""

    observer: ChunkObserver
    closed: Event

    def started(self, segment: int) -> None:
        self.observer.started(segment)

    def stopped(self) -> bool:
        return self.closed.is_set() or self.observer.stopped()

    def dropped(self, segment: int) -> bool:
        return self.observer.dropped(segment)
