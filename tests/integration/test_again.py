"""The same batch again: only missing or changed segments are generated, whatever is in Redis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cloner import Client
from cloner.errors import BatchBroken
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import change_text, write_batch
from tests.support.log_lines import find_lines
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch, run_cloner
from tests.support.records import generated_by_workers, recorded_segments

pytestmark = pytest.mark.slow


def test_only_what_is_missing_or_changed_is_spoken_again(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = write_batch(tmp_path, [20, 16, 10])
    first = client.submit(batch).wait(timeout=60)
    assert (first.generated, first.reused) == (46, 0)
    before = {output: (settings.out_dir / output).read_bytes() for output in first.results.values()}

    change_text(batch, 3, "Another text.")
    (settings.out_dir / first.results[30]).unlink()
    # Of the same age and another size.
    touched = settings.out_dir / first.results[40]
    touched.write_bytes(before[first.results[40]][:-1])
    with pytest.raises(BatchBroken, match=r"1 of the outputs: batch/audio/40.wav: this batch has written each, and"):
        client.submit(batch).wait(timeout=60)
    assert not (settings.out_dir / first.results[30]).exists()
    again = client.submit(batch, overwrite=True)
    result = again.wait(timeout=60)
    assert (result.generated, result.reused, result.failed) == (46, 43, 0)
    assert generated_by_workers(settings, again.id) == [3, 30, 40]
    assert recorded_segments(settings, again.id) == list(range(46))
    assert again.progress().generated == 46
    fleet.wait_for(Event.SEGMENTS_REUSED, child="Collector", batch=again.id, reused=43, total=46)
    after = {output: (settings.out_dir / output).read_bytes() for output in result.results.values()}
    assert [output for output in after if after[output] != before[output]] == [first.results[3]]

    third = client.submit(batch)
    assert third.wait(timeout=60).reused == 46
    assert generated_by_workers(settings, third.id) == []
    # Nothing of it went to a worker.
    assert len(fleet.find(Event.WORKER_DONE)) == 2 * 2


def test_an_inserted_line_is_spoken_alone_and_a_greater_length_speaks_what_was_cut(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    batch = write_batch(tmp_path, [3, 3], {"max_new_tokens": 60}, texts={4: "a" * 100})
    first = client.submit(batch).wait(timeout=60)
    assert {index: error.code for index, error in first.errors.items()} == {4: "cut_off"}
    assert not (settings.out_dir / "batch/audio/4.wav").exists()

    document = json.loads(batch.read_text())
    new = {**document["tasks"][0], "segment_index": 9, "target_text": "New.", "output_file": "audio/new.wav"}
    tasks = [new, *reversed(document["tasks"])]
    batch.write_text(json.dumps({"tasks": tasks, "generation": {"max_new_tokens": 1000}}))
    again = client.submit(batch)
    result = again.wait(timeout=60)
    assert (result.generated, result.reused, result.failed) == (7, 5, 0)
    assert generated_by_workers(settings, again.id) == [4, 9]


def test_other_parameters_are_another_audio_and_the_first_comes_back(
    launch: Launch, client: Client, tmp_path: Path
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    for seed, reused in ((0, 0), (1, 0), (1, 4), (0, 4)):
        batch = write_batch(tmp_path, [2, 2], generation={"seed": seed})
        assert client.submit(batch).wait(timeout=60).reused == reused


def test_a_redis_that_has_lost_everything_costs_only_what_is_missing(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.1)
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = write_batch(tmp_path, [30, 30])
    lost = client.submit(batch)
    fleet.wait_for(Event.SPEAKER_PROGRESS, 2, finished=10, texts=30)
    fleet.stop()
    client.redis.flushall()
    there = recorded_segments(settings, lost.id)
    assert len(there) >= 20

    launch("--workers", "2").wait_for(Event.MODELS_LOADED, 2)
    again = client.submit(batch)
    result = again.wait(timeout=60)
    assert (result.generated, result.reused) == (60, len(there))
    assert sorted(there + generated_by_workers(settings, again.id)) == list(range(60))


def test_a_run_that_is_started_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [6, 6])
    arguments = ("run", str(batch), "--out", "spoken", "--engine", "fake", "--workers", "2")
    first = run_cloner(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (tmp_path / "spoken" / "audio" / "7.wav").unlink()
    again = run_cloner(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["generated"], result["reused"], sum(result["workers"].values())) == (12, 11, 12)
    line = f"[Collector] Batch {result['batch_id']}: 11 of 12 segments are there from earlier batches"
    assert line in again.stderr.splitlines()
    assert "[Main] All done! Generated 12/12 segments" in again.stderr
    third = run_cloner(*arguments, cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    lines = third.stderr.splitlines()
    assert find_lines(lines, Event.NOTHING_LEFT)
    assert not find_lines(lines, Event.LAUNCHING_WORKERS, workers=2)
    assert json.loads(third.stdout)["reused"] == 12


def test_workers_start_late_if_the_collector_finds_more_to_do_than_the_run(
    patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.cli.run", "module._Left.count = lambda left, manifest: None")
    batch = write_batch(tmp_path, [2, 2])
    ran = run_cloner("run", str(batch), "--out", "spoken", "--engine", "fake", "--workers", "2", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["generated"] == 4
    lines = ran.stderr.splitlines()
    assert find_lines(lines, Event.NOTHING_LEFT)
    assert find_lines(lines, Event.LAUNCHING_WORKERS, workers=2)


def test_another_checkpoint_is_another_voice(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    short = {"min_new_tokens": 2, "max_new_tokens": 2}
    batch = write_batch(tmp_path, [2], generation=short, checkpoint_dir=str(checkpoint))
    for changed, reused in ((False, 0), (False, 2), (True, 0)):
        if changed:
            config = checkpoint / "config.json"
            config.write_text(config.read_text() + "\n")
        ran = run_cloner("run", str(batch), "--out", "spoken", "--workers", "1", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["reused"] == reused


def test_files_of_earlier_versions_are_listed_and_then_pruned(tmp_path: Path) -> None:
    write_batch(tmp_path, [3])
    arguments = ("run", "batch.json", "--out", "spoken", "--engine", "fake", "--workers", "1")
    assert run_cloner(*arguments, cwd=tmp_path).returncode == 0
    write_batch(tmp_path, [1])
    listed = run_cloner(*arguments, cwd=tmp_path)
    result = json.loads(listed.stdout)
    assert (result["leftover"], result["leftover_total"]) == (["audio/1.wav", "audio/2.wav"], 2)
    assert not result["pruned"]
    assert find_lines(listed.stderr.splitlines(), Event.LEFTOVER, count=2)
    assert len(list((tmp_path / "spoken/audio").iterdir())) == 3
    pruned = run_cloner(*arguments, "--prune", cwd=tmp_path)
    assert json.loads(pruned.stdout)["pruned"]
    assert find_lines(pruned.stderr.splitlines(), Event.PRUNED, count=2)
    assert [path.name for path in (tmp_path / "spoken/audio").iterdir()] == ["0.wav"]
