"""The codec's decoder for a GPU: codes of many segments to audio, packed behind one another instead of padded.

A batch is one CUDA graph, of as many frames as the segments and the gaps between them need, rounded up. Its samples
come back through pinned memory while the next batch is computed. The host waits for events only, on a stream of its
own, so that decoding goes on beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES, Audio
from cloner.engine.base import NULL_OBSERVER, StopCheck
from cloner.engine.checkpoint import fish
from cloner.engine.codec.ragged_batch import Batch, HostBuffers, pack
from cloner.engine.codec.ragged_quantizer import RaggedQuantizer
from cloner.engine.codec.ragged_waveform import RaggedWaveform
from cloner.engine.kernels.codec.kernel_set import CodecPlan
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS
from cloner.engine.kernels.codec.rows import GAP_FRAMES
from cloner.engine.memory import ONE_CAPTURES, is_out_of_memory
from cloner.events import Event
from cloner.logs import log_event

IN_FLIGHT = 2
"""Batches that are computed or copied at the same time: one of each."""

ROUND_FRAMES = 32
"""Graphs are captured for multiples of this many frames."""

LEAST_FRAMES = 32
"""Frames that a batch may be asked to have at most: with less memory than that, there is no codec."""

GROW_BATCHES, MOST_GROW_BATCHES = 64, 1024
"""Where memory ran out, batches of twice as many frames are tried when so many are decoded. Each time that it runs out
again, it takes twice as many, up to the second figure."""


class GpuCodec:
    """Codes to audio on one device. On a CPU it computes the same, with plain torch functions as kernels; for tests."""

    def __init__(self, upstream: fish.Codec, device: torch.device, batch_frames: int, plan: CodecPlan) -> None:
        """`upstream` is the codec with its decoder, in fp32 on `device`, and not changed; at most `batch_frames`, gaps
        included, are decoded together. Raises `ValueError` for a codec of another kind than the published one."""
        self.device, self.dtype = device, plan.dtype
        self.max_frames = fish.codec_frames(upstream)
        self._is_cuda = device.type == "cuda"
        self._round = ROUND_FRAMES if self._is_cuda else 1
        self._batch_frames = self._full_frames = batch_frames
        self._grow_batches, self._decoded = GROW_BATCHES, 0
        """Batches until more frames are tried, and those since their number was changed last."""
        with torch.inference_mode():
            self._quantizer = RaggedQuantizer(upstream.quantizer, plan)
            self._waveform = RaggedWaveform(upstream.decoder, plan)
            books = len(self._quantizer.codebook_sizes)
            self._codes = torch.zeros(books * batch_frames, dtype=torch.int32, device=device)
            self._gap = torch.zeros(books, batch_frames, dtype=torch.int32, device=device)
            self._first = torch.zeros(batch_frames, dtype=torch.int32, device=device)
            self._samples = torch.zeros(batch_frames * FRAME_SAMPLES, device=device)
            self._finite = torch.zeros(len(self._samples) // SUM_ROWS, dtype=torch.int8, device=device)
            self._buffers = deque(HostBuffers(batch_frames, pinned=self._is_cuda) for _ in range(IN_FLIGHT))
        self._lead_frames = -(-int(self._waveform.layers.lookback + 1) // self._quantizer.columns)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self._is_cuda:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self) -> None:
        """Compile all kernels and capture all graphs; where memory runs out, batches become smaller."""
        while self._is_cuda:
            try:
                with self._on_stream(), torch.inference_mode():
                    self._first.fill_(-1)
                    self._compute(self._batch_frames)  # kernels are compiled and loaded here, not while capturing
                    self.stream.synchronize()
                    torch.cuda.empty_cache()  # its activations: the graphs have a pool of their own
                    # The largest first: the memory that it takes is enough for all.
                    for frames in range(self._batch_frames, 0, -ROUND_FRAMES):
                        self._graph(frames)
                self._full_frames = self._batch_frames  # what is left of memory is planned for other things
                return
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._halve():
                    raise

    def decode(
        self, codes: Sequence[Tensor], stopped: StopCheck = NULL_OBSERVER.stopped
    ) -> Iterator[tuple[int, Audio]]:
        """Audio of each of `codes` ``[codebooks, frames]``, with its place among them; in any order.

        Audio that is not finite is all NaN there. A segment that is not finite among others is decoded again alone: it
        may have been another one's fault. When it is `stopped`, it ends before the next batch. Where memory runs out,
        batches are half as large, and grow again later.
        """
        self._grow_if_due()
        lengths = [item.shape[1] for item in codes]
        waiting = deque(pack(lengths, range(len(codes)), self._batch_frames))
        running: deque[Batch] = deque()
        try:
            while waiting or running:
                if waiting and len(running) < IN_FLIGHT:
                    if stopped():
                        return
                    launched = self._launch(waiting[0], codes, may_halve=not running)
                    if launched is not None:
                        self._decoded += 1
                        running.append(launched)
                        waiting.popleft()
                        continue
                    left = [place for places in waiting for place in places]
                    waiting = deque(pack(lengths, left, self._batch_frames))
                if running:
                    finished, broken = running.popleft().finish()
                    waiting.extend([place] for place in broken)
                    yield from finished
        finally:
            for batch in running:
                batch.wait()

    def _launch(self, places: list[int], codes: Sequence[Tensor], *, may_halve: bool) -> Batch | None:
        """Launch these segments; None where there was not enough memory, and there is more now: batches are half as
        large, or what runs is to give its memory back first."""
        try:
            return self._launched(places, codes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (may_halve and not self._halve()):
                raise
            return None

    @torch.inference_mode()
    def _launched(self, places: list[int], codes: Sequence[Tensor]) -> Batch:
        """Have the device decode these segments, and copy their samples to the host."""
        batch = Batch(places, [codes[place].shape[1] for place in places])
        with self._on_stream():
            if batch.frames > self._batch_frames:
                buffers = HostBuffers(batch.frames, pinned=self._is_cuda)
                self._decode_long(codes[places[0]], buffers)
            else:
                buffers = self._buffers[0]
                self._buffers.rotate(-1)
                self._decode_packed(batch, [codes[place] for place in places], buffers)
            if buffers.copied is not None:
                buffers.copied.record(self.stream)
        batch.buffers = buffers
        return batch

    def _decode_packed(self, batch: Batch, codes: list[Tensor], buffers: HostBuffers) -> None:
        """Fill the device's codes with segments and gaps, and replay the graph of so many frames."""
        frames = min(-(-batch.frames // self._round) * self._round, self._batch_frames)
        parts = []
        for item in codes:
            parts += [item.to(self.device, torch.int32, non_blocking=True), self._gap[:, :GAP_FRAMES]]
        parts[-1] = self._gap[:, : frames - batch.frames]
        torch.cat(parts, dim=1, out=self._codes_of(frames))
        buffers.first.numpy()[:frames] = batch.first(frames)
        self._first[:frames].copy_(buffers.first[:frames], non_blocking=True)
        if self._is_cuda:
            self._graph(frames).replay()
        else:
            self._compute(frames)
        buffers.take(0, self._samples[: frames * FRAME_SAMPLES], self._finite[: frames * FRAME_SAMPLES // SUM_ROWS])

    def _decode_long(self, codes: Tensor, buffers: HostBuffers) -> None:
        """Decode a segment that is longer than a batch: its latents at once, its samples in pieces, each behind as much
        of the piece before as its convolutions look back on."""
        frames = codes.shape[1]
        padded = torch.nn.functional.pad(codes.to(self.device, torch.int32), (0, -frames % self._round))
        first = torch.zeros(padded.shape[1], dtype=torch.int32, device=self.device)
        # Read from its start by each piece: for an address that 16 does not divide Triton would compile again.
        valid = torch.ones_like(first, dtype=torch.int8)
        latents = self._quantizer(padded, first)
        columns = self._quantizer.columns
        for begin in range(0, frames, self._batch_frames - self._lead_frames):
            lead = min(begin, self._lead_frames)
            end = min(begin + self._batch_frames - self._lead_frames, frames)
            samples = self._samples[: (end - begin + lead) * FRAME_SAMPLES]
            finite = self._finite[: len(samples) // SUM_ROWS]
            piece = latents[(begin - lead) * columns : end * columns]
            self._waveform(piece, valid[: end - begin + lead], samples=samples, finite=finite)
            own = lead * FRAME_SAMPLES
            buffers.take(begin * FRAME_SAMPLES, samples[own:], finite[own // SUM_ROWS :])

    def _compute(self, frames: int) -> None:
        """From the device's codes to its samples, for so many frames; launches alone, so that it can be captured."""
        first = self._first[:frames]
        latents = self._quantizer(self._codes_of(frames), first)
        samples = self._samples[: frames * FRAME_SAMPLES]
        finite = self._finite[: len(samples) // SUM_ROWS]
        self._waveform(latents, (first >= 0).to(torch.int8), samples=samples, finite=finite)

    def _codes_of(self, frames: int) -> Tensor:
        """Where the graph of so many frames reads its codes, ``[codebooks, frames]``."""
        books = len(self._gap)
        return self._codes[: books * frames].view(books, frames)

    def _graph(self, frames: int) -> torch.cuda.CUDAGraph:
        """The graph of so many frames, captured the first time. One runs at a time, so all share their memory."""
        if frames not in self._graphs:
            with ONE_CAPTURES:
                self._graphs[frames] = self._captured(frames)
        return self._graphs[frames]

    def _captured(self, frames: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Each thread has a handle of cuBLAS, which cannot be made inside a capture, and this may be its first product.
        torch.cuda.current_blas_handle()  # type: ignore[no-untyped-call]
        # Only this thread is held to what may be captured: another one may be decoding.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            self._compute(frames)
        except BaseException:
            with suppress(RuntimeError):  # the capture may be invalid: what went wrong first is to be seen
                graph.capture_end()
            raise
        graph.capture_end()
        return graph

    def _on_stream(self) -> Any:
        """Our stream, behind what the caller's has been given so far; `codes` come from there."""
        if not self._is_cuda:
            return nullcontext()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self.stream)

    def _halve(self) -> bool:
        """Make batches half as large; False if they are as small as they get. Nothing may be running."""
        if self._batch_frames <= LEAST_FRAMES:
            return False
        self._grow_batches, self._decoded = min(2 * self._grow_batches, MOST_GROW_BATCHES), 0
        self._batch_frames = max(LEAST_FRAMES, self._batch_frames // 2 // ROUND_FRAMES * ROUND_FRAMES)
        if self._is_cuda:
            with ONE_CAPTURES:
                self._graphs.clear()
                self._pool = torch.cuda.graph_pool_handle()
                torch.cuda.empty_cache()
        log_event(Event.CODEC_OUT_OF_MEMORY, frames=self._batch_frames)
        return True

    def _grow_if_due(self) -> None:
        """Try batches of twice as many frames if enough have been decoded since memory ran out."""
        if self._batch_frames < self._full_frames and self._decoded >= self._grow_batches:
            self._batch_frames, self._decoded = min(2 * self._batch_frames, self._full_frames), 0
            log_event(Event.CODEC_MEMORY_AGAIN, frames=self._batch_frames)
