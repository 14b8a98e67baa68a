"""A fleet of one box for a measurement: a launcher with its workers and a collector."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cloner import Client

POLL_S = 0.05


@contextmanager
def running_fleet(environment: Mapping[str, str], workers: int, log: Path) -> Iterator[Client]:
    """A client of a fleet whose `workers` have all loaded their models; its lines are in `log`.

    `environment` is added to this process's own, and has ``CLONER_REDIS_URL``. Raises `RuntimeError` if the launcher
    ends before, whose lines are then on standard error too.
    """
    command = [sys.executable, "-m", "launcher", "up", "--workers", str(workers)]
    client = Client(environment["CLONER_REDIS_URL"])
    with (
        log.open("wb") as lines,
        subprocess.Popen(command, env={**os.environ, **environment}, stderr=lines) as launcher,
    ):
        try:
            while sum(worker.state == "ready" for worker in client.fleet()) < workers:
                if launcher.poll() is not None:
                    written = log.read_bytes()
                    sys.stderr.write(written.decode(errors="replace"))
                    raise RuntimeError(f"the fleet did not start: {last_line(written)}")
                time.sleep(POLL_S)
            yield client
        finally:
            launcher.terminate()


def last_line(data: bytes) -> str:
    """The last line of a log, or of standard error."""
    return data.decode(errors="replace").strip().rpartition("\n")[2] or "it wrote no line"
