"""Cases of the decoding step's kernels: each kernel in each form in which a step launches it, compared with its twin.

A form is what Triton compiles once: tiles, sizes and types. All processes name the cases of a plan alike, whatever
their device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from cloner.batch import CODEBOOK_SIZES, Generation
from cloner.engine.kernels.launch import Launch, recorded_launches
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS, KernelSet
from cloner.engine.kernels.step.layout import CODEBOOKS, DRAWS, FRAME, GROUP_ROWS
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.token_rows.device import PROMPT_BUCKETS, GpuStep, StepOptions, decode_buckets
from cloner.engine.token_rows.paged_cache import RESERVED, pages_of
from cloner.engine.token_rows.rows import PromptPiece, SlotStart
from cloner.engine.token_rows.weights import ModelSizes, StepWeights
from cloner.engine.tokens import Tokens

MOST_ERROR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Relative error, of norms, that a row may have: some ten times that of a right kernel."""

TRIES = 3
"""A random number may fall so near to the border of two codes that rounding decides: a sampler has to agree once."""

VOICES, PREFIX, PIECES = 3, 100, 8
"""Voices of a trial step, positions of each voice's prefix, and prompts that are read at once."""

SPREAD = 8.0
"""Of logits: a trained model's choices are few, and with flat logits borders would be near everywhere."""


@dataclass(frozen=True)
class StepPlan:
    """What the kernels of a decoding step depend on. A segment has at most `frames` frames."""

    sizes: ModelSizes
    slots: int
    frames: int
    deterministic: bool
    resampling: bool
    precision: str
    """The name of a torch type, such as "bfloat16"."""


@dataclass(frozen=True)
class _Place:
    """Call number `call` of a step over so many rows."""

    family: str
    decode: int
    prompts: int
    call: int


class _ReachedError(Exception):
    """A trial step has come to the call that it was made for."""


class StepCases:
    """Those of the decoding step, in a model of one layer each. On the ``meta`` device they can be compiled only."""

    def __init__(self, plan: StepPlan, gpu: Architecture, device: torch.device, tried: KernelSet = TRITON) -> None:
        self._tried, self._device = tried, device
        self._deterministic = plan.deterministic
        self._dtype: torch.dtype = getattr(torch, plan.precision)
        sizes = replace(plan.sizes, slow=replace(plan.sizes.slow, layers=1), fast=replace(plan.sizes.fast, layers=1))
        self._weights = StepWeights.empty(sizes, device, self._dtype)
        self._vocabulary = sizes.vocabulary
        pages = RESERVED + VOICES * pages_of(PREFIX) + 2 * plan.slots + PIECES * 16
        options = StepOptions(plan.slots, pages, sizes.positions, plan.frames, plan.deterministic, plan.resampling)
        self._step = GpuStep(self._weights, options, TWINS, gpu)
        self._places: dict[str, _Place] = {}
        self._launches: dict[str, list[Launch]] = {}
        self._list_cases()
        if device.type != "meta":
            self._fill_weights()

    @property
    def families(self) -> dict[str, str]:
        """The kernel family of each case, by its name in `KernelSet`."""
        return {name: place.family for name, place in self._places.items()}

    def compile(self, name: str) -> None:
        """Compile a case's kernels into Triton's cache."""
        for launch in self._launches[name]:
            launch.compile()

    def flaw(self, name: str) -> str:
        """How the kernel's results differ from its twin's, as a phrase; empty if they do not."""
        place = self._places[name]
        seed = crc32(name.encode())  # with another case's numbers, its results would be there already
        flaw = self._flaw(place, seed)
        for again in range(1, TRIES if place.family.startswith("sample") else 1):
            flaw = flaw and self._flaw(place, seed + again)
        return flaw

    def _list_cases(self) -> None:
        seen = set()
        for prompts, decode in sorted(self._shapes(), reverse=True):  # of many rows more is compared
            for call, (family, launches) in enumerate(self._calls(decode, prompts)):
                form = tuple(launch.variant() for launch in launches)
                if form not in seen:
                    seen.add(form)
                    name = f"{family} {decode}+{prompts} #{call}"
                    self._places[name], self._launches[name] = _Place(family, decode, prompts, call), launches

    def _shapes(self) -> set[tuple[int, int]]:
        """Prompt and decode rows of the steps over all slots, and over fewer, as a plan has them where memory is short:
        half as many, a quarter and so on, and the numbers in the middle between them."""
        shapes = {(prompts, decode) for decode, prompts in self._step.shapes()}
        if not self._deterministic:
            for halves in range(self._step.slots.bit_length()):
                for slots in {self._step.slots >> halves, 3 * self._step.slots >> halves + 2} - {0}:
                    shapes |= {(rows, decode) for rows in PROMPT_BUCKETS for decode in decode_buckets(slots, rows)}
        return shapes

    def _calls(self, decode: int, prompts: int) -> list[tuple[str, list[Launch]]]:
        """The launches of each call of a step, none of which is made."""
        found: list[tuple[str, list[Launch]]] = []

        def note(family: str, *arguments: Any, **options: Any) -> None:
            with recorded_launches() as launches:
                getattr(TRITON, family)(*arguments, **options)
            found.append((family, launches))

        self._run(note, decode, prompts)
        return found

    def _run(self, call: Callable[..., None], decode: int, prompts: int) -> None:
        """A step in which `call` gets the family's name in front of each kernel's arguments."""
        self._step.built.step.kernels = KernelSet(**{each.name: partial(call, each.name) for each in fields(KernelSet)})
        self._step.built.step.run(decode, prompts)

    def _flaw(self, place: _Place, seed: int) -> str:
        """A step of twins up to the case's call, which is made with both from the same state."""
        self._prepare(place.decode, place.prompts, seed)
        count, found = 0, ""

        def call(family: str, *arguments: Any, **options: Any) -> None:
            nonlocal count, found
            if count == place.call:
                found = self._compared(family, *arguments, **options)
                raise _ReachedError
            getattr(TWINS, family)(*arguments, **options)
            count += 1

        try:
            self._run(call, place.decode, place.prompts)
        except _ReachedError:
            return found
        raise RuntimeError(f"a step has fewer than {place.call} calls")

    def _compared(self, family: str, *arguments: Any, **options: Any) -> str:
        twin = getattr(TWINS, family)
        given = SimpleNamespace(**{**dict.fromkeys(signature(twin).parameters), **options})
        given.__dict__.update(zip(signature(twin).parameters, arguments, strict=False))
        written = _WRITTEN[family](given)
        before = [tensor.clone() for tensor in written]
        getattr(self._tried, family)(*arguments, **options)
        results = [tensor.clone() for tensor in written]
        for tensor, old in zip(written, before, strict=True):
            tensor.copy_(old)
        twin(*arguments, **options)
        most = max(map(row_error, results, written))
        return "" if most < MOST_ERROR[self._dtype] else f"its results are {most:.1e} off torch's"

    def _prepare(self, decode: int, prompts: int, seed: int) -> None:
        """Rows, pages and random numbers of a step in the middle of segments."""
        random = torch.Generator().manual_seed(seed)
        self._step.reset()
        rows = self._step.built.rows
        free = iter(range(RESERVED, self._step.pages))

        def take(positions: int) -> list[int]:
            return [next(free) for _ in range(pages_of(positions))]

        prefixes = [take(PREFIX) for _ in range(VOICES)]
        for slot in range(decode):
            own = (7 + 37 * slot) % 90
            noise = torch.rand(2, DRAWS, generator=random)
            prefix = prefixes[slot % VOICES]
            last = self._tokens(1, random)
            start = SlotStart(last, PREFIX + own, PREFIX, prefix, take(own + 1), Generation(), noise)
            rows.admit(slot, start)
        rows.decode.records[1:decode:2, FRAME] = 1  # a first frame has neither penalty nor second draw
        codes = torch.randint(CODEBOOK_SIZES[1], rows.sampler.window.shape, generator=random, dtype=torch.int32)
        rows.sampler.window.copy_(codes)
        rows.set_decode(range(decode), [slot % VOICES for slot in range(decode)])
        rows.set_prompts(list(self._pieces(prompts, take, random)), prompts)

    def _pieces(self, prompts: int, take: Callable[[int], list[int]], random: torch.Generator) -> Iterator[PromptPiece]:
        """Prompts that together take `prompts` rows; the last group of each is not full."""
        count = min(self._step.slots, PIECES, prompts // GROUP_ROWS)
        for number in range(count):
            length = prompts // count // GROUP_ROWS * GROUP_ROWS - 3
            prefix = 70 * (number % 2)
            owner, read = self._step.slots + number, 5 * number
            self._step.built.rows.set_pages(owner, prefix, [*take(prefix), *take(read + length)])
            yield PromptPiece(owner, prefix + read, self._tokens(length, random))

    def _tokens(self, count: int, random: torch.Generator) -> Tokens:
        """Random tokens, half of them frames."""
        first = self._weights.embeddings.first_semantic
        frames = first + torch.randint(CODEBOOK_SIZES[0], (count,), generator=random)
        texts = torch.randint(self._vocabulary, (count,), generator=random)
        ids = torch.where(torch.rand(count, generator=random) < 0.5, frames, texts)
        return Tokens(ids, torch.randint(CODEBOOK_SIZES[1], (count, CODEBOOKS), generator=random))

    def _fill_weights(self) -> None:
        """And the cache."""
        weights, random = self._weights, torch.Generator(self._device).manual_seed(0)

        def normal(tensor: Tensor, scale: float) -> None:
            tensor.normal_(0.0, scale, generator=random)

        normal(self._step.built.cache.memory, 1.0)

        for table in (weights.embeddings.tokens, weights.embeddings.codes, weights.fast_embeddings):
            normal(table, 1.0)
        for head in (weights.head, weights.fast_head):
            normal(head, SPREAD * head.shape[1] ** -0.5)
        for layer in (*weights.slow, *weights.fast):
            for weight in (layer.qkv, layer.out, layer.gate_up, layer.down):
                normal(weight, weight.shape[1] ** -0.5)
            if layer.attention.qk_norm is not None:
                layer.attention.qk_norm.uniform_(0.5, 1.5, generator=random)
            angles = torch.empty_like(layer.attention.rotation[..., 0])
            normal(angles, 3.0)
            angles[0] = 0.0  # position 0 is not rotated
            layer.attention.rotation.copy_(torch.stack([angles.cos(), angles.sin()], dim=-1))


def row_error(found: Tensor, expected: Tensor) -> float:
    """The greatest relative error of a row, of norms; infinite where whole numbers differ or a result is NaN."""
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    difference = (found.float() - expected.float()).norm(dim=-1)
    errors = torch.where(difference == 0, 0.0, difference / expected.float().norm(dim=-1))
    return float(errors.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _sampled(to: SimpleNamespace, rows: int) -> list[Tensor]:
    sampler = to.sampler
    squares = to.squares[: rows * to.parts].view(rows, to.parts)
    return [to.rows.records, sampler.window, sampler.generated, sampler.verdict, sampler.status, to.x[:rows], squares]


def _of_linear(to: SimpleNamespace) -> list[Tensor]:
    written = [to.out[: to.rows], to.scratch.arrived]
    if to.residual_squares is not None:
        parts = to.out.shape[1] // to.tile.bn
        written.append(to.residual_squares[: to.rows * parts].view(to.rows, parts))
    return written


def _pages(to: SimpleNamespace) -> list[Tensor]:
    """Without page 0, which may hold anything."""
    return [to.cache.keys[RESERVED:], to.cache.values[RESERVED:]]


_WRITTEN: dict[str, Callable[[SimpleNamespace], list[Tensor]]] = {
    "embed": lambda to: [to.x[: to.rows], to.squares[: to.rows * to.parts].view(to.rows, to.parts)],
    "linear": _of_linear,
    "attend_prompt": lambda to: [to.out[: to.prompts], *_pages(to)],
    "attend_decode": lambda to: [to.out[: to.decode], *_pages(to), to.scratch.arrived],
    "attend_fast": lambda to: [to.out[: to.decode * (1 + to.first)], to.cache.keys, to.cache.values],
    "sample_first": lambda to: _sampled(to, 2 * to.decode),
    "sample_next": lambda to: _sampled(to, to.decode),
}
"""What a kernel of each family writes, by the names of its twin's parameters. What lies behind the rows of a step is
left out: a kernel may fill it."""
