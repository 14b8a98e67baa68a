"""`cloner reproduce`: kept takes of real runs are spoken again, on the tiny checkpoint and with the fake engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from redis import Redis

from cloner.audio import SAMPLE_RATE
from cloner.audio_bytes import encode_audio
from cloner.batch import AudioFormat
from cloner.cli.reproduction import reproduce
from cloner.errors import NotReproduced
from cloner.events import Event
from cloner.output.kept_take import find_kept_take
from cloner.settings import EngineName, Settings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from launcher.lease import Lease
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.processes import run_cloner
from tests.support.records import record_paths
from tests.support.speech import speech

pytestmark = pytest.mark.slow

SPLIT = "One half of it. [pause:0.2] The other half of it."


class Box:
    """A folder in which batches are run, and the checkpoint of its runs."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.checkpoint = checkpoint

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        ran = run_cloner(
            *arguments, "--out", "out", cwd=self.folder, env={"CLONER_CHECKPOINT_DIR": str(self.checkpoint), **env}
        )
        assert "Traceback" not in ran.stderr
        return ran

    def run(self, *arguments: str, **env: str) -> str:
        """Run a command whose result is of a batch of which nothing fails; returns its id."""
        ran = self.call(*arguments, **env)
        assert ran.returncode == 0, ran.stderr
        batch_id: str = json.loads(ran.stdout)["batch_id"]
        return batch_id

    def line(self, batch_id: str, segment: int) -> dict[str, Any]:
        """The line of a segment in the record of a batch."""
        every = [
            json.loads(line) for path in record_paths(self.out, batch_id) for line in path.read_text().splitlines()
        ]
        return next(line for line in every if line["segment"] == segment)


@pytest.fixture(scope="module")
def spoken(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, str]:
    """A batch of the tiny checkpoint, whose attempts all fail a check: the speech of random weights is too fast."""
    box = Box(tmp_path_factory.mktemp("box"), tiny_checkpoint)
    fixed = {"checks": True, "max_new_tokens": 24, "min_new_tokens": 24}
    batch = write_batch(box.folder, [3], fixed, texts={1: SPLIT})
    return box, box.run("run", str(batch), "--workers", "1", CLONER_DETERMINISTIC="true", CLONER_SLOTS="4")


def test_a_kept_attempt_and_a_split_text_are_reproduced_byte_by_byte(spoken: tuple[Box, str]) -> None:
    box, batch_id = spoken
    kept = {attempt["piece"]: attempt for attempt in box.line(batch_id, 1)["attempts"] if attempt["kept"]}
    assert kept.keys() == {0, 1}
    for segment, frames in ((0, 24), (1, 48)):
        numbers = [attempt["number"] for attempt in box.line(batch_id, segment)["attempts"]]
        assert max(numbers) == 3
        to = box.folder / f"{segment}.wav"
        # Neither slots nor the option are given: they are noted of the take.
        ran = box.call("reproduce", batch_id, f"audio/{segment}.wav", "--to", str(to))
        assert ran.returncode == 0, ran.stderr
        assert find_lines(ran.stderr.splitlines(), Event.SEGMENT_NAMED, segment=str(segment))
        assert f"segment {segment} of batch {batch_id} is reproduced: its {frames} frames of codes" in ran.stdout
        assert to.read_bytes() == (box.out / f"audio/{segment}.wav").read_bytes()


def test_a_redone_take_and_the_one_that_it_replaced_are_reproduced(spoken: tuple[Box, str]) -> None:
    box, batch_id = spoken
    before = (box.out / "audio/2.wav").read_bytes()
    redo = box.run("redo", batch_id, "--segment", "2", CLONER_DETERMINISTIC="true", CLONER_SLOTS="4")
    assert box.line(redo, 2)["take"] == 2
    for batch, kept in ((redo, (box.out / "audio/2.wav").read_bytes()), (batch_id, before)):
        to = box.folder / f"{batch}.wav"
        ran = box.call("reproduce", batch, "2", "--to", str(to))
        assert ran.returncode == 0, ran.stderr
        assert to.read_bytes() == kept
    assert (box.out / "audio/2.wav").read_bytes() != before


def test_a_changed_checkpoint_is_named(spoken: tuple[Box, str], tmp_path: Path) -> None:
    box, batch_id = spoken
    other = tmp_path / "other"
    shutil.copytree(box.checkpoint, other)
    with (other / "model.pth").open("r+b") as file:
        file.truncate(1000)
    ran = box.call("reproduce", batch_id, "0", CLONER_CHECKPOINT_DIR=str(other))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot be reproduced: its checkpoint had the fingerprint" in ran.stderr
    assert f"the one in {other} has" in ran.stderr


FORMATS = ("wav", "flac", "ogg", "opus", "mp3")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, str]:
    """A batch of the fake engine with each format, trimmed and of one loudness."""
    box = Box(tmp_path_factory.mktemp("tones"), Path("none"))
    batch = write_batch(box.folder, [len(FORMATS) + 2], audio={"loudness": -20.0, "trim": True})
    whole = json.loads(batch.read_text())
    for task, suffix in zip(whole["tasks"], FORMATS, strict=False):
        task["output_file"] = f"audio/{task['segment_index']}.{suffix}"
    (box.out / "audio/6.wav").mkdir(parents=True)
    batch.write_text(json.dumps(whole))
    ran = box.call("run", str(batch), "--engine", "fake", "--workers", "1")
    assert ran.returncode == 1, ran.stderr
    return box, json.loads(ran.stdout)["batch_id"]


def test_formats_and_effects_are_reproduced(tones: tuple[Box, str]) -> None:
    box, batch_id = tones
    for segment, suffix in enumerate(FORMATS):
        ran = box.call("reproduce", batch_id, str(segment))
        assert ran.returncode == 0, ran.stderr
        # The stream of an Ogg file has a random number.
        how = (
            "but for 0 steps" if suffix in {"ogg", "opus"} else f"bytes that were written as audio/{segment}.{suffix}\n"
        )
        assert how in ran.stdout


def test_what_cannot_be_reproduced_is_a_sentence(tones: tuple[Box, str]) -> None:
    box, batch_id = tones
    cases = {
        (batch_id, "6"): (2, f"segment 6 of batch {batch_id} failed (audio/6.wav cannot be written"),
        (batch_id, "audio/6.wav"): (2, f"segment 6 of batch {batch_id} failed (audio/6.wav cannot be written"),
        (batch_id, "9"): (2, f"batch {batch_id} has no segment 9"),
        (batch_id, "audio/9.wav"): (2, f"batch {batch_id} has no segment 'audio/9.wav'"),
        ("20200101-000000-aaaaaa", "0"): (2, "no batch 20200101-000000-aaaaaa is kept under"),
        ("../b", "0"): (2, "'../b' is no batch's id"),
        (batch_id, "0", "--to", "a.mp3"): (2, "the segment's audio is a .wav file; name it so"),
        (batch_id, "0", "--to", "none/a.wav"): (2, "--to none/a.wav cannot be written"),
        (batch_id, "0", "--to", "out/audio/0.wav"): (2, "--to out/audio/0.wav is under the output root"),
        (batch_id, "0", "--to", "out/new.wav"): (2, "name a file outside of it"),
        (batch_id, "0", "--to", "linked/new.wav"): (2, "--to linked/new.wav is under the output root"),
        (batch_id, "0", "--to", "there.wav"): (2, "--to there.wav is there already: name a new file"),
    }
    (box.folder / "linked").symlink_to(box.out)
    (box.folder / "there.wav").touch()
    for arguments, (status, sentence) in cases.items():
        ran = box.call("reproduce", *arguments)
        assert (ran.returncode, sentence in ran.stderr) == (status, True), ran.stderr


def test_a_take_of_other_bytes_is_not_reproduced_and_what_differs_is_named(
    tones: tuple[Box, str], tmp_path: Path
) -> None:
    """As if another version had spoken it: the file of another segment, with its digest in the line."""
    shutil.copytree(tones[0].folder, tmp_path, dirs_exist_ok=True)
    box, batch_id = Box(tmp_path, Path("none")), tones[1]
    (record,) = (path for path in record_paths(box.out, batch_id) if path.read_text())
    own, other = box.line(batch_id, 5), box.line(batch_id, 0)
    assert own["frames"] == other["frames"]
    shutil.copy2(box.out / "audio/0.wav", box.out / "audio/5.wav")
    same_file = {name: other[name] for name in ("size", "mtime_ns", "digest")}
    with record.open("a") as file:
        file.write(json.dumps(own | same_file) + "\n")
    (noted,) = (box.out / ".cloner/environments").iterdir()
    noted.write_text(noted.read_text().replace('"soxr":"', '"soxr":"0.'))
    ran = box.call("reproduce", batch_id, "5")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"segment 5 of batch {batch_id} is not reproduced: " in ran.stderr
    assert "steps of 16 bits, of which 1 is allowed; what differs: soxr (0." in ran.stderr


@pytest.mark.parametrize("text", ["A text that is longer than the limit of the second batch.", SPLIT])
def test_a_take_that_is_longer_than_a_lower_limit_is_reproduced(tmp_path: Path, text: str) -> None:
    box, batch_ids = Box(tmp_path, Path("none")), []
    for most in (1024, 10):
        batch = write_batch(box.folder, [1], {"max_new_tokens": most}, texts={0: text})
        batch_ids.append(box.run("run", str(batch), "--engine", "fake", "--workers", "1"))
    line = box.line(batch_ids[1], 0)
    assert line["reused"]
    assert line["frames"] > 10
    ran = box.call("reproduce", batch_ids[1], "0")
    assert ran.returncode == 0, ran.stderr
    # As if the kept take had been shorter: the new one gets no more frames, and is cut.
    take = find_kept_take(box.out, batch_ids[1], 0)
    shorter = replace(take, line=replace(take.line, frames=11))
    message = "had not ended by itself after 11 frames, and was cut; all that is noted is the same"
    settings = Settings(out_dir=box.out, engine=EngineName.FAKE)
    with patch.dict(os.environ):
        if text == SPLIT:
            with pytest.raises(NotReproduced, match=message):
                reproduce(shorter, settings)
        else:
            found = reproduce(shorter, settings)
            assert not found.is_same
            assert found.cut_at == 11
            assert message in found.explanation


def test_damaged_codes_of_a_recording_are_made_again(tmp_path: Path) -> None:
    box = Box(tmp_path, Path("none"))
    recording = speech(12 * SAMPLE_RATE, seed=5)
    (tmp_path / "anna.wav").write_bytes(encode_audio(recording.astype(np.float32), SAMPLE_RATE, AudioFormat.WAV))
    anna = {"id": "anna", "reference": {"audio": "anna.wav", "text": "I am Anna."}, "texts": ["One."]}
    (tmp_path / "batch.json").write_text(json.dumps({"speakers": [anna]}))
    batch_id = box.run("run", "batch.json", "--engine", "fake", "--workers", "1")
    (kept,) = (box.out / ".cloner/references").glob("*/*.npy")
    os.truncate(kept, 200)
    ran = box.call("reproduce", batch_id, "0")
    assert ran.returncode == 0, ran.stderr
    take = find_kept_take(box.out, batch_id, 0)
    with patch.dict(os.environ):
        found = reproduce(take, Settings(out_dir=box.out, engine=EngineName.FAKE))
    assert found.is_same
    (different,) = found.different
    assert "codec of the speaker's recording (its codes cannot be read: the reference's codes are cut off" in different
    kept.unlink()
    with patch.dict(os.environ):
        found = reproduce(take, Settings(out_dir=box.out, engine=EngineName.FAKE))
    assert found.different == ["codec of the speaker's recording (its codes are not kept, so they were made again)"]


def test_a_box_on_which_a_fleet_runs_is_refused(tones: tuple[Box, str], redis: Redis, valkey_url: str) -> None:
    box, batch_id = tones
    lease = Lease(Registry(redis, RedisKeys("main"), 30), "box", lambda _: None)
    assert lease.renew(600)
    ran = box.call("reproduce", batch_id, "0", CLONER_REDIS_URL=valkey_url)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f'a fleet runs on box "box" (process {os.getpid()} on ' in ran.stderr
    assert "stop its launcher, or reproduce the take on another box" in ran.stderr
    ran = box.call("reproduce", batch_id, "0", CLONER_REDIS_URL=valkey_url, CLONER_BOX="another")
    assert ran.returncode == 0, ran.stderr
    lease.release()
    ran = box.call("reproduce", batch_id, "0", CLONER_REDIS_URL=valkey_url)
    assert ran.returncode == 0, ran.stderr
    assert "Redis" not in ran.stderr
    ran = box.call("reproduce", batch_id, "0", CLONER_REDIS_URL=f"unix://{box.folder}/none.sock")
    assert ran.returncode == 0, ran.stderr
    assert 'see to it that no fleet runs on box "box"' in ran.stderr
