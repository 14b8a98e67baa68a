"""How a device runs the decoding step: on a CPU as it is, on a GPU as captured graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cloner.engine.decoder import Decoder

LENGTHS = 256
"""A graph looks at a multiple of so many positions."""

Statuses = Callable[[], list[int]]
"""Waits for a step and gives the status of its rows."""


class Stepper:
    """Runs steps. With `deterministic`, all have one shape, and a segment's codes do not depend on its neighbours."""

    def __init__(self, decoder: Decoder, slots: int, *, deterministic: bool) -> None:
        self.most_slots = self.full_slots = slots
        """Slots of the usual length: fewer than at the start, where memory ran out."""
        self.full_positions = decoder.cache.total_positions
        """Positions of all slots together, at the start."""
        self._decoder = decoder
        self._deterministic = deterministic
        self._on_gpu = decoder.model.device.type == "cuda"
        self._graphs: dict[tuple[int, int, int], torch.cuda.CUDAGraph] = {}
        if self._on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
            # One for all: each stream that multiplies matrices keeps a workspace.
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.lag = 1 if self._on_gpu else 0
        """Steps to launch before asking what became of one, so that the device never waits for the answer."""

    @property
    def slots(self) -> int:
        """Slots that a step may take now: fewer, where the cache is divided into longer ones."""
        return min(self.most_slots, self._decoder.cache.slots)

    def resize(self, slots: int) -> None:
        """So many slots from now on, in their part of the cache's memory; what they held is lost. Call it again, with
        fewer, where memory has run out."""
        # Captured graphs look at the old memory.
        self._graphs.clear()
        if self._on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
        self._decoder.cache.resize(self.full_positions * slots // self.full_slots)
        self.most_slots = slots

    def warm_up(self) -> None:
        """Capture the graphs of usual slots, so that no segment waits for them. Call it while no slot runs: it
        steps."""
        if self._on_gpu:
            positions = self._decoder.cache.positions
            buckets = {min(1 << power, self.slots) for power in range(self.slots.bit_length() + 1)}
            for rows in sorted(buckets, reverse=True):
                for length in range(LENGTHS, positions + LENGTHS, LENGTHS):
                    self.step(rows, min(length, positions) - 1)
            torch.cuda.synchronize()

    def step(self, active: int, longest: int) -> Statuses:
        """Step the first `active` slots, whose greatest position is `longest`."""
        rows, length = self._shape(active, longest)
        if not self._on_gpu:
            self._decoder.step(rows, length)
            status = self._decoder.status[:active].tolist()
            return lambda: status
        self._graph(rows, length).replay()
        return _read_later(self._decoder.status[:active])

    def _shape(self, active: int, longest: int) -> tuple[int, int]:
        positions = self._decoder.cache.positions
        if self._deterministic:
            return self.slots, positions
        if not self._on_gpu:
            return active, longest + 1
        rows = min(1 << (active - 1).bit_length(), self.slots)
        return rows, min((longest // LENGTHS + 1) * LENGTHS, positions)

    def _graph(self, rows: int, length: int) -> torch.cuda.CUDAGraph:
        key = (rows, length, self._decoder.cache.positions)
        if key not in self._graphs:
            # The state must not step while a graph is made: warm-up runs for real, capture does not.
            saved = self._decoder.save_state()
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._decoder.step(rows, length)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # The codec's thread may take memory meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                self._decoder.step(rows, length)
            self._decoder.restore_state(saved)
            self._graphs[key] = graph
        return self._graphs[key]


def _read_later(status: Tensor) -> Statuses:
    """Start copying `status` to the host; the caller waits only when it asks."""
    host = torch.empty(status.shape, dtype=status.dtype, pin_memory=True)
    host.copy_(status, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def statuses() -> list[int]:
        copied.synchronize()
        return host.tolist()

    return statuses
