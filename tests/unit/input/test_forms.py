"""Texts of one speaker, and the lists of other programs."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cloner.batch import Reference, ReferenceKind
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from cloner.input.rows import Form, ReadOptions
from tests.support.batch_files import save_recording, write

Read = list[tuple[str, str, str, Reference]]


def read(path: Path, **options: Any) -> Read:
    """Speaker, text, output and reference of each segment."""
    batch = read_batch(path, out_root=None, references=None, options=ReadOptions(**options))
    return [
        (speaker.id, segment.text, segment.output, speaker.reference)
        for speaker in batch.speakers
        for segment in speaker.segments
    ]


def recording(path: Path, text: str) -> Reference:
    return Reference(ReferenceKind.AUDIO, (path,), text)


class TestOneSpeaker:
    @pytest.fixture
    def anna(self, tmp_path: Path) -> Path:
        """A recording that is not in the batch's folder."""
        (tmp_path / "batch").mkdir()
        return save_recording(tmp_path / "elsewhere/anna.wav")

    def test_a_sentence_a_line(self, tmp_path: Path, anna: Path) -> None:
        path = write(tmp_path / "batch/b.txt", "\ufeffGood morning.\r\n\r\n  How are you?  \r\nBye.")
        found = read(path, reference=anna, reference_text="I am Anna.")
        assert [row[:2] for row in found] == [("anna", "Good morning."), ("anna", "How are you?"), ("anna", "Bye.")]
        assert {row[3] for row in found} == {recording(anna, "I am Anna.")}

    @pytest.mark.parametrize("ending", [".lab", ".txt"])
    def test_the_transcript_lies_beside_the_recording(self, tmp_path: Path, anna: Path, ending: str) -> None:
        write(anna.with_suffix(ending), "I am Anna.\n")
        ((*_, reference),) = read(write(tmp_path / "batch/b.txt", "Hello."), reference=anna)
        assert reference == recording(anna, "I am Anna.")

    def test_a_lab_comes_before_a_txt_which_may_be_the_batch_itself(self, anna: Path) -> None:
        path = write(anna.with_suffix(".txt"), "Hello.")
        write(anna.with_suffix(".lab"), "I am Anna.")
        assert [row[1:] for row in read(path, reference=anna)] == [
            ("Hello.", "anna/0001.wav", recording(anna, "I am Anna."))
        ]

    def test_a_path_from_the_current_folder(self, tmp_path: Path, anna: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(anna.parent)
        path = write(tmp_path / "batch/b.txt", "Hello.")
        ((*_, reference),) = read(path, reference=Path("anna.wav"), reference_text="Said.")
        assert reference.paths == (anna,)

    def test_codes_may_be_the_reference(self, folder: Path) -> None:
        path = write(folder / "b.txt", "Hello.")
        ((speaker, *_, reference),) = read(path, reference=folder / "refs/0.npy", reference_text="Said.")
        assert (speaker, reference.kind) == ("0", ReferenceKind.CODES)

    def test_subtitles(self, tmp_path: Path, anna: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cues = [
            "1\n00:00:01,000 --> 00:00:02,500\n<i>Good</i>\nmorning, <font color='#fff'>Ben</font>.",
            "\n3\n00:00:03.000 --> 00:00:04.000 X1:40\n{\\an8}5 < 6",
            "4\n00:00:05,000 --> 00:00:06,000\n<i></i>",
            "12\n01:00:05,000 --> 01:00:06,000\nBye.\n",
        ]
        path = write(tmp_path / "batch/b.srt", "\n\n".join(cues))
        found = read(path, reference=anna, reference_text="I am Anna.")
        assert [row[1:3] for row in found] == [
            ("Good morning, Ben.", "anna/0001.wav"),
            ("5 < 6", "anna/0003.wav"),
            ("Bye.", "anna/0012.wav"),
        ]
        warning = f"{path}: line 11: cue 4 has no text, and is left out; give it one if it should be spoken\n"
        assert capsys.readouterr().err == warning

    def test_many_warnings_are_counted(self, tmp_path: Path, anna: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cues = [f"{cue}\n00:00:01,000 --> 00:00:02,000\n{'' if cue else 'Hello.'}\n" for cue in range(31)]
        path = write(tmp_path / "batch/b.srt", "\n".join(cues))
        assert len(read(path, reference=anna, reference_text="I am Anna.")) == 1
        warnings = capsys.readouterr().err.splitlines()
        assert len(warnings) == 21
        assert warnings[-1] == f"{path}: 10 more warnings"


class TestLists:
    @pytest.fixture
    def wavs(self, tmp_path: Path) -> Path:
        for name in ("one", "two"):
            save_recording(tmp_path / f"wavs/{name}.wav")
        return tmp_path / "wavs"

    def test_gpt_sovits(self, tmp_path: Path, wavs: Path) -> None:
        lines = [r"wavs\one.wav|anna|EN|Good morning.", f"{wavs}/two.wav|anna|ZH|你好。", "wavs/one.wav|ben|EN|Bye."]
        assert read(write(tmp_path / "b.list", "\n".join(lines))) == [
            ("anna/one", "Good morning.", "anna/one.wav", recording(wavs / "one.wav", "Good morning.")),
            ("anna/two", "你好。", "anna/two.wav", recording(wavs / "two.wav", "你好。")),
            ("ben/one", "Bye.", "ben/one.wav", recording(wavs / "one.wav", "Bye.")),
        ]

    def test_ljspeech(self, tmp_path: Path, wavs: Path) -> None:
        content = 'one|He said "5 of them|He said "five of them\ntwo|In being.\n'
        speaker = tmp_path.name
        assert read(write(tmp_path / "metadata.csv", content)) == [
            (
                f"{speaker}/one",
                'He said "five of them',
                f"{speaker}/one.wav",
                recording(wavs / "one.wav", 'He said "five of them'),
            ),
            (f"{speaker}/two", "In being.", f"{speaker}/two.wav", recording(wavs / "two.wav", "In being.")),
        ]

    def test_seed_tts_eval(self, tmp_path: Path, wavs: Path) -> None:
        content = "a-1|I am one.|wavs/one.wav|First.\na-2|I am one.|wavs/one.wav|Second.|gt/a-2.wav\n"
        one = recording(wavs / "one.wav", "I am one.")
        assert read(write(tmp_path / "meta.lst", content)) == [
            ("wavs/one", "First.", "a-1.wav", one),
            ("wavs/one", "Second.", "a-2.wav", one),
        ]

    @pytest.mark.parametrize("name", ["b.jsonl", "manifest.json", "b.ndjson"])
    def test_nemo(self, tmp_path: Path, wavs: Path, name: str) -> None:
        lines = [
            {"audio_filepath": "wavs/one.wav", "text": "First.", "duration": 1.0, "lang": "en", "offset": 0.0},
            {"audio_filepath": str(wavs / "two.wav"), "duration": 1, "text": "Second.", "speaker": 12},
        ]
        assert read(write(tmp_path / name, "\n".join(map(json.dumps, lines)))) == [
            ("wavs/one", "First.", "wavs/one.wav", recording(wavs / "one.wav", "First.")),
            ("12/two", "Second.", "12/two.wav", recording(wavs / "two.wav", "Second.")),
        ]

    @pytest.mark.usefixtures("wavs")
    def test_a_form_may_be_named(self, tmp_path: Path) -> None:
        path = write(tmp_path / "train.txt", "wavs/one.wav|anna|EN|Good morning.")
        assert [row[0] for row in read(path, form=Form.GPT_SOVITS)] == ["anna/one"]


def test_standard_input_has_paths_from_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    content = "speaker;text;npy_file;reference_text\nanna;Grüße.;refs/0.npy;Said.\n".encode("cp1252")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    ((speaker, text, _, reference),) = read(Path("-"), form=Form.CSV)
    assert (speaker, text) == ("anna", "Grüße.")
    assert reference.paths == (folder / "refs/0.npy",)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "the file: it is a folder; give the path of a batch file in it"),
        ("missing", "the file: there is no such file; give the path of a batch file"),
        ("other", "the file: the ending '' is not known; name it .json"),
    ],
)
def test_what_has_no_ending_is_named_as_what_it_is(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").touch()
    with pytest.raises(BadBatch) as caught:
        read(tmp_path / name)
    (found,) = map(str, caught.value.problems)
    assert found.startswith(problem)


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadBatch, match="standard input is closed; give the path of a batch file"):
        read(Path("-"), form=Form.CSV)
