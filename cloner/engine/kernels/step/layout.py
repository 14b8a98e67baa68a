"""Buffers that the kernels of the decoding step share, and how they are laid out.

A *row* is one token that goes through the slow transformer in a step. First come the decode rows, one a running
segment, then the prompt rows. A row is described by a *record* of `RECORD_WIDTH` int32 values (128 bytes), so that
the host changes one with a single copy. Floats are stored as their bits.

Keys and values lie in pages, ``[pages, kv_heads, page positions, head_dim]`` for each layer. A row of the page table
lists an owner's pages: ``[prefix length, prefix pages..., own pages...]``. The last page of a prefix may be partly
filled; own positions begin on a page of their own, so that all segments of a voice read its pages in place. Page 0
belongs to no owner: what idle rows write goes there, and nothing is read from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cloner.batch import CODEBOOK_SIZES

PAGE = 64
"""Positions in a page."""

GROUP_ROWS = 8
"""Rows that share one program of attention: decode rows of one voice for its prefix, and prompt rows of one owner,
which stand in aligned groups of so many."""

CODEBOOKS = len(CODEBOOK_SIZES)
END = CODEBOOK_SIZES[0]
"""Index of the end token in the slow logits, behind the semantic tokens."""

DRAWS = CODEBOOKS + 1
"""Random numbers a frame: one a code, and one to draw the first code again."""

FAST_POSITIONS = 16
"""Positions in the fast transformer's cache: the codebooks, rounded up to a power of two."""

RECORD_WIDTH = 32
TOKEN, POSITION, FRAME, MIN_FRAMES, OWNER, TEMPERATURE, TOP_P, PENALTY, CODES = range(9)
"""Fields of a record. `POSITION` of an idle prompt row is -1. Before frame `MIN_FRAMES` the end token is held back.
`OWNER` is a row of the page table. The last field is the first of `CODEBOOKS`."""

IDLE = -1
"""In `row_record` and in `groups`: no row."""

CONTINUES, ENDED, NOT_FINITE = 0, 1, 2
"""Status of a decode row after a step. Not finite: some logits are NaN or infinite."""


@dataclass(frozen=True)
class Heads:
    """Sizes of grouped-query attention."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.heads // self.kv_heads

    @property
    def qkv_width(self) -> int:
        """Outputs of the product that makes queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


@dataclass(frozen=True)
class EmbeddingTables:
    """Inputs of the slow transformer: `tokens` ``[vocabulary, dim]``, `codes` ``[codebooks * codebook_size, dim]``."""

    tokens: Tensor
    codes: Tensor
    first_semantic: int
    codebook_size: int
    frame_scale: float


@dataclass(frozen=True)
class AttentionWeights:
    """Per layer: `qk_norm` ``[heads + kv_heads, head_dim]`` or None. `rotation` is ``[positions, head_dim / 2, 2]``,
    the cosines and sines of rotary embedding, fp32."""

    heads: Heads
    qk_norm: Tensor | None
    rotation: Tensor
    eps: float


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, both ``[pages, kv_heads, page positions, head_dim]``."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class SlotRows:
    """What the decode rows are. `records` ``[slots + 1, RECORD_WIDTH]``, the last one a spare for idle rows;
    `row_record` ``[slots]`` names each row's record or is `IDLE`; `page_table` ``[owners, width]``; `groups`
    ``[slots, GROUP_ROWS]`` lists rows of one voice together, every active row in exactly one group. All int32."""

    records: Tensor
    row_record: Tensor
    page_table: Tensor
    groups: Tensor


@dataclass(frozen=True)
class PromptRows:
    """What the prompt rows are: `records` ``[prompts, RECORD_WIDTH]``, `row_record` ``[prompts]`` counts from 0, and
    the same `page_table` as the slots'. All int32."""

    records: Tensor
    row_record: Tensor
    page_table: Tensor


@dataclass(frozen=True)
class SamplerBuffers:
    """`noise` ``[slots + 1, frames, DRAWS]`` fp32, uniform in 0..1; `window` ``[slots + 1, codebooks, window]`` int32,
    the latest codes; `generated` ``[slots + 1, frames, codebooks]`` int16; `verdict` (of the first code) and `status`
    (of the whole frame), both ``[slots]`` int32, by row."""

    noise: Tensor
    window: Tensor
    generated: Tensor
    verdict: Tensor
    status: Tensor


@dataclass(frozen=True)
class Scratch:
    """Where programs leave partial results: `partial` and `norms` fp32, `arrived` int32 counters, all zero between
    kernels. The last program to arrive adds the parts up in their order, so that results do not depend on timing."""

    partial: Tensor
    norms: Tensor
    arrived: Tensor
