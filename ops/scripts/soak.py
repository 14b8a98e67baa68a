"""Runs 10,000 segments of the fake engine and 1,000 of the batched one through standing fleets, and looks for leaks.

``make soak`` runs it. It takes ten minutes, half of them until the last keys in Redis expire. It prints the memory and
open files of each process, and a line for each problem; the exit status is 1 if there is one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cloner.state.connection import connect
from cloner.state.embedded import embedded_redis
from ops.soak.leaks import Change, Keys
from ops.soak.scenario import SoakResult, batched_engine, fake_engine, soak

FAKE, BATCHED = 10_000, 1_000
TTL_S = 60
"""Seconds that Redis keeps a batch: the minimum of the setting."""

EXPIRY_S = 330.0
"""Seconds until every key with an expiry must be gone: Celery keeps a chord's join key for 300."""


def main() -> int:
    """Run the scenarios and print their results; return 1 if there is a problem."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    passed = True
    with tempfile.TemporaryDirectory(prefix="cloner-soak-") as name, embedded_redis() as url:
        folder = Path(name)
        checkpoint = folder / "tiny-random"
        init = [sys.executable, "-m", "cloner", "checkpoint", "init", str(checkpoint), "--preset", "tiny"]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
        scenarios = [fake_engine(url, FAKE, TTL_S), batched_engine(url, BATCHED, TTL_S, checkpoint)]
        for scenario in scenarios:
            result = soak(scenario, folder / scenario.settings.fleet)
            console.print(table(result))
            for problem in result.problems:
                console.print(f"✗ {problem}", markup=False)
            passed = passed and not result.problems
        left = len(wait_for_expiry(connect(url)).expiring)
        console.print(f"{left} keys are left that should have expired" if left else "All keys that expire have expired")
    return 0 if passed and not left else 1


def table(result: SoakResult) -> Table:
    """One row a process: medians of the first and of the last quarter of the batches after the warm-up."""
    first, last = result.keys
    shown = Table(
        title=f"{result.title}: {result.segments} segments in {result.elapsed_s:.0f} s",
        caption=f"keys in Redis that stay: {first} after the first batch, {last} after the last",
    )
    shown.add_column("process")
    for column in ("own memory, MB", "in the end", "growth", "open files", "in the end"):
        shown.add_column(column, justify="right")
    for process in result.processes:
        memory, files = Change.of(process.memory), Change.of(process.files)
        shown.add_row(
            process.title,
            f"{memory.first / 1e6:.1f}",
            f"{memory.last / 1e6:.1f}",
            f"{memory.growth / memory.first:+.1%}",
            f"{files.first:g}",
            f"{files.last:g}",
        )
    return shown


def wait_for_expiry(redis: Redis) -> Keys:
    """Return the keys that are left when no key with an expiry is, or after `EXPIRY_S`."""
    deadline = time.monotonic() + EXPIRY_S
    while (keys := Keys(redis)).expiring and time.monotonic() < deadline:
        time.sleep(1)
    return keys


if __name__ == "__main__":
    sys.exit(main())
