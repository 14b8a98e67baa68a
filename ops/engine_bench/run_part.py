"""Part `run`: a batch through a fleet, ``launcher up`` and ``cloner submit``, with a Valkey server of its own."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cloner.state.embedded import embedded_redis
from ops.engine_bench.fleet import last_line, running_fleet
from ops.engine_bench.table import Row
from ops.engine_bench.workload import TEXT, make_voice

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class FleetBatch:
    """`segments` of exactly `frames` each, in `voices`."""

    segments: int
    frames: int
    voices: int

    def write(self, folder: Path, **generation: int | bool) -> Path:
        """Write the batch's file and its references; returns the file. `generation` is added to the batch's."""
        references = [make_voice(number) for number in range(self.voices)]
        for number, voice in enumerate(references):
            np.save(folder / f"{number}.npy", voice.codes)
        tasks = [
            {
                "speaker_id": segment % self.voices,
                "segment_index": segment,
                "target_text": TEXT,
                "output_file": f"{segment % self.voices}/{segment}.wav",
                "npy_file": f"{segment % self.voices}.npy",
                "reference_text": references[segment % self.voices].text,
            }
            for segment in range(self.segments)
        ]
        path = folder / "batch.json"
        frames = {"min_new_tokens": self.frames, "max_new_tokens": self.frames}
        path.write_text(json.dumps({"generation": frames | generation, "tasks": tasks}), encoding="utf-8")
        return path


def measure(checkpoint: Path, batch: FleetBatch, slots: int) -> Iterator[Row]:
    """Seconds until one worker is ready, then audio-seconds a second of the batch, without and with those."""
    with TemporaryDirectory(prefix="cloner-bench-run-") as made:
        folder = Path(made)
        path = batch.write(folder)
        # The part has a process of its own, from which the fleet's inherit this.
        os.environ["PYTHONPATH"] = python_path(folder)
        with embedded_redis() as url:
            environment = {
                "CLONER_REDIS_URL": url,
                "CLONER_OUT_DIR": str(folder / "out"),
                "CLONER_CHECKPOINT_DIR": str(checkpoint),
                "CLONER_ENGINE": "batched",
                "CLONER_SLOTS": str(slots),
            }
            began = time.perf_counter()
            with running_fleet(environment, 1, folder / "fleet.log"):
                ready_s = time.perf_counter() - began
                yield Row("run: `launcher up` until its worker is ready", "s", [ready_s])
                began = time.perf_counter()
                result = _submit(path, environment)
                seconds = time.perf_counter() - began
    if result["generated"] != batch.segments:
        raise RuntimeError(f"{result['generated']} of {batch.segments} segments were generated")
    audio_s = result["audio_s"]
    what = f"run: `cloner submit --wait`, {batch.segments} segments of {batch.frames} frames, {batch.voices} voices"
    remark = f"{audio_s:.0f} s of audio in {seconds:.1f} s"
    yield Row(what, "audio-s/s", [audio_s / seconds], remark=remark)
    yield Row(f"{what}, load included", "audio-s/s", [audio_s / (ready_s + seconds)], goal=">= 600 on an H200")


def _submit(path: Path, environment: dict[str, str]) -> dict[str, float]:
    """The batch's result, as `cloner submit` prints it. Raises `RuntimeError` if it prints none."""
    command = [sys.executable, "-m", "cloner", "submit", str(path), "--wait"]
    ran = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    if not ran.stdout:
        raise RuntimeError(f"cloner submit: {last_line(ran.stderr)}")
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def python_path(folder: Path) -> str:
    """``PYTHONPATH`` of a fleet's processes; what stands in for missing packages is made in `folder`."""
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(CHECKOUT), *_stand_ins(folder), *([known] if known else [])])


def _stand_ins(folder: Path) -> list[str]:
    """A folder with an empty package in the place of scipy, where that is not installed (see ``ops/bench_gpu.py``)."""
    if importlib.machinery.PathFinder.find_spec("scipy") is not None:
        return []
    package = folder / "stand-ins" / "scipy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return [str(package.parent)]
