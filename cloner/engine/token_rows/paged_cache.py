"""Keys and values in pages, and which pages are whose.

A voice's prefix (its reference and what leads over to the text) is read once into pages of its own. All segments of the
voice use them in place. When memory is short, prefixes that no segment uses are forgotten, the longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cloner.engine.kernels.step.layout import PAGE, Heads, LayerCache

RESERVED = 1
"""Page 0 takes what idle rows write."""


def pages_of(positions: int) -> int:
    """Pages that so many positions take."""
    return -(-positions // PAGE)


def page_bytes(layers: int, heads: Heads, dtype: torch.dtype) -> int:
    """Bytes of a page over all layers."""
    return layers * 2 * heads.kv_heads * PAGE * heads.head_dim * dtype.itemsize


class PagedCache:
    """The memory: ``[layers, 2, pages, kv_heads, PAGE, head_dim]``."""

    def __init__(self, layers: int, heads: Heads, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (layers, 2, pages, heads.kv_heads, PAGE, heads.head_dim)
        self.memory: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def layer(self, number: int) -> LayerCache:
        keys, values = self.memory[number]
        return LayerCache(keys, values)

    def clear(self, pages: Iterable[int]) -> None:
        """Write zeros to these pages: they may hold NaN."""
        for page in pages:
            self.memory[:, :, page].zero_()


class PageAllocator:
    """Hands out the numbers of `pages` pages; those below `RESERVED` never."""

    def __init__(self, pages: int) -> None:
        self.total = pages - RESERVED
        self._free = list(range(pages - 1, RESERVED - 1, -1))

    @property
    def free(self) -> int:
        """Pages without an owner."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """So many pages. Raises `ValueError` if there are fewer: ask `free` before."""
        if count > len(self._free):
            raise ValueError(f"{count} pages were asked for, and {len(self._free)} are free")
        return [self._free.pop() for _ in range(count)]

    def release(self, pages: Iterable[int]) -> None:
        """Take pages back."""
        self._free.extend(pages)


@dataclass(eq=False)
class Prefix:
    """A voice's positions in the cache; `users` counts the segments that hold them."""

    key: str
    length: int
    pages: list[int]
    users: int = 0


class PagedPrefixCache:
    """Prefixes by `Voice.key`, which covers all codebooks and the text."""

    def __init__(self, allocator: PageAllocator) -> None:
        self._allocator = allocator
        self._kept: OrderedDict[str, Prefix] = OrderedDict()
        self.computed = 0
        """Prefixes that had to be read."""

    def __len__(self) -> int:
        return len(self._kept)

    def acquire(self, key: str, length: int, own_pages: int) -> tuple[Prefix, list[int], bool] | None:
        """The prefix of a voice, `own_pages` pages for one of its segments, and whether the prefix is new, so that its
        `length` positions are still to be read. None if there is no room now."""
        prefix = self._kept.get(key)
        needed = own_pages + (0 if prefix else pages_of(length))
        if not self._make_room(needed, prefix):
            return None
        is_new = prefix is None
        if prefix is None:
            prefix = self._kept[key] = Prefix(key, length, self._allocator.allocate(pages_of(length)))
            self.computed += 1
        self._kept.move_to_end(key)
        prefix.users += 1
        return prefix, self._allocator.allocate(own_pages), is_new

    def release(self, prefix: Prefix) -> list[int]:
        """One user less. An unused prefix stays until its room is needed; of one that was forgotten, the last user
        gives back the pages, which are returned to be cleared."""
        prefix.users -= 1
        if prefix.users or self._kept.get(prefix.key) is prefix:
            return []
        self._allocator.release(prefix.pages)
        return prefix.pages

    def forget(self, prefix: Prefix) -> None:
        """Let no other segment use it: it may hold NaN. Those that do are not disturbed."""
        if self._kept.get(prefix.key) is prefix:
            del self._kept[prefix.key]

    def _make_room(self, pages: int, wanted: Prefix | None) -> bool:
        """Forget unused prefixes, but not the wanted one, until so many pages are free. False if that cannot be; then
        none is forgotten."""
        unused = [prefix for prefix in self._kept.values() if not prefix.users and prefix is not wanted]
        if self._allocator.free + sum(len(prefix.pages) for prefix in unused) < pages:
            return False
        for prefix in unused:
            if self._allocator.free >= pages:
                break
            del self._kept[prefix.key]
            self._allocator.release(prefix.pages)
        return True
