"""However `cloner run` ends, it leaves nothing in a shared Redis, and its last line is true."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from redis import Redis

from cloner.events import Event
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of
from tests.support.processes import LoggedProcess, run_cloner

pytestmark = pytest.mark.slow

KOMBU = {"_kombu.binding_deadlines", "_kombu.binding.celery.pidbox", "_kombu.binding_permanent.celery.pidbox"}
"""The keys that kombu shares among all workers of a Redis."""


@pytest.fixture
def neighbours(redis: Redis) -> Redis:
    """A Redis with other users' keys."""
    redis.set("cloner:main:batch:theirs", "x")
    redis.lpush("cloner.main.v3.shared", "x")
    return redis


def assert_swept(redis: Redis) -> None:
    assert {str(key) for key in redis.scan_iter()} - KOMBU == {"cloner:main:batch:theirs", "cloner.main.v3.shared"}


def test_a_finished_run_leaves_no_key(neighbours: Redis, valkey_url: str, tmp_path: Path) -> None:
    batch = str(write_batch(tmp_path, [3, 2]))
    ran = run_cloner("run", batch, "--engine", "fake", cwd=tmp_path, env={"CLONER_REDIS_URL": valkey_url})
    assert ran.returncode == 0, ran.stderr
    assert_swept(neighbours)


def test_a_run_whose_model_does_not_load_leaves_no_key(
    neighbours: Redis, valkey_url: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_checkpoint.iterdir():
        (broken / file.name).write_bytes(b"broken")
    batch = str(write_batch(tmp_path, [3, 2], checkpoint_dir=str(broken)))
    ran = run_cloner("run", batch, cwd=tmp_path, env={"CLONER_REDIS_URL": valkey_url})
    assert ran.returncode == 78, ran.stderr
    assert_swept(neighbours)


def test_a_run_into_a_folder_that_cannot_be_written_ends_before_it_loads_a_model(
    neighbours: Redis, valkey_url: str, tmp_path: Path
) -> None:
    arguments = ("run", str(write_batch(tmp_path, [1])), "--engine", "fake", "--out", "/proc/out")
    ran = run_cloner(*arguments, cwd=tmp_path, env={"CLONER_REDIS_URL": valkey_url})
    (line,) = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert line.startswith("the output folder /proc/out cannot be written (No such file or directory): take another")
    assert_swept(neighbours)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_counts_what_is_there_and_leaves_no_key(
    neighbours: Redis, valkey_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    batch = write_batch(tmp_path, [8, 8, 8])
    command = [sys.executable, "-m", "cloner", "run", str(batch), "--engine", "fake", "--workers", "2"]
    run = LoggedProcess(command, {"CLONER_REDIS_URL": valkey_url, "CLONER_FAKE_SEGMENT_S": "0.05"}, tmp_path)
    run.wait_for(Event.SPEAKER_PROGRESS, finished=5, texts=8)
    assert run.stop(number) == 128 + number
    stopped = fields_of(run.lines[-1], Event.RUN_STOPPED)
    assert stopped["total"] == "24"
    counted, written = int(stopped["generated"]), len(list((tmp_path / "audio").glob("*.wav")))
    # Each worker may have been stopped between an audio file and its line in the record.
    assert 5 <= counted <= written <= counted + 2
    assert "Traceback" not in "\n".join(run.lines)
    assert_swept(neighbours)
