"""Files of marked segments, as a batch's report saves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.errors import UsageError
from cloner.input.marked_file import read_marked


def test_segments_are_marked_by_index_and_by_output(tmp_path: Path) -> None:
    path = tmp_path / "marked.json"
    path.write_text('{"batch": "b", "bad": [3, "anna/0004.wav", 0], "saved_at": "today"}')
    marked = read_marked(path, "b")
    assert (marked.segments, marked.outputs) == ([3, 0], ["anna/0004.wav"])


FLAWS = {
    "not there": (None, r"marked.json cannot be read \(No such file or directory\): name a file of marked segments"),
    "no JSON": ("bad: [1]", r"marked.json: the file: Invalid JSON.*it should be as \{\"batch\": \"b\", \"bad\": \[3, "),
    "a list": ("[1, 2]", r"marked.json: the file: Input should be an object; it should be as"),
    "no batch": ('{"bad": [1]}', r"marked.json: batch: Field required; it should be as"),
    "no list": ('{"batch": "b", "bad": 1}', r"marked.json: bad: Input should be a valid array; it should be as"),
    "half a number": ('{"batch": "b", "bad": [1.5]}', r"marked.json: bad.0: Input should be"),
    "a negative number": ('{"batch": "b", "bad": [-1]}', r"marked.json: bad.0: Input should be"),
    "true": ('{"batch": "b", "bad": [true]}', r"marked.json: bad.0: Input should be"),
    "an object": ('{"batch": "b", "bad": [{"segment": 1}]}', r"marked.json: bad.0: Input should be"),
    "another batch": ('{"batch": "c", "bad": [1]}', r"marks segments of batch 'c', and the command names b"),
    "nothing": ('{"batch": "b", "bad": []}', r"marks no segment: there is nothing to redo"),
}


@pytest.mark.parametrize(("text", "sentence"), FLAWS.values(), ids=FLAWS.keys())
def test_a_bad_file_is_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "marked.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=sentence) as raised:
        read_marked(path, "b")
    assert raised.value.exit_code == 2
    assert "\n" not in raised.value.message


def test_a_file_without_an_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner.input.marked_file.MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="/dev/zero has more than 1000 bytes"):
        read_marked(Path("/dev/zero"), "b")
