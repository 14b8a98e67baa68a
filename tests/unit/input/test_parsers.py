"""Files that cannot be parsed: one problem with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch_files import problems, write, write_references


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("b.json", "", "the file: it is empty"),
        ("b.csv", " \n\n", "the file: it is empty"),
        ("b.doc.x", "{}", "the file: the ending '.x' is not known; name it .json, .jsonl, .ndjson, .csv, .tsv, .yaml"),
        ("b", "{}", "the file: the ending '' is not known"),
        ("b.json", "[]", 'the file: it holds a list; give an object with "tasks" or "speakers"'),
        ("b.json", "null", "the file: it holds null"),
        ("b.json", "{}", 'the file: it has neither "tasks" nor "speakers"'),
        ("b.json", '{"tasks": [], "speakers": []}', 'the file: it has both "tasks" and "speakers"'),
        ("b.json", '{"tasks": {}}', "tasks: it is an object; give a list"),
        ("b.json", '{"tasks": []}', "the file: it has no segments"),
        ("b.yaml", "speakers: []", "the file: it has no segments"),
        ("b.csv", "speaker_id,text\n", "the file: it has no segments"),
        ("b.json", '{"tasks": [\n {"speaker_id": 1,\n', "line 3, column 1: this is not JSON"),
        ("b.json", '{"tasks": [\n {"speaker_id": "a', "line 2, column 17: this is not JSON (Unterminated string"),
        ("b.json", '{"tasks": []} x', "line 1, column 15: this is not JSON (Extra data)"),
        ("b.json", "[" * 100_000, "line 1: the JSON is nested too deeply"),
        ("b.json", '{"seed": ' + "1" * 5000, "line 1: this is not usable JSON (Exceeds the limit"),
        ("b.jsonl", "[" * 100_000, "line 1: the JSON is nested too deeply"),
        ("b.yaml", "speakers:\n- 'a", "line 2, column 5: this is not YAML (found unexpected end of stream)"),
        ("b.yaml", "a: b\n--- c", "line 2, column 1: this is not YAML"),
        ("b.yaml", "speakers:\n- &a b\n- *a", "line 2, column 3: the YAML anchor or alias a is not taken"),
        ("b.yaml", "a: !!python/object:os.system b", "line 1, column 4: the YAML tag"),
        ("b.yaml", "[" * 100_000, "line 1, column 21: the YAML is nested too deeply"),
        ("b.yaml", "a:\n  ? [b]\n  : c", "line 2, column 5: this is not YAML (a key is not text)"),
        ("b.yaml", "a:\n  5: c", "line 2, column 3: this is not YAML (a key is not text)"),
        ("b.yaml", "a: b\n\x01", "line 2: a character that YAML does not allow"),
        ("b.yaml", "a: 2024-13-45", "the file: a YAML value has no meaning"),
    ],
)
def test_problem_and_place(tmp_path: Path, name: str, content: str, expected: str) -> None:
    (found,) = problems(write(tmp_path / name, content))
    assert found.startswith(expected)


@pytest.mark.parametrize("name", ["b.json", "b.jsonl", "b.yaml"])
def test_other_encodings_are_refused_with_the_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("speakers:\ncaf\u00e9".encode("latin-1"))
    right = "save the file as UTF-8, or name its encoding with --encoding"
    assert problems(path) == [f"line 2: byte 0xe9 is not UTF-8; {right}"]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    right = "give the path of a batch file"
    assert problems(tmp_path / "b.json") == [f"the file: it cannot be read (No such file or directory); {right}"]
    (tmp_path / "folder.json").mkdir()
    assert problems(tmp_path / "folder.json") == [f"the file: it is a folder; {right} in it"]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("yes", ", which YAML reads as true"),
        ("Off", ", which YAML reads as false"),
        ("12:30", ", which YAML reads as 750"),
        ("12:30.5", ", which YAML reads as 750.5"),
        ("010", ", which YAML reads as 8"),
        ("1_000", ", which YAML reads as 1000"),
        ("2024-01-31", ", which YAML reads as a date"),
        ("1984", ""),
        ("true", ""),
    ],
)
def test_an_unquoted_yaml_text_that_needs_quotes_is_refused(tmp_path: Path, written: str, read_as: str) -> None:
    path = write(tmp_path / "b.yaml", f"tasks:\n- {{speaker_id: a, text: {written}}}\n")
    assert f"tasks[0]: text is {written}{read_as}; give the text to speak, in quotes" in problems(path)


def test_a_yaml_number_that_looks_like_another_is_refused(tmp_path: Path) -> None:
    write_references(tmp_path)
    row = "{speaker_id: a, text: b, segment_index: 010, npy_file: refs/0.npy, reference_text: c}"
    path = write(tmp_path / "b.yaml", f"tasks:\n- {row}\ngeneration: {{seed: 0x1f}}\n")
    assert problems(path) == [
        "generation: seed is 0x1f, which YAML reads as 31; give a whole number, 0 or more",
        "tasks[0]: segment_index is 010, which YAML reads as 8; give a whole number, 0 or more",
    ]


def test_an_unquoted_yaml_id_that_needs_quotes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b.yaml", "speakers:\n- {id: no, texts: [a]}\n")
    assert problems(path) == [
        "speakers[0]: id is no, which YAML reads as false; give a whole number or a name, in quotes"
    ]
