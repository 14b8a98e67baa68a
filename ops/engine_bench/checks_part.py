"""Part `checks`: what the checks of attempts cost, as processor time, and as a batch's wall time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cloner import Client
from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.batch import CODEBOOK_SIZES
from cloner.checks.catalogue import CHECKS
from cloner.checks.check_set import CheckSet
from cloner.checks.measures import Take, measure
from cloner.checks.usual import PRIOR
from cloner.state.embedded import embedded_redis
from ops.engine_bench.fleet import running_fleet
from ops.engine_bench.run_part import FleetBatch, python_path
from ops.engine_bench.table import Row
from ops.engine_bench.workload import TEXT

NO_LIMIT = 10**9
"""What random weights generate fails the checks, and would be generated again."""

TAKES, TAKE_FRAMES = 40, 100


def cost(runs: int) -> Iterator[Row]:
    """Processor time of measuring and checking a second of audio."""
    takes, checks = [_take(seed) for seed in range(TAKES)], CheckSet({})
    audio_s = sum(len(take.samples) for take in takes) / SAMPLE_RATE
    measure(takes[0])
    values = []
    for _ in range(runs):
        began = time.process_time()
        for take in takes:
            checks.evaluate(measure(take), PRIOR)
        values.append(1000 * (time.process_time() - began) / audio_s)
    yield Row("checks: processor time an audio-second", "ms", values, goal="<= 1 ms")


def wall_time(checkpoint: Path, batch: FleetBatch, slots: int, pairs: int, device: str) -> Iterator[Row]:
    """Seconds of batches that are checked, each beside one that is not, on one worker that is ready."""
    with TemporaryDirectory(prefix="cloner-bench-checks-") as made, embedded_redis() as url:
        folder = Path(made)
        environment = {
            "PYTHONPATH": python_path(folder),
            "CLONER_REDIS_URL": url,
            "CLONER_OUT_DIR": str(folder / "out"),
            "CLONER_CHECKPOINT_DIR": str(checkpoint),
            "CLONER_ENGINE": "batched",
            "CLONER_SLOTS": str(slots),
            "CLONER_CHECK_LIMITS": ",".join(f"{check.name}={NO_LIMIT}" for check in CHECKS),
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with running_fleet(environment, 1, folder / "fleet.log") as client:
            seeds = count()  # each batch has codes of its own: nothing is reused
            _batch_s(client, batch, folder, seed=next(seeds), checks=True)  # it warms up
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for pair in range(pairs):
                for checks in (True, False) if pair % 2 else (False, True):
                    seconds[checks].append(_batch_s(client, batch, folder, seed=next(seeds), checks=checks))
    yield Row(
        f"checks: a batch with them against one without, {batch.segments} segments of {batch.frames} frames",
        "s",
        seconds[True],
        seconds[False],
        goal=">= 0.97x",
        remark="in turn",
        less_is_better=True,
    )


def measure_both(checkpoint: Path, batch: FleetBatch, slots: int, device: str) -> Iterator[Row]:
    """As a part of `ops/bench_gpu.py`."""
    yield from cost(3)
    yield from wall_time(checkpoint, batch, slots, 3, device)


def _batch_s(client: Client, batch: FleetBatch, folder: Path, *, seed: int, checks: bool) -> float:
    """Seconds from its submission to its result. Raises `RuntimeError` if a segment fails, or a check."""
    path = batch.write(folder, seed=seed, checks=checks)
    began = time.perf_counter()
    result = client.submit(path, prefix=str(seed)).wait()
    seconds = time.perf_counter() - began
    if result.generated - result.reused != batch.segments or result.suspects:
        raise RuntimeError(f"{result.generated} of {batch.segments} segments were generated, {result.reused} reused")
    return seconds


def _take(seed: int) -> Take:
    """Noise in syllables, with codes: what it costs depends on its length."""
    random = np.random.default_rng(seed)
    samples = TAKE_FRAMES * FRAME_SAMPLES
    loudness = np.abs(np.sin(np.pi * 4 * np.arange(samples) / SAMPLE_RATE))
    sound = (0.2 * loudness * random.standard_normal(samples)).astype(np.float32)
    codes = random.integers(0, CODEBOOK_SIZES[1], (len(CODEBOOK_SIZES), TAKE_FRAMES), dtype=np.int32)
    return Take(sound, SAMPLE_RATE, TEXT, codes)
