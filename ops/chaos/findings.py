"""What must be there after a batch, and what must not: files, and lines of the record."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from cloner.settings import EngineName, Settings
from ops.chaos.clients import FinishedBatch
from tests.support.processes import environment, run_cloner
from tests.support.records import record_paths


def check_batch(batch: FinishedBatch, settings: Settings) -> list[str]:
    """Problems with a batch's record and files. The same batch is generated again without faults, to compare."""
    problems = []
    lines: Counter[int] = Counter()
    for path in record_paths(settings.out_dir, batch.id):
        for line in filter(None, path.read_text().splitlines()):
            result = json.loads(line)
            lines[result["segment"]] += not result.get("code")
    if lines != Counter(range(batch.total)):
        wrong = {n: lines[n] for n in sorted(lines.keys() | set(range(batch.total))) if lines[n] != 1}
        problems.append(f"batch {batch.id}: segments without exactly one line, and how many they have: {wrong}")
    undisturbed = batch.file.parent / "undisturbed"
    env = {name: value for name, value in environment(settings).items() if name != "CLONER_REDIS_URL"}
    env["CLONER_FAKE_SEGMENT_S"] = "0"
    again = ["run", str(batch.file), "--out", str(undisturbed), "--workers", "1"]
    ran = run_cloner(*again, cwd=batch.file.parent, env=env)
    if ran.returncode:
        return [*problems, f"batch {batch.id} could not be generated without faults: {ran.stderr}"]
    expected = [path.relative_to(undisturbed) for path in undisturbed.rglob("*.wav")]
    folder = Path("audio") / batch.file.stem
    unexpected = {path.relative_to(settings.out_dir) for path in (settings.out_dir / folder).rglob("*")} - set(expected)
    problems += [f"{path}: no output of its batch" for path in sorted(unexpected)]
    for path in expected:
        if difference := _difference(settings.out_dir / path, undisturbed / path, settings.engine):
            problems.append(f"{path}: {difference}")
    return problems


def _difference(path: Path, expected: Path, engine: str) -> str:
    """How a file differs from the expected one; empty if it does not. The codec's last bits depend on what it decodes
    together."""
    if not path.is_file():
        return "missing"
    if path.read_bytes() == expected.read_bytes():
        return ""
    if engine == EngineName.FAKE:
        return "another content than without faults"
    ours, theirs = (soundfile.read(file, dtype="int16")[0].astype(np.int32) for file in (path, expected))
    if ours.shape != theirs.shape:
        return f"{len(ours)} samples, and {len(theirs)} without faults"
    most = int(np.abs(ours - theirs).max())
    return "" if most <= 1 else f"samples that differ by {most}"
