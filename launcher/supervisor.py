"""Keeps a box's workers running: what should run against what does, in one loop over one queue of events.

Signal handlers and the children's threads only put events on the queue; all else happens in the main thread.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any

from cloner.errors import EXIT_LOAD_FAILED, BoxTaken, LoadFailed, UsageError
from cloner.logs import get_logger, passed_on
from cloner.process import LEASE
from cloner.settings import Settings
from cloner.state.registry import Registry, WorkerInfo
from launcher.box import Box
from launcher.health import HOPELESS, Unhealthy
from launcher.layout import Layout
from launcher.managed_process import COLLECTOR, WORKER, ManagedProcess, make_processes
from launcher.process import Child, Ended, Event, Line

AGAIN_S = 1.0
"""Seconds between two tries to start somebody where Redis does not answer."""

POLL_S = 0.25
"""Seconds between looks at `until`."""

BEHIND_S = 0.05
"""Seconds without a line after which there is none on its way."""

KILLED_S = 5.0
"""Seconds that killed processes get to vanish."""

CANNOT = frozenset({EXIT_LOAD_FAILED, UsageError.exit_code})
"""Exit statuses of a worker that would fare no better a second time: its model does not load, or a setting is wrong."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Starts a layout's workers and one collector, and keeps them running until told to stop.

    A context manager: leaving it stops everything. `environment` is what the children get on top of this process's
    own environment; without `collector` there is none, for it runs elsewhere; `say` takes finished log lines; `clock`
    counts seconds. Use it in the main thread.
    """

    def __init__(  # noqa: PLR0913 - three things to supervise, the rest have defaults
        self,
        settings: Settings,
        layout: Layout,
        registry: Registry,
        *,
        environment: Mapping[str, str] | None = None,
        worker_command: Sequence[str] = WORKER,
        collector_command: Sequence[str] = COLLECTOR,
        collector: bool = True,
        say: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._say = say or get_logger().info
        self._clock = clock
        self._desk = Box(settings, layout, registry, self._say)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._handlers: dict[signal.Signals, Any] = {}
        self._beat_due = 0.0
        commands = worker_command, collector_command if collector else None
        told = {**(environment or {}), LEASE: self._desk.lease_name}
        self._posts = make_processes(settings, layout, self._desk.roster.workers, told, commands)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def register(self) -> list[WorkerInfo]:
        """Enter all workers into the registry as "loading": a batch can be dealt to them before they are ready.

        Raises `BoxTaken` if another launcher runs this box's workers.
        """
        self._desk.open()
        return self._desk.roster.workers

    def start(self) -> None:
        """Start everything at once; registers the workers if that was not done."""
        self.register()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._handlers[number] = signal.signal(number, self._queue_signal)
        if self._desk.roster.workers:
            self._say(f"[Main] Launching {len(self._desk.roster.workers)} workers...")
        for post in self._posts:
            self._launch(post)

    def run(self, until: Callable[[], bool] | None = None) -> signal.Signals | None:
        """Keep everything running until `until()` is true, or until a signal says to stop, which is then returned.

        `until` is asked four times a second. Raises, with everything stopped, `LoadFailed` if no worker can load its
        model, and `BoxTaken` if another launcher has taken the box.
        """
        until_due = self._clock()
        while True:
            now = self._clock()
            dues = [self._launch_due(now), self._beat(now)]
            if until is not None:
                if now >= until_due:
                    if until():
                        self._pass_on_the_rest()
                        return None
                    until_due = now + POLL_S
                dues.append(until_due)
            match self._next(min(dues)):
                case Line() as line:
                    self._pass_on(line)
                case Ended() as end:
                    self._replace(end)
                case signal.Signals() as number:
                    patience = f"{self._settings.stop_s:g} s"
                    self._say(f"[Main] {number.name}: stopping within {patience}; a second signal kills at once")
                    return number

    def kill(self) -> None:
        """Kill all children: for when there is no work left to lose, since Celery takes two seconds to stop."""
        for post in self._posts:
            if post.child:
                post.child.kill()
        self.stop()

    def stop(self) -> None:
        """Stop all children, kill those that take too long, and take the workers out of the registry.

        A signal that arrives meanwhile kills at once.
        """
        for post in self._posts:
            post.due = None
            if not post.child:
                continue
            if post.is_worker and self._desk.roster.is_loading(post.holder):
                post.child.kill()  # Celery would wait for the model; there is no work to lose
            else:
                post.child.stop()
        self._desk.keep(self._settings.stop_s + KILLED_S)
        deadline, killed = self._clock() + self._settings.stop_s, False
        while running := [post.child for post in self._posts if post.child]:
            names = ", ".join(f"{child.title} (process {child.pid})" for child in running)
            match self._next(deadline):
                case Line() as line:
                    self._pass_on(line)
                case Ended() as end:
                    self._desk.ended(self._vacate(end).holder)
                case _ if not killed:
                    self._say(f"[Main] Killing {names}")
                    for child in running:
                        child.kill()
                    deadline, killed = self._clock() + KILLED_S, True
                case None:
                    self._say(f"[Main] Killed, but still there: {names}")
                    break
        self._desk.close()
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _queue_signal(self, number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put, unlike Queue.put, may be entered again while the interrupted code is in it.
        self._events.put(signal.Signals(number))

    def _next(self, due: float) -> Event | None:
        """The next event; None if none comes before `due`."""
        try:
            return self._events.get(timeout=max(0.0, due - self._clock()))
        except Empty:
            return None

    def _pass_on(self, line: Line) -> None:
        self._say(passed_on(line.child.title, line.text))

    def _pass_on_the_rest(self) -> None:
        """Pass on what was said before `until` came true: the children's reader threads may be a moment behind."""
        while isinstance(event := self._next(self._clock() + BEHIND_S), Line):
            self._pass_on(event)
        if event is not None:
            self._events.put(event)

    def _launch(self, post: ManagedProcess) -> None:
        if not self._desk.make_ready(post.holder):
            post.due = self._clock() + AGAIN_S
            return
        if post.announcement:
            self._say(post.announcement)
        post.due, post.started, post.finding = None, self._clock(), None
        try:
            post.child = Child(post.title, post.command, post.environment, self._events)
        except OSError as error:
            self._launch_later(post, f"could not be started: {error}")

    def _launch_later(self, post: ManagedProcess, what: str) -> None:
        now = self._clock()
        delay = post.backoff.delay_s(ran_s=now - post.started)
        post.due = now + delay
        self._desk.ended(post.holder)
        self._say(f"[Main] {post.title} {what}; starting it again in {delay:g} s")

    def _launch_due(self, now: float) -> float:
        """Start what is due; returns when the next start is."""
        for post in self._posts:
            if post.due is not None and now >= post.due:
                self._launch(post)
        return min((post.due for post in self._posts if post.due is not None), default=float("inf"))

    def _beat(self, now: float) -> float:
        """Send heartbeats and look for signs of life if that is due; returns when it is next."""
        if now >= self._beat_due:
            try:
                found = self._desk.beat([post.holder for post in self._posts], now)
            except BoxTaken:
                self._desk.abandon()
                self.kill()
                raise
            for post in self._posts:
                if post.holder in found and post.child and not post.finding:
                    self._kill_for(post, post.child, found[post.holder])
            self._beat_due = now + self._desk.beat_s
        return self._beat_due

    def _kill_for(self, post: ManagedProcess, child: Child, finding: Unhealthy) -> None:
        self._say(f"[Main] {post.title} {finding.reason}: killing it")
        post.finding = finding
        child.kill()

    def _vacate(self, end: Ended) -> ManagedProcess:
        post = next(post for post in self._posts if post.child is end.child)
        post.child = None
        return post

    def _replace(self, end: Ended) -> None:
        post = self._vacate(end)
        how = "was killed" if post.finding else end.how
        if post.is_worker:
            post.failed_loads = post.failed_loads + 1 if self._desk.roster.never_loaded(post.holder) else 0
            reason = ""
            if end.status in CANNOT:
                said = self._desk.roster.error(post.holder) or end.child.last_line or "it did not say why"
                if self._desk.roster.is_broken(post.holder):
                    self._give_up(post, f"is broken: {' '.join(said.split())}")
                    return
                if self._desk.roster.has_loaded(post.holder) and post.failed_loads < HOPELESS:
                    # What was killed may hold the card's memory for a while.
                    how = f"did not load its model again: {' '.join(said.split())}"
                else:
                    reason = said
            elif post.finding and post.finding.is_hopeless:
                reason = f"it {post.finding.reason}"
            elif post.failed_loads >= HOPELESS:
                reason = f"it died {HOPELESS} times before it had loaded; at last it {how}"
            if reason:
                self._give_up(post, f"cannot load its model: {' '.join(reason.split())}")
                return
        self._launch_later(post, how)

    def _give_up(self, post: ManagedProcess, why: str) -> None:
        """Go on without a worker that will never work, as long as there are others."""
        self._desk.ended(post.holder)
        self._posts.remove(post)
        what = f"{post.title} {why}"
        if not any(other.is_worker for other in self._posts):
            self.stop()
            raise LoadFailed(what)
        self._desk.give_up(post.holder, why)
        self._say(f"[Main] {what}; the others take over its queue")
