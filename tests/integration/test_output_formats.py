"""Compressed audio at another rate, trimmed, of one loudness: by a run and by a fleet, edited, killed and retried."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from pyloudnorm import Meter

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner

pytestmark = pytest.mark.slow

OPTIONS = ("--format", "mp3", "--rate", "24000", "--loudness", "-20", "--trim")


def unnamed_batch(folder: Path, sizes: list[int], **fields: Any) -> Path:
    """A batch that names none of its outputs."""
    path = write_batch(folder, sizes, **fields)
    whole = json.loads(path.read_text())
    for task in whole["tasks"]:
        del task["output_file"]
    path.write_text(json.dumps(whole))
    return path


def outputs(folder: Path) -> list[str]:
    """The audio files under a folder that are not among the product's own."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())
    return sorted(name for name in found if ".cloner" not in name)


def check_audio(path: Path) -> None:
    """Check that a file is what `OPTIONS` ask for."""
    with soundfile.SoundFile(path) as sound:
        assert (sound.format, sound.samplerate, sound.channels) == ("MP3", 24_000, 1)
        assert sound.artist in {"0", "1"}
        assert sound.title.startswith("Sentence ")
        audio = sound.read(dtype="float32")
    assert Meter(24_000).integrated_loudness(audio) == pytest.approx(-20, abs=0.5)


def run(path: Path, *options: str) -> dict[str, Any]:
    """The result of a run of a batch on this box."""
    ran = run_cloner("run", str(path), "--engine", "fake", "--out", "out", *options, cwd=path.parent)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def planned(path: Path, *options: str) -> list[str]:
    ran = run_cloner("plan", str(path), "--engine", "fake", "--out", "out", *options, cwd=path.parent)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_run_writes_what_is_asked_for_and_a_plan_names_what_is_asked_for_anew(tmp_path: Path) -> None:
    batch = unnamed_batch(tmp_path, [3, 2])
    assert run(batch, *OPTIONS)["generated"] == 5
    names = [f"{speaker}/000{number}.mp3" for speaker, number in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2))]
    assert outputs(tmp_path / "out") == names
    for name in names:
        check_audio(tmp_path / "out" / name)
    assert run(batch, *OPTIONS)["reused"] == 5
    assert planned(batch, *OPTIONS)[-2:] == ["total\t5\t0\t0", "Nothing is left to generate"]

    said = "5 of 5 outputs are there, but with another {}: they are generated again"
    louder = [*OPTIONS, "--loudness", "-16"]
    assert planned(batch, *louder)[-3:-1] == ["total\t0\t5\t0", said.format("loudness")]
    assert said.format("format") in planned(batch, *OPTIONS, "--format", "flac")
    assert said.format("format and another rate and another loudness and another trim") in planned(batch)
    result = run(batch, *louder)
    assert (result["generated"], result["reused"]) == (5, 0)


def test_a_batch_file_asks_for_it_and_its_own_names_have_their_endings(tmp_path: Path) -> None:
    batch = unnamed_batch(tmp_path, [2], audio={"format": "opus", "trim": True})
    whole = json.loads(batch.read_text())
    whole["tasks"][1]["output_file"] = "second.wav"
    batch.write_text(json.dumps(whole))
    assert run(batch)["generated"] == 2
    assert outputs(tmp_path / "out") == ["0/0001.opus", "second.wav"]
    assert soundfile.info(tmp_path / "out/0/0001.opus").subtype == "OPUS"
    assert soundfile.info(tmp_path / "out/second.wav").samplerate == 44_100


def test_a_run_that_is_killed_amid_encoding_goes_on(tmp_path: Path, settings: Settings) -> None:
    batch = unnamed_batch(tmp_path, [8])
    command = [sys.executable, "-m", "cloner", "run", str(batch), "--engine", "fake", "--out", "out", *OPTIONS]
    slow = {"CLONER_FAKE_SEGMENT_S": "0.3", "CLONER_FAKE_SLOTS": "2"}
    first = LoggedProcess(command, slow, tmp_path)
    first.wait_for(Event.MODELS_LOADED)
    eventually(lambda: len(outputs(tmp_path / "out")) >= 3)
    first.stop(signal.SIGKILL)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in outputs(tmp_path / "out")}
    assert len(before) < 8
    result = run(batch, *OPTIONS)
    assert (result["generated"], result["failed"]) == (8, 0)
    assert result["reused"] >= 3
    assert len(outputs(tmp_path / "out")) == 8
    for name in outputs(tmp_path / "out"):
        check_audio(tmp_path / "out" / name)
    again = {name: (tmp_path / "out" / name).read_bytes() for name in before}
    assert again == before, "the same audio gives the same bytes"


def test_a_fleet_writes_it_and_a_retry_asks_for_the_same(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "2").wait_for(Event.MODELS_LOADED, 2)
    batch = unnamed_batch(tmp_path, [2, 2])
    (settings.out_dir / "batch").mkdir(parents=True, exist_ok=True)
    (settings.out_dir / "batch/1").write_text("a file where a folder should be")
    env = environment(settings)
    ran = run_cloner("submit", str(batch), *OPTIONS, "--wait", cwd=tmp_path, env=env)
    assert ran.returncode == 1, ran.stderr
    first = json.loads(ran.stdout)
    assert first["results"] == {"0": "batch/0/0001.mp3", "1": "batch/0/0002.mp3"}
    (settings.out_dir / "batch/1").unlink()
    ran = run_cloner("retry", first["batch_id"], "--wait", cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["results"] == {"2": "batch/1/0001.mp3", "3": "batch/1/0002.mp3"}
    for name in outputs(settings.out_dir):
        check_audio(settings.out_dir / name)
    asked = [*OPTIONS[:-1], "--loudness", "-18"]
    plan = run_cloner("plan", str(batch), *asked, cwd=tmp_path, env=env)
    said = "4 of 4 outputs are there, but with another loudness and another trim: they are generated again"
    assert said in plan.stdout.splitlines(), plan.stderr
    assert client.plan(batch).causes[0].count == 4
