"""`cloner plan` before a batch, `cloner retry` after it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cloner import Client
from cloner.client import queries
from cloner.client.estimate import Counts
from cloner.errors import ClonerError, UnknownBatch, UsageError
from cloner.events import Event
from cloner.settings import Settings, WorkerSettings
from cloner.state.connection import server_time
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import change_text, write_batch
from tests.support.log_lines import find_lines
from tests.support.processes import Launch, environment, run_cloner
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


def dump(client: Client) -> dict[str, object]:
    """The fleet's keys of batches, messages and results of tasks in Redis."""
    redis, keys = client.redis, client.keys
    kept = (keys.batch("*"), keys.batches, keys.reference("*"), "celery-task-meta-*")
    patterns = (*kept, f"cloner.{keys.fleet}.*")
    return {str(key): redis.dump(key) for pattern in patterns for key in redis.scan_iter(pattern)}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_plan_says_what_is_done_changed_and_missing_and_how_long_it_takes(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.05)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = write_batch(tmp_path, [6, 4])
    before = client.plan(batch)
    assert (before.total, before.seconds) == (Counts(missing=10), None)

    assert client.submit(batch).wait(timeout=60).generated == 10
    change_text(batch, 2, "A text of another length, to be spoken anew.")
    (settings.out_dir / "batch/audio/7.wav").unlink()
    keys, written = dump(client), files(settings.out_dir)
    ran = run_cloner("plan", str(batch), cwd=tmp_path, env=environment(settings))
    assert ran.returncode == 0, ran.stderr
    *rows, sentence = ran.stdout.splitlines()
    assert [row.split("\t") for row in rows] == [
        ["Speaker", "Done", "Changed", "Missing"],
        ["0", "5", "1", "0"],
        ["1", "3", "0", "1"],
        ["total", "8", "1", "1"],
    ]
    assert sentence.startswith("2 segments are left to generate, about 5 s of audio; that takes about ")
    plan = client.plan(batch)
    # The tones are about as long as estimated; each takes 0.05 s plus the time to write it.
    assert plan.seconds is not None
    assert 0.05 <= plan.seconds < 60
    assert (dump(client), files(settings.out_dir)) == (keys, written)

    assert client.submit(batch).wait(timeout=60).reused == 8
    assert str(client.plan(batch)) == "Nothing is left to generate"


def test_a_plan_for_this_box_asks_no_fleet_and_knows_the_speed_of_earlier_runs(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [2, 2])
    arguments = (str(batch), "--out", "spoken", "--engine", "fake")
    planned = run_cloner("plan", *arguments, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines()[-2:] == [
        "total\t0\t0\t4",
        "4 segments are left to generate, about 7 s of audio; no speed was measured yet",
    ]
    assert not (tmp_path / "spoken").exists()
    assert run_cloner("run", *arguments, cwd=tmp_path).returncode == 0
    planned = run_cloner("plan", *arguments, cwd=tmp_path)
    assert planned.stdout.splitlines()[-2:] == ["total\t4\t0\t0", "Nothing is left to generate"]

    elsewhere = run_cloner("plan", str(batch), "--engine", "fake", cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert re.fullmatch(
        r"4 segments are left to generate, about 7 s of audio; that takes about \d+ (s|min) at the measured speed",
        elsewhere.stdout.splitlines()[-1],
    )


def test_a_run_whose_speed_cannot_be_kept_is_as_good_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ran = run_cloner("run", str(write_batch(tmp_path, [1])), "--engine", "fake", cwd=tmp_path)
    assert (ran.returncode, json.loads(ran.stdout)["generated"]) == (0, 1)
    assert find_lines(ran.stderr.splitlines(), Event.SPEED_NOT_KEPT)


def test_a_plan_without_a_collector_is_a_sentence_and_leaves_no_message(
    client: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry(client.redis, client.keys, settings.alive_s).register(expected_worker(settings, WorkerSettings()))
    monkeypatch.setattr(queries, "RESPONSE_S", 0.5)
    before = task_results(client)
    with pytest.raises(ClonerError, match=r"no collector has answered within 0.5 s.*--out"):
        client.plan(write_batch(tmp_path, [2]))
    assert client.redis.llen(client.queues.collector_queue) == 0
    assert task_results(client) == before


def test_an_expired_request_is_not_run(
    launch: Launch, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    before = task_results(client)
    monkeypatch.setattr(queries, "RESPONSE_S", 10.0)
    monkeypatch.setattr(queries, "server_time", lambda redis: server_time(redis) - 2 * queries.RESPONSE_S)
    with pytest.raises(ClonerError, match=r"no collector has answered within 10 s"):
        client.plan(write_batch(tmp_path, [2]))
    assert client.redis.llen(client.queues.collector_queue) == 0
    assert task_results(client) == before


def task_results(client: Client) -> set[str]:
    """The keys of tasks' results of all fleets of this Redis."""
    return set(map(str, client.redis.scan_iter("celery-task-meta-*")))


def blocked_batch(folder: Path, out: Path) -> Path:
    """A batch of 3 + 3 segments; a file blocks the output folder of the second speaker."""
    batch = write_batch(folder, [3, 3])
    whole = json.loads(batch.read_text())
    for task in whole["tasks"][3:]:
        task["output_file"] = f"blocked/{task['segment_index']}.wav"
    batch.write_text(json.dumps(whole))
    (out / "batch").mkdir(parents=True, exist_ok=True)
    (out / "batch/blocked").write_text("a file where a folder should be")
    return batch


def test_a_retry_speaks_just_what_failed(launch: Launch, client: Client, settings: Settings, tmp_path: Path) -> None:
    launch("--workers", "2").wait_for(Event.MODELS_LOADED, 2)
    first = client.submit(blocked_batch(tmp_path, settings.out_dir), strategy="longest-first")
    assert first.wait(timeout=60).failed == 3
    (settings.out_dir / "batch/blocked").unlink()

    ran = run_cloner("retry", first.id, "--wait", cwd=tmp_path, env=environment(settings))
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["total"], result["generated"], result["reused"]) == (3, 3, 0)
    assert result["results"] == {str(index): f"batch/blocked/{index}.wav" for index in (3, 4, 5)}
    assert recorded_segments(settings, result["batch_id"]) == [3, 4, 5]
    assert find_lines(ran.stderr.splitlines(), Event.BATCH_SUBMITTED, batch=result["batch_id"])
    # As if nothing had failed: the same audio, and the whole batch finds it.
    assert client.plan(tmp_path / "batch.json").total == Counts(done=6)
    for retry in (client.batch(first.id), client.batch(result["batch_id"])):
        strategy = client.redis.hget(client.keys.batch(retry.id), "strategy")
        assert strategy == "longest-first"


def test_a_retry_that_makes_no_sense_is_a_sentence(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(UnknownBatch, match=r"no batch nonsense is known.* submit its file again"):
        client.batch("nonsense").retry()
    registry = Registry(client.redis, client.keys, settings.alive_s)
    registry.register(expected_worker(settings, WorkerSettings()))
    batch = client.submit(blocked_batch(tmp_path, settings.out_dir))
    with pytest.raises(UsageError, match=f"batch {batch.id} is not finished: wait for it, or cancel it"):
        batch.retry()
    launch("--workers", "1")
    assert batch.wait(timeout=60).failed == 3
    # What Redis has lost, the collector has kept (see `test_redo.py`); here, it has lost it, too.
    for key in client.redis.scan_iter(client.keys.reference("*")):
        client.redis.delete(key)
    shutil.rmtree(settings.out_dir / ".cloner/references")
    with pytest.raises(UsageError, match=r"the references of 1 speaker \(1\) are not in .* submit the batch"):
        batch.retry()
    client.redis.delete(client.keys.manifest(batch.id))
    (settings.out_dir / ".cloner" / batch.id / "batch.ndjson").unlink()
    with pytest.raises(UsageError, match=f"no batch {batch.id} is kept under"):
        batch.retry()
    good = client.submit(write_batch(tmp_path, [1]))
    assert good.wait(timeout=60).generated == 1
    with pytest.raises(UsageError, match=f"nothing of batch {good.id} failed: there is nothing to retry"):
        good.retry()
