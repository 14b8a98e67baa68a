"""Invalid requests are refused as a whole: an error message, an exit status, and nothing queued or written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batch_files import save_recording
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import Launch, environment, run_cloner


@pytest.fixture
def bad_batch(tmp_path: Path) -> Path:
    """One valid row and four invalid ones."""
    batch = write_batch(tmp_path, [5])
    document = json.loads(batch.read_text())
    rows = document["tasks"]
    rows[0]["target_text"] = " "
    rows[1]["npy_flie"] = "refs/spk0.npy"
    rows[2]["output_file"] = "../elsewhere.wav"
    rows[3]["segment_index"] = 4
    batch.write_text(json.dumps(document))
    return batch


@pytest.mark.slow
def test_a_run_lists_every_bad_row_and_writes_nothing(bad_batch: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    ran = run_cloner("run", str(bad_batch), "--engine", "fake", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    for place in ("tasks[0]", "tasks[1]", "tasks[2]", "tasks[3]"):
        assert place in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_run_does_not_replace_the_recordings_of_its_batch(tmp_path: Path) -> None:
    recording = save_recording(tmp_path / "anna" / "anna.wav", "I am Anna.").read_bytes()
    (tmp_path / "b.csv").write_text("speaker_id,text,output_file\nanna,Hello.,anna/anna.wav\n")
    (tmp_path / "c.csv").write_text("speaker_id,text\nanna,Hello.\n")
    for batch in ("b.csv", "c.csv"):
        ran = run_cloner("run", batch, "--references", ".", "--overwrite", "--engine", "fake", cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "would lie among the recordings of speaker 'anna'" in ran.stderr
        assert "(--out)" in ran.stderr
    assert (tmp_path / "anna" / "anna.wav").read_bytes() == recording
    assert not (tmp_path / "anna" / "0001.wav").exists()
    ran = run_cloner("run", "c.csv", "--references", ".", "--out", "out", "--engine", "fake", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    shutil.copytree(tmp_path / "out", tmp_path, dirs_exist_ok=True)  # as earlier versions have written it
    ran = run_cloner("plan", "c.csv", "--references", ".", "--out", "other", "--engine", "fake", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "--references: left out, as batches have written it without a transcript: 'anna/0001.wav'" in ran.stderr


@pytest.mark.slow
def test_a_submit_queues_nothing(
    launch: Launch, client: Client, settings: Settings, bad_batch: Path, tmp_path: Path
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    # The worker writes its first counters after this line.
    eventually(lambda: client.redis.exists(client.keys.counters) == 1)
    before = set(client.redis.scan_iter("*"))
    ran = run_cloner("submit", str(bad_batch), cwd=tmp_path, env=environment(settings))
    assert (ran.returncode, ran.stdout) == (2, "")
    after = set(client.redis.scan_iter("*"))
    assert {key for key in after - before if settings.fleet in key} == set()


def test_a_run_without_a_checkpoint_says_how_to_get_one(tmp_path: Path) -> None:
    ran = run_cloner("run", str(write_batch(tmp_path, checkpoint_dir="nowhere")), cwd=tmp_path)
    assert ran.returncode == 78
    assert "cloner checkpoint pull" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", [["fleet"], ["status", "x"], ["wait", "x"], ["result", "x"], ["cancel", "x"]])
def test_a_redis_that_is_away_is_a_sentence_without_its_password(command: list[str], tmp_path: Path) -> None:
    env = {"CLONER_REDIS_URL": "redis://:topsecret@127.0.0.1:1/0"}
    ran = run_cloner(*command, cwd=tmp_path, env=env)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in ran.stderr
    assert "topsecret" not in ran.stderr


@pytest.mark.slow
def test_an_output_folder_that_is_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run_cloner("run", str(write_batch(tmp_path)), "--engine", "fake", "--out", "file/deeper", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.endswith("file/deeper is not a folder: name one, there or to be made\n")


@pytest.mark.slow
def test_names_that_are_not_utf_8_are_no_obstacle(tmp_path: Path) -> None:
    batch = write_batch(tmp_path, [1]).rename(tmp_path / os.fsdecode(b"caf\xe9.json"))
    ran = run_cloner("run", str(batch), "--engine", "fake", "--out", os.fsdecode(b"\xe9t\xe9"), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["out_dir"] == f"{tmp_path}/\\udce9t\\udce9"
    assert (tmp_path / os.fsdecode(b"\xe9t\xe9") / "audio" / "0.wav").is_file()
