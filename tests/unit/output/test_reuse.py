"""What earlier batches have generated, found in their records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cloner.batch import Generation, ReferenceKind
from cloner.output import search
from cloner.output.audio_files import OutputRoot
from cloner.output.origin import Origin
from cloner.output.record import Record, RecordWriter, batch_directory, batch_folder
from cloner.output.reuse import REUSED, reuse_finished
from cloner.output.search import find_outputs
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ChunkRow, Manifest, ReferenceRow, SpeakerRow, SpeakerSliceRow
from cloner.protocol.results import SegmentResult
from tests.support.ownership import Known

REFERENCE = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")


def batch(batch_id: str, texts: Sequence[str], seed: int = 0, speaker: str = "anna") -> Manifest:
    """A batch of one speaker; its two workers get one chunk each."""
    rows = [(n, text, f'{n} "ü".wav', 100 * seed + n) for n, text in enumerate(texts)]
    half = len(rows) // 2
    slices = [
        SpeakerSliceRow(speaker=0, start=a, stop=b, position=1, texts=b - a)
        for a, b in ((0, half), (half, len(rows)))
        if b > a
    ]
    chunks = [
        ChunkRow(number=n, queue="q", assignment=n, speakers=1, texts=row.texts, slices=[row])
        for n, row in enumerate(slices)
    ]
    return Manifest(
        batch_id=batch_id,
        source="batch.json",
        path="/home/batch.json",
        submitted_at=1.0,
        generation=Generation(seed=seed),
        engine="fake",
        fingerprint="none",
        speakers=[SpeakerRow(id=speaker, reference=REFERENCE, segments=rows)],
        chunks=chunks,
    )


def speak(root: Path, manifest: Manifest, only: Sequence[int] | None = None, code: str = "") -> None:
    """Write audio and record as a collector and a worker do."""
    Origin.of(manifest).write(batch_folder(root, manifest.batch_id))
    outputs, record = OutputRoot(root), Record(root, manifest.batch_id)
    keys = ContentKeys(manifest.speech)
    with RecordWriter(record, "cpu.7@box") as writer:
        for row in manifest.speakers[0].segments:
            if only is not None and row.segment not in only:
                continue
            key = keys.of(manifest.speakers[0], row)
            audio = np.frombuffer(bytes.fromhex(key), dtype=np.uint8).astype(np.float32) / np.float32(512)
            written = {} if code else asdict(outputs.write_audio(row.output, audio, 44_100, Known()))
            writer.append(
                SegmentResult(
                    segment=row.segment,
                    speaker=manifest.speakers[0].id,
                    output=row.output,
                    key=key,
                    assignment=0,
                    worker="cpu.7@box",
                    frames=1,
                    code=code,
                    **written,
                )
            )


def reused(root: Path, manifest: Manifest) -> list[int]:
    chunks = reuse_finished(manifest, OutputRoot(root))
    return sorted(line.segment for lines in chunks.values() for line in lines)


def test_what_is_there_is_taken_into_the_batchs_own_record(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["a", "b", "c", "d"]))
    again = batch("again", ["a", "b", "C", "d", "e"], speaker="anne")
    chunks = reuse_finished(again, OutputRoot(tmp_path))
    assert {number: [line.segment for line in lines] for number, lines in chunks.items()} == {0: [0, 1], 1: [3]}
    record = Record(tmp_path, "again")
    record.refresh()
    assert sorted(record.results) == [0, 1, 3]
    line = record.results[3]
    assert (line.speaker, line.assignment, line.worker, line.reused) == ("anne", 1, "cpu.7@box", True)
    # The worker has not begun to speak that speaker in this batch.
    assert (record.finished(1), record.has_from("cpu.7@box", 1, "anne")) == (1, False)


def test_it_may_run_twice(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["a", "b"]))
    again = batch("again", ["a", "b"])
    first = reuse_finished(again, OutputRoot(tmp_path))
    before = (batch_directory(tmp_path, "again") / REUSED).read_bytes()
    assert reuse_finished(again, OutputRoot(tmp_path)) == first
    assert (batch_directory(tmp_path, "again") / REUSED).read_bytes() == before


def test_what_was_carried_over_is_carried_on_when_the_first_record_is_gone(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["a", "b"]))
    reused(tmp_path, batch("second", ["a", "b"]))
    for file in batch_directory(tmp_path, "first").iterdir():
        file.unlink()
    assert reused(tmp_path, batch("third", ["a", "b"])) == [0, 1]


def test_nothing_of_a_failed_a_torn_or_a_lost_segment_is_carried_over(tmp_path: Path) -> None:
    manifest = batch("first", ["a", "b", "c", "d"])
    speak(tmp_path, manifest, only=[0], code="generation_failed")
    speak(tmp_path, manifest, only=[1, 2, 3])
    (tmp_path / '2 "ü".wav').unlink()
    (file,) = batch_directory(tmp_path, "first").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-1])
    again = batch("again", ["a", "b", "c", "d"]).model_copy(update={"overwrite": True})
    assert reused(tmp_path, again) == [1]


def test_an_attempt_that_failed_since_has_not_touched_the_file(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["a", "b"]))
    speak(tmp_path, batch("second", ["a", "b"]), code="engine_failed")
    os.utime(batch_directory(tmp_path, "first") / "cpu.7@box.jsonl", (1, 1))
    assert reused(tmp_path, batch("again", ["a", "b"])) == [0, 1]


def test_a_batch_of_which_nothing_is_there_reuses_nothing(tmp_path: Path) -> None:
    speak(tmp_path, batch("first", ["a"]))
    assert reused(tmp_path, batch("again", ["A"])) == []
    assert (batch_directory(tmp_path, "again") / REUSED).read_bytes() == b""


def test_what_another_batch_has_spoken_differently_since_is_changed(tmp_path: Path) -> None:
    manifest = batch("b", ["a", "b"])
    speak(tmp_path, manifest)
    # An id tells by its client's clock when it was made; this one's was behind.
    speak(tmp_path, batch("a", ["a", "b"], seed=1), only=[1])
    os.utime(batch_directory(tmp_path, "b") / "cpu.7@box.jsonl", (1, 1))
    keys = ContentKeys(manifest.speech)
    wanted = {row.output: keys.of(manifest.speakers[0], row) for row in manifest.speakers[0].segments}
    found = find_outputs(OutputRoot(tmp_path), {**wanted, "new.wav": "k"}, None)
    assert list(found.finished) == ['0 "ü".wav']
    assert found.changed == {'1 "ü".wav'}


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speak(tmp_path, batch("first", ["a", "b"]))
    (batch_directory(tmp_path, "other") / "cpu.0@box.jsonl").mkdir(parents=True)
    assert reused(tmp_path, batch("again", ["a", "b"])) == [0, 1]
    assert "cpu.0@box.jsonl cannot be read, so what it tells of may be spoken again: " in capsys.readouterr().err


def test_lines_about_other_outputs_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(tmp_path, batch("first", [str(n) for n in range(50)]))
    parsed: list[bytes] = []
    monkeypatch.setattr(search, "parse_line", parsed.append)
    assert find_outputs(OutputRoot(tmp_path), {"other.wav": "k", '7 "ü".wav': "k"}, None).changed == {'7 "ü".wav'}
    assert parsed == []
