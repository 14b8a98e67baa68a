"""A fleet, its clients and its faults, for some minutes; afterwards, all that should be there is looked for."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from ops.chaos.clients import Clients, FinishedBatch
from ops.chaos.findings import check_batch
from tests.support.fault_injector import KINDS, PAUSE_S, FaultInjector, NoTarget
from tests.support.fleet_processes import fleet_processes
from tests.support.leftovers import left_behind
from tests.support.processes import LoggedProcess, environment
from tests.support.redis_server import RedisServer


@dataclass(frozen=True)
class Part:
    """A fleet with one engine, for some seconds."""

    title: str
    seconds: float
    workers: int
    clients: int
    settings: dict[str, Any]
    texts: tuple[int, int]
    """Least and most texts of a speaker."""
    generation: dict[str, int] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a part has done, and every problem that was found."""

    title: str
    batches: int = 0
    cancelled: int = 0
    segments: int = 0
    strategies: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def parts(seconds: float, checkpoint: Path) -> list[Part]:
    """Two thirds of the time for the fake engine, a third for the batched one with the checkpoint's random weights."""
    fake = {"engine": EngineName.FAKE, "fake_slots": 4, "fake_segment_s": 0.3}
    batched = {"engine": EngineName.BATCHED, "slots": 4, "checkpoint_dir": checkpoint, "deterministic": True}
    return [
        Part("fake engine", seconds * 2 / 3, workers=3, clients=3, settings=fake, texts=(1, 40)),
        Part(
            "batched engine, tiny preset",
            seconds / 3,
            workers=2,
            clients=2,
            settings=batched,
            texts=(1, 6),
            generation={"min_new_tokens": 35, "max_new_tokens": 35},
        ),
    ]


class Launchers:
    """Launchers of a fleet, one after another: a fault may end one, and another is started as systemd would."""

    def __init__(self, settings: Settings, workers: int, folder: Path) -> None:
        self._settings = settings
        self._workers = workers
        self._folder = folder
        self._started: list[LoggedProcess] = []

    def start(self) -> LoggedProcess:
        """Start a launcher."""
        command = [sys.executable, "-m", "launcher", "up", "--workers", str(self._workers)]
        self._started.append(LoggedProcess(command, environment(self._settings), self._folder))
        return self._started[-1]

    def write_log(self) -> None:
        """Write what all have logged to a file in the folder."""
        lines = [line for launcher in self._started for line in launcher.lines]
        (self._folder / "fleet.log").write_text("\n".join(lines))


def run_part(part: Part, seed: int, folder: Path) -> Outcome:
    """Run the part with all files in `folder`. The faults and batches follow from the seed, and their times do not."""
    folder.mkdir(parents=True)
    server = RedisServer(folder)
    name = f"chaos-{seed}-{part.settings['engine']}"
    settings = Settings(
        redis_url=server.url, fleet=name, out_dir=folder / "out", heartbeat_s=0.5, alive_s=10, **part.settings
    )
    launchers = Launchers(settings, part.workers, folder)
    outcome = Outcome(part.title)
    try:
        launcher = launchers.start()
        launcher.wait_for(Event.MODELS_LOADED, part.workers)
        clients = Clients(settings, folder, part.texts, part.generation)
        faults = FaultInjector(settings, server, random.Random(seed), launcher, launchers.start, clients.waiting)
        batches, outcome.faults = _run(part, seed, faults, clients)
        for batch in batches:
            outcome.batches += 1
            outcome.cancelled += batch.was_cancelled
            outcome.segments += batch.total
            outcome.strategies[batch.strategy] += 1
            outcome.problems += batch.problems or check_batch(batch, settings)
        outcome.problems += left_behind(Client(settings=settings), settings)
    finally:
        launchers.write_log()
        for found in fleet_processes(name):
            found.process.kill()
        server.kill()
    return outcome


def _run(part: Part, seed: int, faults: FaultInjector, clients: Clients) -> tuple[list[FinishedBatch], Counter[str]]:
    """Have clients submit batches, each one after another, while faults are injected.

    Returns the batches, and how many faults of each kind there were.
    """
    rng = random.Random(seed)
    injected: Counter[str] = Counter()
    begin = time.monotonic()
    deadline = begin + part.seconds
    with ThreadPoolExecutor(part.clients, "client") as pool:
        runs = [pool.submit(clients.run, seed * 1000 + number, deadline) for number in range(part.clients)]
        while not all(run.done() for run in runs):
            threading.Event().wait(rng.uniform(*PAUSE_S))
            faults.check_launcher()
            if time.monotonic() > deadline:
                continue  # without further faults, until the last batches are finished
            kind = rng.choice(KINDS)
            with suppress(NoTarget):
                print(f"  {time.monotonic() - begin:6.1f} s: {faults.inject(kind)}", flush=True)
                injected[kind] += 1
        return [batch for run in runs for batch in run.result()], injected
