"""A short run of ``make chaos``: nothing is lost, and what would be is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.settings import Settings
from ops.chaos.clients import FinishedBatch
from ops.chaos.findings import check_batch
from ops.chaos.scenario import parts, run_part
from tests.support.batches import write_batch
from tests.support.processes import environment, run_cloner

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_nothing_is_lost(tiny_checkpoint: Path, tmp_path: Path) -> None:
    fake, _ = parts(30, tiny_checkpoint)
    outcome = run_part(fake, 3, tmp_path / "fake")
    assert outcome.problems == []
    assert outcome.batches >= fake.clients
    assert outcome.faults.total() >= 1


def test_lost_and_wrong_files_and_lines_are_found(settings: Settings, tmp_path: Path) -> None:
    file = write_batch(tmp_path / "batch", [4], outputs="audio/batch")
    env = {name: value for name, value in environment(settings).items() if name != "CLONER_REDIS_URL"}
    assert run_cloner("run", str(file), "--out", str(settings.out_dir), cwd=tmp_path, env=env).returncode == 0
    (folder,) = (path.parent for path in settings.out_dir.glob(".cloner/*/result.json"))
    batch = FinishedBatch(folder.name, file, 4, "round-robin", was_cancelled=False, problems=[])
    assert check_batch(batch, settings) == []
    audio = settings.out_dir / "audio/batch"
    (audio / "0.wav").unlink()
    (audio / "1.wav").write_bytes((audio / "2.wav").read_bytes())
    (audio / "4.wav").write_bytes(b"")
    (record,) = folder.glob("*@*.jsonl")
    record.write_text("".join(record.read_text().splitlines(keepends=True)[1:]))
    assert len(check_batch(batch, settings)) == 4
