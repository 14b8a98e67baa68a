"""Measures the engine, the fleet's overhead and imports, and prints one table. ``make bench`` runs it.

The engine's rows are ratios to upstream's code, measured in the same run on the same weights, with the same threads and
allocator settings on both sides. Without a GPU it takes more than 15 minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cloner import read_batch
from cloner.state.embedded import embedded_redis
from ops.engine_bench.children import Checkpoints, checkpoints, in_child, multiplies, set_environment
from ops.engine_bench.fleet import running_fleet
from ops.engine_bench.run_part import FleetBatch
from ops.engine_bench.table import Report, Row, machine

RUNS = 3
SEGMENTS = 10_000
SPEAKERS = 100
WORKERS = 2
ROWS = 100_000
TRANSCRIPT = (
    "This is how I speak when I have the time to speak: not too fast, not too slow, "
    "and with nine seconds to fill from here to the last word."
)
"""As long as 200 frames take to say, or each reference would be warned of."""
CHECKED_BATCH, CHECKED_PAIRS = FleetBatch(segments=64, frames=100, voices=4), 5


def main() -> int:
    """Measure and print the table; return 1 if a measurement failed."""
    set_environment(threads=len(os.sched_getaffinity(0)))
    report = Report(f"`make bench`, {machine()}")
    for measure in (fleet_overhead, reading, importing):
        report.add(measure)
    with checkpoints() as made:
        for measure in engine_rows(made):
            report.add(measure)
    print(report.markdown())
    return 0 if report.complete else 1


def engine_rows(made: Checkpoints) -> Iterator[Callable[[], list[Row]]]:
    """Yield measurements of the batched engine against upstream's code, on the CPU."""
    from ops.engine_bench import checks_part, codec, decoding, loading, occupancy, whole_batch

    small = decoding.Comparison(
        size="small",
        device="cpu",
        precision="float32",
        slots=(32, 64),
        frames=100,
        upstream_frames=60,
        runs=RUNS,
        goals=dict.fromkeys((32, 64), ">= 25x with one of 32 and 64"),
    )
    full = decoding.Comparison(
        size="s1-mini",
        device="cpu",
        precision="bfloat16",
        slots=(32,),
        frames=24,
        upstream_frames=6,
        runs=1,
        goals={32: ">= 120x"},
    )
    small_codec = codec.Comparison(
        "small", "cpu", ("float32",), segments=16, frames=100, runs=RUNS, goals={"float32": ">= 1.5x"}
    )
    full_codec = codec.Comparison(
        "full",
        "cpu",
        # Where bfloat16 is emulated, it takes hours.
        ("float32", "bfloat16") if multiplies(torch.device("cpu"), torch.bfloat16) else ("float32",),
        segments=4,
        frames=40,
        runs=RUNS,
        goals={"float32": ">= 1x", "bfloat16": ">= 1.8x"},
    )
    yield lambda: in_child(decoding.rows, made.get("small"), small)
    yield lambda: in_child(decoding.rows, made.get("s1-mini"), full)
    yield lambda: whole_batch.rows(made.get("small"), "small", goal=">= 7x")
    yield lambda: list(checks_part.cost(RUNS))
    yield lambda: list(checks_part.wall_time(made.get("small"), CHECKED_BATCH, 32, CHECKED_PAIRS, "cpu"))
    yield lambda: loading.rows(made.get("s1-mini"), "s1-mini", RUNS, goal=">= 4x")
    yield lambda: in_child(occupancy.rows, made.get("tiny"), RUNS, goal=">= 0.88x")
    yield lambda: in_child(codec.rows, made.get("small"), small_codec)
    yield lambda: in_child(codec.rows, made.get("s1-mini"), full_codec)


def fleet_overhead() -> list[Row]:
    """Measure all but generation: from the batch file to the result, with a real WAV a segment and ready workers."""
    values = []
    with (
        tempfile.TemporaryDirectory(prefix="cloner-bench-") as folder,
        embedded_redis() as url,
        running_fleet(
            {"CLONER_REDIS_URL": url, "CLONER_OUT_DIR": f"{folder}/out", "CLONER_ENGINE": "fake"},
            WORKERS,
            Path(folder) / "fleet.log",
        ) as client,
    ):
        for run in range(RUNS):
            # Another seed and folder each time: finished segments are not generated again, nor others replaced.
            batch = write_batch(Path(folder), SEGMENTS, SPEAKERS, seed=run)
            start = time.perf_counter()
            result = client.submit(batch, prefix=str(run)).wait()
            values.append((time.perf_counter() - start) * 1000 / SEGMENTS)
            if result.generated != SEGMENTS:
                raise SystemExit(f"{result.failed} of {SEGMENTS} segments failed")
    what = f"fleet's overhead a segment ({SEGMENTS} segments, {WORKERS} workers, fake engine)"
    return [Row(what, "ms", values, goal="< 3 ms")]


def reading() -> list[Row]:
    """Measure reading and checking a large batch file."""
    with tempfile.TemporaryDirectory(prefix="cloner-bench-") as folder:
        batch = write_batch(Path(folder), ROWS, SPEAKERS)
        values = timed(lambda: read_batch(batch, out_root=None, references=None))
    return [Row(f"reading a batch of {ROWS} rows (flat JSON)", "s", values, goal="< 10 s")]


def importing() -> list[Row]:
    """Measure what `import cloner` adds to the start of Python."""
    bare = timed(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    whole = timed(lambda: subprocess.run([sys.executable, "-c", "import cloner"], check=True))
    return [Row("import cloner", "s", [max(0.0, value - min(bare)) for value in whole], goal="< 0.5 s")]


def write_batch(folder: Path, segments: int, speakers: int, seed: int = 0) -> Path:
    """Write a flat batch file and the codes of each speaker; return the batch file's path."""
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
            "reference_text": TRANSCRIPT,
        }
        for index in range(segments)
    ]
    path = folder / "batch.json"
    path.write_text(json.dumps({"tasks": tasks, "generation": {"seed": seed}}))
    return path


def timed(work: Callable[[], object]) -> list[float]:
    """Return the seconds that `work` takes in each of the runs."""
    values = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        values.append(time.perf_counter() - start)
    return values


if __name__ == "__main__":
    sys.exit(main())
