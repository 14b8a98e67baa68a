"""All that a launcher does in Redis: its box's lease, its workers' entries, watching them, the messages of the dead.

A box's workers in the fleet's registry, for as long as their launcher lives.

A Redis that may go away and come back: said once, and nothing breaks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import RedisError

from cloner.names import PARENT, collector_name
from cloner.settings import Settings
from cloner.state.connection import HASTE_S
from cloner.state.registry import Registry, WorkerInfo, WorkerState, expected_worker
from launcher.health import Unhealthy, Watch, exists, pid_of
from launcher.layout import Layout
from launcher.lease import LOOK_S, RENEW_S, Lease, longest_lease_s
from launcher.recovery import Takeover, requeue


class Box:
    """Redis may go away and come back: that is said once, and what was to be done is done when it is back. Only a Redis
    that has never answered is an error."""

    def __init__(self, settings: Settings, layout: Layout, registry: Registry, say: Callable[[str], object]) -> None:
        self._registry = registry
        self._say = say
        self._reach = Reach(say)
        self._lease = Lease(registry, settings.box, say)
        self.lease_name = self._lease.name
        self._box = settings.box
        self._longest_s = longest_lease_s(settings)
        self._heartbeat_s = settings.heartbeat_s
        self._watch = Watch(settings, registry)
        self._takeover = Takeover(settings, registry, say)
        self.roster = Registration(settings, layout, registry, self._reach)
        self._titles = {worker.name: f"Worker {worker.index}" for worker in self.roster.workers}
        self.beat_s = min(settings.heartbeat_s, RENEW_S)
        """Seconds between two calls of `beat`."""
        self._is_open = False
        self._emptied: set[str] = set()
        """Those whose hands are known to be empty: nobody has started under their name since they were emptied."""

    def open(self) -> None:
        """Take the box, and enter its workers as "loading", if that was not done.

        A Redis that goes away meanwhile is waited for. Raises `BoxTaken`, and `RedisError` if Redis does not answer
        from the beginning.
        """
        self._registry.redis.ping()
        while not self._try_to_open():
            time.sleep(LOOK_S)

    def _try_to_open(self) -> bool:
        with self._reach.tolerate_outage():
            if not self._is_open:
                self._lease.acquire(self._longest_s)
                self._see_others_off()
                self._is_open = True
            self.roster.register()
        return self._reach.answers

    def make_ready(self, holder: str) -> bool:
        """Before somebody starts under that name: what the last one had in hand is given back.

        False where Redis does not answer; then nobody could start anyway.
        """
        if not self._give_back(holder):
            return False
        with self._reach.tolerate_outage():
            self._watch.begin(holder)
            self._emptied.discard(holder)
        if holder in self._titles:
            self.roster.starting(holder)
        return self._reach.answers

    def ended(self, holder: str) -> None:
        """Whoever ran under that name is dead."""
        self.roster.ended(holder)
        if self._is_open and self._reach.answers:
            with self._reach.tolerate_outage():
                self._watch.end(holder)
            self._give_back(holder)

    def give_up(self, holder: str, why: str) -> None:
        """Nobody starts under that name again: the others take over the worker's queue."""
        self.roster.give_up(holder, why)
        self._takeover.give_up(holder)

    def beat(self, kept: list[str], now: float) -> dict[str, Unhealthy]:
        """Keep the box and the entries, take over what nobody reads; returns what is wrong with those that run.

        Raises `BoxTaken` if another launcher has the box.
        """
        found: dict[str, Unhealthy] = {}
        with self._reach.tolerate_outage():
            self._lease.require()
            self.roster.beat()
            self._takeover.look(kept, now)
            found = self._watch.look(self.roster.workers, now)
        if not self._reach.answers:
            self._watch.start_anew()
            self._takeover.start_anew()
        return found

    def keep(self, seconds: float) -> None:
        """Keep the box for so long without beating."""
        if self._is_open and self._reach.answers:
            with self._reach.tolerate_outage():
                self._lease.renew(seconds)

    def abandon(self) -> None:
        """Another launcher has the box: nothing of it is touched any more."""
        self._is_open = False

    def close(self) -> None:
        """Take all workers out of the registry, and let go of the box."""
        if self._is_open:
            self.roster.remove()
            if self._reach.answers:
                with self._reach.tolerate_outage():
                    self._lease.release()
            self._is_open = False

    def _see_others_off(self) -> None:
        """Wait until workers of the last launcher have seen that this one has the box, and are gone.

        They have outlived it only where it is frozen, not dead. Two of their heartbeats are enough.
        """
        keys, redis = self._registry.keys, self._registry.redis
        fields = [keys.process_heartbeat(holder, PARENT) for holder in (*self._titles, collector_name(self._box))]
        deadline = time.monotonic() + 2 * self._heartbeat_s + HASTE_S
        while time.monotonic() < deadline:
            if not any(exists(pid_of(str(pulse))) for pulse in redis.hmget(keys.process_heartbeats, fields)):
                return
            time.sleep(LOOK_S)

    def _give_back(self, holder: str) -> bool:
        if holder not in self._emptied:
            with self._reach.tolerate_outage():
                given = requeue(self._registry.redis, self._registry.keys, holder)
                self._emptied.add(holder)
                if given:
                    title = self._titles.get(holder, "Collector")
                    self._say(f"[Main] What {title} had in hand is back in its queue: {given} unfinished")
        return holder in self._emptied


class Registration:
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
        with self._reach.tolerate_outage():
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
        with self._reach.tolerate_outage():
            self._registry.give_up(name, why)

    def error(self, name: str) -> str:
        """Why the worker's model does not load, in its own words; empty if it has not said."""
        known = self._known(name)
        return known.error if known else ""

    def remove(self) -> None:
        """Take all workers out."""
        if self._registered:
            with self._reach.tolerate_outage():
                for name in (*(worker.name for worker in self.workers), *self._given_up):
                    self._registry.remove(name)
            self._registered = False

    def _known(self, name: str) -> WorkerInfo | None:
        """The worker's entry; None where there is none, or Redis does not answer."""
        known = None
        with self._reach.tolerate_outage():
            known = self._registry.get(name)
        return known  # noqa: RET504 - an outage ends the statement above


class Reach:
    """Whether Redis answers, as all parts of a launcher have found it."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self.answers = True

    @contextmanager
    def tolerate_outage(self) -> Iterator[None]:
        """Inside it, a Redis that does not answer ends the block, and is told of once."""
        try:
            yield
        except RedisError as error:
            if self.answers:
                self._say(
                    f"[Main] Redis does not answer: {error}; until it does, the registry hears nothing of this box"
                )
            self.answers = False
        else:
            self.answers = True
