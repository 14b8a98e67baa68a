"""`cloner run` from end to end: real fish-speech code, 6 speakers with 46 texts, four workers."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cloner.events import Event
from tests.support.batches import SIX_SPEAKERS, write_batch
from tests.support.log_lines import find_lines, is_line_of
from tests.support.processes import run_cloner

pytestmark = pytest.mark.slow

WORKER_0 = """\
[Worker 0] Starting on cpu
[Worker 0] Assigned 2 speakers, 16 texts total
[Worker 0] Loading Text2Semantic model...
[Worker 0] Loading DAC model...
[Worker 0] Cache: 64 slots of 2048 positions
[Worker 0] Models loaded! Starting generation...
[Worker 0] ✅ All done! Processed 16/16 segments
""".splitlines()

SPEAKERS_OF_0 = {
    number: f"""\
[Worker 0] Processing Speaker {number} ({place}/2)
[Worker 0] Speaker {number} progress: 1/8
[Worker 0] Speaker {number} progress: 5/8
[Worker 0] ✅ Completed Speaker {number}: 8 segments
""".splitlines()
    for place, number in ((1, 0), (2, 4))
}

WORKER_3 = """\
[Worker 3] Starting on cpu
[Worker 3] Assigned 1 speakers, 7 texts total
[Worker 3] Loading Text2Semantic model...
[Worker 3] Loading DAC model...
[Worker 3] Cache: 64 slots of 2048 positions
[Worker 3] Models loaded! Starting generation...
[Worker 3] Processing Speaker 3 (1/1)
[Worker 3] This speaker has 7 texts
[Worker 3] Speaker 3 progress: 1/7
[Worker 3] Speaker 3 progress: 5/7
[Worker 3] ✅ Completed Speaker 3: 7 segments
[Worker 3] ✅ All done! Processed 7/7 segments
""".splitlines()

BEFORE = r"""
\[Main\] Total tasks: 46
\[CPU\] \d+ cores, Total Memory: \d+\.\d\d GB
\[CPU\] Can run \d+ workers \(Available: \d+\.\d\d GB\)
\[Main\] Using 4 parallel workers across 0 GPU\(s\)
\[Main\] CPU: 4 workers
\[Main\] Speakers: 6
\[Main\] Speaker assignment:
  Worker 0: 2 speakers \(IDs: \[0, 4\]\), 16 texts
  Worker 1: 2 speakers \(IDs: \[1, 5\]\), 15 texts
  Worker 2: 1 speakers \(IDs: \[2\]\), 8 texts
  Worker 3: 1 speakers \(IDs: \[3\]\), 7 texts
\[Main\] Launching 4 workers\.\.\.
\[Main\] Launching Worker 0 on CPU
\[Main\] Launching Worker 1 on CPU
\[Main\] Launching Worker 2 on CPU
\[Main\] Launching Worker 3 on CPU
""".strip().splitlines()

AFTER = """\
[Main] Waiting for all workers to complete...
[Main] Collecting results...
[Main] All done! Generated 46/46 segments
""".splitlines()


@dataclass(frozen=True)
class Run:
    folder: Path
    process: subprocess.CompletedProcess[str]
    result: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        return self.process.stderr.splitlines()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Run:
    folder = tmp_path_factory.mktemp("run")
    batch = write_batch(
        folder,
        SIX_SPEAKERS,
        generation={"min_new_tokens": 14, "max_new_tokens": 14},
        checkpoint_dir=str(tiny_checkpoint),
    )
    process = run_cloner("run", str(batch), "--out", "spoken", "--workers", "4", cwd=folder)
    assert process.returncode == 0, process.stderr
    return Run(folder, process, json.loads(process.stdout))


def test_the_lines_of_the_design_come_in_its_order(run: Run) -> None:
    *lines, report = run.lines
    assert is_line_of(report, Event.REPORT_WRITTEN, batch=run.result["batch_id"], suspects=len(run.result["suspects"]))
    before, after = lines[: len(BEFORE)], lines[-len(AFTER) :]
    for line, pattern in zip(before, BEFORE, strict=True):
        assert re.fullmatch(pattern, line)
    assert after == AFTER
    between = lines[len(BEFORE) : -len(AFTER)]
    between = [line.partition(", 0.")[0] for line in between]
    assert [line for line in between if line.startswith("[Worker 3]")] == WORKER_3
    # Worker 0 generates both of its speakers at the same time; each speaker's lines keep their order.
    worker = [line for line in between if line.startswith("[Worker 0]")]
    assert [line for line in worker if "peaker " not in line] == WORKER_0
    for number, lines in SPEAKERS_OF_0.items():
        assert [line for line in worker if f"Speaker {number}" in line] == lines
        processing = worker.index(lines[0])
        assert worker[processing + 1] == "[Worker 0] This speaker has 8 texts"
    # Nothing but the workers' own lines: no banner, no warning, no traceback.
    assert {line.split("]")[0] for line in between} == {f"[Worker {number}" for number in range(4)}


def test_all_workers_start_before_the_first_is_ready(run: Run) -> None:
    starting, loaded = (
        [run.lines.index(line) for line in find_lines(run.lines, event)]
        for event in (Event.STARTING, Event.MODELS_LOADED)
    )
    assert len(starting) == len(loaded) == 4
    assert max(starting) < min(loaded)


def test_standard_output_is_one_json_that_names_every_segment(run: Run) -> None:
    assert len(run.process.stdout.splitlines()) == 1
    result = run.result
    assert (result["total"], result["generated"], result["failed"], result["errors"]) == (46, 46, 0, {})
    assert result["results"] == {str(index): f"audio/{index}.wav" for index in range(46)}
    assert sum(result["workers"].values()) == 46
    assert sorted(result["workers"].values()) == [7, 8, 15, 16]
    assert result["elapsed_s"] > 0
    assert result["audio_s"] == pytest.approx(result["frames"] * 2048 / 44_100, rel=1e-3)


def test_every_segment_is_an_audible_wav(run: Run) -> None:
    for output in run.result["results"].values():
        audio, rate = soundfile.read(run.folder / "spoken" / output, dtype="float32")
        assert rate == 44_100
        assert len(audio) >= 0.5 * rate
        loudness = 20 * np.log10(np.sqrt(np.mean(np.square(audio))) + 1e-12)
        assert loudness > -60, output


def test_only_outputs_and_the_record_are_left(run: Run) -> None:
    files = {path.relative_to(run.folder / "spoken") for path in (run.folder / "spoken").rglob("*") if path.is_file()}
    kept = Path(".cloner") / run.result["batch_id"]
    spoken = {Path(output) for output in run.result["results"].values()}
    record = {kept / f"cpu.{number}@box.{kind}" for number in range(4) for kind in ("jsonl", "peaks")}
    names = ("result.json", "report.html", "manifest.jsonl", "manifest.csv", "batch.ndjson")
    environments = {Path(f".cloner/environments/cpu.{number}@box.ndjson") for number in range(4)}
    others = {kept / name for name in (*names, "run.log", "origin.json", "reused.jsonl", "takes-index.json")}
    references = {path for path in files if path.parent == Path(".cloner/references")}
    assert len(references) == len(run.result["speakers"])
    assert files - spoken == {*others, *record, *references, *environments}
