"""From text to WAV files with one worker's engine, or several beside each other on the same card."""

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

PATIENCE_S = 300
"""How long workers wait for each other to load."""

USABLE = 0.9
"""SpeakerSlice of a card's memory that workers may take, as in the launcher."""


@dataclass(frozen=True)
class Assignment:
    """What each worker speaks, `runs` times: `segments` of `shortest` to `longest` frames in `voices`."""

    device: str
    precision: str
    slots: int
    segments: int
    voices: int
    shortest: int
    longest: int
    runs: int


@dataclass(frozen=True)
class Spell:
    """One run of one worker: when it began and ended, on the clock that all processes share, and how much it spoke."""

    began: float
    ended: float
    audio_s: float


@dataclass(frozen=True)
class Worker:
    """What one worker tells: when it was ready, how many slots it got, and its runs."""

    ready: float
    slots: int
    spells: list[Spell]


@dataclass(frozen=True)
class Worked:
    """What came of it: seconds from the start of Python until the last worker was ready, the slots of each, and
    audio-seconds a second, all workers together, of each run."""

    ready_s: float
    slots: int
    rates: list[float]


@dataclass(frozen=True)
class Meeting:
    """What workers share: a place to start together, and one for their results."""

    together: Barrier
    results: SimpleQueue[Worker]


def work(directory: Path, share: Assignment, workers: int) -> Worked:
    """Let so many workers speak at the same time. Raises `RuntimeError` if one fails; it has said why itself."""
    context = get_context("spawn")
    meeting = Meeting(context.Barrier(workers), context.SimpleQueue())
    with TemporaryDirectory(prefix="cloner-bench-out-") as folder:
        started = time.monotonic()
        processes = [
            context.Process(target=speak, args=(directory, share, workers, Path(folder) / str(n), meeting))
            for n in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"of {workers} worker(s), one failed or more")
    told = [meeting.results.get() for _ in range(workers)]
    return Worked(
        ready_s=max(worker.ready for worker in told) - started,
        slots=min(worker.slots for worker in told),
        rates=[_rate(run) for run in zip(*(worker.spells for worker in told), strict=True)],
    )


def speak(directory: Path, share: Assignment, workers: int, folder: Path, meeting: Meeting) -> None:
    """What one worker does; the last thing is its result."""
    try:
        precision = getattr(torch, share.precision)
        engine = BatchedEngine(directory, torch.device(share.device), precision, _options(share, workers))
        engine.load(lambda _line: None)
        ready = time.monotonic()
        outputs = OutputRoot(folder)
        spells = []
        for _ in range(share.runs + 1):
            meeting.together.wait(PATIENCE_S)
            spells.append(_spell(engine, share, outputs))
        engine.close()
    except BaseException:
        meeting.together.abort()  # or the others would wait for this one
        raise
    meeting.results.put(
        Worker(ready, engine.slots, spells[1:])
    )  # in the first run the engine met its shapes for the first time


def _options(share: Assignment, workers: int) -> Options:
    """The card's memory divided among the workers."""
    memory_gb = 8.0
    if share.device == "cuda":
        memory_gb = torch.cuda.get_device_properties(0).total_memory * USABLE / workers / 2**30
    return Options(memory_gb, share.slots)


def _spell(engine: BatchedEngine, share: Assignment, outputs: OutputRoot) -> Spell:
    lengths = np.linspace(share.shortest, share.longest, share.segments).round().astype(int)
    voices = [make_voice(speaker) for speaker in range(share.voices)]
    began, durations = time.monotonic(), []
    for result in engine.speak(make_requests([int(n) for n in lengths], voices)):
        audio = audio_of(result)
        outputs.write_audio(f"{result.segment}.wav", audio, SAMPLE_RATE)
        durations.append(len(audio) / SAMPLE_RATE)
    if len(durations) != share.segments:
        raise RuntimeError(f"{len(durations)} of {share.segments} segments were spoken")
    return Spell(began, time.monotonic(), sum(durations))


def _rate(run: Sequence[Spell]) -> float:
    wall_s = max(spell.ended for spell in run) - min(spell.began for spell in run)
    return sum(spell.audio_s for spell in run) / wall_s
