"""A scenario: a number of batches, one after another, through one fleet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cloner import Client
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from ops.soak.leaks import Keys, Process, ProcessMonitor, stray_files
from tests.support.batches import write_batch

WORKERS = 2
SPEAKERS = 10

START_S, BATCH_S, STOP_S = 300.0, 300.0, 60.0


@dataclass(frozen=True)
class Scenario:
    """A number of batches, their size in segments, and the fleet's settings."""

    title: str
    batches: int
    segments: int
    settings: Settings
    generation: dict[str, int] = field(default_factory=dict)


def fake_engine(url: str, segments: int, ttl_s: int) -> Scenario:
    """40 batches for the fake engine, with `segments` in all."""
    settings = Settings(redis_url=url, fleet="soak-fake", engine=EngineName.FAKE, fake_slots=4, batch_ttl_s=ttl_s)
    return Scenario("fake engine", 40, segments // 40, settings)


def batched_engine(url: str, segments: int, ttl_s: int, checkpoint: Path) -> Scenario:
    """40 batches for the batched engine, with `segments` short ones in all; `checkpoint` has random weights."""
    settings = Settings(
        redis_url=url,
        fleet="soak-batched",
        engine=EngineName.BATCHED,
        slots=8,
        checkpoint_dir=checkpoint,
        batch_ttl_s=ttl_s,
    )
    generation = {"min_new_tokens": 18, "max_new_tokens": 18}
    return Scenario("batched engine, tiny preset", 40, segments // 40, settings, generation)


@dataclass(frozen=True)
class SoakResult:
    """The measurements and problems of a scenario."""

    title: str
    segments: int
    elapsed_s: float
    processes: list[Process]
    keys: tuple[int, int]
    """Keys that never expire, after the first batch and after the last."""
    problems: list[str]
    """A message for each failed segment and each leak."""


def soak(scenario: Scenario, folder: Path) -> SoakResult:
    """Run the scenario, with all files in `folder`."""
    temporary, out = folder / "tmp", folder / "out"
    temporary.mkdir(parents=True)
    settings = scenario.settings.model_copy(update={"out_dir": out})
    sizes = [len(range(speaker, scenario.segments, SPEAKERS)) for speaker in range(min(SPEAKERS, scenario.segments))]
    problems: list[str] = []
    ids: list[str] = []
    outputs: set[str] = set()
    start = time.monotonic()
    with _fleet(settings, folder, temporary) as launcher:
        client, monitor = Client(settings=settings), ProcessMonitor(launcher)
        _wait_until_ready(client, launcher)
        for number in range(scenario.batches):
            batch = client.submit(write_batch(folder, sizes, scenario.generation, outputs=f"audio/{number}"))
            result = batch.wait(timeout=BATCH_S)
            problems += [
                f"segment {index} of batch {number}: {error.message}" for index, error in result.errors.items()
            ]
            monitor.sample()
            ids.append(batch.id)
            outputs.update(result.results.values())
            if number == 0:
                _wait_for_counts(client)
                before = Keys(client.redis)
        after = Keys(client.redis)
        elapsed_s = time.monotonic() - start
    problems += monitor.problems
    problems += monitor.grown()
    problems += monitor.left()
    problems += after.new_since(before, ids)
    problems += stray_files(out, temporary, outputs, ids)
    keys = (len(before.staying), len(after.staying))
    return SoakResult(scenario.title, len(outputs), elapsed_s, monitor.processes, keys, problems)


@contextmanager
def _fleet(settings: Settings, folder: Path, temporary: Path) -> Iterator[psutil.Process]:
    """Run a launcher with workers, whose log goes to a file; stop it at the end."""
    values = settings.model_dump(mode="json", exclude={"model_memory_gb"}, exclude_none=True)
    env = {**os.environ, "TMPDIR": str(temporary), **{f"CLONER_{name.upper()}": str(values[name]) for name in values}}
    command = [sys.executable, "-m", "launcher", "up", "--workers", str(WORKERS)]
    with (folder / "fleet.log").open("w") as log, subprocess.Popen(command, env=env, stderr=log) as launcher:
        try:
            yield psutil.Process(launcher.pid)
        finally:
            launcher.terminate()
            launcher.wait(STOP_S)


def _wait_for_counts(client: Client) -> None:
    """Wait for the counters, which are sent with heartbeats: the first one may follow a short batch."""
    while not client.redis.exists(RedisKeys(client.settings.fleet).counters):
        time.sleep(0.1)


def _wait_until_ready(client: Client, launcher: psutil.Process) -> None:
    deadline = time.monotonic() + START_S
    while sum(worker.state == "ready" for worker in client.fleet()) < WORKERS:
        if launcher.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            raise SystemExit("the fleet did not start")
        time.sleep(0.1)
