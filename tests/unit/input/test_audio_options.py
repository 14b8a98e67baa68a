"""What a batch asks for of its audio: in the file, by the command, in names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cloner.batch import AudioFormat, AudioOptions, Batch
from cloner.input.batch_file import read_batch
from cloner.input.rows import ReadOptions
from cloner.validation import OUTPUT_ENDINGS
from tests.support.batch_files import as_csv, problems, save_recording, task, write

ASKED = {"format": "opus", "rate": 24_000, "loudness": -16, "trim": True}
MEANT = AudioOptions(format=AudioFormat.OPUS, rate=24_000, loudness=-16, trim=True)


def read(path: Path, **audio: object) -> Batch:
    options = ReadOptions(audio=audio, reference=path.parent / "anna.wav", reference_text="Said.")
    if path.suffix not in {".txt", ".srt"}:
        options = ReadOptions(audio=audio)
    return read_batch(path, out_root=None, references=None, options=options)


def outputs(batch: Batch) -> list[str]:
    return [segment.output for speaker in batch.speakers for segment in speaker.segments]


@pytest.mark.parametrize("name", ["b.json", "b.yaml"])
def test_a_file_has_them_for_all_of_its_outputs(folder: Path, name: str) -> None:
    tasks = [task(0, output_file=...), task(1), task(2, output_file="two.FLAC")]
    batch = read(
        write(
            folder / name,
            yaml.safe_dump({"tasks": tasks, "audio": ASKED}) if ".y" in name else {"tasks": tasks, "audio": ASKED},
        )
    )
    assert batch.audio == MEANT
    assert outputs(batch) == ["0/0001.opus", "out/1.wav", "two.FLAC"], "an explicit ending beats the format"


def test_without_them_a_batch_is_plain_wav(folder: Path) -> None:
    batch = read(write(folder / "b.json", {"tasks": [task(output_file=...)]}))
    assert batch.audio == AudioOptions()
    assert outputs(batch) == ["0/0001.wav"]


def test_what_the_command_gives_comes_before_the_file(folder: Path) -> None:
    path = write(folder / "b.json", {"tasks": [task(output_file=...)], "audio": ASKED})
    assert read(path, format=AudioFormat.FLAC, loudness=-20.0).audio == AudioOptions(
        format=AudioFormat.FLAC, rate=24_000, loudness=-20, trim=True
    )
    assert outputs(read(path, format=AudioFormat.FLAC)) == ["0/0001.flac"]


def test_forms_without_keys_for_the_batch_take_them_from_the_command(folder: Path) -> None:
    path = write(folder / "b.csv", as_csv([task(output_file=...)]))
    assert read(path, **ASKED).audio == MEANT
    assert outputs(read(path, format="mp3")) == ["0/0001.mp3"]


@pytest.mark.parametrize(
    ("name", "content", "output"),
    [
        ("b.txt", "Good morning.", "anna/0001.mp3"),
        ("b.srt", "7\n00:00:01,000 --> 00:00:02,000\nGood morning.\n", "anna/0007.mp3"),
        ("b.list", "anna.wav|anna|EN|Good morning.", "anna/anna.mp3"),
        ("b.lst", "hello|Said.|anna.wav|Good morning.", "hello.mp3"),
    ],
)
def test_names_that_follow_from_the_file_have_the_format(folder: Path, name: str, content: str, output: str) -> None:
    save_recording(folder / "anna.wav")
    assert outputs(read(write(folder / name, content), format=AudioFormat.MP3)) == [output]


def test_each_wrong_value_is_named(folder: Path) -> None:
    path = write(
        folder / "b.yaml", "audio: {rate: 1, trim: yes, loudness: 3, rate: 2}\ntasks: [{speaker_id: 0, text: a}]\n"
    )
    found = [problem for problem in problems(path) if problem.startswith("audio")]
    assert found == [
        "audio: the key 'rate' appears more than once; keep one",
        "audio: rate is 2; it should be greater than or equal to 8000",
        "audio: loudness is 3; it should be less than or equal to -5",
        "audio: trim is yes, which YAML reads as true; it should be a valid boolean",
    ]


@pytest.mark.parametrize("rate", [65_537, 96_001, 191_999])
def test_flac_has_no_odd_rates_above_16_bits(folder: Path, rate: int) -> None:
    asked = {"format": "flac", "rate": rate}
    assert problems(write(folder / "a.json", {"tasks": [task(output_file=...)], "audio": asked})) == [
        f"audio: rate is {rate}; it should be at most 65535, or a multiple of 10 for flac"
    ]
    path = write(folder / "b.json", {"tasks": [task(output_file="a.flac")], "audio": {"rate": rate}})
    (problem,) = problems(path)
    assert f"cannot have the rate {rate}" in problem
    assert "let the rate be at most 65535, or a multiple of 10, or name another format" in problem


@pytest.mark.parametrize("rate", [11_111, 65_535, 65_540, 96_010, 192_000])
def test_flac_has_the_other_rates(folder: Path, rate: int) -> None:
    asked = {"format": "flac", "rate": rate}
    assert read(write(folder / "a.json", {"tasks": [task(output_file=...)], "audio": asked})).audio.rate == rate


def test_the_formats_are_the_endings_that_outputs_may_have() -> None:
    assert tuple(f".{audio_format}" for audio_format in AudioFormat) == OUTPUT_ENDINGS
