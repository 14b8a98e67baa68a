"""Rows of a batch file that are invalid, alone or together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner.batch import ReferenceKind
from cloner.input import speaker_references
from cloner.input.reference_quality import Quality
from tests.support.batch_files import Row, problems, problems_of_tasks, read, save_recording, task, write, write_rows


class TestRows:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"target_text": "a\x00b"}, "target_text has an unusable character (U+0000) at position 2"),
            ({"target_text": "a\x85b"}, "(U+0085) at position 2"),
            ({"target_text": "a\rb"}, "(U+000D) at position 2"),
            ({"target_text": "ab\ud83d"}, "(U+D83D) at position 3"),
            ({"reference_text": "\t\n"}, "reference_text is blank"),
            ({"speaker_id": 1.0}, "speaker_id is 1.0"),
            ({"speaker_id": float("nan")}, "speaker_id is nan"),
            ({"speaker_id": False}, "speaker_id is false"),
            ({"speaker_id": None}, "speaker_id is null"),
            ({"speaker_id": [1]}, "speaker_id is a list"),
            ({"speaker_id": "a\nb"}, "speaker_id has an unusable character (U+000A)"),
            ({"segment_index": -1}, "segment_index is -1; give a whole number, 0 or more"),
            ({"segment_index": True}, "segment_index is true"),
            ({"segment_index": "1"}, "segment_index is '1'"),
            ({"segment_index": 10**40}, "segment_index is 1000"),
            ({"npy_file": ...}, "it has a reference_text, but no npy_file; give both, or neither"),
            ({"npy_file": "refs/\x00"}, "npy_file has an unusable character (U+0000)"),
            ({"npy_file": ""}, "npy_file is blank"),
            ({"npy_file": "refs"}, "refs': it is not a file"),
            ({"npy_file": "anna.wav"}, "anna.wav': the reference is not a .npy file of codes"),
            ({"npy_file": ..., "reference_text": ...}, "speaker 0 has no reference; name one for it, or give a folder"),
            ({"colour": 1}, "the key 'colour' is not known; the keys are speaker_id, target_text"),
            ({"text": "again"}, "it has both target_text and text, which are the same; leave one of them out"),
        ],
    )
    def test_bad_values(self, folder: Path, changes: Row, expected: str) -> None:
        (found,) = problems_of_tasks(folder, task(0, **changes))
        assert found.startswith("tasks[0]: ")
        assert expected in found

    def test_key_given_twice_is_refused_where_it_is(self, folder: Path) -> None:
        row = json.dumps(task())
        twice = row.replace('"speaker_id": 0', '"speaker_id": 0, "speaker_id": 1')
        expected = "the key 'speaker_id' appears more than once; keep one"
        assert problems(write(folder / "b.json", f'{{"tasks": [{row}, {twice}]}}'))[0] == f"tasks[1]: {expected}"
        assert problems(write(folder / "b.jsonl", twice)) == [f"line 1: {expected}"]
        content = f'{{"tasks": [{row}], "generation": {{"seed": 1, "seed": 2}}, "tasks": [{row}]}}'
        assert problems(write(folder / "b.json", content)) == [
            "generation: the key 'seed' appears more than once; keep one",
            "the file: the key 'tasks' appears more than once; keep one",
        ]
        content = "speakers:\n- {id: a, id: b, texts: [c], reference: {text: a, text: b, audio: anna.wav}}\n"
        assert problems(write(folder / "b.yaml", content)) == [
            "speakers[0]: the key 'id' appears more than once; keep one",
            "speakers[0].reference: the key 'text' appears more than once; keep one",
        ]

    def test_both_spellings_of_an_id_are_refused(self, folder: Path) -> None:
        (found,) = problems_of_tasks(folder, task(0, speaker_id=1), task(1, speaker_id="1"))
        assert found.startswith("tasks[1]: speaker '1' is 1 at tasks[0]; ")

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"npy_file": "refs/1.npy"}, "speaker 0 has the reference 'refs/1.npy' here, but 'refs/0.npy' at tasks[0]"),
            ({"reference_text": "Other."}, "speaker 0 has another transcript of its reference here than at tasks[0]"),
            ({"npy_file": ..., "reference_text": ...}, "speaker 0 has no reference here, but one at tasks[0]"),
        ],
    )
    def test_one_speaker_has_one_reference(self, folder: Path, changes: Row, expected: str) -> None:
        (found,) = problems_of_tasks(folder, task(0), task(1, **changes))
        assert found.startswith(f"tasks[1]: {expected}; ")

    @pytest.mark.parametrize("given", [0, 1, 2])
    def test_a_transcript_may_be_left_out_where_another_row_gives_it(self, folder: Path, given: int) -> None:
        rows = [task(index, reference_text="I am 0." if index == given else ...) for index in range(3)]
        (speaker,) = read(write_rows(folder, "json", rows)).speakers
        assert (speaker.reference.text, len(speaker.segments)) == ("I am 0.", 3)

    def test_transcripts_that_differ_are_refused_whatever_lies_between(self, folder: Path) -> None:
        rows = [task(0, reference_text=...), task(1), task(2, reference_text=...), task(3, reference_text="Other.")]
        (found,) = problems_of_tasks(folder, *rows)
        assert found.startswith("tasks[3]: speaker 0 has another transcript of its reference here than at tasks[1]; ")

    def test_a_row_is_compared_with_the_first_where_none_has_a_transcript(self, folder: Path) -> None:
        (folder / "refs/0.lab").write_text("I am 0.", encoding="utf-8")
        rows = [task(number, reference_text=...) for number in range(3)]
        (found,) = problems_of_tasks(folder, *rows, task(3, reference_text=..., npy_file="refs/1.npy"))
        assert found.startswith("tasks[3]: speaker 0 has the reference 'refs/1.npy' here, but 'refs/0.npy' at tasks[0]")

    def test_one_reference_may_be_spelt_in_two_ways(self, folder: Path) -> None:
        rows = [task(0), task(1, npy_file="./out/../refs/0.npy"), task(2, npy_file=str(folder / "refs/0.npy"))]
        assert read(write_rows(folder, "json", rows)).total == 3

    def test_default_index_that_equals_a_given_one_is_refused(self, folder: Path) -> None:
        (found,) = problems_of_tasks(folder, task(1), task(9, segment_index=...), task(2))
        assert found.startswith("tasks[1]: segment_index 1 is also that of tasks[0]; ")

    def test_missing_references_in_the_folder_are_named(self, folder: Path) -> None:
        save_recording(folder / "voices/anna/a.wav")
        rows = [{"speaker_id": name, "text": "Text."} for name in ("anna", "bob", "anna")]
        rows.append({"speaker_id": "..", "text": "Text.", "output_file": "a.wav"})
        found = problems(write_rows(folder, "jsonl", rows), references=folder / "voices")
        assert "line 1, line 3: '" in found[0]
        assert "a.wav' has no transcript: neither a.lab nor a.txt is beside it; put its recordings there" in found[0]
        assert f"line 2: '{folder}/voices/bob': the folder cannot be read (No such file or directory)" in found[1]
        assert found[2].startswith("line 4: speaker '..' cannot name a folder of references")

    def test_a_speaker_that_names_no_folder_has_that_problem_once_a_row(self, folder: Path) -> None:
        rows = [{"speaker_id": "../evil", "text": "Text."} for _ in range(2)]
        found = problems(write_rows(folder, "jsonl", rows), references=folder / "refs")
        assert [line.partition(";")[0] for line in found] == [
            f"line {number}: speaker '../evil' cannot name the folder of its outputs" for number in (1, 2)
        ]

    def test_an_address_and_an_empty_file_are_no_references(self, folder: Path) -> None:
        (folder / "empty.wav").touch()
        speakers = [
            {"id": name, "reference": {"audio": audio, "text": "Said."}, "texts": ["Hi."]}
            for name, audio in (("a", "https://x.y/a.wav"), ("b", "empty.wav"))
        ]
        assert problems(write(folder / "b.json", {"speakers": speakers})) == [
            "speakers[0].reference: 'https://x.y/a.wav' is an address, and nothing is fetched;"
            " download it, and name the file",
            f"speakers[1].reference: '{folder}/empty.wav': it is empty; give a recording such as a .wav or .flac",
        ]

    def test_each_reference_file_is_checked_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checked: list[Path] = []

        def measure(kind: ReferenceKind, path: Path) -> Quality:
            checked.append(path)
            return Quality(10.0, 10.0)

        monkeypatch.setattr(speaker_references, "measure_file", measure)
        rows = [task(i, speaker_id=i % 3, npy_file=f"refs/{i % 2}.npy") for i in (0, 1, 3, 4, 6, 7)]
        write_rows(folder, "json", [{**row, "npy_file": f"refs/{row['speaker_id'] % 2}.npy"} for row in rows])
        read(folder / "b.json")
        assert sorted(checked) == [folder / "refs/0.npy", folder / "refs/1.npy"]

    def test_problems_of_references_come_in_the_order_of_the_speakers(self, folder: Path) -> None:
        for number in range(20):
            (folder / f"{number}.wav").write_bytes(b"" if number % 2 else bytes(2_000_000))
        groups = [{"id": str(n), "reference": {"audio": f"{n}.wav", "text": "I."}, "texts": ["A."]} for n in range(20)]
        found = problems(write(folder / "b.json", {"speakers": groups}))
        assert [line.partition(":")[0] for line in found] == [f"speakers[{number}].reference" for number in range(20)]


class TestGeneration:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"temperature": 0}, "temperature is 0; it should be greater than 0"),
            ({"temperature": True}, "temperature is true; it should be a valid number"),
            ({"top_p": "0.7"}, "top_p is '0.7'; it should be a valid number"),
            ({"seed": 1.5}, "seed is 1.5; give a whole number, 0 or more"),
            ({"temperatur": 1}, "the key 'temperatur' is not known; did you mean \"temperature\"?"),
            ([], "it is a list; give an object"),
        ],
    )
    def test_bad_values(self, folder: Path, values: object, expected: str) -> None:
        path = write(folder / "b.json", {"tasks": [task()], "generation": values})
        assert problems(path) == [f"generation: {expected}"]

    @pytest.mark.parametrize("spelt", ["NaN", "Infinity", "1e999"])
    def test_numbers_that_are_not_finite_are_refused(self, folder: Path, spelt: str) -> None:
        content = f'{{"tasks": [{json.dumps(task())}], "generation": {{"temperature": {spelt}}}}}'
        (found,) = problems(write(folder / "b.json", content))
        assert found.startswith("generation: temperature is ")
