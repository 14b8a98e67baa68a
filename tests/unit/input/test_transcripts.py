"""Transcripts that lie beside the recording, or the codes, of a reference, and those that a recogniser writes there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloner.batch import Batch
from cloner.errors import BadBatch, BadSetting, MissingPackage
from cloner.events import Event
from cloner.input.batch_file import read_batch
from cloner.input.rows import Form, ReadOptions
from cloner.output.record import Record, RecordWriter
from cloner.recogniser.whisper import HeardWord, Recogniser, Recognition
from cloner.settings import Settings
from tests.support.batch_files import as_csv, problems, read, save_recording, task, write
from tests.support.log_lines import find_lines
from tests.support.records import segment_result

GROUP = {"id": "anna", "reference": {"audio": "anna.wav"}, "texts": ["One."]}


@pytest.fixture
def batches(folder: Path) -> dict[str, Path]:
    """Batch files of each form that may leave a transcript out."""
    rows = [task(reference_text=...)]
    return {
        "a group with a recording": write(folder / "a.json", {"speakers": [GROUP]}),
        "a group with codes": write(folder / "b.json", {"speakers": [{**GROUP, "reference": {"codes": "refs/0.npy"}}]}),
        "flat rows": write(folder / "c.json", {"tasks": rows}),
        "a table": write(folder / "d.csv", as_csv(rows)),
    }


@pytest.mark.parametrize("ending", [".lab", ".txt"])
def test_every_form_may_leave_the_transcript_to_a_file(folder: Path, batches: dict[str, Path], ending: str) -> None:
    for name in ("anna", "refs/0"):
        write(folder / f"{name}{ending}", "\ufeffSaid here.\r\n")
    for form, path in batches.items():
        assert read(path).speakers[0].reference.text == "Said here.", form


def test_a_batch_has_precedence_over_files_and_a_lab_over_a_txt(folder: Path) -> None:
    write(folder / "anna.lab", "From the lab.")
    write(folder / "anna.txt", "From the txt.")
    given = {**GROUP, "id": "ben", "reference": {"audio": "anna.wav", "text": "From the batch."}}
    batch = read(write(folder / "b.json", {"speakers": [GROUP, given]}))
    assert [speaker.reference.text for speaker in batch.speakers] == ["From the lab.", "From the batch."]


def test_without_one_the_files_are_named(batches: dict[str, Path]) -> None:
    for path in batches.values():
        (found,) = problems(path)
        stem = "anna" if "a.json" in str(path) else "0"
        assert f"has no transcript: neither {stem}.lab nor {stem}.txt is beside it; write what is said in it" in found
        assert f"into {stem}.lab, or give it in the batch" in found
        assert ("CLONER_RECOGNISER may name a model" in found) == (stem == "anna"), "codes cannot be recognised"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b" \n", "the transcript is blank"), (b"\xff\xfe", "is not UTF-8"), (b"a" * 600_000, "has 600000 bytes")],
)
def test_one_that_cannot_be_used_is_named(folder: Path, content: bytes, expected: str) -> None:
    (folder / "anna.lab").write_bytes(content)
    (found,) = problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert f"anna.lab': the transcript {expected.removeprefix('the transcript ')}" in found


def test_a_recording_whose_transcript_would_have_too_long_a_name(folder: Path) -> None:
    name = "a" * 252 + ".au"
    (folder / "anna.wav").rename(folder / name)
    (found,) = problems(write(folder / "b.json", {"speakers": [{**GROUP, "reference": {"audio": name}}]}))
    assert "has no transcript: neither " in found


def test_what_a_batch_has_written_into_a_folder_of_recordings_is_none_unless_it_has_a_transcript(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voices = folder / "voices"
    save_recording(voices / "anna/own.wav", "I am Anna.")
    written = save_recording(voices / "anna/0001.wav")
    status = written.stat()
    changes = {"output": "anna/0001.wav", "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    with RecordWriter(Record(voices, "20260101-000000-abcdef"), "w") as record:
        record.append(segment_result(0, **changes))
    path = write(folder / "b.csv", "speaker,text\nanna,One.\n")
    (anna,) = read(path, references=voices).speakers
    assert anna.reference.paths == (voices / "anna/own.wav",)
    warning = capsys.readouterr().err
    assert "references: left out, as batches have written it without a transcript: '" in warning
    assert "/0001.wav'; keep recordings and outputs in folders of their own" in warning

    write(written.with_suffix(".lab"), "It is to be one.")
    (anna,) = read(path, references=voices).speakers
    assert anna.reference.paths == (written, voices / "anna/own.wav")

    written.with_suffix(".lab").unlink()
    os.utime(written, ns=(0, 0))  # something else has written it since
    (found,) = problems(path, references=voices)
    assert "0001.wav' has no transcript" in found


def test_one_that_leads_elsewhere_is_refused(folder: Path) -> None:
    (folder / "anna.lab").symlink_to("/etc/passwd")
    (found,) = problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert "leads to '/etc/passwd', outside of the batch's folder" in found


RECOGNISED = Settings(recogniser=Path("a-model"))

Hears = Callable[[str], list[float]]


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> Hears:
    """Let the recogniser hear a text, in place of its model; returns a list for the seconds of each recording."""

    def install(text: str) -> list[float]:
        recordings: list[float] = []

        def hear(_self: Recogniser, samples: object, rate: int) -> Recognition:
            recordings.append(len(samples) / rate)  # type: ignore[arg-type]
            return Recognition((HeardWord(text, 0.0),) if text else (), "en", 0.93)

        monkeypatch.setattr(Recogniser, "hear", hear)
        return recordings

    return install


def recognised(path: Path, references: Path | None = None, settings: Settings = RECOGNISED) -> Batch:
    return read_batch(path, out_root=None, references=references, settings=settings)


def recognition_problems(path: Path) -> list[str]:
    with pytest.raises(BadBatch) as caught:
        recognised(path)
    return [str(problem) for problem in caught.value.problems]


def test_a_missing_one_is_recognised_once_and_shown(
    folder: Path, hears: Hears, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = write(folder / "b.json", {"speakers": [GROUP, {**GROUP, "id": "ben"}]})
    recordings = hears("Said here.")
    assert [speaker.reference.text for speaker in recognised(batch).speakers] == ["Said here."] * 2
    assert (folder / "anna.lab").read_text() == "Said here.\n"
    log = capsys.readouterr().err.splitlines()
    (line,) = find_lines(log, Event.TRANSCRIPT_WRITTEN, language="en", certainty=0.93, text="Said here.")
    assert find_lines([line], Event.TRANSCRIPT_WRITTEN, recording=folder / "anna.wav", transcript=folder / "anna.lab")
    write(folder / "anna.lab", "Corrected here.")
    assert recognised(batch).speakers[0].reference.text == "Corrected here."
    assert recordings == [1.0]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_those_in_a_folder_of_references_are_recognised_too(folder: Path, hears: Hears) -> None:
    save_recording(folder / "voices/anna/1.wav", "One.")
    save_recording(folder / "voices/anna/2.wav")
    hears("Two.")
    batch = recognised(write(folder / "b.csv", "speaker,text\nanna,Hello.\n"), folder / "voices")
    assert batch.speakers[0].reference.text == "One. Two."
    assert (folder / "voices/anna/2.lab").exists()


def test_what_is_there_and_what_is_no_recording_is_not_recognised(folder: Path, hears: Hears) -> None:
    recordings = hears("Not said.")
    write(folder / "anna.txt", "Said here.")
    assert recognised(write(folder / "b.json", {"speakers": [GROUP]})).speakers[0].reference.text == "Said here."
    (found,) = recognition_problems(write(folder / "c.json", {"tasks": [task(reference_text=...)]}))
    assert "0.npy' has no transcript: neither 0.lab nor 0.txt is beside it; write" in found
    assert recordings == []


def test_none_is_recognised_before_all_else_is_right(folder: Path, hears: Hears) -> None:
    recordings = hears("Said here.")
    save_recording(folder / "voices/ben/1.wav")
    groups = [GROUP, {"id": "ben", "texts": ["One."]}, {**GROUP, "id": "carla", "reference": {"audio": "none.wav"}}]
    batch = write(folder / "b.json", {"speakers": groups})
    with pytest.raises(BadBatch) as caught:
        recognised(batch, folder / "voices")
    assert [problem.where for problem in caught.value.problems] == ["speakers[2].reference"]
    assert recordings == []
    save_recording(folder / "none.wav")
    assert {speaker.reference.text for speaker in recognised(batch, folder / "voices").speakers} == {"Said here."}
    assert len(recordings) == 3


def test_a_recording_without_speech_is_named(folder: Path, hears: Hears) -> None:
    hears("")
    (found,) = recognition_problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert "anna.wav' has no transcript, and no speech is recognised in it; write what is said in it into" in found
    assert "CLONER_RECOGNISER" not in found
    assert not (folder / "anna.lab").exists()


@pytest.mark.parametrize("text", ["", "a\x1b[31mb"], ids=["nothing", "control characters"])
def test_a_recording_in_which_nothing_is_recognised_is_heard_once(folder: Path, hears: Hears, text: str) -> None:
    recordings = hears(text)
    problems = recognition_problems(write(folder / "b.json", {"speakers": [GROUP, {**GROUP, "id": "ben"}]}))
    assert problems
    assert all("no speech is recognised in it" in problem for problem in problems)
    assert recordings == [1.0]
    assert not (folder / "anna.lab").exists()


@pytest.mark.parametrize("taken", ["nothing.txt", "anna.lab"], ids=["a link to nothing", "a loop"])
def test_one_that_is_recognised_replaces_nothing(folder: Path, hears: Hears, taken: str) -> None:
    (folder / "anna.lab").symlink_to(taken)
    hears("Said here.")
    (found,) = recognition_problems(write(folder / "b.json", {"speakers": [GROUP]}))
    assert "anna.lab, which would have what is recognised in it, cannot be written (File exists)" in found
    assert (folder / "anna.lab").readlink() == Path(taken)
    assert not (folder / "nothing.txt").exists()


def test_a_batch_file_of_that_name_is_neither_read_nor_replaced(folder: Path, hears: Hears) -> None:
    batch = write(folder / "anna.lab", "Hello.\n")
    hears("Said here.")
    with pytest.raises(BadBatch, match=r"cannot be written \(File exists\)"):
        read_batch(
            batch,
            out_root=None,
            references=None,
            settings=RECOGNISED,
            options=ReadOptions(form=Form.TXT, reference=folder / "anna.wav"),
        )
    assert batch.read_text() == "Hello.\n"


def test_none_is_written_outside_of_the_batch_s_folders(
    folder: Path, hears: Hears, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "anna.wav").symlink_to(folder / "anna.wav")
    recordings = hears("Said here.")
    group = {**GROUP, "reference": {"audio": str(elsewhere / "anna.wav")}}
    (found,) = recognition_problems(write(folder / "b.json", {"speakers": [group]}))
    assert f"'{elsewhere}/anna.lab' lies outside of the batch's folder" in found
    assert recordings == []


def test_the_recording_that_a_command_names_gets_one_beside_it(
    folder: Path, hears: Hears, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save_recording(elsewhere / "ben.wav")
    monkeypatch.chdir(elsewhere)
    hears("Said here.")
    options = ReadOptions(reference=Path("ben.wav"))
    batch = write(folder / "b.txt", "Hello.\n")
    found = read_batch(batch, out_root=None, references=None, settings=RECOGNISED, options=options)
    assert found.speakers[0].reference.text == "Said here."
    assert (elsewhere / "ben.lab").exists()


def test_a_temporary_file_that_a_killed_run_left_is_replaced(folder: Path, hears: Hears) -> None:
    write(folder / ".anna.lab.part", "Sa")
    hears("Said here.")
    recognised(write(folder / "b.json", {"speakers": [GROUP]}))
    assert (folder / "anna.lab").read_text() == "Said here.\n"
    assert not (folder / ".anna.lab.part").exists()


def test_a_model_that_is_not_there_is_one_sentence(folder: Path) -> None:
    with pytest.raises(BadSetting, match=r"^CLONER_RECOGNISER='small': .* run `cloner recogniser pull small`, or name"):
        recognised(
            write(folder / "b.json", {"speakers": [GROUP]}),
            settings=Settings(recogniser=Path("small"), recogniser_cache=folder),
        )


def test_a_package_that_is_not_there_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model").mkdir()
    for name in ("config.json", "model.bin", "tokenizer.json"):
        write(folder / "model" / name, "{}")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingPackage, match=r"CLONER_RECOGNISER asks for it: run `pip install '\.\[asr\]'`"):
        recognised(write(folder / "b.json", {"speakers": [GROUP]}), settings=Settings(recogniser=folder / "model"))


def test_a_recogniser_that_is_not_needed_need_not_be_there(folder: Path) -> None:
    write(folder / "anna.lab", "Said here.")
    batch = recognised(write(folder / "b.json", {"speakers": [GROUP]}))
    assert batch.speakers[0].reference.text == "Said here."
