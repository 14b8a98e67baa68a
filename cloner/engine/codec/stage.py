"""Audio for finished segments while others are still decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cloner.audio import NOT_NUMBERS, Audio
from cloner.engine.base import CODEC_FAILED, NULL_OBSERVER, SegmentAudio, SegmentFailure, StopCheck
from cloner.engine.memory import is_out_of_memory
from cloner.engine.segment_codes import SegmentCodes
from cloner.errors import LoadFailed, reason_of
from cloner.events import Event
from cloner.logs import log_event

OnResult = Callable[[SegmentAudio | SegmentFailure], None]


class AudioDecoder(Protocol):
    """Codes to audio: `CodecDecoder`, or on a GPU `GpuCodec`."""

    device: torch.device
    dtype: torch.dtype

    def decode(self, codes: Sequence[Tensor], stopped: StopCheck) -> Iterator[tuple[int, Audio]]:
        """Audio of each of `codes` ``[codebooks, frames]``, with its place among them; in any order."""
        ...


class CodecStage:
    """On a GPU, a thread and a stream of its own, which decode together all segments that have finished since. A CPU
    has no idle cores for a thread, so there the caller's thread decodes."""

    def __init__(self, codec: AudioDecoder, load_exact: Callable[[], AudioDecoder] | None = None) -> None:
        """`load_exact` gives the codec in fp32, for segments whose numbers are too great for half precision. It is
        called at the first of them."""
        self._codec = codec
        self._load_exact = load_exact
        self._exact: AudioDecoder | None = None
        self.pieces = 0
        """Pieces of audio begun."""
        self._waiting: deque[tuple[SegmentCodes, OnResult, torch.cuda.Event | None]] = deque()
        self._stopped: StopCheck = NULL_OBSERVER.stopped
        self._on_error: Callable[[], object] = bool
        self._thread: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        if codec.device.type == "cuda":
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec")
            self._stream = torch.cuda.Stream(codec.device)  # type: ignore[no-untyped-call]

    def begin(self, stopped: StopCheck, on_error: Callable[[], object] = bool) -> None:
        """Begin a chunk. When it is `stopped`, segments not decoded yet are dropped within a piece of audio. `on_error`
        is called in the thread where it ends with an error, which `finish` raises: others would wait for results that
        do not come."""
        self._stopped, self._on_error = stopped, on_error

    def add(self, segment: SegmentCodes, on_result: OnResult) -> None:
        """Decode a segment, now or soon, and call `on_result` with its result."""
        if self._thread is None:
            self._waiting.append((segment, on_result, None))
            self._decode()
        else:
            self._waiting.append((segment, on_result, torch.cuda.current_stream().record_event()))
            self._futures.append(self._thread.submit(self._decode_on_stream))

    def finish(self) -> None:
        """Wait until every added segment has its result. Raises what went wrong in the thread."""
        futures, self._futures = self._futures, []
        for future in futures:
            future.result()

    def _decode_on_stream(self) -> None:
        try:
            with torch.cuda.stream(self._stream):
                self._decode()
        except BaseException:
            self._on_error()
            raise

    def _decode(self) -> None:
        """Decode all waiting segments. There are none if an earlier call has taken them."""
        batch = []
        while self._waiting:
            segment, on_result, ready = self._waiting.popleft()
            if ready is not None:
                self._stream.wait_event(ready)
                segment.codes.record_stream(self._stream)
            batch.append((segment, on_result))
        left = dict(enumerate(batch))
        try:
            self._decode_batch(left)
        except (RuntimeError, MemoryError) as error:  # whatever torch raises, memory that ran out included
            if _is_device_lost(error):  # decoding one by one would fail as well
                raise
            for item in list(left.values()):
                self._decode_alone(item)

    def _decode_alone(self, item: tuple[SegmentCodes, OnResult]) -> None:
        """Decode a segment without the others, which may have been too much together."""
        try:
            self._decode_batch({0: item})
        except (RuntimeError, MemoryError) as error:
            if _is_device_lost(error):
                raise
            segment, on_result = item
            code = "out_of_memory" if is_out_of_memory(error) else CODEC_FAILED
            on_result(SegmentFailure(segment.request.segment, code, f"the codec broke: {reason_of(error)}"))

    def _decode_batch(self, batch: dict[int, tuple[SegmentCodes, OnResult]]) -> None:
        """Decode segments, whose keys count from 0, and remove each from `batch` when it has its result."""
        all_codes = [segment.codes for segment, _ in batch.values()]
        for place, decoded in self._codec.decode(all_codes, self._before_piece):
            segment, on_result = batch[place]
            number = segment.request.segment
            audio = decoded if np.isfinite(decoded).all() else self._decode_exactly(segment, decoded)
            if audio is None:
                return
            result: SegmentAudio | SegmentFailure
            if np.isfinite(audio).all():
                codes = segment.codes.int().cpu().numpy() if segment.request.with_codes else None
                result = SegmentAudio(number, audio, segment.codes.shape[1], segment.truncated, codes)
            else:
                result = SegmentFailure(number, "generation_failed", f"the codec's {NOT_NUMBERS}")
            del batch[place]
            on_result(result)

    def _decode_exactly(self, segment: SegmentCodes, audio: Audio) -> Audio | None:
        """A segment's audio in fp32, which is `audio` if the codec computes in fp32; None if the chunk is stopped.
        Raises `RuntimeError` where the codec cannot be loaded."""
        if self._load_exact is None or self._codec.dtype is torch.float32:
            return audio
        log_event(Event.CODEC_NOT_FINITE, segment=segment.request.segment, dtype=self._codec.dtype)
        try:
            self._exact = self._exact or self._load_exact()
        except LoadFailed as error:  # the files have changed: other segments do not need them
            raise RuntimeError(f"it cannot be loaded in fp32: {error}") from error
        codes = segment.codes.to(self._exact.device)
        return next((exact for _place, exact in self._exact.decode([codes], self._before_piece)), None)

    def _before_piece(self) -> bool:
        self.pieces += 1
        return self._stopped()


def _is_device_lost(error: RuntimeError | MemoryError) -> bool:
    """Whether nothing can be computed any more: CUDA's errors stay, but for memory that ran out."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
