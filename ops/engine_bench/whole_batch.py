"""A whole batch to WAV files, loading included, against a plain design: one process a worker, which loads upstream's
models once and generates its speakers' texts one by one.

Ours is measured twice: the engine in the same number of processes, and `cloner run` with its Redis, launcher and
collector.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import torch

from cloner.audio import SAMPLE_RATE
from cloner.engine.base import Voice
from cloner.engine.batched import BatchedEngine
from cloner.engine.pipeline import Options
from cloner.settings import Settings
from ops.engine_bench import upstream
from ops.engine_bench.table import Row
from ops.engine_bench.workload import TEXT, audio_of, make_requests, make_voice

Speak = Callable[[Path, list[Voice], Path], None]

CPU = torch.device("cpu")
CLONER = Path(sys.executable).with_name("cloner")
SPEAKERS = 6
TEXTS = 8
FRAMES = 100
WORKERS = 2


def rows(directory: Path, size: str, goal: str) -> list[Row]:
    """One run, since upstream takes minutes. Both sides get the same threads: the cores divided by the workers."""
    threads = max(1, len(os.sched_getaffinity(0)) // WORKERS)
    with (
        tempfile.TemporaryDirectory(prefix="cloner-bench-batch-") as folder,
        patch.dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads)),
    ):
        voices = [make_voice(speaker) for speaker in range(SPEAKERS)]
        theirs = _processes_s(speak_by_upstream, directory, voices, Path(folder) / "upstream")
        engine = _processes_s(speak_by_engine, directory, voices, Path(folder) / "engine")
        product = _product_s(directory, voices, Path(folder) / "product")
    return [
        Row(
            f"whole batch, {size}, {WORKERS} workers: {what} against upstream's code in so many processes",
            "s",
            [ours],
            [theirs],
            goal,
            remark=f"{SPEAKERS} speakers x {TEXTS} texts of {FRAMES} frames, loads included",
            less_is_better=True,
        )
        for what, ours in (("the engine", engine), ("cloner run", product))
    ]


def _product_s(directory: Path, voices: list[Voice], folder: Path) -> float:
    """Seconds that `cloner run` takes."""
    folder.mkdir()
    for speaker, voice in enumerate(voices):
        np.save(folder / f"{speaker}.npy", voice.codes)
    tasks = [
        {
            "speaker_id": speaker,
            "segment_index": speaker * TEXTS + text,
            "target_text": TEXT,
            "output_file": f"{speaker}/{text}.wav",
            "npy_file": f"{speaker}.npy",
            "reference_text": voice.text,
        }
        for speaker, voice in enumerate(voices)
        for text in range(TEXTS)
    ]
    generation = {"min_new_tokens": FRAMES, "max_new_tokens": FRAMES}
    document = {"checkpoint_dir": str(directory), "generation": generation, "tasks": tasks}
    (folder / "batch.json").write_text(json.dumps(document))
    command = [str(CLONER), "run", str(folder / "batch.json"), "--workers", str(WORKERS)]
    began = time.perf_counter()
    ran = subprocess.run(
        command, env={**os.environ, "CLONER_ENGINE": "batched"}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if ran.returncode:
        raise RuntimeError(f"cloner run failed: {ran.stderr}")
    _check(folder)
    return seconds


def _processes_s(speak: Speak, directory: Path, voices: list[Voice], folder: Path) -> float:
    """Seconds for one process a worker, to which the speakers are assigned round-robin."""
    context = get_context("spawn")
    began = time.perf_counter()
    workers = [
        context.Process(target=speak, args=(directory, voices[number::WORKERS], folder / str(number)))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(f"{speak.__name__} failed")
    _check(folder)
    return seconds


def speak_by_upstream(directory: Path, voices: list[Voice], folder: Path) -> None:
    """The work of one process with upstream's code."""
    model = upstream.load_model(directory, CPU, torch.float32)
    codec = upstream.load_codec(directory, CPU)
    folder.mkdir(parents=True)
    for speaker, voice in enumerate(voices):
        for request in make_requests([FRAMES] * TEXTS, [voice]):
            codes, _seconds = upstream.speak(model, request)
            audio = upstream.decode(codec, codes)
            soundfile.write(folder / f"{speaker}-{request.segment}.wav", audio.numpy(), SAMPLE_RATE)


def speak_by_engine(directory: Path, voices: list[Voice], folder: Path) -> None:
    """The same with the batched engine and a worker's default settings."""
    settings = Settings()
    engine = BatchedEngine(
        directory, CPU, torch.float32, Options(settings.model_memory_gb, settings.batched_slots("cpu"))
    )
    engine.load(lambda _line: None)
    folder.mkdir(parents=True)
    for result in engine.speak(make_requests([FRAMES] * TEXTS * len(voices), voices)):
        soundfile.write(folder / f"{result.segment}.wav", audio_of(result), SAMPLE_RATE)
    engine.close()


def _check(folder: Path) -> None:
    """Raise `RuntimeError` unless all files exist and have the same length: otherwise the times are not comparable."""
    durations = [soundfile.info(path).frames for path in folder.rglob("*.wav")]
    if len(durations) != SPEAKERS * TEXTS or len(set(durations)) != 1:
        raise RuntimeError(f"{folder} holds {len(durations)} files of {set(durations)} samples")
