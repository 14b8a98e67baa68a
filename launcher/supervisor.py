"""Keeps a box's workers running: compares what should run with what does, in one loop over one queue of events.

Signal handlers and the threads that read the child processes' output only put events on the queue; everything else
happens in the main thread.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, NoReturn

from cloner.errors import EXIT_LOAD_FAILED, BoxTaken, LoadFailed, UsageError
from cloner.events import Event
from cloner.logs import log_line, passed_on
from cloner.process import LEASE
from cloner.settings import Settings
from cloner.state.registry import Registry, WorkerInfo
from launcher.box import Box
from launcher.health import MAX_FAILED_LOADS, Unhealthy
from launcher.layout import Layout
from launcher.managed_process import Commands, ManagedProcess, make_processes
from launcher.process import Child, Ended, Line, ProcessEvent

RETRY_START_S = 1.0
"""Seconds between two tries to start a process where Redis does not answer."""

POLL_S = 0.25
"""Seconds between calls of `until`."""

DRAIN_S = 0.05
"""Seconds without a line after which no more lines are expected."""

KILLED_S = 5.0
"""Seconds that killed processes get to end."""

CANNOT_LOAD = frozenset({EXIT_LOAD_FAILED, UsageError.exit_code})
"""Exit statuses of a worker that would fail again: its model does not load, or a setting is wrong."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Starts a layout's workers, a collector and reviewers, and keeps them running until a signal or `until` stops it.

    A context manager: leaving it stops everything. The child processes get `environment` on top of this process's own;
    without a command for it no collector is started, for one runs elsewhere; `log` takes finished log lines; `clock`
    counts seconds. Use it in the main thread.
    """

    def __init__(  # noqa: PLR0913 - three things to supervise, the rest have defaults
        self,
        settings: Settings,
        layout: Layout,
        registry: Registry,
        *,
        environment: Mapping[str, str] | None = None,
        commands: Commands = Commands(),  # noqa: B008 - it is frozen
        reviewers: int = 0,
        log: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._log = log or log_line
        self._clock = clock
        self._box = Box(settings, layout, registry, self._log, reviewers)
        self._events: SimpleQueue[ProcessEvent] = SimpleQueue()
        self._handlers: dict[signal.Signals, Any] = {}
        self._beat_due = 0.0
        environment = {**(environment or {}), LEASE: self._box.lease_name}
        names = self._box.workers, self._box.reviewers
        self._processes = make_processes(settings, layout, *names, environment, commands)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def register(self) -> list[WorkerInfo]:
        """Enter all workers into the registry as "loading": a batch can be assigned to them before they are ready.

        Waits while Redis is away. Raises `BoxTaken` if another launcher runs this box's workers, `RedisError` if the
        settings of Redis are wrong.
        """
        self._box.open()
        return self._box.workers

    def start(self, *, workers: bool = True) -> None:
        """Start everything at once, or without `workers` the collector; registers the workers if that was not done.

        A stop signal before they are registered ends this process with status 0. Raises as `register` does.
        """
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._handlers[number] = signal.signal(number, _exit)
        self.register()
        for number in self._handlers:
            signal.signal(number, self._queue_signal)
        if workers:
            self._launch_all(self._processes)
        else:
            self._launch_all([process for process in self._processes if not process.is_worker])

    def start_workers(self) -> None:
        """Start the workers, after a `start` without them."""
        self._launch_all([process for process in self._processes if process.is_worker])

    def _launch_all(self, processes: Sequence[ManagedProcess]) -> None:
        workers = sum(process.is_worker for process in processes)
        if workers:
            self._log(Event.LAUNCHING_WORKERS.line(workers=workers))
        for process in processes:
            self._launch(process)

    def run(self, until: Callable[[], bool] | None = None) -> signal.Signals | None:
        """Keep everything running until `until()` is true, or until a stop signal arrives, which is then returned.

        `until` is called four times a second. Raises, with everything stopped, `LoadFailed` if no worker can load its
        model, and `BoxTaken` if another launcher has taken the box.
        """
        until_due = self._clock()
        while True:
            now = self._clock()
            dues = [self._launch_due(now), self._beat(now)]
            if until is not None:
                if now >= until_due:
                    if until():
                        self._drain_lines()
                        return None
                    until_due = now + POLL_S
                dues.append(until_due)
            match self._next(min(dues)):
                case Line() as line:
                    self._pass_on(line)
                case Ended() as end:
                    self._replace(end)
                case signal.Signals() as number:
                    self._log(Event.STOPPING.line(signal=number.name, stop_s=self._settings.stop_s))
                    return number

    def kill(self) -> None:
        """Kill all child processes: for when there is no work left to lose, since Celery takes two seconds to stop."""
        for process in self._processes:
            if process.child:
                process.child.kill()
        self.stop()

    def stop(self) -> None:
        """Stop all child processes, kill those that take too long, and take the workers out of the registry.

        A signal that arrives meanwhile kills at once.
        """
        for process in self._processes:
            process.due = None
            if not process.child:
                continue
            if process.loads_models and self._box.is_loading(process.name):
                process.child.kill()  # Celery would wait for the model; there is no work to lose
            else:
                process.child.stop()
        self._box.hold(self._settings.stop_s + KILLED_S)
        deadline, killed = self._clock() + self._settings.stop_s, False
        while running := [process.child for process in self._processes if process.child]:
            names = ", ".join(f"{child.title} (process {child.pid})" for child in running)
            match self._next(deadline):
                case Line() as line:
                    self._pass_on(line)
                case Ended() as end:
                    self._box.ended(self._clear_child(end).name, stopped=True)
                case _ if not killed:
                    self._log(Event.KILLING.line(processes=names))
                    for child in running:
                        child.kill()
                    deadline, killed = self._clock() + KILLED_S, True
                case None:
                    self._log(Event.KILLED_BUT_ALIVE.line(processes=names))
                    break
        self._box.close()
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _queue_signal(self, number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put, unlike Queue.put, may be entered again while the interrupted code is in it.
        self._events.put(signal.Signals(number))

    def _next(self, due: float) -> ProcessEvent | None:
        """The next event; None if none comes before `due`."""
        try:
            return self._events.get(timeout=max(0.0, due - self._clock()))
        except Empty:
            return None

    def _pass_on(self, line: Line) -> None:
        self._log(passed_on(line.child.title, line.text))

    def _drain_lines(self) -> None:
        """Pass on lines that were written before `until` came true: the reader threads may be a moment behind."""
        while isinstance(event := self._next(self._clock() + DRAIN_S), Line):
            self._pass_on(event)
        if event is not None:
            self._events.put(event)

    def _launch(self, process: ManagedProcess) -> None:
        if not self._box.prepare_start(process.name):
            process.due = self._clock() + RETRY_START_S
            return
        if process.announcement:
            self._log(process.announcement)
        process.due, process.started, process.unhealthy = None, self._clock(), None
        try:
            process.child = Child(process.title, process.command, process.environment, self._events)
        except OSError as error:
            self._launch_later(process, f"could not be started: {error}")

    def _launch_later(self, process: ManagedProcess, what: str) -> None:
        now = self._clock()
        delay = process.backoff.delay_s(ran_s=now - process.started)
        process.due = now + delay
        self._box.ended(process.name)
        self._log(Event.RESTARTING.line(title=process.title, reason=what, delay_s=delay))

    def _launch_due(self, now: float) -> float:
        """Start the processes that are due; returns when the next start is due."""
        for process in self._processes:
            if process.due is not None and now >= process.due:
                self._launch(process)
        return min((process.due for process in self._processes if process.due is not None), default=float("inf"))

    def _beat(self, now: float) -> float:
        """Call `Box.beat` if it is due, and kill unhealthy processes; returns when it is due next."""
        if now >= self._beat_due:
            try:
                pids = {process.name: process.child.pid if process.child else 0 for process in self._processes}
                unhealthy = self._box.beat(pids, now)
            except BoxTaken:
                self._box.abandon()
                self.kill()
                raise
            for process in self._processes:
                if process.name in unhealthy and process.child and not process.unhealthy:
                    self._kill_unhealthy(process, process.child, unhealthy[process.name])
            self._beat_due = now + self._box.beat_s
        return self._beat_due

    def _kill_unhealthy(self, process: ManagedProcess, child: Child, unhealthy: Unhealthy) -> None:
        self._log(Event.KILLING_UNHEALTHY.line(title=process.title, reason=unhealthy.reason))
        process.unhealthy = unhealthy
        child.kill()

    def _clear_child(self, end: Ended) -> ManagedProcess:
        process = next(process for process in self._processes if process.child is end.child)
        process.child = None
        return process

    def _replace(self, end: Ended) -> None:
        process = self._clear_child(end)
        how = "was killed" if process.unhealthy else end.how
        if process.loads_models:
            process.failed_loads = process.failed_loads + 1 if self._box.never_loaded(process.name) else 0
            reason = ""
            if end.status in CANNOT_LOAD:
                error = self._box.error(process.name) or end.child.last_line or "it did not say why"
                if self._box.is_broken(process.name):
                    self._give_up(process, f"is broken: {' '.join(error.split())}")
                    return
                if self._box.has_loaded(process.name) and process.failed_loads < MAX_FAILED_LOADS:
                    # A killed process may hold the card's memory for a while.
                    how = f"did not load its model again: {' '.join(error.split())}"
                else:
                    reason = error
            elif process.unhealthy and process.unhealthy.is_permanent:
                reason = f"it {process.unhealthy.reason}"
            elif process.failed_loads >= MAX_FAILED_LOADS:
                reason = f"it died {MAX_FAILED_LOADS} times before it had loaded; at last it {how}"
            if reason:
                self._give_up(process, f"cannot load its model: {' '.join(reason.split())}")
                return
        self._launch_later(process, how)

    def _give_up(self, process: ManagedProcess, why: str) -> None:
        """Go on without a worker or reviewer that cannot work, as long as a worker or another of its kind is left."""
        self._box.ended(process.name)
        self._processes.remove(process)
        what = f"{process.title} {why}"
        if not any(other.is_worker or other.kind is process.kind for other in self._processes):
            self.stop()
            raise LoadFailed(what)
        self._box.give_up(process.name, why)
        event = Event.WORKER_GIVEN_UP if process.is_worker else Event.REVIEWER_GIVEN_UP
        self._log(event.line(title=process.title, reason=why))


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
