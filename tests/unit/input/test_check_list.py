"""The list of takes that `cloner check` checks: all bad lines at once, and no file outside of the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloner.errors import BadTexts
from cloner.input.check_list import ListedTake, read_check_list
from cloner.validation import shown

LINE = {"file": "a.wav", "text": "Good morning.", "speaker": "anna"}


def listed(folder: Path, *lines: object) -> list[ListedTake]:
    path = folder / "texts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return read_check_list(path, folder)


def problems(folder: Path, *lines: object) -> list[str]:
    with pytest.raises(BadTexts) as error:
        listed(folder, *lines)
    assert "nothing was checked:" in error.value.message
    return [str(problem) for problem in error.value.problems]


def test_lines_become_takes_and_blank_ones_are_passed_over(tmp_path: Path) -> None:
    other = {"file": "b/1.wav", "text": "你好", "speaker": 7, "reference": "refs/anna.wav", "language": "ZH"}
    assert listed(tmp_path, LINE, "", other, " ") == [
        ListedTake("a.wav", "Good morning.", "anna"),
        ListedTake("b/1.wav", "你好", "7", "zh"),
    ]


def test_texts_of_which_the_list_names_no_language_have_that_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (LINE, {**LINE, "file": "b.wav", "language": "pt"})))
    assert [take.language for take in read_check_list(path, tmp_path, "de")] == ["de", "pt"]


def test_every_bad_line_is_named_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "{",
        [],
        {"file": "a.wav", "text": "x"},
        {**LINE, "file": ""},
        {**LINE, "text": 5},
        {**LINE, "speaker": True},
        {**LINE, "reference": {"audio": "r.wav"}},
        {**LINE, "speed": 1},
        {**LINE, "language": "english"},
        '{"file": "a.wav", "file": "b.wav", "text": "x", "speaker": 1}',
    )
    assert [problem.partition(":")[0].partition(",")[0] for problem in found] == [f"line {n}" for n in range(1, 11)]
    assert found[1:] == [
        "line 2: it is a list; give an object",
        "line 3: speaker is missing; give a whole number or a name",
        "line 4: file is blank; give the name of an audio file, relative to the folder",
        "line 5: text is 5; give what is said, in quotes",
        "line 6: speaker is true; give a whole number or a name",
        "line 7: reference is an object; give the file of a recording, relative to the folder, or leave it out",
        "line 8: the key 'speed' is not known; did you mean \"speaker\"?",
        "line 9: language is 'english'; give the code of a language, such as 'en', 'de' or 'pt-BR'",
        "line 10: the key 'file' appears more than once; keep one",
    ]


def test_no_file_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "takes"
    folder.mkdir()
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "inside.wav").symlink_to(folder / "not-there-yet.wav")
    names = ("../secret.wav", str(tmp_path / "secret.wav"), str(folder / "a.wav"), "link.wav", "a/../../other.wav")
    found = problems(folder, *({**LINE, "file": name} for name in names), {**LINE, "reference": "../secret.wav"})
    right = f"is not inside {folder}; name it relative to that folder"
    assert found == [
        *(f"line {number}: file {shown(name)} {right}" for number, name in enumerate(names, start=1)),
        f"line 6: reference '../secret.wav' {right}",
    ]
    assert listed(folder, {**LINE, "file": "inside.wav"})


def test_a_file_is_named_once(tmp_path: Path) -> None:
    found = problems(tmp_path, LINE, {**LINE, "file": "b.wav"}, {**LINE, "file": "./a.wav"})
    assert found == ["line 3: file './a.wav' is that of line 1, too; keep one"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", 'the file: it names no take; give a line such as {"file": "a.wav"'),
        (b"\n \n", "the file: it names no take; "),
        (b'{"file": "a.wav", "text": "\xff"}', "line 1: byte 0xff is not UTF-8; "),
        (None, "the file: it cannot be read (No such file or directory); "),
    ],
)
def test_a_file_that_is_no_list_is_a_sentence(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "texts.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadTexts) as error:
        read_check_list(path, tmp_path)
    assert str(error.value.problems[0]).startswith(problem)
    assert error.value.exit_code == 2


def test_the_manifest_of_a_batch_is_a_list(tmp_path: Path) -> None:
    row = {"path": "b/1.wav", "segment": 3, "id": None, "speaker": "anna", "text": "Hi.", "seconds": 1.5, "take": 2}
    assert listed(tmp_path, row, {**row, "path": "b/2.wav", "language": "de"}) == [
        ListedTake("b/1.wav", "Hi.", "anna"),
        ListedTake("b/2.wav", "Hi.", "anna", "de"),
    ]
    assert problems(tmp_path, {**row, "path": ""}, {**row, "path": "../a.wav"}, {"path": "a.wav", "text": "Hi."}) == [
        "line 1: path is blank; give the name of an audio file, relative to the folder",
        f"line 2: file '../a.wav' is not inside {tmp_path}; name it relative to that folder",
        "line 3: file is missing; give the name of an audio file, relative to the folder",
        "line 3: speaker is missing; give a whole number or a name",
        "line 3: the key 'path' is not known; the keys are file, text, speaker, reference, language",
    ]
