"""How a device runs the decoding step: a CPU directly, a GPU as captured graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cloner.engine.slots.decoder import Decoder

LENGTH_BUCKET = 256
"""The attention length of a graph is a multiple of so many positions."""

PendingStatuses = Callable[[], list[int]]
"""Waits for a step and returns the status of its rows."""


class StepRunner:
    """Runs steps. With `deterministic`, all have one shape, so a segment's codes do not depend on its neighbours."""

    def __init__(self, decoder: Decoder, *, deterministic: bool) -> None:
        self.deterministic = deterministic
        self.initial_slots = decoder.cache.slots
        self.initial_positions = decoder.cache.total_positions
        """Positions of all slots together before memory ran out."""
        self.current_slots = self.initial_slots
        """Slots of the usual length: fewer than `initial_slots` after memory ran out."""
        self._decoder = decoder
        self._on_gpu = decoder.model.device.type == "cuda"
        self._graphs: dict[tuple[int, int, int], torch.cuda.CUDAGraph] = {}
        if self._on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
            # One stream for all captures: each stream that multiplies matrices keeps a workspace.
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pipeline_depth = 1 if self._on_gpu else 0
        """Steps to launch ahead of the one whose statuses are read, so that the device never waits for the host."""

    @property
    def slots(self) -> int:
        """Slots that a step may use now: fewer while the cache is partitioned into longer ones."""
        return min(self.current_slots, self._decoder.cache.slots)

    def resize(self, slots: int) -> None:
        """Change the number of slots, and the cache's memory in proportion. Their contents are lost. If the memory for
        them runs out, call it again with fewer."""
        # Captured graphs hold addresses in the old memory.
        self._graphs.clear()
        if self._on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
        self._decoder.cache.resize(self.initial_positions * slots // self.initial_slots)
        self.current_slots = slots

    def warm_up(self) -> None:
        """Capture the graphs of usual slots, so that no segment waits for a capture. Changes the state of all slots, so
        none may be running."""
        if self._on_gpu:
            positions = self._decoder.cache.positions
            buckets = {min(1 << power, self.slots) for power in range(self.slots.bit_length() + 1)}
            for rows in sorted(buckets, reverse=True):
                for length in range(LENGTH_BUCKET, positions + LENGTH_BUCKET, LENGTH_BUCKET):
                    self.step(rows, min(length, positions) - 1)
            torch.cuda.synchronize()

    def step(self, active: int, max_position: int) -> PendingStatuses:
        """Step the first `active` slots, the greatest position of which is `max_position`."""
        rows, length = self._step_shape(active, max_position)
        if not self._on_gpu:
            self._decoder.step(rows, length)
            status = self._decoder.status[:active].tolist()
            return lambda: status
        self._graph(rows, length).replay()
        return _copy_to_host(self._decoder.status[:active])

    def _step_shape(self, active: int, max_position: int) -> tuple[int, int]:
        positions = self._decoder.cache.positions
        if self.deterministic:
            return self.slots, positions
        if not self._on_gpu:
            return active, max_position + 1
        rows = min(1 << (active - 1).bit_length(), self.slots)
        return rows, min((max_position // LENGTH_BUCKET + 1) * LENGTH_BUCKET, positions)

    def _graph(self, rows: int, length: int) -> torch.cuda.CUDAGraph:
        key = (rows, length, self._decoder.cache.positions)
        if key not in self._graphs:
            # The state must not change by a capture: its warm-up step runs, the captured one does not.
            saved = self._decoder.save_state()
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._decoder.step(rows, length)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # The codec's thread may allocate memory at the same time.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                self._decoder.step(rows, length)
            self._decoder.restore_state(saved)
            self._graphs[key] = graph
        return self._graphs[key]


def _copy_to_host(status: Tensor) -> PendingStatuses:
    """Start copying `status` to the host. The caller waits for the copy only when it reads the result."""
    host = torch.empty(status.shape, dtype=status.dtype, pin_memory=True)
    host.copy_(status, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def statuses() -> list[int]:
        copied.synchronize()
        return host.tolist()

    return statuses
