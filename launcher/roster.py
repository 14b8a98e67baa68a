"""A box's workers in the fleet's registry, for as long as their launcher lives."""

from __future__ import annotations

from cloner.fleet import Registry, WorkerInfo, WorkerState, expected_worker
from cloner.settings import Settings
from launcher.layout import Layout
from launcher.reach import Reach


class Roster:
    """Enters a layout's workers, speaks for those too young to send heartbeats, and takes them out in the end.

    Redis may go away and come back: only `register` and `beat` raise; everything else says so once and is done with it.
    """

    def __init__(self, settings: Settings, layout: Layout, registry: Registry, reach: Reach) -> None:
        self.workers = [expected_worker(settings, spec) for spec in layout.specs]
        """Those that have not been given up."""
        self._registry = registry
        self._reach = reach
        self._registered = False
        self._loading: set[str] = set()
        self._given_up: set[str] = set()
        self._loads: dict[str, int] = {}
        self._have_loaded: set[str] = set()

    def register(self) -> None:
        """Enter all workers as "loading", if that was not done. Raises `RedisError`."""
        if not self._registered:
            for worker in self.workers:
                self._registry.register(worker)
            self._registered = True

    def starting(self, name: str) -> None:
        """The worker is about to start: from now on, heartbeats are sent for it until it has loaded."""
        self._loading.add(name)
        with self._reach.or_away():
            known = self._registry.get(name)
            self._loads[name] = known.loads if known else 0
            self._registry.update(name, state=WorkerState.LOADING, error="")
            self._registry.beat(name)

    def ended(self, name: str) -> None:
        """The worker's process has ended: no more heartbeats for it."""
        self._loading.discard(name)

    def beat(self) -> None:
        """Send a heartbeat for each worker that runs and still loads. Raises `RedisError`."""
        for name in sorted(self._loading):
            known = self._registry.get(name)
            if known and known.state is WorkerState.LOADING:
                self._registry.beat(name)
            else:
                self._loading.discard(name)
                if known:
                    self._have_loaded.add(name)

    def is_loading(self, name: str) -> bool:
        """Whether the worker has not loaded its model yet, and so has no work in hand. No, where Redis has just not
        answered: a stop must not ask for each worker."""
        known = self._known(name) if self._reach.answers else None
        return known is not None and known.state is WorkerState.LOADING

    def never_loaded(self, name: str) -> bool:
        """Whether the worker has not loaded its model since it was started. No, where Redis does not answer."""
        known = self._known(name)
        return known is not None and known.state is WorkerState.LOADING and known.loads == self._loads.get(name)

    def has_loaded(self, name: str) -> bool:
        """Whether a worker of that name was seen to have loaded its model since all were registered."""
        known = self._known(name)
        return name in self._have_loaded or (known is not None and known.loads > 0)

    def is_broken(self, name: str) -> bool:
        """Whether the worker, which has ended, had its model loaded. No, where Redis does not answer."""
        known = self._known(name)
        return known is not None and known.state is not WorkerState.LOADING

    def give_up(self, name: str, why: str) -> None:
        """The worker will not be started again: nothing more is dealt to it, and who watches sees why."""
        self._given_up.add(name)
        self.workers = [worker for worker in self.workers if worker.name != name]
        with self._reach.or_away():
            self._registry.give_up(name, why)

    def error(self, name: str) -> str:
        """Why the worker's model does not load, in its own words; empty if it has not said."""
        known = self._known(name)
        return known.error if known else ""

    def remove(self) -> None:
        """Take all workers out."""
        if self._registered:
            with self._reach.or_away():
                for name in (*(worker.name for worker in self.workers), *self._given_up):
                    self._registry.remove(name)
            self._registered = False

    def _known(self, name: str) -> WorkerInfo | None:
        """The worker's entry; None where there is none, or Redis does not answer."""
        known = None
        with self._reach.or_away():
            known = self._registry.get(name)
        return known  # noqa: RET504 - an outage ends the statement above
