"""`cloner redo` and `cloner retry`: parts of closed batches, on a fleet and on this box, by what the disk has kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloner import Client
from cloner.client.estimate import Counts
from cloner.errors import UnknownBatch, UsageError, WrongCheckpoint
from cloner.events import Event
from cloner.settings import Settings
from tests.integration.test_plan_and_retry import blocked_batch
from tests.support.batches import change_text, write_batch
from tests.support.log_lines import fields_of, find_lines
from tests.support.processes import Launch, environment, run_cloner
from tests.support.records import record_paths

pytestmark = pytest.mark.slow


def audio(folder: Path) -> dict[str, bytes]:
    """The outputs, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.wav"))}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name in after if after[name] != before[name]]


def lines(out: Path, batch_id: str) -> list[dict[str, Any]]:
    """The lines of a batch's record."""
    return [json.loads(line) for path in record_paths(out, batch_id) for line in path.read_text().splitlines()]


def forget(client: Client) -> None:
    """Redis forgets all batches and references, as after their expiry."""
    for pattern in (client.keys.batch("*"), client.keys.reference("*"), client.keys.batches):
        for key in client.redis.scan_iter(pattern):
            client.redis.delete(key)


def test_a_redone_segment_is_the_batchs_own_from_then_on(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "2").wait_for(Event.MODELS_LOADED, 2)
    batch = write_batch(tmp_path, [3, 3])
    out, folder = settings.out_dir, settings.out_dir / "batch/audio"
    first = client.submit(batch)
    assert first.wait(timeout=60).generated == 6
    before = audio(folder)

    # From a client that does not have the batch file.
    ran = run_cloner(
        "redo",
        first.id,
        "--segment",
        "1",
        "--segment",
        "batch/audio/4.wav",
        "--wait",
        cwd=out,
        env=environment(settings),
    )
    assert ran.returncode == 0, ran.stderr
    for segment in ("1", "4"):
        assert find_lines(ran.stderr.splitlines(), Event.SEGMENT_NAMED, segment=segment)
    result = json.loads(ran.stdout)
    assert (result["total"], result["generated"], result["reused"]) == (2, 2, 0)
    once = audio(folder)
    assert changed(before, once) == ["1.wav", "4.wav"]
    redone = {line["segment"]: line for line in lines(out, result["batch_id"])}
    own = {line["segment"]: line for line in lines(out, first.id)}
    assert {n: (line["key"], line["take"]) for n, line in redone.items()} == {n: (own[n]["key"], 2) for n in (1, 4)}

    # Again, when Redis has forgotten all: by what the collector has kept. Another take, with yet another seed.
    forget(client)
    again = client.batch(first.id).redo(outputs=["batch/audio/1.wav"])
    assert again.wait(timeout=60).generated == 1
    twice = audio(folder)
    assert changed(once, twice) == ["1.wav"]
    assert twice["1.wav"] != before["1.wav"]
    (line,) = lines(out, again.id)
    assert (line["key"], line["take"]) == (own[1]["key"], 3)
    assert len({0, line["seed"], redone[1]["seed"]}) == 3
    takes = [path.read_bytes() for path in out.rglob("takes/*")]
    assert sorted(takes) == sorted([before["1.wav"], before["4.wav"], once["1.wav"]])

    # The same batch file has nothing left to generate, and leaves the takes.
    assert client.plan(batch).total == Counts(done=6)
    rest = client.submit(batch).wait(timeout=60)
    assert (rest.generated, rest.reused) == (6, 6)
    assert audio(folder) == twice
    manifest = (out / ".cloner" / rest.batch_id / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(row)["take"] for row in manifest] == [1, 3, 1, 1, 2, 1]

    # A lost file is generated as its last take.
    (folder / "1.wav").unlink()
    assert client.submit(batch).wait(timeout=60).reused == 5
    assert audio(folder) == twice


def test_what_failed_is_retried_when_redis_has_forgotten_it(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    first = client.submit(blocked_batch(tmp_path, settings.out_dir))
    assert first.wait(timeout=60).failed == 3
    (settings.out_dir / "batch/blocked").unlink()
    forget(client)
    result = first.retry().wait(timeout=60)
    assert result.results == {index: f"batch/blocked/{index}.wav" for index in (3, 4, 5)}
    assert client.plan(tmp_path / "batch.json").total == Counts(done=6)
    # Without what was kept of the references, too.
    forget(client)
    shutil.rmtree(settings.out_dir / ".cloner/references")
    with pytest.raises(UsageError, match=r"the references of 1 speaker \(0\) are not in .*references"):
        first.redo([0])


def test_a_redo_that_makes_no_sense_is_a_sentence(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [5]))
    with pytest.raises(UsageError, match=f"batch {batch.id} is not finished: wait for it, or cancel it"):
        batch.redo([1])
    assert batch.wait(timeout=60).generated == 5
    for segments, outputs, sentence in (
        ([1, 7, 9], [], r"has no segment 7 \(and 1 more\): its segments are listed in manifest.csv"),
        ([], ["audio/1.wav"], "has no segment 'audio/1.wav': "),
        ([], [], "name at least one segment"),
    ):
        with pytest.raises(UsageError, match=sentence):
            batch.redo(segments, outputs)
    with pytest.raises(UsageError, match=r"no batch 20200101-000000-aaaaaa is kept under"):
        client.batch("20200101-000000-aaaaaa").redo([1])
    client.redis.hset(client.keys.worker(client.fleet()[0].name), "fingerprint", "another")
    with pytest.raises(WrongCheckpoint, match=r"was spoken by engine fake with the checkpoint none, and worker"):
        batch.redo([1])
    fleet.stop()
    client.redis.delete(client.keys.collector_heartbeat)
    forget(client)
    with pytest.raises(UnknownBatch, match=f"no batch {batch.id} is known"):
        batch.redo([1])


def run_in(folder: Path, *arguments: str) -> dict[str, Any]:
    ran = run_cloner(*arguments, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def test_a_batch_of_this_box_is_redone_without_a_fleet_and_without_its_file(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [3])
    arguments = ("run", str(batch), "--out", "spoken", "--engine", "fake", "--workers", "1")
    first = run_in(tmp_path, *arguments)
    before = audio(tmp_path / "spoken/audio")
    saved = tmp_path / "marked.json"
    saved.write_text(json.dumps({"batch": first["batch_id"], "bad": [0, "audio/2.wav"]}))
    batch.rename(tmp_path / "moved.json")
    shutil.rmtree(tmp_path / "refs")
    redone = run_in(tmp_path, "redo", first["batch_id"], "--marked", "marked.json", "--seed", "5", "--out", "spoken")
    assert (redone["generated"], redone["reused"]) == (2, 0)
    once = audio(tmp_path / "spoken/audio")
    assert changed(before, once) == ["0.wav", "2.wav"]
    assert {line["take"] for line in lines(tmp_path / "spoken", redone["batch_id"])} == {2}

    batch = write_batch(tmp_path, [3])
    assert run_in(tmp_path, *arguments)["reused"] == 3
    assert audio(tmp_path / "spoken/audio") == once
    # A redo of an edited line would undo the edit.
    change_text(batch, 0, "Another text.")
    run_in(tmp_path, *arguments)
    ran = run_cloner(
        "redo", first["batch_id"], "--segment", "0", "--segment", "audio/2.wav", "--out", "spoken", cwd=tmp_path
    )
    assert ran.returncode == 2
    named = find_lines(ran.stderr.splitlines(), Event.SEGMENT_NAMED)
    fields = [fields_of(line, Event.SEGMENT_NAMED) for line in named]
    assert [(found["segment"], found["output"]) for found in fields] == [("0", "audio/0.wav"), ("2", "audio/2.wav")]
    assert "another version of the batch has since given each another text" in ran.stderr


def test_what_failed_on_this_box_is_retried_without_a_fleet(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [2, 2])
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken/audio").write_text("a file where a folder should be")
    ran = run_cloner("run", str(batch), "--out", "spoken", "--engine", "fake", "--workers", "1", cwd=tmp_path)
    assert ran.returncode == 1, ran.stderr
    batch_id = json.loads(ran.stdout)["batch_id"]
    logged, report = ran.stderr.splitlines(), tmp_path / "spoken/.cloner" / batch_id / "report.html"
    assert find_lines(logged, Event.REPORT_WRITTEN, batch=batch_id, report=report, suspects=0)
    (tmp_path / "spoken/audio").unlink()

    kept = min((tmp_path / "spoken/.cloner/references").glob("*.npy"))
    elsewhere = kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(elsewhere)
    ran = run_cloner("retry", batch_id, "--out", "spoken", cwd=tmp_path)
    assert (ran.returncode, "a link is not followed here" in ran.stderr) == (2, True), ran.stderr
    assert "Traceback" not in ran.stderr
    elsewhere.replace(kept)

    assert run_in(tmp_path, "retry", batch_id, "--out", "spoken")["generated"] == 4
    listed = run_cloner("list", "--out", "spoken", cwd=tmp_path).stdout
    assert (listed.count("batch.json\t"), listed.count("batch.json (part)\t")) == (1, 1)


WRONG = {
    "nothing": (("redo", "b", "--out", "."), "give --segment N, or --marked FILE"),
    "no such file": (("redo", "b", "--marked", "none.json"), "none.json cannot be read"),
    "no such batch": (("redo", "b", "--segment", "1", "--out", "."), "no batch b is kept under"),
    "no id": (("redo", "../b", "--segment", "1", "--out", "."), "'../b' is no batch's id"),
    "retry of no batch": (("retry", "b", "--out", "."), "no batch b is kept under"),
    "reviewers of a fleet": (("redo", "b", "--segment", "1", "--reviewers", "1"), "--reviewers goes with --out"),
    "reviewers of a fleet's retry": (("retry", "b", "--reviewers", "1"), "--reviewers goes with --out"),
    "no fleet": (("redo", "b", "--segment", "1"), "6379/0, or --out DIR for batches that were run on this box"),
    "a retry without a fleet": (("retry", "b"), "or --out DIR for batches that were run on this box"),
    "a list without a fleet": (("list",), "or --out DIR for batches that were run on this box"),
    "a large number": (("redo", "b", "--segment", "9" * 5000), "is no segment's number"),
    "a negative seed": (("redo", "b", "--segment", "1", "--seed", "-1"), "--seed"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_is_a_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run_cloner(*arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert "Traceback" not in ran.stderr
