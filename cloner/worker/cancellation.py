"""Whether a chunk goes on: its batch may be cancelled or closed, or its worker may wait for the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from redis import RedisError

from cloner.worker.worker_process import WorkerProcess

CANCEL_INTERVAL_S = 0.25
"""Seconds between two checks whether the batch was cancelled."""


class Cancellation:
    """Checks whether a batch was cancelled, while it is entered as a context manager; or closed without this worker,
    which Redis, or its box, was away from for long: a later version of the batch may own the outputs by then.

    It checks from a thread of its own: the engine may be in the middle of a long step, or Redis away.
    """

    def __init__(self, worker: WorkerProcess, batch_id: str, *, cancelled: bool = False) -> None:
        self._batches = worker.batches
        self._batch_id = batch_id
        self._cancelled = threading.Event()
        if cancelled:
            self._cancelled.set()
        self._over = threading.Event()
        self._unpaused = threading.Event()
        self._unpaused.set()

    def stopped(self) -> bool:
        """Whether the batch was cancelled."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """Let time pass; returns true as soon as the batch is cancelled."""
        return self._cancelled.wait(seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside it, `wait_while_paused` blocks. May be nested, in one thread."""
        is_outermost = self._unpaused.is_set()
        self._unpaused.clear()
        try:
            yield
        finally:
            if is_outermost:
                self._unpaused.set()

    def wait_while_paused(self) -> None:
        """Block the calling thread while another one is in `paused`."""
        self._unpaused.wait()

    def __enter__(self) -> Cancellation:
        threading.Thread(target=self._check, name="cancel", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not joined: while Redis is away, the thread's request is retried for as long as any other.
        self._over.set()

    def _check(self) -> None:
        while not self._over.wait(CANCEL_INTERVAL_S):
            try:
                if self._batches.is_ended(self._batch_id):
                    self._cancelled.set()
                    return
            except RedisError:
                continue  # the requests that something depends on report it
