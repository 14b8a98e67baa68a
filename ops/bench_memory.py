"""Measures the memory that a large batch takes where all of it is in one process: in the client that reads and submits
it, in the collector that opens it, and in the collector that closes it.

``python ops/bench_memory.py [SEGMENTS]`` (1,000,000 by default) prints a table. It takes some minutes, 6 GB of memory
and a disk with room for as many files; no audio is generated: the outputs are links to one file a speaker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from cloner import Client
from cloner.audio import SAMPLE_RATE
from cloner.collector.tasks import close_batch, open_batch
from cloner.output.audio_files import OutputRoot
from cloner.output.record import batch_folder
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.queueing.app import make_app
from cloner.settings import EngineName, Settings, WorkerSettings, load_settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.embedded import embedded_redis
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import write_codes
from tests.support.memory import memory_limit
from tests.support.processes import environment

SEGMENTS = 1_000_000
SPEAKERS = 100
TEXT = "This is a sentence of ordinary length, as it is found in a book that is read aloud."
MIB = 2**20
BATCH = "batch.json"


@dataclass(frozen=True)
class Usage:
    """Memory of one stage's process, bytes."""

    before: int
    """Resident after its imports."""
    peak: int
    """Resident at most."""
    address_space: int
    """Growth of its address space, which a limit counts."""


def measure(settings: Settings, folder: Path, segments: int, limits: Mapping[str, int] | None = None) -> list[Usage]:
    """The usage of each of `STAGES`, each in a process of its own, for a batch in an empty folder.

    `limits` are the bytes by which a stage's address space may grow. Raises `CalledProcessError` where a stage fails.
    """
    # The registered worker sends no heartbeats.
    settings = settings.model_copy(update={"alive_s": 86_400.0})
    redis = connect(settings.require_redis_url())
    worker = expected_worker(settings, WorkerSettings())
    Registry(redis, RedisKeys(settings.fleet), settings.alive_s).register(worker)
    _write_batch(folder, segments)
    found = []
    for stage in STAGES:
        if stage == "close":
            _finish(settings, worker.name)
        command = [sys.executable, __file__, stage, str((limits or {}).get(stage, 0))]
        env = {**os.environ, **environment(settings)}
        done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
        found.append(Usage(**json.loads(done.stdout.splitlines()[-1])))
    return found


def _write_batch(folder: Path, segments: int) -> None:
    for speaker in range(SPEAKERS):
        write_codes(folder / f"{speaker}.npy")
    with (folder / BATCH).open("w") as file:
        file.write('{"tasks": [')
        for index in range(segments):
            speaker = index % SPEAKERS
            task = {
                "speaker_id": speaker,
                "segment_index": index,
                "target_text": TEXT,
                "output_file": f"{speaker}/{index}.wav",
                "npy_file": f"{speaker}.npy",
                "reference_text": "This is how I speak.",
            }
            file.write((", " if index else "") + json.dumps(task))
        file.write("]}")


def _finish(settings: Settings, worker: str) -> None:
    """Write the outputs, the record and the progress, as if the worker had generated all segments."""
    batches, manifest = _stored_batch(settings)
    root = settings.out_dir.resolve()
    silence = np.zeros(2048, dtype=np.float32)
    outputs = OutputRoot(root)
    lines = batch_folder(root, manifest.batch_id).path / f"{worker}.jsonl"
    lines.parent.mkdir(parents=True, exist_ok=True)
    with lines.open("wb") as record:
        for speaker in manifest.speakers:
            first = speaker.segments[0].output
            written = outputs.write_audio(first, silence, SAMPLE_RATE)
            for row in speaker.segments:
                if row.output != first:
                    os.link(root / first, root / row.output)
                line = SegmentResult(
                    segment=row.segment,
                    speaker=speaker.id,
                    output=row.output,
                    key="0" * 64,
                    assignment=0,
                    worker=worker,
                    frames=1,
                    audio_s=0.05,
                    size=written.size,
                    mtime_ns=written.mtime_ns,
                    digest=written.digest,
                )
                record.write(line.to_json() + b"\n")
    chunks = manifest.chunks
    batches.report(manifest.batch_id, {chunk.number: ChunkProgress(1, 0, 1, 2048, finished=True) for chunk in chunks})


def _stored_batch(settings: Settings) -> tuple[BatchStore, Manifest]:
    """The one batch of the fleet."""
    batches = BatchStore.of(settings, connect(settings.require_redis_url(), decode=False))
    (batch_id,) = batches.newest(2)
    manifest = batches.manifest(batch_id)
    if manifest is None:
        raise SystemExit("the batch has expired")
    return batches, manifest


def _submit(settings: Settings) -> None:
    Client(settings=settings).submit(BATCH)


def _open(settings: Settings) -> None:
    open_batch(_newest(settings))


def _close(settings: Settings) -> None:
    close_batch(batch_id=_newest(settings))


def _newest(settings: Settings) -> str:
    return BatchStore.of(settings, connect(settings.require_redis_url(), decode=False)).newest(1)[0]


STAGES = {"submit": _submit, "open": _open, "close": _close}
"""In the order in which a batch comes to them."""


def main() -> None:
    """Measure and print the table; or, in a process of its own, run one stage and print its `Usage` as JSON."""
    if sys.argv[1:] and sys.argv[1] in STAGES:
        print(json.dumps(asdict(_run(sys.argv[1], int(sys.argv[2])))))
        return
    segments = int(sys.argv[1]) if sys.argv[1:] else SEGMENTS
    with tempfile.TemporaryDirectory(prefix="cloner-memory-") as name, embedded_redis() as url:
        folder = Path(name)
        settings = Settings(redis_url=url, out_dir=folder / "out", engine=EngineName.FAKE, fake_slots=128)
        found = measure(settings, folder, segments)
    print(f"| stage, {segments} segments | after imports, MiB | at most, MiB | address space, growth in MiB |")
    print("|---|---|---|---|")
    for stage, usage in zip(STAGES, found, strict=True):
        print("|".join(["", stage, *(f" {size / MIB:.0f} " for size in astuple(usage)), ""]))


def _run(stage: str, limit: int) -> Usage:
    settings = load_settings()
    before, space = _memory("VmRSS"), _memory("VmSize")
    with make_app(settings), memory_limit(limit) if limit else nullcontext():
        STAGES[stage](settings)
    return Usage(before=before, peak=_memory("VmHWM"), address_space=_memory("VmPeak") - space)


def _memory(field: str) -> int:
    """A field of ``/proc/self/status``, bytes. (`getrusage` counts the memory of the parent before the program.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


if __name__ == "__main__":
    main()
