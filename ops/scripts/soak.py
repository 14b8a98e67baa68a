"""10,000 segments of the fake engine and 1,000 of the batched one through standing fleets: what do they hold on to?

Run it by ``make soak``; it takes ten minutes, half of them to see the last keys in Redis expire. It prints what each
process had, and a line for each thing that grew or was left; the exit status is 1 if any did.
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
from ops.soak.census import Change, Keys
from ops.soak.course import Soaked, batched_engine, fake_engine, soak

FAKE, BATCHED = 10_000, 1_000
TTL_S = 60
"""Seconds that Redis keeps a batch: the least that the settings allow."""

EXPIRY_S = 330.0
"""Seconds after which nothing may be left that expires: Celery keeps its note of a chord for 300."""


def main() -> int:
    """Soak and print; 1 if something grew or was left."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    good = True
    with tempfile.TemporaryDirectory(prefix="cloner-soak-") as name, embedded_redis() as url:
        folder = Path(name)
        checkpoint = folder / "tiny-random"
        init = [sys.executable, "-m", "cloner", "checkpoint", "init", str(checkpoint), "--preset", "tiny"]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
        courses = [fake_engine(url, FAKE, TTL_S), batched_engine(url, BATCHED, TTL_S, checkpoint)]
        for course in courses:
            soaked = soak(course, folder / course.settings.fleet)
            console.print(table(soaked))
            for fault in soaked.faults:
                console.print(f"✗ {fault}", markup=False)
            good = good and not soaked.faults
        left = len(expired(connect(url)).expiring)
        console.print(f"{left} keys are left that should have expired" if left else "All keys that expire have expired")
    return 0 if good and not left else 1


def table(soaked: Soaked) -> Table:
    """One row a process: median of the first quarter of the batches after the warm-up, against that of the last."""
    first, last = soaked.keys
    shown = Table(
        title=f"{soaked.title}: {soaked.segments} segments in {soaked.elapsed_s:.0f} s",
        caption=f"keys in Redis that stay: {first} after the first batch, {last} after the last",
    )
    shown.add_column("process")
    for column in ("own memory, MB", "in the end", "growth", "open files", "in the end"):
        shown.add_column(column, justify="right")
    for process in soaked.processes:
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


def expired(redis: Redis) -> Keys:
    """The keys that are left when all that expire should have."""
    deadline = time.monotonic() + EXPIRY_S
    while (keys := Keys(redis)).expiring and time.monotonic() < deadline:
        time.sleep(1)
    return keys


if __name__ == "__main__":
    sys.exit(main())
