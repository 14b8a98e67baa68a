"""How a device runs the decoding step: on a GPU as captured graphs, one a number of rows; on a CPU as it is.

The scheduler asks for whole steps (`StepRows`) and reads what became of one while the next already runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cloner.engine.kernels.launch import Launch, recorded_launches
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS, KernelSet
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.memory import ONE_CAPTURES
from cloner.engine.token_rows.paged_cache import RESERVED, PagedCache, pages_of
from cloner.engine.token_rows.rows import RING, PromptPiece, SlotStart, TokenRows
from cloner.engine.token_rows.token_step import TokenStep
from cloner.engine.token_rows.weights import StepWeights

DECODE_BUCKETS = (1, 8, 16, 32, 64, 96, 128, 192, 256)
"""Decode rows of the graphs, as far as there are slots; the slots themselves are the last."""

PROMPT_BUCKETS = (0, 64, 128, 256)
"""Prompt rows of the graphs."""

LEAST_BESIDE_PROMPTS = 32
"""Decode rows, at least, of a graph with prompt rows: fewer would hardly be faster."""

DETERMINISTIC_PROMPTS = 64
"""Prompt rows of the only graph in deterministic mode, where every step takes them along."""

Statuses = Callable[[], list[int]]
"""Waits for a step and gives the status of each of its decode rows."""


@dataclass(frozen=True)
class StepRows:
    """What a step takes: the slots that are decoded, the voice of each, and pieces of prompts."""

    slots: tuple[int, ...]
    voices: tuple[Hashable, ...] = ()
    prompts: Sequence[PromptPiece] = ()


@dataclass(frozen=True)
class StepOptions:
    """`pages` in all for `slots`; a segment has at most `positions`, of which `frames` are its own. With
    `deterministic`, all steps have one shape, also with fewer slots after memory ran out, and a segment's codes do not
    depend on its neighbours."""

    slots: int
    pages: int
    positions: int
    frames: int
    deterministic: bool = False
    resampling: bool = True


class StepDevice(Protocol):
    """What the scheduler asks of a device. Nothing waits for it but `Statuses`, `reset` and `resize`."""

    slots: int
    pages: int
    prompt_rows: int
    pipeline_depth: int
    """Steps to launch before asking what became of one, so that the device never waits for the host."""

    @property
    def cache_bytes(self) -> int:
        """Memory of all pages."""
        ...

    def reset(self) -> None:
        """Wait for the device; no slot runs afterwards."""
        ...

    def resize(self, slots: int) -> None:
        """So many slots from now on, with their part of the pages; what was in them is lost."""
        ...

    def admit(self, slot: int, start: SlotStart) -> None:
        """Let a slot be decoded from the next step on that names it."""
        ...

    def set_prefix(self, slot: int, pages: Sequence[int]) -> int:
        """The owner that reads a prefix into these pages on behalf of a slot's segment."""
        ...

    def launch(self, rows: StepRows) -> Statuses:
        """Start a step."""
        ...

    def codes(self, slot: int, frames: int) -> Tensor:
        """A copy of a slot's codes, ``[codebooks, frames]`` int32."""
        ...

    def clear_pages(self, pages: Iterable[int]) -> None:
        """Write zeros to pages."""
        ...


@dataclass(frozen=True)
class _Built:
    """What depends on the number of slots."""

    rows: TokenRows
    cache: PagedCache
    step: TokenStep
    graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = field(default_factory=dict)


@dataclass
class GpuStep:
    """`StepDevice` over a model's weights, on the device that these are on."""

    weights: StepWeights
    options: StepOptions
    kernels: KernelSet = field(default=TRITON)
    gpu: Architecture | None = None
    """That of the weights' device, unless kernels are compiled for another."""
    pipeline_depth: int = field(init=False)
    slots: int = field(init=False)
    pages: int = field(init=False)
    prompt_rows: int = field(init=False)

    def __post_init__(self) -> None:
        self._device = self.weights.head.device
        self._on_gpu = self._device.type == "cuda"
        self._gpu = self.gpu or Architecture.of(self._device)
        self.pipeline_depth = 1 if self._on_gpu else 0
        self.prompt_rows = DETERMINISTIC_PROMPTS if self.options.deterministic else PROMPT_BUCKETS[-1]
        if self._on_gpu:
            # Beside the codec, the short kernels of a step go first.
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
        self._built: _Built | None = None
        self._build(self.options.slots)

    @property
    def built(self) -> _Built:
        """Rows, cache and step. Raises `RuntimeError` where there was no memory for them."""
        if self._built is None:
            raise RuntimeError("the cache could not be allocated")
        return self._built

    @property
    def cache_bytes(self) -> int:
        return self._built.cache.nbytes if self._built else 0

    def reset(self) -> None:
        if self._on_gpu:
            with ONE_CAPTURES:
                torch.cuda.synchronize()
        self.built.rows.idle()
        self._decoded = StepRows(())

    def resize(self, slots: int) -> None:
        if self._on_gpu:
            with ONE_CAPTURES:
                torch.cuda.synchronize()
                self._built = None  # the old memory is free before the new is taken
                torch.cuda.empty_cache()
        self._built = None
        self._build(slots)

    def admit(self, slot: int, start: SlotStart) -> None:
        self.built.rows.admit(slot, start)

    def set_prefix(self, slot: int, pages: Sequence[int]) -> int:
        owner = self.built.rows.slots + slot
        self.built.rows.set_pages(owner, 0, pages)
        return owner

    def launch(self, rows: StepRows) -> Statuses:
        decode, prompts = self.shape(len(rows.slots), sum(piece.rows for piece in rows.prompts))
        graph = self.graph(decode, prompts) if self._on_gpu else None
        if (rows.slots, rows.voices) != (self._decoded.slots, self._decoded.voices):
            self.built.rows.set_decode(rows.slots, rows.voices)
            self._decoded = rows
        if prompts:
            self.built.rows.set_prompts(rows.prompts, prompts)
        if graph is None:
            self.built.step.run(decode, prompts)
            values: list[int] = self.built.rows.sampler.status[: len(rows.slots)].tolist()
            return lambda: values
        graph.replay()
        return self._read_later(len(rows.slots))

    def codes(self, slot: int, frames: int) -> Tensor:
        return self.built.rows.codes(slot, frames)

    def clear_pages(self, pages: Iterable[int]) -> None:
        self.built.cache.clear(pages)

    def shape(self, active: int, prompts: int) -> tuple[int, int]:
        """Decode and prompt rows of the graph that holds so many."""
        if self.options.deterministic:
            return self.options.slots, self.prompt_rows
        if not self._on_gpu:
            return max(1, active), prompts
        rows = next(rows for rows in PROMPT_BUCKETS if rows >= prompts)
        return next(bucket for bucket in self._decode_buckets[rows] if bucket >= active), rows

    def shapes(self) -> list[tuple[int, int]]:
        """All that `shape` gives on a GPU."""
        if self.options.deterministic:
            return [(self.options.slots, self.prompt_rows)]
        return [(decode, prompts) for prompts in PROMPT_BUCKETS for decode in self._decode_buckets[prompts]]

    def warm_up(self) -> None:
        """Capture all graphs, so that no segment waits for one."""
        if not self._on_gpu:
            return
        for decode, prompts in reversed(self.shapes()):
            self.graph(decode, prompts)
        torch.cuda.synchronize()

    def launches(self) -> list[Launch]:
        """Every kernel launch of every graph, not made: works on the ``meta`` device too."""
        with recorded_launches() as found:
            for decode, prompts in self.shapes():
                self.built.step.run(decode, prompts)
        return found

    def _build(self, slots: int) -> None:
        weights, options = self.weights, self.options
        self.slots = slots
        self._decode_buckets = {prompts: decode_buckets(slots, prompts) for prompts in PROMPT_BUCKETS}
        self.pages = RESERVED + (options.pages - RESERVED) * slots // options.slots
        # Prefix and own positions may both end within a page, and a step may be taken beyond the last position.
        width = 1 + pages_of(options.positions) + 2
        # One shape needs all of its rows, whatever slots there are. Most of the memory is the pages'.
        decode = options.slots if options.deterministic else slots
        rows = TokenRows(decode, self.prompt_rows, options.frames + 1, width, self._device)
        heads = weights.slow[0].attention.heads
        cache = PagedCache(len(weights.slow), heads, self.pages, weights.head.dtype, self._device)
        step = TokenStep(weights, rows, cache, self.kernels, self._gpu, resampling=options.resampling)
        self._built = _Built(rows, cache, step)
        self._decoded = StepRows(())
        if self._on_gpu:
            self._pool = torch.cuda.graph_pool_handle()
            self._status_ring = torch.zeros(RING, slots, dtype=torch.int32, pin_memory=True)
            self._copied = [torch.cuda.Event() for _ in range(RING)]  # type: ignore[no-untyped-call]
            self._turn = 0

    def graph(self, decode: int, prompts: int) -> torch.cuda.CUDAGraph:
        """The graph of so many rows, captured when it is first asked for; no slot runs in it until the next launch."""
        key, graphs = (decode, prompts), self.built.graphs
        if key not in graphs:
            self.built.rows.idle()  # the warm-up runs for real, and must not step any slot
            self._decoded = StepRows(())
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self.built.step.run(decode, prompts)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # The codec's thread may take memory meanwhile.
            with (
                ONE_CAPTURES,
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                self.built.step.run(decode, prompts)
            graphs[key] = graph
        return graphs[key]

    def _read_later(self, count: int) -> Statuses:
        self._turn = (self._turn + 1) % RING
        host = self._status_ring[self._turn, :count]
        host.copy_(self.built.rows.sampler.status[:count], non_blocking=True)
        copied = self._copied[self._turn]
        copied.record()

        def statuses() -> list[int]:
            copied.synchronize()
            values: list[int] = host.tolist()
            return values

        return statuses


def decode_buckets(slots: int, prompts: int) -> list[int]:
    """Decode rows of the graphs with so many prompt rows."""
    least = min(LEAST_BESIDE_PROMPTS, slots) if prompts else 1
    return sorted({rows for rows in DECODE_BUCKETS if least <= rows < slots} | {slots})


def make_step(weights: StepWeights, options: StepOptions, kernels: KernelSet = TRITON) -> GpuStep:
    """With these kernels on a GPU, and with twins of all elsewhere."""
    return GpuStep(weights, options, kernels if weights.head.is_cuda else TWINS)
