"""Measurements, printed as one table: each figure from several runs, with the spread. Run it by ``make bench``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cloner import Client, read_batch
from cloner.embedded import embedded_redis

RUNS = 3
SEGMENTS = 10_000
SPEAKERS = 100
WORKERS = 2
ROWS = 100_000


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, in which unit, and each run's value."""

    what: str
    unit: str
    goal: str
    values: list[float]


def main() -> None:
    """Measure and print."""
    figures = [fleet_overhead(), reading(), importing()]
    table = Table("what", "median", "least", "most", "unit", "goal", title=machine())
    for figure in figures:
        median, least, most = np.median(figure.values), min(figure.values), max(figure.values)
        table.add_row(figure.what, f"{median:.3g}", f"{least:.3g}", f"{most:.3g}", figure.unit, figure.goal)
    Console(width=120).print(table)


def fleet_overhead() -> Figure:
    """Everything but the speaking: from the batch file to the JSON, a real WAV each, workers ready before."""
    values = []
    with tempfile.TemporaryDirectory(prefix="cloner-bench-") as folder, embedded_redis() as url:
        batch = write_batch(Path(folder), SEGMENTS, SPEAKERS)
        with fleet(url, Path(folder) / "out") as client:
            for _ in range(RUNS):
                start = time.perf_counter()
                result = client.submit(batch).wait()
                values.append((time.perf_counter() - start) * 1000 / SEGMENTS)
                if result.generated != SEGMENTS:
                    raise SystemExit(f"{result.failed} of {SEGMENTS} segments failed")
    what = f"fleet's overhead a segment ({SEGMENTS} segments, {WORKERS} workers, fake engine)"
    return Figure(what, "ms", "< 3", values)


def reading() -> Figure:
    """Reading and checking a large batch file."""
    with tempfile.TemporaryDirectory(prefix="cloner-bench-") as folder:
        batch = write_batch(Path(folder), ROWS, SPEAKERS)
        values = timed(lambda: read_batch(batch, out_root=None, references=None))
    return Figure(f"reading a batch of {ROWS} rows (flat JSON)", "s", "< 10", values)


def importing() -> Figure:
    """What `import cloner` adds to a Python that starts."""
    bare = timed(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    whole = timed(lambda: subprocess.run([sys.executable, "-c", "import cloner"], check=True))
    return Figure("import cloner", "s", "< 0.5", [max(0.0, value - min(bare)) for value in whole])


@contextmanager
def fleet(url: str, out_dir: Path) -> Iterator[Client]:
    """A launcher with fake workers, all ready."""
    env = {**os.environ, "CLONER_REDIS_URL": url, "CLONER_OUT_DIR": str(out_dir), "CLONER_ENGINE": "fake"}
    command = [sys.executable, "-m", "launcher", "up", "--workers", str(WORKERS)]
    client = Client(url)
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as launcher:
        try:
            while sum(worker.state == "ready" for worker in client.fleet()) < WORKERS:
                if launcher.poll() is not None:
                    raise SystemExit("the fleet did not start")
                time.sleep(0.1)
            yield client
        finally:
            launcher.terminate()


def write_batch(folder: Path, segments: int, speakers: int) -> Path:
    """A flat batch file, and codes for each speaker beside it."""
    rng = np.random.default_rng(0)
    for speaker in range(speakers):
        np.save(folder / f"{speaker}.npy", rng.integers(0, 1024, (10, 200), dtype=np.int32))
    tasks = [
        {
            "speaker_id": index % speakers,
            "segment_index": index,
            "target_text": "Hello.",
            "output_file": f"{index % speakers}/{index}.wav",
            "npy_file": f"{index % speakers}.npy",
            "reference_text": "This is how I speak.",
        }
        for index in range(segments)
    ]
    path = folder / "batch.json"
    path.write_text(json.dumps({"tasks": tasks}))
    return path


def timed(work: Callable[[], object]) -> list[float]:
    """Seconds that `work` takes, each run."""
    values = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        values.append(time.perf_counter() - start)
    return values


def machine() -> str:
    """What it was measured on."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


if __name__ == "__main__":
    main()
