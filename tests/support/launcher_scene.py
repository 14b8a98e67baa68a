"""A supervisor whose workers are small scripts, and the lines that it logs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from cloner.events import Event
from cloner.settings import EngineName, load_settings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerState
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Layout, Rule, plan_layout
from launcher.managed_process import Commands
from launcher.supervisor import Supervisor
from tests.support.log_lines import find_lines

UP = "import os, signal; print(f'up {os.getpid()}')\nwhile True: signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('heard'))\n" + UP
DIES = "raise SystemExit(1)"


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A supervisor with two CPU workers and a collector, all of them small scripts; `lines` are its log lines."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.clock: Callable[[], float] = time.monotonic
        self.registry = Registry(redis, RedisKeys("main"), alive_s=30)
        self.lines: list[str] = []
        self.on_line: Callable[[str], None] = lambda _line: None
        self.layout: Layout = plan_layout([], Cpu(4, 64 * GB), Rule(8.0), speakers=None, workers=2)
        self.environment: dict[str, str] = {}
        self.reviewers = 0
        self.settings: dict[str, Any] = {
            "box": "box1",
            "engine": EngineName.FAKE,
            "fake_slots": 3,
            "checkpoint_dir": Path("a/mini"),
            "stop_s": 60.0,
        }

    def age_heartbeats(self, seconds: float) -> None:
        """Make all heartbeats older by so many seconds, as the server's clock would."""
        key = RedisKeys("main").workers
        for name in self.redis.zrange(key, 0, -1):
            self.redis.zincrby(key, -seconds, str(name))

    def log(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)

    def supervisor(self, worker: str = UP, collector: str | None = UP, reviewer: str = UP) -> Supervisor:
        return Supervisor(
            load_settings().model_copy(update=self.settings),
            self.layout,
            self.registry,
            environment=self.environment,
            commands=Commands(
                worker=[sys.executable, "-c", worker],
                collector=None if collector is None else [sys.executable, "-c", collector],
                reviewer=[sys.executable, "-c", reviewer],
            ),
            reviewers=self.reviewers,
            log=self.log,
            clock=self.clock,
        )

    def find(self, event: Event, **fields: object) -> list[str]:
        """The event's lines so far."""
        return find_lines(self.lines, event, "", **fields)

    def matching(self, pattern: str) -> list[str]:
        return [line for line in self.lines if re.search(pattern, line)]

    def workers_are_ready(self) -> None:
        """Set the state of all workers as real ones do once they have loaded."""
        for worker in self.registry.workers():
            self.registry.update(worker.name, state=WorkerState.READY)

    def names(self) -> list[str]:
        return [worker.name for worker in self.registry.workers()]
