"""`cloner check`: a folder of takes of any origin, the list of their texts, and what is printed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.audio import Audio
from cloner.checks.catalogue import CHECKS
from tests.support.module_patches import ModulePatcher
from tests.support.processes import run_cloner
from tests.support.speech import TEXT, speech

RATE = 22_050


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Ten good takes of one speaker, listed in texts.jsonl."""
    folder = tmp_path / "takes"
    (folder / "anna").mkdir(parents=True)
    for number in range(10):
        add(folder, f"anna/{number}.wav", speech(RATE, seed=number))
    return folder


def add(folder: Path, name: str, samples: Audio | None, rate: int = RATE, **more: str) -> None:
    """Write a take, if there are samples, and add its line to the list, with what it has more."""
    if samples is not None:
        soundfile.write(folder / name, samples, rate, subtype="FLOAT" if name.endswith(".wav") else None)
    with (folder.parent / "texts.jsonl").open("a", encoding="utf-8") as lines:
        line = {"file": name, "text": TEXT, "speaker": "anna", "reference": "anna/0.wav", **more}
        print(json.dumps(line), file=lines)


def test_takes_are_compared_with_those_of_their_language(takes: Path) -> None:
    """Four are 15 dB quieter than the ten before: those are compared with the ten of which no language is said."""
    for number in range(4):
        samples = speech(RATE, seed=30 + number) * np.float32(0.18)
        add(takes, f"anna/unknown-{number}.wav", samples)
        add(takes, f"anna/german-{number}.wav", samples, language="de-AT" if number else "de")
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", "--json", cwd=takes.parent)
    found = {one["file"]: one["failed"] for one in map(json.loads, ran.stdout.splitlines())}
    assert [found[f"anna/unknown-{number}.wav"] for number in range(4)] == [["level"]] * 4
    assert [found[f"anna/german-{number}.wav"] for number in range(4)] == [[]] * 4


def test_each_take_gets_an_object_with_its_failed_checks_and_scores(takes: Path) -> None:
    samples = speech(RATE, seed=20)
    add(takes, "anna/stereo.flac", np.stack([samples, samples], axis=1))
    add(takes, "anna/other-rate.ogg", speech(48_000, seed=3), 48_000)
    add(takes, "anna/padded.wav", np.concatenate([samples, np.zeros(3 * RATE, np.float32)]))
    add(takes, "anna/nan.wav", np.where(np.arange(len(samples)) == 99, np.float32(np.nan), samples))
    add(takes, "anna/empty.wav", samples[:0])
    add(takes, "gone é.wav", None)
    add(takes, "noise.wav", None)
    (takes / "noise.wav").write_bytes(b"not audio")
    add(takes, "pipe.wav", None)
    os.mkfifo(takes / "pipe.wav")
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", "--json", cwd=takes.parent)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == ""
    objects = [json.loads(line) for line in ran.stdout.splitlines()]
    assert all([*one] == ["file", "ok", "failed", "scores"] for one in objects)
    found = {one["file"]: one for one in objects}
    assert [*found][:10] == [f"anna/{number}.wav" for number in range(10)]
    for name in (*[*found][:10], "anna/stereo.flac", "anna/other-rate.ogg"):
        assert (found[name]["ok"], found[name]["failed"]) == (True, []), name
        assert [*found[name]["scores"]] == [kind.name for kind in CHECKS]
    assert "silence_at_end" in found["anna/padded.wav"]["failed"]
    assert found["anna/padded.wav"]["scores"]["silence_at_end"] == pytest.approx(3.1, abs=0.05)
    others = {name: found[name]["failed"] for name in [*found][13:]}
    assert others == {
        "anna/nan.wav": ["not_a_number"],
        "anna/empty.wav": ["unreadable"],
        "gone é.wav": ["missing"],
        "noise.wav": ["unreadable"],
        "pipe.wav": ["unreadable"],
    }
    assert not any(found[name]["ok"] for name in others)
    assert found["gone é.wav"]["scores"] == {}


@pytest.mark.slow
def test_people_get_a_line_for_each_take_that_is_not_ok(takes: Path) -> None:
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", cwd=takes.parent)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "10 of 10 takes are ok\n", "")
    add(takes, "gone.wav", None)
    env = {"CLONER_CHECK_LIMITS": "silence_at_end=0.01"}
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", cwd=takes.parent, env=env)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 1
    assert lines[0] == "anna/0.wav: it ends with 0.1 s of silence (at most 0.01)"
    assert lines[-2:] == ["gone.wav: there is no such file", "0 of 11 takes are ok"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_take_that_breaks_what_measures_it_is_not_ok_and_the_others_are_checked(
    takes: Path, patch_module: ModulePatcher, as_json: bool
) -> None:
    change = """
        measure = module.measure

        def break_down(take):
            if len(take.samples) == 5:
                raise ValueError("five")
            return measure(take)

        module.measure = break_down
    """
    add(takes, "five.wav", speech(RATE)[:5])
    patch_module("cloner.checks.measures", change)
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", *["--json"] * as_json, cwd=takes.parent)
    assert (ran.returncode, ran.stderr) == (1, "")
    if as_json:
        found = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [one["ok"] for one in found] == [True] * 10 + [False]
        assert found[-1] == {"file": "five.wav", "ok": False, "failed": ["not_checked"], "scores": {}}
    else:
        sentence = "five.wav: it cannot be measured (ValueError: five)"
        assert ran.stdout.splitlines() == [sentence, "10 of 11 takes are ok"]


def test_a_check_that_breaks_leaves_the_others_their_word(takes: Path, patch_module: ModulePatcher) -> None:
    change = """
        def break_down(self, take, usual):
            return 1 / round(take.silence.end_s)

        module.Pause.score = break_down
    """
    add(takes, "padded.wav", np.concatenate([speech(RATE), np.zeros(3 * RATE, np.float32)]))
    patch_module("cloner.checks.catalogue", change)
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", "--json", cwd=takes.parent)
    assert (ran.returncode, ran.stderr) == (1, "")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert found[0]["failed"] == ["not_checked"]
    assert "pause" not in found[0]["scores"]
    assert found[0]["scores"]["loop"] > 0
    assert "silence_at_end" in found[-1]["failed"]
    assert "not_checked" not in found[-1]["failed"]
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", cwd=takes.parent)
    assert ran.stdout.startswith("anna/0.wav: the check pause broke: ZeroDivisionError: ")


def test_audio_that_the_list_does_not_have_is_a_warning(takes: Path) -> None:
    (takes / ".cloner").mkdir()
    for name in ("anna/more.WAV", "extra.flac", ".cloner/take.wav", "notes.txt"):
        (takes / name).touch()
    ran = run_cloner("check", "takes/", "--texts", "texts.jsonl", cwd=takes.parent)
    assert (ran.returncode, ran.stdout) == (0, "10 of 10 takes are ok\n")
    assert ran.stderr == (
        f"Audio files in {takes} that the list does not name, and that are not checked: 2, as extra.flac,"
        " anna/more.WAV\n"
    )


def test_a_bad_list_checks_nothing(takes: Path) -> None:
    with (takes.parent / "texts.jsonl").open("a") as lines:
        lines.write('{"file": "../secret.wav", "text": "x", "speaker": 1}\n{"file": 5}\n')
    ran = run_cloner("check", str(takes), "--texts", "texts.jsonl", "--json", cwd=takes.parent)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0] == "texts.jsonl: 4 problems, nothing was checked:"
    assert "line 11: file '../secret.wav' is not inside " in ran.stderr
    assert "line 12: text is missing; " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "env", "sentence"),
    [
        (["gone", "--texts", "texts.jsonl"], {}, "gone is not a folder: give the folder of the takes\n"),
        (
            ["takes", "--texts", "gone.jsonl"],
            {},
            "gone.jsonl: 1 problem, nothing was checked:\n  the file: it cannot be",
        ),
        (
            ["takes", "--texts", "texts.jsonl"],
            {"CLONER_CHECK_LIMITS": "volume=1"},
            "CLONER_CHECK_LIMITS='volume=1': no",
        ),
        (
            ["takes", "--texts", "texts.jsonl"],
            {"CLONER_CHECK_LIMITS": "pause=x"},
            "CLONER_CHECK_LIMITS='pause=x': give",
        ),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    takes: Path, arguments: list[str], env: dict[str, str], sentence: str
) -> None:
    ran = run_cloner("check", *arguments, cwd=takes.parent, env=env)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(sentence)
