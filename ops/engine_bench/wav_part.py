"""Part `wav`: text to WAV files with one worker's engine, files written by a few threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

from cloner.audio import FRAMES_PER_CHARACTER, SAMPLE_RATE, Audio, Samples16
from cloner.engine.base import SpeechRequest
from cloner.engine.batched import BatchedEngine
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.pipeline import Options
from cloner.engine.token_rows.device import Statuses, StepRows
from cloner.engine.token_rows.scheduler import RowScheduler
from cloner.output.audio_files import OutputRoot
from cloner.settings import load_settings
from ops.engine_bench.table import Row
from ops.engine_bench.workload import TEXT, audio_of, make_requests, make_voice

VOICES, SHORTEST, LONGEST = 16, 100, 300
RUNS = 2
WRITERS = (1, 4)
"""Threads that write files."""

USABLE = 0.9
"""Fraction of the card's memory that the engine may take, as in the launcher."""


def measure(directory: Path, name: str, slots: int, segments: int) -> Iterator[Row]:
    """Load, then audio-seconds a second for each number of threads that write."""
    device = torch.device(name)
    cuda = device.type == "cuda"
    memory_gb = torch.cuda.get_device_properties(0).total_memory * USABLE / 2**30 if cuda else 2.0
    precision = torch.bfloat16 if cuda else torch.float32
    settings = load_settings()
    cache = KernelCache(settings.kernel_cache, settings.out_dir)
    engine = BatchedEngine(directory, device, precision, Options(memory_gb, slots, kernel_cache=cache))
    began = time.perf_counter()
    engine.load(lambda _line: None)
    yield Row("wav: engine loaded", "s", [time.perf_counter() - began], remark=engine.warning)
    requests = _requests(segments, 1 if cuda else 50)
    with TemporaryDirectory(prefix="cloner-bench-out-") as folder:
        for writers in WRITERS:
            # A folder each: nothing is written over.
            folders = [Path(folder, f"{writers}-{number}") for number in range(RUNS + 1)]
            runs = [_run(engine, requests, each, writers) for each in folders][1:]
            best = max(runs, key=lambda run: run.rate)
            yield Row(
                f"wav: text to WAV files, {segments} segments, {VOICES} voices, {engine.slots} slots,"
                f" {writers} thread(s) that write",
                "audio-s/s",
                [run.rate for run in runs],
                goal=">= 850 on an H200, 650 on an H100",
                remark=best.remark,
            )
    engine.close()


@dataclass(frozen=True)
class _Run:
    rate: float
    remark: str


def _requests(segments: int, divisor: int) -> list[SpeechRequest]:
    lengths = np.linspace(SHORTEST, LONGEST, segments).round().astype(int) // divisor
    texts = [(TEXT + " ") * 8] * segments
    texts = [text[: max(1, round(n / FRAMES_PER_CHARACTER))] for text, n in zip(texts, lengths, strict=True)]
    return make_requests([int(n) for n in lengths], [make_voice(voice) for voice in range(VOICES)], texts)


def _run(engine: BatchedEngine, requests: list[SpeechRequest], folder: Path, writers: int) -> _Run:
    scheduler = engine.pipeline.scheduler
    waits = _Waits()
    began, audio_s, decoded_at = time.perf_counter(), 0.0, 0.0
    with waits.of(scheduler), ThreadPoolExecutor(writers) as pool:
        futures = []
        for result in engine.speak(requests):
            if result is None:  # nothing yet
                continue
            audio = audio_of(result)
            audio_s += len(audio) / SAMPLE_RATE
            futures.append(pool.submit(_write, folder, result.segment, audio))
        decoded_at = time.perf_counter()
        for future in futures:
            future.result()
    if len(futures) != len(requests):
        raise RuntimeError(f"{len(futures)} of {len(requests)} segments were generated")
    ended = time.perf_counter()
    codes_s = waits.last - began if waits.steps else 0.0
    share = waits.seconds / codes_s if codes_s else 0.0
    return _Run(
        audio_s / (ended - began),
        f"{ended - began:.2f} s, of it {codes_s:.2f} s until the last code, {decoded_at - began:.2f} s until the last"
        f" audio; {waits.steps} steps, the host waited {share:.0%} of the time for them",
    )


_LOCAL = threading.local()


def _write(folder: Path, segment: int, audio: Audio | Samples16) -> None:
    """In a thread with its own files to write to before they are renamed."""
    if getattr(_LOCAL, "folder", None) != folder:
        _LOCAL.folder, _LOCAL.outputs = folder, OutputRoot(folder)
    _LOCAL.outputs.write_audio(f"{segment}.wav", audio, SAMPLE_RATE)


class _Waits:
    """How long the thread that decodes waits for the device."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self.last = time.perf_counter()

    def of(self, scheduler: object) -> AbstractContextManager[object]:
        """Measure it while this context is entered."""
        if not isinstance(scheduler, RowScheduler):
            return patch.object(self, "steps", 0)
        launch = scheduler.device.launch

        def timed(rows: StepRows) -> Statuses:
            statuses = launch(rows)
            self.steps += 1

            def wait() -> list[int]:
                began = time.perf_counter()
                values = statuses()
                self.last = time.perf_counter()
                self.seconds += self.last - began
                return values

            return wait

        return patch.object(scheduler.device, "launch", timed)
