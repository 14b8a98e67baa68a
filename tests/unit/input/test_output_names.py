"""Names of audio files: normalised, inside the output root, each used once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch_files import problems, problems_of_tasks, read, task, write_rows


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("a.wav", "a.wav"),
        ("./a//b/../c.FLAC", "a/c.FLAC"),
        ("漢字/é.ogg", "漢字/é.ogg"),
        ("a.opus", "a.opus"),
        ("a.Mp3", "a.Mp3"),
        ("..a/b.wav", "..a/b.wav"),
        ("a/.cloner/b.wav", "a/.cloner/b.wav"),
    ],
)
def test_outputs_are_normalised(folder: Path, name: str, output: str) -> None:
    (speaker,) = read(write_rows(folder, "json", [task(output_file=name)])).speakers
    assert speaker.segments[0].output == output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../a.wav", "is not inside the output root"),
        ("a/../../b.wav", "is not inside the output root"),
        ("/a.wav", "is not inside the output root"),
        (".cloner/a.wav", "lies in .cloner"),
        ("a/../.cloner/a.wav", "lies in .cloner"),
        ("a", "is no audio file that can be written; let it end in .wav, .flac, .ogg, .opus or .mp3"),
        ("a.m4a", "is no audio file"),
        (".wav", "is no audio file"),
        ("a.wav/", "is also"),
        ("..", "is not inside"),
        (".", "is no audio file"),
        ("a\\b.wav", "has a backslash"),
        ("漢" * 84 + ".wav", "has a name of more than 255 bytes"),
        ("a\nb.wav", "has an unusable character (U+000A)"),
    ],
)
def test_invalid_outputs_are_refused(folder: Path, name: str, expected: str) -> None:
    found = problems_of_tasks(folder, task(0, output_file="a.wav"), task(1, output_file=name))
    assert len(found) == 1
    assert found[0].startswith("tasks[1]: ")
    assert expected in found[0]


def test_absolute_outputs_inside_the_root_are_accepted(folder: Path) -> None:
    path = write_rows(folder, "json", [task(output_file=f"{folder}/out/x/../0.wav")])
    (speaker,) = read(path, out_root=folder).speakers
    assert speaker.segments[0].output == "out/0.wav"
    assert "name it relative to the output root" in problems(path)[0]
    assert (
        f"name a file inside {folder / 'out'}"
        in problems_of_tasks(folder, task(output_file=f"{folder}/outside.wav"), out_root=folder / "out")[0]
    )
    assert problems_of_tasks(folder, task(output_file=f"{folder}"), out_root=folder)


def test_root_behind_a_link_is_recognised(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    for root, name in (("link", "real"), ("real", "link")):
        path = write_rows(folder, "json", [task(output_file=f"{folder}/{name}/new/0.wav")])
        (speaker,) = read(path, out_root=folder / root).speakers
        assert speaker.segments[0].output == "new/0.wav"


def test_one_output_for_two_segments_is_refused(folder: Path) -> None:
    rows = [task(0, output_file="a/b.wav"), task(1), task(2, output_file="./a//b.wav")]
    (found,) = problems_of_tasks(folder, *rows)
    assert found.startswith("tasks[2]: output_file './a//b.wav' is also the output of tasks[0]")


def test_file_that_is_also_a_folder_is_refused(folder: Path) -> None:
    rows = [task(0, output_file="a.wav/b/c.wav"), task(1, output_file="a.wav"), task(2, output_file="a.wav.wav")]
    (found,) = problems_of_tasks(folder, *rows)
    assert found.startswith("tasks[0]: output_file 'a.wav/b/c.wav' lies in a folder which is the output of tasks[1]")


@pytest.mark.parametrize("speaker_id", ["a/b", ".", "..", "/a"])
def test_id_that_cannot_name_a_folder_needs_output_files(folder: Path, speaker_id: str) -> None:
    rows = [task(0, speaker_id=speaker_id), task(1, speaker_id=speaker_id, output_file=...)]
    assert read(write_rows(folder, "json", rows[:1])).speakers[0].id == speaker_id
    (found,) = problems_of_tasks(folder, *rows)
    assert found.startswith(f"tasks[1]: speaker '{speaker_id}' cannot name the folder of its outputs; ")


def test_default_outputs_may_not_lie_in_the_housekeeping_folder(folder: Path) -> None:
    (found,) = problems_of_tasks(folder, task(0, speaker_id=".cloner", output_file=...))
    assert "lies in .cloner" in found
