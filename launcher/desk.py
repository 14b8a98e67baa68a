"""All that a launcher does in Redis: its box's lease, its workers' entries, watching them, the messages of the dead."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloner.fleet import Registry
from cloner.queues import PARENT
from cloner.redisconn import HASTE_S
from cloner.settings import Settings
from launcher.handback import give_back
from launcher.layout import Layout
from launcher.lease import LOOK_S, RENEW_S, Lease, longest_lease_s
from launcher.reach import Reach
from launcher.roster import Roster
from launcher.takeover import Takeover
from launcher.watch import Finding, Watch, exists, pid_of


class Desk:
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
        self.roster = Roster(settings, layout, registry, self._reach)
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
        with self._reach.or_away():
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
        with self._reach.or_away():
            self._watch.begin(holder)
            self._emptied.discard(holder)
        if holder in self._titles:
            self.roster.starting(holder)
        return self._reach.answers

    def ended(self, holder: str) -> None:
        """Whoever ran under that name is dead."""
        self.roster.ended(holder)
        if self._is_open and self._reach.answers:
            with self._reach.or_away():
                self._watch.end(holder)
            self._give_back(holder)

    def give_up(self, holder: str, why: str) -> None:
        """Nobody starts under that name again: the others take over the worker's queue."""
        self.roster.give_up(holder, why)
        self._takeover.give_up(holder)

    def beat(self, kept: list[str], now: float) -> dict[str, Finding]:
        """Keep the box and the entries, take over what nobody reads; returns what is wrong with those that run.

        Raises `BoxTaken` if another launcher has the box.
        """
        found: dict[str, Finding] = {}
        with self._reach.or_away():
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
            with self._reach.or_away():
                self._lease.renew(seconds)

    def abandon(self) -> None:
        """Another launcher has the box: nothing of it is touched any more."""
        self._is_open = False

    def close(self) -> None:
        """Take all workers out of the registry, and let go of the box."""
        if self._is_open:
            self.roster.remove()
            if self._reach.answers:
                with self._reach.or_away():
                    self._lease.release()
            self._is_open = False

    def _see_others_off(self) -> None:
        """Wait until workers of the last launcher have seen that this one has the box, and are gone.

        They have outlived it only where it is frozen, not dead. Two of their heartbeats are enough.
        """
        names, redis = self._registry.names, self._registry.redis
        fields = [names.pulse(holder, PARENT) for holder in (*self._titles, names.collector(self._box))]
        deadline = time.monotonic() + 2 * self._heartbeat_s + HASTE_S
        while time.monotonic() < deadline:
            if not any(exists(pid_of(str(pulse))) for pulse in redis.hmget(names.pulses, fields)):
                return
            time.sleep(LOOK_S)

    def _give_back(self, holder: str) -> bool:
        if holder not in self._emptied:
            with self._reach.or_away():
                given = give_back(self._registry.redis, self._registry.names, holder)
                self._emptied.add(holder)
                if given:
                    title = self._titles.get(holder, "Collector")
                    self._say(f"[Main] What {title} had in hand is back in its queue: {given} unfinished")
        return holder in self._emptied
