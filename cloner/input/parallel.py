"""Work on many files by a few threads: reading and decoding them releases Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cloner.process import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `function`, in the order of the `items`, from a thread for each core.

    Items are drawn when a thread has room for them, so there may be a million. What `function` raises is raised in the
    place of its result; then, and when the caller draws no more, no further item is begun.
    """
    threads = usable_cores()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="parallel")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
