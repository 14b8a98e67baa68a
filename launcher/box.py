"""What a launcher does in Redis for its box: it holds the lease, keeps its workers' entries in the registry, checks
heartbeats, and requeues the messages of processes that have died.

Redis may become unreachable and come back. Each method then ends early, the outage is logged once, and what is still to
be done is done after it. It is an error only where the address or the password is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from redis import RedisError

from cloner.events import Event
from cloner.names import reviewer_name
from cloner.settings import Settings
from cloner.state.connection import check_writable, may_pass
from cloner.state.damage import is_wrong_type
from cloner.state.entries import Entries
from cloner.state.key_types import check_key_types, wrong_type
from cloner.state.registry import Registry, ReviewerInfo, WorkerInfo, WorkerState, expected_reviewer, expected_worker
from launcher.health import HealthMonitor, Unhealthy
from launcher.layout import Layout
from launcher.lease import POLL_S, RENEW_S, Lease, longest_lease_s
from launcher.process import kill_started_under
from launcher.recovery import Takeover
from launcher.requeue import Requeuer

GONE_S = 5.0
"""Seconds that killed processes of the last launcher may take to be gone."""


class Box:
    """A launcher's box. Its workers, its collector and its reviewers go by their names as consumers of messages.

    `log` takes finished log lines; `reviewers` is a number.
    """

    def __init__(
        self, settings: Settings, layout: Layout, registry: Registry, log: Callable[[str], object], reviewers: int = 0
    ) -> None:
        self.workers = [expected_worker(settings, spec) for spec in layout.specs]
        """Those that have not been given up."""
        self.reviewers = [reviewer_name(settings.box, number) for number in range(reviewers)]
        """The names of all."""
        self.redis_answers = True
        """Whether Redis answered the last time that it was asked."""
        self.beat_s = min(settings.heartbeat_s, RENEW_S)
        """Seconds between two calls of `beat`."""
        self._settings = settings
        self._registry = registry
        self._log = log
        self._lease = Lease(registry, settings.box, log)
        self.lease_name = self._lease.name
        self._health = HealthMonitor(settings, registry)
        self._requeuer = Requeuer(settings, registry.redis, log)
        self._takeover = Takeover(settings, registry, log)
        self._entries: dict[str, Entries[WorkerInfo] | Entries[ReviewerInfo]] = {
            **{worker.name: registry.worker_entries for worker in self.workers},
            **dict.fromkeys(self.reviewers, registry.reviewer_entries),
        }
        """Where each process that loads models is registered."""
        self._titles = {worker.name: f"Worker {worker.index}" for worker in self.workers}
        self._titles |= {name: f"Reviewer {number}" for number, name in enumerate(self.reviewers)}
        self._is_open = False
        self._registered = False
        self._loading: set[str] = set()
        """Workers and reviewers that run, load, and send no heartbeats of their own yet."""
        self._loads: dict[str, int] = {}
        """Models that had been loaded under a worker's name when it was started."""
        self._have_loaded: set[str] = set()
        self._key_check_due = 0.0
        self._stops = False
        self._requeued: set[str] = set()
        """Consumers that have no unacknowledged messages: none was started since they were requeued."""

    def open(self) -> None:
        """Take the box, and register its workers as "loading", if that was not done.

        Waits where Redis is unreachable. Raises `BoxTaken`, `Damaged` as all methods do but those of a stop, and
        `RedisError` if the settings of Redis are wrong.
        """
        while not (self._ping() and self._try_to_open()):
            time.sleep(POLL_S)

    def prepare_start(self, name: str) -> bool:
        """Call it before a process starts under that name: requeues what the last one has not acknowledged.

        False where Redis does not answer; then the process could not start either.
        """
        if not self._requeue(name):
            return False
        with self._tolerate_outage():
            entries = self._entries.get(name)
            self._health.add(name, entries.key_of(name) if entries else "")
            self._requeued.discard(name)
        if entries := self._entries.get(name):
            self._loading.add(name)
            with self._tolerate_outage():
                entry = entries.get(name)
                self._loads[name] = entry.loads if entry else 0
                entries.update(name, state=WorkerState.LOADING, error="")
                entries.beat(name)
        return self.redis_answers

    def ended(self, name: str, *, stopped: bool = False) -> None:
        """The process of that name has ended, where it was `stopped` by this launcher: its heartbeats stop, and its
        messages are requeued."""
        self._loading.discard(name)
        if self._is_open and self.redis_answers:
            with self._tolerate_outage():
                self._health.remove(name)
            self._requeue(name, stopped=stopped)

    def give_up(self, name: str, why: str) -> None:
        """The worker or reviewer is not started again: the others take over its messages, and the registry shows
        why."""
        self.workers = [worker for worker in self.workers if worker.name != name]
        with self._tolerate_outage():
            self._entries[name].give_up(name, why)
        self._takeover.give_up(name)

    def beat(self, kept: Mapping[str, int], now: float) -> dict[str, Unhealthy]:
        """Renew the lease, send heartbeats for what loads, and take over queues that no worker reads; returns
        the unhealthy processes. `kept` has the names of all that the launcher runs, and their process ids; 0 for one
        that is about to be started.

        Raises `BoxTaken` if another launcher has the box.
        """
        unhealthy: dict[str, Unhealthy] = {}
        with self._tolerate_outage():
            if now >= self._key_check_due:
                self._check_keys()
                self._key_check_due = now + self._settings.alive_s
            self._lease.require()
            self._beat_for_loading_processes()
            self._takeover.poll([*kept], now)
            queues = {worker.name: worker.queue for worker in self.workers}
            queues |= dict.fromkeys(self.reviewers, self._settings.queues.review_queue)
            unhealthy = self._health.check(queues, kept, now)
        if not self.redis_answers:
            self._health.reset()
            self._takeover.reset()
        return unhealthy

    def hold(self, seconds: float) -> None:
        """Hold the box for so long without calls of `beat`: the launcher stops, and no damaged key hinders it."""
        self._stops = True
        if self._is_open and self.redis_answers:
            with self._tolerate_outage():
                self._lease.renew(seconds)

    def abandon(self) -> None:
        """Another launcher has the box: change nothing of it in Redis any more."""
        self._is_open = False

    def close(self) -> None:
        """Take all workers and reviewers out of the registry, and give the box free."""
        if not self._is_open:
            return
        if self._registered:
            with self._tolerate_outage():
                for name, entries in self._entries.items():
                    entries.remove(name)
            self._registered = False
        if self.redis_answers:
            with self._tolerate_outage():
                self._lease.release()
        self._is_open = False

    def is_loading(self, name: str) -> bool:
        """Whether the worker has not loaded its model yet, and so has no chunk. False if Redis did not answer the last
        time: a stop must not wait for an answer about each worker."""
        entry = self._entry(name) if self.redis_answers else None
        return entry is not None and entry.state is WorkerState.LOADING

    def never_loaded(self, name: str) -> bool:
        """Whether the worker has not loaded its model since it was started. False where Redis does not answer."""
        entry = self._entry(name)
        return entry is not None and entry.state is WorkerState.LOADING and entry.loads == self._loads.get(name)

    def has_loaded(self, name: str) -> bool:
        """Whether a worker of that name has loaded its model since all were registered."""
        entry = self._entry(name)
        return name in self._have_loaded or (entry is not None and entry.loads > 0)

    def is_broken(self, name: str) -> bool:
        """Whether the worker, which has ended, had its model loaded. False where Redis does not answer."""
        entry = self._entry(name)
        return entry is not None and entry.state is not WorkerState.LOADING

    def error(self, name: str) -> str:
        """Why the worker's model does not load, as the worker has reported it; empty if it has not."""
        entry = self._entry(name)
        return entry.error if entry else ""

    def _ping(self) -> bool:
        """Whether Redis answers. Raises `RedisError` if it never will with these settings."""
        with self._tolerate_outage(is_first=True):
            self._registry.redis.ping()
        return self.redis_answers

    def _try_to_open(self) -> bool:
        with self._tolerate_outage():
            if not self._is_open:
                self._check_keys()
                self._lease.acquire(longest_lease_s(self._settings))
                self._end_predecessors()
                self._is_open = True
            if not self._registered:
                # What a launcher that was killed has left; else it would stay, and each submission would read it.
                self._registry.worker_entries.remove_others(self._settings.box, self._entries)
                self._registry.reviewer_entries.remove_others(self._settings.box, self._entries)
                for worker in self.workers:
                    self._registry.register(worker)
                for name in self.reviewers:
                    self._registry.reviewer_entries.register(expected_reviewer(self._settings, name))
                self._registered = True
        return self.redis_answers

    def _check_keys(self) -> None:
        """Compare the types of the fleet's keys with what is kept there. Raises `Damaged`, `RedisError`."""
        check_key_types(self._registry.redis, self._settings, self._consumers())

    def _consumers(self) -> list[str]:
        return [*(worker.name for worker in self.workers), *self.reviewers]

    def _end_predecessors(self) -> None:
        """Kill what launchers that had the box before have left, and wait until it is gone.

        It is left where such a launcher is frozen, not dead, and where a process was frozen before it could ask the
        kernel to end it with its parent. Raises `RedisError`.
        """
        predecessors = self._lease.predecessors()
        deadline = time.monotonic() + GONE_S
        while time.monotonic() < deadline and kill_started_under(predecessors):
            time.sleep(POLL_S)
        self._lease.forget(predecessors)

    def _requeue(self, name: str, *, stopped: bool = False) -> bool:
        """Requeue what the dead process of that name has not acknowledged. False where Redis does not answer."""
        if name not in self._requeued:
            with self._tolerate_outage():
                count = self._requeuer.requeue(name, stopped=stopped)
                self._requeued.add(name)
                if count:
                    title = self._titles.get(name, "Collector")
                    self._log(Event.MESSAGES_REQUEUED.line(title=title, count=count))
        return name in self._requeued

    def _beat_for_loading_processes(self) -> None:
        """Send a heartbeat for each worker and reviewer that runs and still loads. Raises `RedisError`."""
        for name in sorted(self._loading):
            entries = self._entries[name]
            entry = entries.get(name)
            if entry and entry.state is WorkerState.LOADING:
                entries.beat(name)
            else:
                self._loading.discard(name)
                if entry:
                    self._have_loaded.add(name)

    def _entry(self, name: str) -> WorkerInfo | ReviewerInfo | None:
        """A process's entry in the registry; None where there is none, or Redis does not answer."""
        entry = None
        with self._tolerate_outage():
            entry = self._entries[name].get(name)
        return entry  # noqa: RET504 - an outage ends the statement above

    @contextmanager
    def _tolerate_outage(self, is_first: bool = False) -> Iterator[None]:
        """Inside it, a Redis that does not answer ends the block; its outage is logged once, and so is its end.

        A key of a wrong type is no outage: it raises `Damaged`, unless the launcher stops. If the block `is_first` to
        use Redis, it raises `RedisError` where the settings are wrong.
        """
        try:
            yield
        except RedisError as error:
            if is_first and not may_pass(error, self._registry.redis):
                raise
            if is_wrong_type(error) and not self._stops:
                raise wrong_type(error, self._registry.redis, self._settings, self._consumers()) from error
            if self.redis_answers:
                self._log(Event.REGISTRY_UNREACHABLE.line(error=error))
            self.redis_answers = False
        else:
            if not self.redis_answers and self._is_writable():
                self._log(Event.REGISTRY_REACHABLE.line())
                self.redis_answers = True

    def _is_writable(self) -> bool:
        """Whether Redis takes writes; it may answer and refuse them, as a replica does or one without memory."""
        try:
            check_writable(self._registry.redis, self._registry.keys)
        except RedisError:
            return False
        return True
