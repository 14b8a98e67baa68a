"""From text to WAV files with one worker's engine, or several at the same time on one card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from cloner.audio import SAMPLE_RATE
from cloner.engine.batched import BatchedEngine
from cloner.engine.pipeline import Options
from cloner.output.audio_files import OutputRoot
from ops.engine_bench.workload import audio_of, make_requests, make_voice

LOAD_TIMEOUT_S = 300
"""Seconds that a worker waits for the others to load."""

USABLE = 0.9
"""Fraction of a card's memory that workers may take, as in the launcher."""


@dataclass(frozen=True)
class Workload:
    """What each worker generates, `runs` times: `segments` of `shortest` to `longest` frames in `voices`."""

    device: str
    precision: str
    slots: int
    segments: int
    voices: int
    shortest: int
    longest: int
    runs: int


@dataclass(frozen=True)
class Run:
    """One run of one worker: its start and end on the clock that all processes share, and the seconds of audio."""

    began: float
    ended: float
    audio_s: float


@dataclass(frozen=True)
class Worker:
    """The report of one worker: when it was ready, its number of slots, and its runs."""

    ready: float
    slots: int
    runs: list[Run]


@dataclass(frozen=True)
class Throughput:
    """Seconds from the start of Python until the last worker was ready, the slots of each, and audio-seconds a second,
    all workers together, for each run."""

    ready_s: float
    slots: int
    rates: list[float]


@dataclass(frozen=True)
class Rendezvous:
    """Shared by the workers: a barrier to start together, and a queue for their reports."""

    together: Barrier
    results: SimpleQueue[Worker]


def work(directory: Path, workload: Workload, workers: int) -> Throughput:
    """Run so many workers at the same time. Raises `RuntimeError` if one fails; it prints the reason itself."""
    context = get_context("spawn")
    rendezvous = Rendezvous(context.Barrier(workers), context.SimpleQueue())
    with TemporaryDirectory(prefix="cloner-bench-out-") as folder:
        started = time.monotonic()
        processes = [
            context.Process(target=speak, args=(directory, workload, workers, Path(folder) / str(n), rendezvous))
            for n in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"at least one of {workers} worker(s) failed")
    reports = [rendezvous.results.get() for _ in range(workers)]
    return Throughput(
        ready_s=max(worker.ready for worker in reports) - started,
        slots=min(worker.slots for worker in reports),
        rates=[_rate(run) for run in zip(*(worker.runs for worker in reports), strict=True)],
    )


def speak(directory: Path, workload: Workload, workers: int, folder: Path, rendezvous: Rendezvous) -> None:
    """The work of one worker, which puts its report last."""
    try:
        precision = getattr(torch, workload.precision)
        engine = BatchedEngine(directory, torch.device(workload.device), precision, _options(workload, workers))
        engine.load(lambda _line: None)
        ready = time.monotonic()
        outputs = OutputRoot(folder)
        runs = []
        for _ in range(workload.runs + 1):
            rendezvous.together.wait(LOAD_TIMEOUT_S)
            runs.append(_run(engine, workload, outputs))
        engine.close()
    except BaseException:
        rendezvous.together.abort()  # otherwise the others would wait for this one
        raise
    rendezvous.results.put(Worker(ready, engine.slots, runs[1:]))  # the first run warms the engine up


def _options(workload: Workload, workers: int) -> Options:
    """The card's memory divided among the workers."""
    memory_gb = 8.0
    if workload.device == "cuda":
        memory_gb = torch.cuda.get_device_properties(0).total_memory * USABLE / workers / 2**30
    return Options(memory_gb, workload.slots)


def _run(engine: BatchedEngine, workload: Workload, outputs: OutputRoot) -> Run:
    lengths = np.linspace(workload.shortest, workload.longest, workload.segments).round().astype(int)
    voices = [make_voice(speaker) for speaker in range(workload.voices)]
    began, durations = time.monotonic(), []
    for result in engine.speak(make_requests([int(n) for n in lengths], voices)):
        if result is None:  # nothing yet
            continue
        audio = audio_of(result)
        outputs.write_audio(f"{result.segment}.wav", audio, SAMPLE_RATE)
        durations.append(len(audio) / SAMPLE_RATE)
    if len(durations) != workload.segments:
        raise RuntimeError(f"{len(durations)} of {workload.segments} segments were generated")
    return Run(began, time.monotonic(), sum(durations))


def _rate(run: Sequence[Run]) -> float:
    wall_s = max(spell.ended for spell in run) - min(spell.began for spell in run)
    return sum(spell.audio_s for spell in run) / wall_s
