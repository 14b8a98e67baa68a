"""`cloner list --out` where many batches, and large ones, lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner.cli.listing import list_batches
from cloner.errors import RecordFailed
from cloner.output.kept_batch import KeptBatch
from cloner.output.own_folder import OwnFolder
from cloner.output.record import RESULT, Record, RecordWriter, batch_folder
from tests.support.manifests import manifest
from tests.support.records import segment_result

COUNTS = {"total": 5, "generated": 4, "failed": 1, "cancelled": False, "audio_s": 90.0}


def keep(root: Path, batch_id: str) -> OwnFolder:
    folder = batch_folder(root, batch_id)
    KeptBatch(folder).write(manifest().model_copy(update={"batch_id": batch_id}))
    return folder


def listed(root: Path, capsys: pytest.CaptureFixture[str], most: int = 20) -> list[list[str]]:
    list_batches(root, most)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]


def test_no_value_is_made_of_the_entries_of_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, "b0").write(RESULT, [json.dumps({**COUNTS, "results": "no entries"}).encode()])
    assert listed(tmp_path, capsys) == [["b0", "b.json", "done", "4/5", "1", "90 s"]]


def test_only_the_newest_folders_are_looked_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        keep(tmp_path, f"b{number:02}").write(RESULT, [json.dumps(COUNTS).encode()])
    looked_at: list[str] = []
    files = OwnFolder.files

    def noted(folder: OwnFolder, pattern: str) -> object:
        looked_at.append(folder.path.name)
        return files(folder, pattern)

    monkeypatch.setattr(OwnFolder, "files", noted)
    assert [row[0] for row in listed(tmp_path, capsys, 5)] == ["b29", "b28", "b27", "b26", "b25"]
    assert set(looked_at) == {"b29", "b28", "b27", "b26", "b25"}


def test_of_a_batch_that_was_stopped_each_generated_segment_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = keep(tmp_path, "b0")
    for worker, segments in (("cpu.0@box", (0, 1)), ("cpu.1@box", (1, 2))):
        with RecordWriter(Record(tmp_path, "b0"), worker) as writer:
            for segment in segments:
                writer.append(segment_result(segment))
            writer.append(segment_result(7, code="generation_failed"))
    assert listed(tmp_path, capsys) == [["b0", "b.json", "stopped", "3", "-", "-"]]
    (folder.path / "cpu.2@box.jsonl").mkdir()
    with pytest.raises(RecordFailed, match=r"the record in .* cannot be kept"):
        list_batches(tmp_path)
