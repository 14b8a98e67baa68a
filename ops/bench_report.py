"""Measures the report of a large batch: writing it, and opening it in Chromium.

``python ops/bench_report.py [SEGMENTS]`` (1,000,000 by default) prints a table. No audio is generated: the record and
the peaks are those of a batch, and its files are not there.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from cloner.audio import SAMPLE_RATE
from cloner.output.audio_peaks import peaks_of
from cloner.output.peaks import PeaksWriter
from cloner.output.record import Record, RecordWriter
from cloner.protocol.messages import Manifest
from tests.support.chromium import browser
from tests.support.closed_batches import WORKER, close_batch, write_report
from tests.support.records import segment_result

SEGMENTS = 1_000_000
SPEAKERS = 100
TEXT = "This is sentence {} of ordinary length, as it is found in a book that is read aloud."
AUDIO = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * SAMPLE_RATE).astype(np.float32)


def record_lines(found: Manifest, record: Record) -> None:
    """Write the record and the peaks of all segments, as their worker does."""
    kept, peaks = PeaksWriter(record.folder, WORKER), peaks_of(AUDIO)
    with RecordWriter(record, WORKER) as lines:
        for speaker in found.speakers:
            for row in speaker.segments:
                index, output = row.segment, row.output
                digest = f"{index:032x}"
                kept.append(digest, peaks)
                suspicion = 0.2 + index * 37 % 80 / 100
                line = segment_result(index, speaker=speaker.id, output=output, digest=digest, suspicion=suspicion)
                lines.append(line)
    kept.close()


def main(segments: int) -> None:
    """Print what each step takes."""
    begun = time.perf_counter()
    for _ in range(1000):
        peaks_of(AUDIO)
    print(f"peaks of 4 s of audio:            {time.perf_counter() - begun:8.2f} ms")
    texts = [TEXT.format(number) for number in range(segments // SPEAKERS)]
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        out = Path(folder)
        result, record = close_batch(out, {f"speaker {n}": texts for n in range(SPEAKERS)}, write=record_lines)
        begun, cpu = time.perf_counter(), time.process_time()
        path = write_report(out, result, record)
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        print(f"report of {segments:9,} segments:    {took:8.2f} s, {cpu:.2f} s of CPU")
        page.look(1280, 900, "light")
        begun = time.perf_counter()
        page.goto(path.as_uri())
        rows = page.wait_for("document.querySelectorAll('.segments > li').length && listing.rows.length")
        took = time.perf_counter() - begun
        print(f"opened, {rows:6,} rows, {path.stat().st_size / 2**20:4.1f} MiB:  {took:8.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEGMENTS)
