from __future__ import annotations

import pytest
import torch

from cloner.engine.kernels.step.layout import PAGE, Heads
from cloner.engine.token_rows.paged_cache import (
    RESERVED,
    PageAllocator,
    PagedCache,
    PagedPrefixCache,
    page_bytes,
    pages_of,
)
from tests.support.engine_requests import CPU


def test_a_page_of_s1_mini_takes_seven_mib() -> None:
    assert page_bytes(28, Heads(16, 8, 128), torch.bfloat16) == 7 * 2**20


def test_the_cache_takes_what_was_reckoned() -> None:
    heads = Heads(4, 2, 16)
    cache = PagedCache(3, heads, 5, torch.float32, CPU)
    assert cache.nbytes == 5 * page_bytes(3, heads, torch.float32)
    assert cache.layer(1).keys.shape == cache.layer(1).values.shape == (5, 2, PAGE, 16)
    cache.memory.fill_(torch.nan)
    cache.clear([1, 3])
    assert [bool(page.isnan().any()) for page in cache.memory.unbind(2)] == [True, False, True, False, True]


@pytest.mark.parametrize(("positions", "pages"), [(0, 0), (1, 1), (PAGE, 1), (PAGE + 1, 2)])
def test_positions_take_whole_pages(positions: int, pages: int) -> None:
    assert pages_of(positions) == pages


def test_every_page_but_the_first_is_handed_out_once() -> None:
    allocator = PageAllocator(10)
    first, second = allocator.allocate(4), allocator.allocate(5)
    assert sorted(first + second) == list(range(RESERVED, 10))
    assert allocator.free == 0
    with pytest.raises(ValueError, match="1 pages were asked for, and 0 are free"):
        allocator.allocate(1)
    allocator.release(second)
    assert sorted(allocator.allocate(5)) == sorted(second)


def held(prefixes: PagedPrefixCache, key: str, length: int = PAGE, own: int = 0):  # type: ignore[no-untyped-def]
    room = prefixes.acquire(key, length, own)
    assert room is not None
    return room


def test_a_voice_has_its_pages_once_and_each_segment_its_own() -> None:
    allocator = PageAllocator(20)
    prefixes = PagedPrefixCache(allocator)
    one, own, new = held(prefixes, "a", PAGE + 1, 3)
    two, other, again = held(prefixes, "a", PAGE + 1, 3)
    assert one is two
    assert (new, again) == (True, False)
    assert len({*one.pages, *own, *other}) == 2 + 3 + 3
    assert (one.users, allocator.free, prefixes.computed) == (2, 19 - 8, 1)


def test_an_unused_prefix_stays_until_its_room_is_needed_and_the_longest_unused_goes_first() -> None:
    allocator = PageAllocator(RESERVED + 4)
    prefixes = PagedPrefixCache(allocator)
    for key in ("a", "b", "c"):
        prefixes.release(held(prefixes, key)[0])
    prefixes.release(held(prefixes, "a")[0])
    assert (len(prefixes), allocator.free) == (3, 1)
    held(prefixes, "d", own=1)  # two pages: "b" has to go
    assert (len(prefixes), prefixes.computed) == (3, 4)
    assert not held(prefixes, "a")[2]
    assert held(prefixes, "c")[2] is False


def test_where_there_is_no_room_nothing_is_forgotten() -> None:
    allocator = PageAllocator(RESERVED + 4)
    prefixes = PagedPrefixCache(allocator)
    prefixes.release(held(prefixes, "a")[0])
    held(prefixes, "b")
    assert prefixes.acquire("c", PAGE, 3) is None
    assert (len(prefixes), allocator.free) == (2, 2)
    assert prefixes.acquire("a", PAGE, 3) is None, "the voice's own prefix is not given up for its segment"


def test_a_forgotten_prefix_keeps_its_pages_for_its_users_and_then_gives_them_back() -> None:
    allocator = PageAllocator(RESERVED + 4)
    prefixes = PagedPrefixCache(allocator)
    old = held(prefixes, "a")[0]
    assert held(prefixes, "a")[0] is old
    prefixes.forget(old)
    new, _, is_new = held(prefixes, "a")
    assert is_new
    assert new.pages != old.pages
    assert prefixes.release(old) == []
    assert prefixes.release(old) == old.pages
    assert allocator.free == 3
    assert prefixes.release(new) == [], "this one is kept"
