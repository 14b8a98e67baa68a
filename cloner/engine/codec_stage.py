"""Audio for finished segments while others are still decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from cloner.audio import NOT_NUMBERS
from cloner.engine.base import UNWATCHED, SegmentAudio, SegmentFailure
from cloner.engine.codec import CodecDecoder
from cloner.engine.memory import ran_out
from cloner.engine.scheduler import SegmentCodes
from cloner.errors import reason_of

Take = Callable[[SegmentAudio | SegmentFailure], None]
Stopped = Callable[[], bool]


class CodecStage:
    """On a GPU, a thread and a stream of its own, which take together whatever has been finished meanwhile. On a CPU
    there are no idle cores to gain, so it runs where it is called."""

    def __init__(self, codec: CodecDecoder) -> None:
        self._codec = codec
        self.pieces = 0
        """Pieces of sound that were begun: grows with the work."""
        self._waiting: deque[tuple[SegmentCodes, Take, torch.cuda.Event | None]] = deque()
        self._stopped: Stopped = UNWATCHED.stopped
        self._thread: ThreadPoolExecutor | None = None
        self._work: list[Future[None]] = []
        if codec.device.type == "cuda":
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec")
            self._stream = torch.cuda.Stream(codec.device)  # type: ignore[no-untyped-call]

    def begin(self, stopped: Stopped) -> None:
        """A chunk begins; when it is `stopped`, what is not decoded is dropped within a piece of sound."""
        self._stopped = stopped

    def add(self, segment: SegmentCodes, take: Take) -> None:
        """Decode a segment, now or soon, and hand the answer to `take`."""
        if self._thread is None:
            self._waiting.append((segment, take, None))
            self._decode()
        else:
            self._waiting.append((segment, take, torch.cuda.current_stream().record_event()))
            self._work.append(self._thread.submit(self._decode_beside))

    def finish(self) -> None:
        """Wait until all that was added is answered. Raises what went wrong."""
        work, self._work = self._work, []
        for item in work:
            item.result()

    def _decode_beside(self) -> None:
        with torch.cuda.stream(self._stream):
            self._decode()

    def _decode(self) -> None:
        """Decode what waits; nothing, if an earlier call has taken it along."""
        batch = []
        while self._waiting:
            segment, take, ready = self._waiting.popleft()
            if ready is not None:
                self._stream.wait_event(ready)
                segment.codes.record_stream(self._stream)
            batch.append((segment, take))
        try:
            self._answer(batch)
        except torch.AcceleratorError:  # the device is gone, and with it whatever else would be tried on it
            raise
        except (RuntimeError, MemoryError):  # what else torch raises, memory that ran out included
            for one in batch:
                self._answer_alone(one)

    def _answer_alone(self, one: tuple[SegmentCodes, Take]) -> None:
        """Decode a segment without the others, which may have been too much together."""
        try:
            self._answer([one])
        except torch.AcceleratorError:
            raise
        except (RuntimeError, MemoryError) as error:
            segment, take = one
            code = "out_of_memory" if ran_out(error) else "generation_failed"
            take(SegmentFailure(segment.line.segment, code, f"the codec broke: {reason_of(error)}"))

    def _answer(self, batch: list[tuple[SegmentCodes, Take]]) -> None:
        decoded = list(self._codec.decode([segment.codes for segment, _ in batch], self._before_piece))
        for place, audio in decoded:
            segment, take = batch[place]
            number = segment.line.segment
            if np.isfinite(audio).all():
                take(SegmentAudio(number, audio, segment.codes.shape[1], segment.truncated))
            else:
                take(SegmentFailure(number, "generation_failed", f"the codec's {NOT_NUMBERS}"))

    def _before_piece(self) -> bool:
        self.pieces += 1
        return self._stopped()
