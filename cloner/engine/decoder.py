"""The decoding step: one frame for every running slot, from what stays on the device between steps.

A step is the slow transformer over one token a slot, the choice of the first code, and the fast transformer over the
other nine. It reads and writes only buffers that are there from the start, so that a GPU can replay it as one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from cloner.batch import Generation
from cloner.engine.cache import Cache, Fill
from cloner.engine.model import CODEBOOKS, END, Model
from cloner.engine.prompt import Tokens
from cloner.engine.sampling import PENALTY_WINDOW, Sampling, penalised, resample_repeated, sample
from cloner.engine.transformer import Attend, Stack, grouped

DRAWS = CODEBOOKS + 1
"""Random numbers a frame: one a code, and one for drawing the first again."""

PIECE = 256
"""Prompt tokens that a CPU reads at once: S1-mini takes a second or two for them. Between two pieces it can stop."""

GOES_ON, ENDED, BROKEN = 0, 1, 2
"""What a step says of a slot. Broken: its logits are no longer numbers."""


Part: TypeAlias = "tuple[int, int, Tokens]"
"""A slot, the position of the first token there, and the tokens."""


@dataclass(frozen=True)
class Start:
    """What a segment brings along: the prompt's `last` token, which `Decoder.fill` did not get, how it is sampled, and
    as much `noise` ``[steps, DRAWS]`` as it may take steps."""

    last: Tokens
    generation: Generation
    noise: Tensor


class Decoder:
    """All slots of a worker. Methods enqueue work on the device and do not wait for it."""

    def __init__(self, model: Model, cache: Cache, slots: int, frames: int, *, resampling: bool = True) -> None:
        """`frames` is the longest segment. `resampling` is off only to compare with an upstream that does not."""
        self.model = model
        self.cache = cache
        self._resampling = resampling
        with model.device:
            self.token = torch.zeros(slots, dtype=torch.long)
            self.codes = torch.zeros(slots, CODEBOOKS, dtype=torch.long)
            self.position = torch.zeros(slots, dtype=torch.long)
            self.frame = torch.zeros(slots, dtype=torch.long)
            self.least = torch.zeros(slots, dtype=torch.long)
            self.sampling = Sampling(*(torch.ones(slots, 1) for _ in range(3)))
            self.noise = torch.zeros(slots, frames + 1, DRAWS)
            self.window = torch.zeros(slots, CODEBOOKS, PENALTY_WINDOW, dtype=torch.long)
            self.spoken = torch.zeros(slots, frames + 1, CODEBOOKS, dtype=torch.int16)
            self.status = torch.zeros(slots, dtype=torch.int8)
            self._rows = torch.arange(slots)
            fast = model.fast
            shape = (len(fast), 2, slots, fast.kv_heads, CODEBOOKS, fast.head_dim)
            self._fast_cache = torch.zeros(shape, dtype=model.dtype)

    def fill(self, parts: list[Part], stopped: Callable[[], bool] = lambda: False) -> bool:
        """Let slots read prompt tokens. False if it was told to stop meanwhile: then they are not read."""
        parts = [part for part in parts if len(part[2])]
        if self.model.device.type != "cpu":
            self._read(parts)
            return True
        for piece in pieces(parts, PIECE):
            if stopped():
                return False
            self._read(piece)
        return True

    def _read(self, parts: list[Part]) -> None:
        if not parts:
            return
        fills = [Fill(slot, start, len(tokens)) for slot, start, tokens in parts]
        device = self.model.device
        ids = torch.cat([tokens.ids for _, _, tokens in parts]).to(device)
        codes = torch.cat([tokens.codes for _, _, tokens in parts]).to(device)
        places = torch.cat([torch.arange(fill.start, fill.start + fill.tokens) for fill in fills]).to(device)
        rotation = self.model.slow.rotation[places][None, :, None]
        self.model.slow.run(self.model.embed(ids, codes)[None], rotation, self.cache.filling(fills))

    def start(self, slot: int, position: int, start: Start) -> None:
        """Let a slot speak from the next step on, whose token goes to `position`."""
        self.token[slot] = start.last.ids[0]
        self.codes[slot] = start.last.codes[0].to(self.codes.device)
        self.position[slot] = position
        self.frame[slot] = 0
        # Upstream does not look for an end at the first frame.
        self.least[slot] = max(1, start.generation.min_new_tokens)
        self.sampling.temperature[slot] = start.generation.temperature
        self.sampling.top_p[slot] = start.generation.top_p
        self.sampling.penalty[slot] = start.generation.repetition_penalty
        self.noise[slot, : len(start.noise)] = start.noise.to(self.noise.device, non_blocking=True)

    def move(self, source: int, target: int, length: int) -> None:
        """Let what runs in one slot go on in another; `length` positions of it are filled."""
        self.cache.move(source, target, length)
        sampling = (self.sampling.temperature, self.sampling.top_p, self.sampling.penalty)
        for buffer in (*self._stepped(), *sampling, self.least, self.noise, self.spoken):
            buffer[target] = buffer[source]

    def save_state(self) -> list[Tensor]:
        """What a step changes and the next one reads, but for keys, values and codes: a step that is taken again writes
        those again."""
        return [buffer.clone() for buffer in self._stepped()]

    def restore_state(self, saved: list[Tensor]) -> None:
        """Take a step back."""
        for buffer, value in zip(self._stepped(), saved, strict=True):
            buffer.copy_(value)

    def take(self, slot: int, frames: int) -> Tensor:
        """A copy of the codes that a slot has spoken, ``[codebooks, frames]``."""
        return self.spoken[slot, :frames].T.to(torch.int32)

    def step(self, rows: int, length: int) -> None:
        """Speak a frame in each of the first `rows` slots, looking at `length` positions; `status` tells what became
        of them."""
        model, position, frame = self.model, self.position[:rows], self.frame[:rows]
        sampling = self.sampling.rows(rows)
        noise = self.noise[self._rows[:rows], frame]
        first = (frame == 0)[:, None]
        # Before the first frame nothing can repeat, and the window holds another segment's codes.
        penalty = torch.where(first, 1.0, sampling.penalty)

        hidden = model.slow.run(
            model.embed(self.token[:rows], self.codes[:rows])[:, None],
            model.slow.rotation[position][:, None, None],
            self.cache.stepping(position, length),
        )
        logits = model.logits(hidden[:, 0])
        sound = logits.sum(dim=-1).isfinite()
        logits[:, END].masked_fill_(frame < self.least[:rows], -torch.inf)
        logits = penalised(logits, self.window[:rows, 0], penalty)
        choice = sample(logits, sampling, noise[:, 0])
        if self._resampling:
            unrepeated = torch.where(first, -1, self.window[:rows, 0])
            choice = resample_repeated(choice, logits, unrepeated, noise[:, CODEBOOKS])
        ended = choice == END
        codes, fast_sound = self._rest_of_frame(hidden, torch.where(ended, 0, choice), sampling, penalty, noise)

        status = torch.where(ended, ENDED, GOES_ON)
        self.status[:rows] = torch.where(sound & fast_sound, status, BROKEN).to(torch.int8)
        self.token[:rows] = model.first_semantic + codes[:, 0]
        self.codes[:rows] = codes
        self.spoken[self._rows[:rows], frame] = codes.to(torch.int16)
        window = self.window[:rows]
        later = torch.cat([window[..., 1:], codes[..., None]], dim=-1)
        # A window that is not full yet repeats the first frame, which is in it anyway.
        self.window[:rows] = torch.where(first[..., None], codes[..., None], later)
        # A slot that nobody runs in any more still steps along; it must not leave its bounds.
        self.position[:rows] = (position + 1).clamp(max=self.cache.positions - 1)
        self.frame[:rows] = (frame + 1).clamp(max=self.spoken.shape[1] - 1)

    def _stepped(self) -> tuple[Tensor, ...]:
        return self.token, self.codes, self.position, self.frame, self.window

    def _rest_of_frame(
        self, hidden: Tensor, first: Tensor, sampling: Sampling, penalty: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The frame's codes ``[rows, codebooks]``, `first` being the first, and whether the logits were numbers."""
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
        # The last logits have seen all that came before, so what is no number there shows in them.
        return torch.stack(codes, dim=1), logits.sum(dim=-1).isfinite()


def pieces(parts: list[Part], most: int) -> Iterator[list[Part]]:
    """The same tokens in the same order, at most so many at once."""
    piece: list[Part] = []
    room = most
    for slot, position, tokens in parts:
        read = 0
        while read < len(tokens):
            now = slice(read, read + room)
            some = Tokens(tokens.ids[now], tokens.codes[now])
            piece.append((slot, position + read, some))
            read, room = read + len(some), room - len(some)
            if not room:
                yield piece
                piece, room = [], most
    if piece:
        yield piece


def fast_attention(cache: Tensor, stack: Stack, begin: int) -> Attend:
    """Attention of the fast transformer for tokens from position `begin` on; `cache` is ``[layers, 2, rows, kv_heads,
    codebooks, head_dim]``. All rows are at the same position, so there is nothing to mask but the first two."""

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows, tokens = queries.shape[:2]
        end = begin + tokens
        stored_keys, stored_values = cache[layer]
        stored_keys[:, :, begin:end] = keys.transpose(1, 2)
        stored_values[:, :, begin:end] = values.transpose(1, 2)
        if tokens == 1:
            seen = functional.scaled_dot_product_attention(
                grouped(queries, stack.kv_heads), stored_keys[:, :, :end], stored_values[:, :, :end]
            )
            return seen.reshape(rows, 1, -1)
        seen = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            stored_keys[:, :, :end],
            stored_values[:, :, :end],
            is_causal=True,
            enable_gqa=True,
        )
        return seen.transpose(1, 2).flatten(2)

    return attend
