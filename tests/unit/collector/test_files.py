"""What lies beside a batch's record: the batch itself, its result, and its audio files with their texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from redis import Redis

from cloner.batch import Redo
from cloner.collector import tasks
from cloner.collector.files import keep_batch, write_files
from cloner.collector.result import gather
from cloner.events import Event
from cloner.logs import configure
from cloner.output.kept_batch import KeptBatch
from cloner.output.kept_references import KeptReferences
from cloner.output.record import Record, batch_folder
from cloner.protocol.messages import Manifest, SpeakerRow
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from tests.support.log_lines import find_lines
from tests.support.manifests import REFERENCE, manifest
from tests.support.records import segment_result

TEXTS = ["=1+1", "+x", "-x", "@x", "\tx", 'A plain, "quoted" text\nof two lines.', "x = -1"]


def batch(texts: list[str]) -> Manifest:
    rows = [(n, text, f"{n}.wav", n) for n, text in enumerate(texts)]
    speaker = SpeakerRow(id="=anna", reference=REFERENCE, segments=rows)
    return manifest().model_copy(update={"speakers": [speaker], "chunks": [], "ids": [(1, "-id")]})


def closed(out: Path, found: Manifest, record: Record) -> Path:
    """The folder of the batch after its close."""
    result = gather(found, record, out, cancelled=False, progress={}, now=2.0)
    write_files(Settings(out_dir=out), result, record)
    return batch_folder(out, found.batch_id).path


def test_the_audio_files_are_listed_with_their_texts_and_formulas_are_none(tmp_path: Path) -> None:
    found, record = batch([*TEXTS, "failed", "missing"]), Record(tmp_path, "b")
    KeptBatch(record.folder).write(found)
    for n in range(len(TEXTS)):
        record.add(segment_result(n, audio_s=0.5, take=2 if n == 3 else 1))
    record.add(segment_result(len(TEXTS), code="cut_off"))
    folder = closed(tmp_path, found, record)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    assert lines[1] == {
        "path": "1.wav",
        "segment": 1,
        "id": "-id",
        "speaker": "=anna",
        "text": "+x",
        "seconds": 0.5,
        "take": 1,
        "attempts": 1,
        "checks": "",
    }
    assert (lines[0]["id"], lines[3]["take"]) == (None, 2)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*("'" + text for text in TEXTS[:5]), *TEXTS[5:]]
    assert rows[1] == {
        "path": "1.wav",
        "segment": "1",
        "id": "'-id",
        "speaker": "'=anna",
        "text": "'+x",
        "seconds": "0.5",
        "take": "1",
        "attempts": "1",
        "checks": "",
    }


def test_a_batch_without_audio_has_a_list_without_rows(tmp_path: Path) -> None:
    found, record = batch(["one"]), Record(tmp_path, "b")
    KeptBatch(record.folder).write(found)
    folder = closed(tmp_path, found, record)
    assert (folder / "manifest.jsonl").read_bytes() == b""
    assert (folder / "manifest.csv").read_text() == "path,segment,id,speaker,text,seconds,take,attempts,checks\n"


def test_a_batch_that_could_not_be_kept_is_closed_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure()
    folder = closed(tmp_path, batch(["one"]), Record(tmp_path, "b"))
    assert (folder / "result.json").exists()
    assert find_lines(capfd.readouterr().err.splitlines(), Event.FILE_NOT_WRITTEN, file="manifest.csv", batch="b")


def test_a_batch_and_its_references_are_kept_when_it_is_opened(redis: Redis, valkey_url: str, tmp_path: Path) -> None:
    settings = Settings(out_dir=tmp_path, fleet="test", redis_url=valkey_url)
    found = batch(["one", "two"])
    redis.set(RedisKeys("test").reference(REFERENCE.digest), b"codes")
    keep_batch(connect(valkey_url, decode=False), settings, found)
    assert KeptBatch(batch_folder(tmp_path, "b")).part(lambda _: True) == found
    assert KeptReferences(tmp_path).read(REFERENCE) is None, "its bytes are not those of its hash"
    assert (tmp_path / ".cloner/references" / f"{REFERENCE.digest}.npy").read_bytes() == b"codes"


def test_a_folder_that_cannot_be_written_is_only_logged(
    redis: Redis, valkey_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure()
    out = tmp_path / "out"
    out.write_text("a file where a folder should be")
    keep_batch(connect(valkey_url, decode=False), Settings(out_dir=out, redis_url=valkey_url), batch(["one"]))
    assert find_lines(capfd.readouterr().err.splitlines(), Event.BATCH_NOT_KEPT, batch="b")


@pytest.mark.parametrize("redo", [None, Redo()], ids=["a batch", "a redo"])
def test_a_batch_is_kept_before_its_first_chunk_is_published(
    redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redo: Redo | None
) -> None:
    blobs, settings = connect(valkey_url, decode=False), Settings(out_dir=tmp_path, fleet="test", redis_url=valkey_url)
    found = manifest().model_copy(update={"redo": redo})
    BatchStore.of(settings, blobs).add(found, "round-robin", check=lambda: None)
    kept: list[Manifest] = []
    monkeypatch.setattr(
        tasks, "publish_chunks", lambda *_, **__: kept.append(KeptBatch(batch_folder(tmp_path, "b")).head())
    )
    tasks._open(blobs, settings, "b")
    assert [(batch.source, batch.redo) for batch in kept] == [("b.json", redo)]
    assert redis.hget(RedisKeys("test").batch("b"), "state") == "running"
