"""A box's workers in the fleet's registry, for as long as their launcher lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import RedisError

from cloner.fleet import Registry, WorkerState, expected_worker
from cloner.settings import Settings
from launcher.layout import Layout


class Roster:
    """Enters a layout's workers, speaks for those too young to send heartbeats, and takes them out in the end.

    Redis may go away and come back: only `register` raises; everything else says so once and is done with it.
    """

    def __init__(self, settings: Settings, layout: Layout, registry: Registry, say: Callable[[str], object]) -> None:
        self.workers = [expected_worker(settings, spec) for spec in layout.specs]
        self._registry = registry
        self._say = say
        self._registered = False
        self._loading: set[str] = set()
        self._answers = True

    def register(self) -> None:
        """Enter all workers as "loading", if that was not done. Raises `RedisError`."""
        if not self._registered:
            for worker in self.workers:
                self._registry.register(worker)
            self._registered = True

    def starting(self, name: str) -> None:
        """The worker is about to start: from now on, heartbeats are sent for it until it has loaded."""
        self._loading.add(name)
        with self._redis_may_be_away():
            self._registry.update(name, state=WorkerState.LOADING, error="")
            self._registry.beat(name)

    def ended(self, name: str) -> None:
        """The worker's process has ended: no more heartbeats for it."""
        self._loading.discard(name)

    def beat(self) -> None:
        """Send a heartbeat for each worker that runs and still loads."""
        with self._redis_may_be_away():
            for name in sorted(self._loading):
                known = self._registry.get(name)
                if known and known.state is WorkerState.LOADING:
                    self._registry.beat(name)
                else:
                    self._loading.discard(name)

    def is_loading(self, name: str) -> bool:
        """Whether the worker has not loaded its model yet, and so has no work in hand. No, where Redis has just not
        answered: a stop must not ask for each worker."""
        known = None
        if not self._answers:
            return False
        with self._redis_may_be_away():
            known = self._registry.get(name)
        return known is not None and known.state is WorkerState.LOADING

    def error(self, name: str) -> str:
        """Why the worker's model does not load, in its own words; empty if it has not said."""
        known = None
        with self._redis_may_be_away():
            known = self._registry.get(name)
        return known.error if known else ""

    def remove(self) -> None:
        """Take all workers out."""
        if self._registered:
            with self._redis_may_be_away():
                for worker in self.workers:
                    self._registry.remove(worker.name)
            self._registered = False

    @contextmanager
    def _redis_may_be_away(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            if self._answers:
                self._say(
                    f"[Main] Redis does not answer: {error}; until it does, the registry hears nothing of this box"
                )
            self._answers = False
        else:
            self._answers = True
