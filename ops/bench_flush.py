"""What flushing outputs to the disk costs a worker: ``python ops/bench_flush.py FOLDER``.

Writes 100 files of 100 KB a second, with their lines, for ten seconds, as a worker does, without and with flushing, in
turn. Prints of each run the seconds that the chunk's end takes after its last line, in which the engine waits, and the
process's seconds on a core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record, RecordWriter
from cloner.protocol.results import SegmentResult
from cloner.worker.output_flush import OutputFlush

RATE, FILES, SAMPLES, RUNS = 100, 1000, 50_000, 5


def write_chunk(root: Path, *, flushing: bool) -> tuple[float, float]:
    """Write one chunk; returns (seconds that its end took, processor seconds)."""
    outputs = OutputRoot(root)
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLES).astype(np.float32)
    began, began_cpu = time.perf_counter(), time.process_time()
    with (
        OutputFlush(root) if flushing else nullcontext() as flush,
        RecordWriter(Record(root, "bench"), "worker") as lines,
    ):
        for number in range(FILES):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            output = f"speaker/{number}.wav"
            written = asdict(outputs.write_audio(output, audio, 44_100))
            line = SegmentResult(
                segment=number, speaker="s", output=output, key="k" * 64, assignment=0, worker="worker", **written
            )
            lines.append(line)
            if flush:
                flush.written()
        written_at = time.perf_counter()
    return time.perf_counter() - written_at, time.process_time() - began_cpu


def main() -> None:
    """Print the figures of each run."""
    for run in range(RUNS):
        for flushing in (False, True):
            with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
                seconds, cpu_s = write_chunk(Path(folder), flushing=flushing)
            print(
                f"run {run}, {'flushed' if flushing else 'not flushed'}: {seconds:.3f} s, {cpu_s:.2f} s of processor",
                flush=True,
            )


if __name__ == "__main__":
    main()
