"""The decoding step: one frame for every running slot, on buffers that stay on the device between steps.

A step is the slow transformer over one token a slot, the sampling of the first code, and the fast transformer over the
other nine. It reads and writes only buffers that exist from the start, so that a GPU can replay it as one graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cloner.batch import Generation
from cloner.engine.base import NULL_OBSERVER, StopCheck
from cloner.engine.sampling import PENALTY_WINDOW, Sampling, penalised, resample_repeated, sample
from cloner.engine.slots.cache import KVCache
from cloner.engine.slots.model import CODEBOOKS, END, Model
from cloner.engine.slots.transformer import Attend, Stack, grouped
from cloner.engine.tokens import Prefill, Tokens

DRAWS = CODEBOOKS + 1
"""Random numbers a frame: one a code, and one for drawing the first again."""

PIECE_TOKENS = 256
"""Prompt tokens that a CPU reads at once: S1-mini takes a second or two for them. Between two pieces it can stop."""

RUNNING, ENDED, NOT_FINITE = 0, 1, 2
"""A slot's status after a step. `NOT_FINITE`: its logits have NaN or infinity among them."""


@dataclass(frozen=True)
class SegmentStart:
    """How a segment starts: the prompt's `last` token, which `Decoder.prefill` did not get, its sampling parameters,
    and its random numbers `noise` ``[steps, DRAWS]``, one row for each step that it may take."""

    last: Tokens
    generation: Generation
    noise: Tensor


class Decoder:
    """The state of all slots of a worker. Methods enqueue work on the device and do not wait for it."""

    def __init__(self, model: Model, cache: KVCache, max_frames: int, *, resampling: bool = True) -> None:
        """State for the slots that `cache` has now. `max_frames` is the length of the longest segment. `resampling` is
        turned off only to compare with an upstream that does not resample."""
        self.model = model
        self.cache = cache
        self.max_frames = max_frames
        self._resampling = resampling
        slots = cache.slots
        with model.device:
            self.token = torch.zeros(slots, dtype=torch.long)
            self.codes = torch.zeros(slots, CODEBOOKS, dtype=torch.long)
            self.position = torch.zeros(slots, dtype=torch.long)
            self.frame = torch.zeros(slots, dtype=torch.long)
            self.min_frames = torch.zeros(slots, dtype=torch.long)
            self.sampling = Sampling(*(torch.ones(slots, 1) for _ in range(3)))
            self.noise = torch.zeros(slots, max_frames + 1, DRAWS)
            self.window = torch.zeros(slots, CODEBOOKS, PENALTY_WINDOW, dtype=torch.long)
            self.generated = torch.zeros(slots, max_frames + 1, CODEBOOKS, dtype=torch.int16)
            self.status = torch.zeros(slots, dtype=torch.int8)
            self._rows = torch.arange(slots)
            fast = model.fast
            shape = (len(fast), 2, slots, fast.kv_heads, CODEBOOKS, fast.head_dim)
            self._fast_cache = torch.zeros(shape, dtype=model.dtype)

    def prefill(self, prefills: list[Prefill], stopped: StopCheck = NULL_OBSERVER.stopped) -> bool:
        """Read prompt tokens into slots. Returns False if it was stopped, and then the slots are incomplete."""
        prefills = [prefill for prefill in prefills if len(prefill.tokens)]
        if self.model.device.type != "cpu":
            self._prefill_together(prefills)
            return True
        for piece in split_prefills(prefills, PIECE_TOKENS):
            if stopped():
                return False
            self._prefill_together(piece)
        return True

    def _prefill_together(self, prefills: list[Prefill]) -> None:
        if not prefills:
            return
        device = self.model.device
        ids = torch.cat([prefill.tokens.ids for prefill in prefills]).to(device)
        codes = torch.cat([prefill.tokens.codes for prefill in prefills]).to(device)
        positions = torch.cat([torch.arange(prefill.start, prefill.end) for prefill in prefills]).to(device)
        rotation = self.model.slow.rotation[positions][None, :, None]
        self.model.slow.run(self.model.embed(ids, codes)[None], rotation, self.cache.prefill_attention(prefills))

    def start(self, slot: int, position: int, start: SegmentStart) -> None:
        """Start a segment in a slot; the next step writes its token to `position`."""
        self.token[slot] = start.last.ids[0]
        self.codes[slot] = start.last.codes[0].to(self.codes.device)
        self.position[slot] = position
        self.frame[slot] = 0
        # Upstream does not check for an end at the first frame.
        self.min_frames[slot] = max(1, start.generation.min_new_tokens)
        self.sampling.temperature[slot] = start.generation.temperature
        self.sampling.top_p[slot] = start.generation.top_p
        self.sampling.penalty[slot] = start.generation.repetition_penalty
        self.noise[slot, : len(start.noise)] = start.noise.to(self.noise.device, non_blocking=True)

    def move(self, source: int, target: int, length: int) -> None:
        """Continue the segment of one slot in another; `length` of its positions are filled."""
        self.cache.move(source, target, length)
        sampling = (self.sampling.temperature, self.sampling.top_p, self.sampling.penalty)
        for buffer in (*self._step_state(), *sampling, self.min_frames, self.noise, self.generated):
            buffer[target] = buffer[source]

    def save_state(self) -> list[Tensor]:
        """Copies of what a step changes and the next one reads, other than keys, values and generated codes: a step
        that is repeated writes those again."""
        return [buffer.clone() for buffer in self._step_state()]

    def restore_state(self, saved: list[Tensor]) -> None:
        """Undo a step."""
        for buffer, value in zip(self._step_state(), saved, strict=True):
            buffer.copy_(value)

    def generated_codes(self, slot: int, frames: int) -> Tensor:
        """A copy of the first `frames` that a slot has generated, ``[codebooks, frames]``."""
        return self.generated[slot, :frames].T.to(torch.int32)

    def step(self, rows: int, length: int) -> None:
        """Generate a frame in each of the first `rows` slots, with attention over `length` positions. Writes `status`
        of these slots."""
        model, position, frame = self.model, self.position[:rows], self.frame[:rows]
        sampling = self.sampling.rows(rows)
        noise = self.noise[self._rows[:rows], frame]
        first = (frame == 0)[:, None]
        # Before the first frame nothing can repeat, and the window holds another segment's codes.
        penalty = torch.where(first, 1.0, sampling.penalty)

        hidden = model.slow.run(
            model.embed(self.token[:rows], self.codes[:rows])[:, None],
            model.slow.rotation[position][:, None, None],
            self.cache.decode_attention(position, length),
        )
        logits = model.logits(hidden[:, 0])
        is_finite = logits.sum(dim=-1).isfinite()
        logits[:, END].masked_fill_(frame < self.min_frames[:rows], -torch.inf)
        logits = penalised(logits, self.window[:rows, 0], penalty)
        choice = sample(logits, sampling, noise[:, 0])
        if self._resampling:
            recent = torch.where(first, -1, self.window[:rows, 0])
            choice = resample_repeated(choice, logits, recent, noise[:, CODEBOOKS])
        ended = choice == END
        codes, fast_is_finite = self._rest_of_frame(hidden, torch.where(ended, 0, choice), sampling, penalty, noise)

        status = torch.where(ended, ENDED, RUNNING)
        self.status[:rows] = torch.where(is_finite & fast_is_finite, status, NOT_FINITE).to(torch.int8)
        self.token[:rows] = model.first_semantic + codes[:, 0]
        self.codes[:rows] = codes
        self.generated[self._rows[:rows], frame] = codes.to(torch.int16)
        window = self.window[:rows]
        shifted = torch.cat([window[..., 1:], codes[..., None]], dim=-1)
        # A window that is not full yet is padded with the first frame, which it holds anyway.
        self.window[:rows] = torch.where(first[..., None], codes[..., None], shifted)
        # A slot without a segment is stepped along with the others; it must stay within its bounds.
        self.position[:rows] = (position + 1).clamp(max=self.cache.positions - 1)
        self.frame[:rows] = (frame + 1).clamp(max=self.generated.shape[1] - 1)

    def _step_state(self) -> tuple[Tensor, ...]:
        return self.token, self.codes, self.position, self.frame, self.window

    def _rest_of_frame(
        self, hidden: Tensor, first: Tensor, sampling: Sampling, penalty: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The frame's codes ``[rows, codebooks]``, of which `first` ``[rows]`` is the first, and whether all logits of
        a row were finite ``[rows]``."""
        model, rows = self.model, len(first)
        sampling = Sampling(sampling.temperature, sampling.top_p, penalty)
        codes = [first]
        # The hidden state and the first code are both known, so the fast transformer starts with two positions.
        x = torch.cat([model.fast_start(hidden), model.fast_embed(first)[:, None]], dim=1)
        begin = 0
        for book in range(1, CODEBOOKS):
            rotation = model.fast.rotation[begin : book + 1][None, :, None]
            x = model.fast.run(x, rotation, fast_attention(self._fast_cache[:, :, :rows], model.fast, begin))
            logits = penalised(model.fast_logits(x[:, -1]), self.window[:rows, book], penalty)
            codes.append(sample(logits, sampling, noise[:, book]))
            x = model.fast_embed(codes[-1])[:, None]
            begin = book + 1
        # The last logits depend on all codebooks before, so NaN anywhere in the frame shows in them.
        return torch.stack(codes, dim=1), logits.sum(dim=-1).isfinite()


def split_prefills(prefills: list[Prefill], max_tokens: int) -> Iterator[list[Prefill]]:
    """The same tokens in the same order, at most `max_tokens` in each list."""
    piece: list[Prefill] = []
    room = max_tokens
    for prefill in prefills:
        read, tokens = 0, prefill.tokens
        while read < len(tokens):
            now = slice(read, read + room)
            some = Tokens(tokens.ids[now], tokens.codes[now])
            piece.append(Prefill(prefill.slot, prefill.start + read, some))
            read, room = read + len(some), room - len(some)
            if not room:
                yield piece
                piece, room = [], max_tokens
    if piece:
        yield piece


def fast_attention(cache: Tensor, stack: Stack, begin: int) -> Attend:
    """Attention of the fast transformer for tokens from position `begin` on; `cache` is ``[layers, 2, rows, kv_heads,
    codebooks, head_dim]``. All rows are at the same position, so a mask is needed only for the first two positions."""

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows, tokens = queries.shape[:2]
        end = begin + tokens
        stored_keys, stored_values = cache[layer]
        stored_keys[:, :, begin:end] = keys.transpose(1, 2)
        stored_values[:, :, begin:end] = values.transpose(1, 2)
        if tokens == 1:
            attended = functional.scaled_dot_product_attention(
                grouped(queries, stack.kv_heads), stored_keys[:, :, :end], stored_values[:, :, :end]
            )
            return attended.reshape(rows, 1, -1)
        attended = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            stored_keys[:, :, :end],
            stored_values[:, :, :end],
            is_causal=True,
            enable_gqa=True,
        )
        return attended.transpose(1, 2).flatten(2)

    return attend
