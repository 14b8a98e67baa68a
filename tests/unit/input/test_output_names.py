"""Names of audio files: normalised, inside the output root, each used once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Batch
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from cloner.input.rows import Form, ReadOptions
from cloner.settings import Settings
from tests.support.batch_files import as_csv, problems, problems_of_tasks, read, save_recording, task, write, write_rows


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


ANNA = {"id": "anna", "reference": {"audio": "anna.wav", "text": "I am Anna."}}


@pytest.mark.parametrize("reference", ["anna.wav", "./refs/../anna.wav", "link.wav", "links/anna.wav"])
@pytest.mark.parametrize("output", ["anna.wav", "x/../anna.wav", "links/anna.wav"])
def test_an_output_that_is_a_reference_of_the_batch_is_refused(folder: Path, reference: str, output: str) -> None:
    (folder / "link.wav").symlink_to("anna.wav")
    (folder / "links").symlink_to(".")
    texts = ["One.", {"text": "Two.", "output": output}]
    path = write(
        folder / "b.json", {"speakers": [{**ANNA, "reference": {"audio": reference, "text": "I."}, "texts": texts}]}
    )
    for root in (folder, folder / "links"):
        (found,) = problems(path, out_root=root)
        assert "is the reference of speaker 'anna', which it would replace; give another output folder" in found
    assert read(path, out_root=folder / "out").total == 2
    assert read(path).total == 2, "where the output root is not known, it is the fleet's"


def test_an_output_that_is_the_reference_of_another_speaker_or_of_codes_is_refused(folder: Path) -> None:
    (folder / "codes.wav").write_bytes((folder / "refs/0.npy").read_bytes())
    rows = [
        task(0, speaker_id="a", npy_file="codes.wav"),
        task(1, speaker_id="b", output_file="codes.wav"),
        task(2, speaker_id="b", output_file="refs/0.wav"),
    ]
    (found,) = problems_of_tasks(folder, *rows, out_root=folder)
    assert found.startswith("tasks[1]: output_file 'codes.wav' is the reference of speaker 'a'")


def test_an_output_that_is_a_link_to_a_reference_is_none_as_the_link_alone_is_replaced(folder: Path) -> None:
    (folder / "new.wav").symlink_to("anna.wav")
    path = write(folder / "b.json", {"speakers": [{**ANNA, "texts": [{"text": "One.", "output": "new.wav"}]}]})
    assert read(path, out_root=folder).total == 1


def test_an_output_that_is_the_batch_file_is_refused(folder: Path) -> None:
    path = write(folder / "batch.wav", as_csv([task(output_file="batch.wav")]))
    with pytest.raises(BadBatch) as caught:
        read_batch(path, out_root=folder, references=None, options=ReadOptions(Form.CSV))
    assert "output_file 'batch.wav' is the batch file" in caught.value.message


def test_outputs_among_the_recordings_of_a_speaker_are_one_problem(folder: Path) -> None:
    for name in ("anna", "bob"):
        save_recording(folder / name / "a.wav", "I am here.")
    rows = [{"speaker_id": name, "text": "One."} for name in ("bob", "anna", "anna")]
    path = write_rows(folder, "csv", rows)
    (found,) = problems(path, out_root=folder, references=folder)
    assert found.startswith(
        "line 2: output_file 'bob/0001.wav' would lie among the recordings of speaker 'bob', as would 2 more outputs"
    )
    assert "(--out)" in found
    assert read(path, out_root=folder / "out", references=folder).total == 3
    inner = write_rows(folder, "csv", [{**row, "output_file": f"bob/new/{i}.wav"} for i, row in enumerate(rows)])
    assert read(inner, out_root=folder, references=folder).total == 3, "a folder in it is none of recordings"


def test_an_output_to_which_a_link_among_the_recordings_leads_is_refused(folder: Path) -> None:
    save_recording(folder / "out/anna/0001.wav", "I am here.")
    (folder / "refs/anna").mkdir()
    for name in ("0001.wav", "0001.lab"):
        (folder / "refs/anna" / name).symlink_to(folder / "out/anna" / name)
    path = write_rows(folder, "csv", [{"speaker_id": "anna", "text": "One."}])
    (found,) = problems(path, out_root=folder / "out", references=folder / "refs")
    assert found.startswith("line 2: output_file 'anna/0001.wav' is a recording of speaker 'anna', which it would")
    assert read(path, out_root=folder / "new", references=folder / "refs").total == 1


def test_outputs_of_a_fleet_are_compared_where_this_machine_sees_its_folder(folder: Path) -> None:
    save_recording(folder / "out/b/anna/a.wav", "I am here.")
    path = write_rows(folder, "csv", [{"speaker_id": "anna", "text": "One."}])
    assert path.stem == "b"

    def read(root: Path, prefix: str | None = None) -> Batch:
        settings = Settings(out_dir=root)
        options = ReadOptions(from_command_line=True)
        voices = folder / "out/b"
        return read_batch(path, out_root=None, references=voices, settings=settings, prefix=prefix, options=options)

    for root, prefix in ((folder / "out", None), (folder / "out", "./b"), (folder / "out/b", ""), (folder, "out/b")):
        with pytest.raises(BadBatch) as caught:
            read(root, prefix)
        (found,) = map(str, caught.value.problems)
        assert found.startswith("line 2: output_file 'anna/0001.wav' would lie among the recordings of speaker 'anna'")
        assert found.endswith(f"give another output folder than '{folder}/out/b' (--prefix)")
    assert read(folder / "out", "c").total == read(folder / "other").total == 1
    assert read(folder, "a\0b").total == 1, "the client refuses it"


def test_an_output_of_a_fleet_that_is_a_reference_is_refused(folder: Path) -> None:
    speaker = {**ANNA, "texts": [{"text": "One.", "output": "anna.wav"}]}
    path = write(folder / "b.json", {"speakers": [speaker]})
    with pytest.raises(BadBatch, match=r"output_file 'anna\.wav' is the reference of speaker 'anna', which it "):
        read_batch(path, out_root=None, references=None, settings=Settings(out_dir=folder), prefix="")
    assert read_batch(path, out_root=None, references=None, settings=Settings(out_dir=folder)).total == 1
