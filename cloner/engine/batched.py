"""The engine: many segments at once through one model, on slots that are never empty while a text waits.

Three stages, each with its file: references and texts become prompts (`prompt.py`, `prefixes.py`), the scheduler
decodes them together (`scheduler.py`), the codec makes audio (`codec.py`). Decoding has a thread of its own, so it does
not wait while the caller writes files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch

from cloner.audio import Audio, Codes
from cloner.engine import fish
from cloner.engine.base import UNWATCHED, Say, SegmentFailure, SpeechRequest, SpeechResult, Watch
from cloner.engine.cache import Cache, position_bytes
from cloner.engine.checkpoint import check_checkpoint
from cloner.engine.codec import CodecDecoder, CodecEncoder
from cloner.engine.codec_stage import CodecStage
from cloner.engine.decoder import Decoder
from cloner.engine.memory import GB, Memory, free_bytes, plan_cache, used_bytes, work_bytes
from cloner.engine.model import Model
from cloner.engine.prefix_cache import PrefixCache
from cloner.engine.prompt import Prompts
from cloner.engine.scheduler import Scheduler
from cloner.engine.stepper import Stepper
from cloner.engine.weights import check_device
from cloner.errors import EngineBroken, LoadFailed, reason_of
from cloner.events import Event

SLOT_POSITIONS = 2048
"""Positions of a usual slot: 30 s of reference, its text and the segment's, and 1,024 frames."""

CODEC_FRAMES = 512
"""Frames, padding included, that the codec takes at once: 1.6 MB each in half precision, at the published size."""


@dataclass(frozen=True)
class Options:
    """At most `slots`, as many as `memory_gb` holds beside the models. With `deterministic`, exactly so many, and a
    segment's codes do not depend on its neighbours. `resampling` is off only to compare with an upstream that does
    not draw repeated tokens again."""

    memory_gb: float
    slots: int
    deterministic: bool = False
    resampling: bool = True


class BatchedEngine:
    """Continuous batching over fixed slots; their number follows from the memory that the worker may use."""

    name = "batched"

    def __init__(self, checkpoint_dir: Path, device: torch.device, precision: torch.dtype, options: Options) -> None:
        self.slots = options.slots
        self._checkpoint_dir = checkpoint_dir
        self._device = device
        self._precision = precision
        self._options = options
        self._encoder: CodecEncoder | None = None
        self._answers = self._encoded = 0
        # A captured graph belongs to the thread that made it, so everything on the device happens here.
        self._decoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoding")

    @property
    def cache_gb(self) -> float:
        scheduler: Scheduler | None = self.__dict__.get("scheduler")
        return (scheduler.decoder.cache.nbytes + scheduler.prefixes.room) / GB if scheduler else 0.0

    @property
    def steps(self) -> int:
        scheduler: Scheduler | None = self.__dict__.get("scheduler")
        if scheduler is None:
            return 0
        read = scheduler.prefixes.computed + self._encoded
        return scheduler.use.steps + read + self._stage.pieces + self._answers

    def load(self, say: Say) -> None:
        check_checkpoint(self._checkpoint_dir)
        check_device(self._device)
        try:
            self._decoding.submit(self._load, say).result()
        except torch.OutOfMemoryError:
            raise LoadFailed("the models do not fit into the GPU's memory: start fewer workers on it") from None

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        try:
            return self._decoding.submit(self._encode, recordings).result()
        except torch.AcceleratorError as error:
            raise EngineBroken(f"the engine broke: {reason_of(error)}") from error

    def speak(self, lines: Iterable[SpeechRequest], watch: Watch = UNWATCHED) -> Generator[SpeechResult, None, None]:
        """All lines are drawn at once: the longest are spoken first. Closing the iterator stops within a step."""
        drawn = list(lines)
        answers: SimpleQueue[SpeechResult | None] = SimpleQueue()
        stopped = threading.Event()
        work = self._decoding.submit(self._speak, drawn, answers.put, _Ended(watch, stopped))
        try:
            while (answer := answers.get()) is not None:
                self._answers += 1
                yield answer
        finally:
            stopped.set()
            work.result()

    def close(self) -> None:
        self._decoding.shutdown(wait=True)
        self._encoder = None
        for name in ("scheduler", "_stage"):
            self.__dict__.pop(name, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _load(self, say: Say) -> None:
        options = self._options
        before = used_bytes(self._device)
        # It plans anew for each shape, and prompts hardly ever have the same; the other ways of attention do not.
        torch.backends.cuda.enable_cudnn_sdp(False)
        say(Event.LOADING_TEXT2SEMANTIC.line())
        upstream = fish.load_text2semantic(self._checkpoint_dir, self._device, self._precision)
        model = Model(upstream)
        prompts = Prompts(upstream.tokenizer, model.positions)
        del upstream
        say(Event.LOADING_DAC.line())
        codec = CodecDecoder(self._checkpoint_dir, self._device, CODEC_FRAMES)
        self._stage = CodecStage(codec)
        size = plan_cache(
            Memory(
                int(options.memory_gb * GB),
                used=used_bytes(self._device) - before,
                free=free_bytes(self._device),
                work=work_bytes(self._device),
            ),
            position_bytes(model.slow, self._precision),
            min(SLOT_POSITIONS, model.positions),
            options.slots,
            exactly=options.deterministic,
        )
        say(size.line())
        self.slots = size.slots
        cache = Cache(model.slow, size.slots * size.positions, self._precision, self._device)
        cache.shape(size.positions)
        longest = min(codec.longest_frames, model.positions)
        decoder = Decoder(model, cache, size.slots, longest, resampling=options.resampling)
        stepper = Stepper(decoder, size.slots, deterministic=options.deterministic)
        prefixes = PrefixCache(decoder, prompts, size.prefix_bytes)
        self.scheduler = Scheduler(decoder, stepper, prompts, prefixes, size.positions, longest, options.deterministic)
        stepper.warm_up()

    def _encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        if self._encoder is None:  # most batches bring codes, and never need it
            self._encoder = CodecEncoder(self._checkpoint_dir, self._device, CODEC_FRAMES)
        codes = self._encoder.encode(recordings)
        self._encoded += len(recordings)
        return codes

    def _speak(self, lines: list[SpeechRequest], answer: Callable[[SpeechResult | None], None], watch: Watch) -> None:
        """In the decoding thread: answer every line, then None."""
        self._stage.begin(watch.stopped)
        try:
            for item in self.scheduler.run(lines, watch):
                if isinstance(item, SegmentFailure):
                    answer(item)
                else:
                    self._stage.add(item, answer)
        finally:
            self.slots = self.scheduler.stepper.most_slots
            try:
                self._stage.finish()
            finally:
                answer(None)


@dataclass(frozen=True)
class _Ended:
    """A watch that also stops when nobody takes answers any more."""

    watch: Watch
    nobody: threading.Event

    def started(self, segment: int) -> None:
        self.watch.started(segment)

    def stopped(self) -> bool:
        return self.nobody.is_set() or self.watch.stopped()
