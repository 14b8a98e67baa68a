"""Batch files: every form, and all problems of a batch at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cloner.batch import Generation, Reference, ReferenceKind, Segment
from cloner.input.text_file import MAX_BYTES
from tests.support.batch_files import as_csv, problems, problems_of_tasks, read, save_recording, task, write, write_rows
from tests.support.batches import write_batch


class TestForms:
    def test_flat_json(self, tmp_path: Path) -> None:
        path = write_batch(tmp_path, checkpoint_dir="checkpoints/openaudio-s1-mini", generation={"temperature": 1})
        batch = read(path)
        assert batch.source == path
        assert batch.checkpoint_dir == "checkpoints/openaudio-s1-mini"
        assert batch.generation == Generation(temperature=1.0)
        assert batch.total == 46
        assert [speaker.id for speaker in batch.speakers] == ["0", "1", "2", "3", "4", "5"]
        assert [len(speaker.segments) for speaker in batch.speakers] == [8, 8, 8, 7, 8, 7]
        assert batch.speakers[1].segments[0] == Segment(8, "Sentence 8 of the batch.", "audio/8.wav")
        (reference_path,) = batch.speakers[1].reference.paths
        assert reference_path == tmp_path / "refs/spk1.npy"
        assert batch.speakers[1].reference.text == "This is speaker 1."

    @pytest.mark.parametrize("form", ["jsonl", "ndjson", "csv"])
    def test_the_same_rows_in_other_forms_are_the_same_batch(self, folder: Path, form: str) -> None:
        rows = [
            task(0, speaker_id="b", target_text='Commas, "quotes"\nand 漢字'),
            task(7, speaker_id="a", npy_file="refs/1.npy"),
            task(3, speaker_id="b"),
        ]
        flat = read(write_rows(folder, "json", rows))
        other = read(write_rows(folder, form, rows))
        assert other.speakers == flat.speakers
        assert [segment.index for segment in flat.speakers[0].segments] == [0, 3]

    @pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
    def test_grouped_form(self, folder: Path, ending: str) -> None:
        content = {
            "speakers": [
                {"id": "anna", "reference": {"audio": "anna.wav", "text": "I am Anna."}, "texts": ["One.", "Two."]},
                {"id": 5, "reference": {"codes": "refs/0.npy", "text": "Said."}, "texts": ["Three."]},
            ],
            "generation": {"seed": 4},
        }
        anna, five = read(write(folder / f"b.{ending}", content)).speakers
        assert anna.id == "anna"
        assert anna.reference == Reference(ReferenceKind.AUDIO, (folder / "anna.wav",), "I am Anna.")
        assert anna.segments == (Segment(0, "One.", "anna/0001.wav"), Segment(1, "Two.", "anna/0002.wav"))
        assert five.id == "5"
        assert five.reference == Reference(ReferenceKind.CODES, (folder / "refs/0.npy",), "Said.")
        assert five.segments == (Segment(2, "Three.", "5/0001.wav"),)

    @pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
    def test_a_row_may_have_an_id_and_a_seed(self, folder: Path, form: str) -> None:
        (speaker,) = read(write_rows(folder, form, [task(0, id="intro", seed=3, output_file="a.wav")])).speakers
        assert speaker.segments == (Segment(0, "Text 0.", "a.wav", "intro", 3),)

    def test_a_text_may_be_an_object(self, folder: Path) -> None:
        texts = ["One.", {"text": "Two.", "output": "intro.wav", "seed": 3, "id": 7}]
        content = {"speakers": [{"id": "anna", "reference": {"audio": "anna.wav", "text": "I."}, "texts": texts}]}
        (anna,) = read(write(folder / "b.yaml", content)).speakers
        assert anna.segments == (Segment(0, "One.", "anna/0001.wav"), Segment(1, "Two.", "intro.wav", "7", 3))

    @pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
    def test_a_row_may_have_a_language(self, folder: Path, form: str) -> None:
        rows = [task(0, language="DE"), task(1, language="pt-br"), task(2), task(3, language="zh-hant-TW")]
        (speaker,) = read(write_rows(folder, form, rows)).speakers
        assert [segment.language for segment in speaker.segments] == ["de", "pt-BR", "", "zh-Hant-TW"]

    def test_a_texts_language_comes_before_its_speakers(self, folder: Path) -> None:
        reference = {"audio": "anna.wav", "text": "I."}
        texts = ["Eins.", {"text": "Two.", "language": "en"}]
        content = {
            "speakers": [
                {"id": "anna", "language": "de", "reference": reference, "texts": texts},
                {"id": "ben", "reference": reference, "texts": texts},
            ]
        }
        anna, ben = read(write(folder / "b.yaml", content)).speakers
        assert [segment.language for segment in anna.segments] == ["de", "en"]
        assert [segment.language for segment in ben.segments] == ["", "en"]

    def test_yaml_as_people_write_it(self, folder: Path) -> None:
        content = """
        speakers:
          - id: anna
            reference: {audio: anna.wav, text: "I am Anna."}
            texts:
              - One text, without quotes.
              - |
                Two
                lines.
        """
        (anna,) = read(write(folder / "b.yaml", content)).speakers
        assert [segment.text for segment in anna.segments] == ["One text, without quotes.", "Two\nlines.\n"]

    @pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
    @pytest.mark.parametrize("key", ["text", "target_text"])
    def test_rows_with_speaker_and_text_and_a_folder_of_references_are_enough(
        self, folder: Path, form: str, key: str
    ) -> None:
        save_recording(folder / "voices/anna/a.wav", "I am Anna.")
        save_recording(folder / "voices/bob/a.wav", "I am Bob.")
        rows = [{"speaker_id": name, key: f"{name} speaks."} for name in ("anna", "bob", "anna")]
        anna, bob = read(write_rows(folder, form, rows), references=folder / "voices").speakers
        assert anna.reference.paths == (folder / "voices/anna/a.wav",)
        assert anna.reference.text == "I am Anna."
        assert [(segment.index, segment.output) for segment in anna.segments] == [
            (0, "anna/0001.wav"),
            (2, "anna/0002.wav"),
        ]
        assert bob.segments == (Segment(1, "bob speaks.", "bob/0001.wav"),)

    def test_grouped_speakers_may_have_their_reference_in_the_folder(self, folder: Path) -> None:
        save_recording(folder / "voices/7/a.wav", "I am Seven.")
        path = write(folder / "b.json", {"speakers": [{"id": 7, "texts": ["One."]}]})
        (seven,) = read(path, references=folder / "voices").speakers
        assert seven.reference.text == "I am Seven."

    def test_a_rows_own_reference_takes_precedence_over_the_folder(self, folder: Path) -> None:
        save_recording(folder / "voices/0/a.wav", "From the folder.")
        (speaker,) = read(write_rows(folder, "json", [task()]), references=folder / "voices").speakers
        assert speaker.reference.text == "Said."

    def test_byte_order_mark_and_windows_line_ends_are_accepted(self, folder: Path) -> None:
        rows = [task(0, target_text="a\r\nb"), task(1)]
        for form in ("jsonl", "csv"):
            path = write_rows(folder, form, rows)
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\n", "\r\n")
            path.write_bytes(b"\xef\xbb\xbf" + text.encode())
            (speaker,) = read(path).speakers
            assert [segment.text for segment in speaker.segments] == ["a\nb", "Text 1."]

    def test_line_separators_inside_json_texts_do_not_end_a_line(self, folder: Path) -> None:
        content = json.dumps(task(target_text="a\u2028b"), ensure_ascii=False)
        (speaker,) = read(write(folder / "b.jsonl", f"\n{content}\n\n")).speakers
        assert speaker.segments[0].text == "a\u2028b"

    def test_null_means_left_out(self, folder: Path) -> None:
        rows = [task(output_file=None, segment_index=None)]
        (speaker,) = read(
            write(folder / "b.json", {"tasks": rows, "generation": None, "checkpoint_dir": None})
        ).speakers
        assert speaker.segments == (Segment(0, "Text 0.", "0/0001.wav"),)

    def test_relative_references_do_not_depend_on_the_working_directory(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_rows(folder, "json", [task()])
        monkeypatch.chdir(folder.parent)
        (speaker,) = read(Path(folder.name) / "b.json").speakers
        assert speaker.reference.paths == (folder / "refs/0.npy",)


class TestEveryProblemAtOnce:
    def test_all_bad_rows_are_listed_with_their_places(self, folder: Path) -> None:
        rows = [
            task(0),
            task(1, target_text=...),
            task(2, speaker_id=True, target_text=" "),
            task(0, output_file="out/3.wav"),
            task(4, output_file="../4.wav"),
            task(5, npy_file="refs/none.npy", speaker_id=9),
            "no row",
        ]
        content = {"tasks": rows, "generation": {"temperature": 7}, "checkpoint_dir": 3, "generations": {}}
        expected = [
            "generation: temperature is 7; it should be less than 2",
            "checkpoint_dir: it is 3; give the name of a folder",
            "the file: the key 'generations' is not known; did you mean \"generation\"?",
            "tasks[1]: target_text is missing; give the text to speak",
            "tasks[2]: speaker_id is true; give a whole number or a name",
            "tasks[2]: target_text is blank; give the text to speak",
            "tasks[3]: segment_index 0 is also that of tasks[0]; number every segment once",
            "tasks[4]: output_file '../4.wav' is not inside the output root; name it relative to the output root",
            "tasks[6]: it is 'no row'; give an object",
            f"tasks[5]: '{folder}/refs/none.npy': there is no such file; give the .npy that fish-speech's codec wrote",
        ]
        assert problems(write(folder / "b.json", content)) == expected

    def test_a_recording_in_place_of_codes_is_refused_with_the_command_that_encodes_it(self, folder: Path) -> None:
        (found,) = problems_of_tasks(folder, task(npy_file="anna.wav"))
        assert found.endswith("; give the .npy of its codes, which `cloner encode` makes of a recording")

    def test_json_lines_name_their_lines(self, folder: Path) -> None:
        lines = [json.dumps(task(0)), "", '{"speaker_id": 0,', json.dumps(task(1, target_text=5)), "[]", "NaN"]
        found = problems(write(folder / "b.jsonl", "\n".join(lines)))
        assert [problem.partition(": ")[0] for problem in found] == ["line 3, column 18", "line 4", "line 5", "line 6"]
        assert found[1] == "line 4: target_text is 5; give the text to speak, in quotes"

    def test_csv_names_the_line_where_a_row_begins(self, folder: Path) -> None:
        content = (
            "speaker_id,target_text,segment_index,npy_file,reference_text\n"
            'a,"Two\nlines",0,refs/0.npy,Said.\n'
            "a,,1,refs/0.npy,Said.\n"
            "\n"
            "a,Text.,-1,refs/0.npy,Said.\n"
            "a,Text.,1.0,refs/0.npy,Said.\n"
            "a,Text, with a comma.,2,refs/0.npy,Said.\n"
        )
        assert problems(write(folder / "b.csv", content)) == [
            "line 4: target_text is missing; give the text to speak",
            "line 6: segment_index is '-1'; give a whole number, 0 or more",
            "line 7: segment_index is '1.0'; give a whole number, 0 or more",
            "line 8: it has 6 cells, but there are 5 columns; put texts with commas in quotes",
        ]

    def test_csv_header_is_checked_once(self, folder: Path) -> None:
        content = as_csv([task(0, text=1), task(1, text=2)])
        expected = "line 1: the columns 'target_text' and 'text' are the same; keep one"
        assert problems(write(folder / "b.csv", content)) == [expected]

    @pytest.mark.parametrize(
        ("header", "missing"),
        [
            ("speaker_id,target", "the column text is missing: it has 'speaker_id', 'target'"),
            ("Sprecher;Text", "the column speaker_id is missing: it has 'Sprecher', 'Text'"),
            ("name\tline", "the columns speaker_id and text are missing: it has 'name', 'line'"),
        ],
    )
    def test_missing_csv_columns_are_one_problem(self, folder: Path, header: str, missing: str) -> None:
        right = "name the columns in the first line, such as speaker_id,text"
        assert problems(write(folder / "b.csv", f"{header}\na\nb\n")) == [f"line 1: {missing}; {right}"]

    def test_empty_csv_rows_are_skipped(self, folder: Path) -> None:
        content = (
            "speaker_id,text,npy_file,reference_text\na,One.,refs/0.npy,Said.\n,,,\na,Two.,refs/0.npy,Said.\n,,,\n"
        )
        (speaker,) = read(write(folder / "b.csv", content)).speakers
        assert [(segment.index, segment.text) for segment in speaker.segments] == [(0, "One."), (1, "Two.")]

    def test_csv_with_an_open_quote_names_the_line(self, folder: Path) -> None:
        (found,) = problems(write(folder / "b.csv", 'speaker_id,text\na,b\nc,"d\n'), references=folder)[:1]
        assert found.startswith("line 3: this is not CSV (unexpected end of data)")

    def test_grouped_form_names_speakers_and_texts(self, folder: Path) -> None:
        speakers = [
            {"id": "", "texts": ["a", 5, ""], "reference": {"audio": "anna.wav"}},
            {"id": "b", "texts": [], "reference": {"audio": "a.wav", "codes": "b.npy", "text": "Said."}},
            {"id": "c", "texts": "one", "reference": "anna.wav", "text": "x"},
            {"id": "d", "texts": ["a", "b"], "reference": {"audio": "none.wav", "text": "Said."}},
            {"id": "e", "texts": ["a", "b"], "reference": {"audio": "anna.wav"}},
        ]
        found = problems(write(folder / "b.json", {"speakers": speakers}))
        reference = 'give {"audio": ..., "text": ...} or {"codes": ..., "text": ...}'
        assert found == [
            "speakers[0]: id is blank; give a whole number or a name",
            "speakers[0].texts[1]: it is 5; give the text to speak, in quotes",
            "speakers[0].texts[2]: it is blank; give the text to speak",
            'speakers[1]: texts is empty; give a list of texts, such as ["Good morning."]',
            f"speakers[1].reference: it has both of audio and codes; {reference}",
            f"speakers[2]: reference is 'anna.wav'; {reference}",
            "speakers[2]: texts is 'one'; give a list of texts, such as [\"Good morning.\"]",
            "speakers[2]: the key 'text' is not known; did you mean \"texts\"?",
            f"speakers[3].reference: '{folder}/none.wav': there is no such file;"
            " give a recording such as a .wav or .flac",
            f"speakers[4].reference: '{folder}/anna.wav' has no transcript: neither anna.lab nor anna.txt is beside it;"
            " write what is said in it into anna.lab, or give it in the batch;"
            " CLONER_RECOGNISER may name a model that writes missing transcripts",
        ]

    def test_rows_that_share_a_bad_reference_are_listed_together(self, folder: Path) -> None:
        rows = [task(i, npy_file="refs/none.npy") for i in range(25)]
        (found,) = problems_of_tasks(folder, *rows)
        assert found.startswith("tasks[0], tasks[1], tasks[2], ")
        assert ", tasks[19] and 5 more rows: " in found


def test_a_file_that_is_too_large_is_refused_before_it_is_read(folder: Path) -> None:
    path = folder / "batch.json"
    path.touch()
    os.truncate(path, MAX_BYTES + 1)
    assert problems(path) == [
        f"the file: it has {MAX_BYTES + 1} bytes, and {MAX_BYTES} is the most; split it into several"
    ]
