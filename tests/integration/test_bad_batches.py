"""Batch files that cannot be used: each table has the input, and the error message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cloner.settings import Settings
from tests.support import bad_files as bad
from tests.support.bad_inputs import RIGHT_JSON, CommandLine, Refuse, nothing_done
from tests.support.batch_files import as_csv, task
from tests.support.processes import run_cloner

MB = 1024**2

RIGHT_YAML = "speakers:\n- id: anna\n  reference: {audio: anna.wav, text: Said.}\n  texts: [One.]\n"

RIGHT_CSV = as_csv([task()])


def yaml_with(text: str) -> str:
    return RIGHT_YAML.replace("[One.]", text)


BATCH_FILES: dict[str, tuple[str, str | bytes, str]] = {
    # name of the file, what is in it, the message
    "empty": ("b.json", b"", "it is empty; give at least one segment"),
    "nothing but a byte order mark": ("b.json", b"\xef\xbb\xbf", "it is empty"),
    "white space": ("b.csv", " \r\n\t\n", "it is empty"),
    "half of utf-16": ("b.json", RIGHT_JSON.encode("utf-16")[:-1], "is not UTF-16; save the file as UTF-8, or name"),
    "utf-16 without its mark": ("b.json", RIGHT_JSON.encode("utf-16-le"), "every second byte is zero, as in UTF-16"),
    "half of utf-32": ("b.yaml", RIGHT_YAML.encode("utf-32")[:-1], "is not UTF-32"),
    "latin-1": ("b.yaml", "speakers:\n- id: a\n- id: déjà\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"),
    "a picture as a table": ("b.csv", b"\x89PNG\r\n\x1a\n" + bytes(64), "byte 0x89 is not UTF-8"),
    "a spreadsheet as a table": ("b.csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff\xfe", "byte 0xff is not UTF-8"),
    "bytes of nothing": ("b.jsonl", b"\x80\x81\xfe\xff", "line 1: byte 0x80 is not UTF-8"),
    "a picture": ("b.json", b"\x89PNG\r\n\x1a\n" + bytes(64), "byte 0x89 is not UTF-8"),
    "cut in an object": ("b.json", RIGHT_JSON[:40], "this is not JSON"),
    "cut in a text": ("b.json", '{"tasks": [{"target_text": "Hel', "Unterminated string"),
    "cut lines": ("b.jsonl", json.dumps(task(0)) + '\n{"speaker_id": 1,', "line 2, column 18: this is not JSON"),
    "a trailing comma": ("b.json", '{"tasks": [],}', "this is not JSON"),
    "single quotes": ("b.json", "{'tasks': []}", "this is not JSON"),
    "two documents": ("b.json", RIGHT_JSON + RIGHT_JSON, "this is not JSON (Extra data)"),
    "another form than its ending": ("b.json", RIGHT_CSV, "this is not JSON"),
    "an unknown ending": ("b.dat", RIGHT_JSON, "the ending '.dat' is not known; name it .json"),
    "a list": ("b.json", "[]", 'it holds a list; give an object with "tasks" or "speakers"'),
    "a number": ("b.json", "42", "it holds 42; give an object"),
    "not a number": ("b.json", "NaN", "it holds nan; give an object"),
    "null": ("b.yaml", "~", "it holds null"),
    "an object of nothing": ("b.json", "{}", 'it has neither "tasks" nor "speakers"'),
    "both forms": ("b.json", '{"tasks": [], "speakers": []}', 'it has both "tasks" and "speakers"'),
    "tasks that are none": ("b.json", '{"tasks": "all of them"}', "tasks: it is 'all of them'; give a list"),
    "no tasks": ("b.json", '{"tasks": []}', "it has no segments; give at least one"),
    "no speakers": ("b.yaml", "speakers: []", "it has no segments"),
    "rows that are none": ("b.json", '{"tasks": [1, null, []]}', "tasks[1]: it is null; give an object"),
    "an unknown key": ("b.json", '{"tasks": [], "generations": {}}', 'did you mean "generation"?'),
    "a key twice": ("b.json", '{"tasks": [], "tasks": []}', "the key 'tasks' appears more than once; keep one"),
    "a row's key twice": ("b.json", '{"tasks": [{"text": "a", "text": "b"}]}', "tasks[0]: the key 'text' appears more"),
    "a YAML key twice": ("b.yaml", RIGHT_YAML + "speakers: []\n", "the key 'speakers' appears more than once"),
    "deep JSON": ("b.json", "[" * 100_000, "the JSON is nested too deeply"),
    "deep JSON, closed": ("b.json", '{"a":' * 50_000 + "1" + "}" * 50_000, "the JSON is nested too deeply"),
    "deep JSON within a row": ("b.jsonl", '{"speaker_id": ' + "[" * 500 + "]" * 500 + "}", "speaker_id is a list"),
    "deep YAML": ("b.yaml", "[" * 100_000, "the YAML is nested too deeply"),
    "deep YAML of blocks": ("b.yaml", "- " * 5_000 + "a", "the YAML is nested too deeply"),
    "a YAML bomb": (
        "b.yaml",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]",
        "the YAML anchor or alias a is not taken",
    ),
    "a YAML alias of nothing": ("b.yaml", "speakers: *all", "the YAML anchor or alias all is not taken"),
    "a YAML loop": ("b.yaml", "&a [*a]", "the YAML anchor or alias a is not taken"),
    "a YAML program": ("b.yaml", "!!python/object/apply:os.system [id]", "the YAML tag tag:yaml.org,2002:python"),
    "a YAML merge": ("b.yaml", "speakers: {<<: {a: 1}}", "this is not YAML"),
    "two YAML documents": ("b.yaml", RIGHT_YAML + "---\n" + RIGHT_YAML, "this is not YAML"),
    "tabs in YAML": (
        "b.yaml",
        "speakers:\n\t- id: a",
        "this is not YAML (found character that cannot start",
    ),
    "YAML with an open quote": ("b.yaml", 'speakers: "', "this is not YAML"),
    "a YAML control character": ("b.yaml", yaml_with("['\x07']"), "a character that YAML does not allow"),
    "a YAML date that is none": ("b.yaml", yaml_with("[2026-99-99]"), "a YAML value has no meaning"),
    "a YAML key that is no text": ("b.yaml", "1: 2", "a key is not text"),
    "what YAML reads as true": ("b.yaml", yaml_with("[yes]"), "it is yes, which YAML reads as true"),
    "what YAML reads as minutes": ("b.yaml", yaml_with("[12:30]"), "which YAML reads as 750"),
    "a long YAML number": ("b.yaml", yaml_with("[0x" + "f" * 9_999 + "]"), "a YAML value has no meaning"),
    "a long JSON number": ("b.json", '{"tasks": ' + "1" * 9_999 + "}", "this is not usable JSON"),
    "a JSON control character": ("b.json", '{"tasks": ["\x07"]}', "Invalid control character"),
    "a text's object without its text": ("b.yaml", yaml_with("[{id: a}]"), "texts[0]: text is missing; give the text"),
    "a text's object with more": ("b.yaml", yaml_with("[{text: a, out: b}]"), 'did you mean "output"?'),
    "words that are said in no way": (
        "b.yaml",
        RIGHT_YAML + "pronounce: {Hi: no}\n",
        "'Hi' is no, which YAML reads as",
    ),
    "numbers in no language": (
        "b.yaml",
        RIGHT_YAML + "numbers: english\n",
        "numbers: 'english' is no language in which numbers can be written out; the languages are ",
    ),
    "numbers in a language that YAML reads as false": (
        "b.yaml",
        RIGHT_YAML + "numbers: no\n",
        "numbers: it is no, which YAML reads as false; give a language, in quotes, such as 'en'",
    ),
    "two texts of one id": (
        "b.yaml",
        yaml_with("[{text: a, id: x}, {text: b, id: x}]"),
        "texts[1]: id 'x' is also that of speakers[0].texts[0]; give every segment an id of its own",
    ),
    "a text's output above": ("b.yaml", yaml_with("[{text: a, output: ../a.wav}]"), "is not inside the output root"),
    "a CSV line of commas": ("b.csv", ",", "line 1: the columns speaker_id and text are missing; name the columns"),
    "CSV cells that are empty": ("b.csv", ",,,\n,,,\n", "line 1: the columns speaker_id and text are missing"),
    "CSV with a header only": ("b.csv", "speaker_id,text\n", "it has no segments"),
    "CSV with spaces": ("b.csv", "speaker_id text\na b\n", "it has 'speaker_id text'; name the columns in the first"),
    "CSV with a column twice": ("b.csv", "speaker_id,text,text\na,b,c\n", "the columns 'text' are the same; keep one"),
    "CSV with two names of a column": (
        "b.csv",
        "Voice;speaker;text\n",
        "the columns 'Voice' and 'speaker' are the same",
    ),
    "CSV without its header": ("b.csv", "anna;Good morning.\n", "the columns speaker_id and text are missing: it has"),
    "CSV with too many cells": ("b.csv", "speaker_id,text\na,b,c\n", "it has 3 cells, but there are 2 columns"),
    "CSV with an open quote": ("b.csv", 'speaker_id,text\na,"b\n', "this is not CSV (unexpected end of data)"),
    "CSV with a long cell": ("b.csv", f"speaker_id,text\na,{'b' * MB}\n", "a cell has more than 131072 characters"),
    "CSV with a zero byte": ("b.csv", "speaker_id,text\na,b\0c\n", "unusable character (U+0000)"),
}

FILES: dict[str, tuple[bad.Make, str]] = {
    # what lies where the batch file should
    "not there": (bad.both(), "it cannot be read (No such file or directory); give the path of a batch file"),
    "a folder": (Path.mkdir, "it is a folder; give the path of a batch file in it"),
    "a device": (bad.link("/dev/zero"), "it is not a file"),
    "a pipe": (bad.fifo, "it is not a file"),
    "a link to itself": (bad.link("b.json"), "cannot be read (Too many levels of symbolic links)"),
    "300 MB of nothing": (bad.hole(300 * MB), "split it into several"),
}

ROWS: dict[str, tuple[dict[str, Any], str]] = {
    # what is changed in a second row that is otherwise right, the message
    "no speaker": ({"speaker_id": ...}, "tasks[1]: speaker_id is missing; give a whole number or a name"),
    "a speaker that is true": ({"speaker_id": True}, "speaker_id is true"),
    "a speaker that is a fraction": ({"speaker_id": 1.5}, "speaker_id is 1.5"),
    "a speaker that is not a number": ({"speaker_id": float("nan")}, "speaker_id is nan"),
    "a blank speaker": ({"speaker_id": " "}, "speaker_id is blank"),
    "a long speaker": ({"speaker_id": "a" * 5_000}, "speaker_id has 5000 characters, and 4096 is the most"),
    "a long number of a speaker": ({"speaker_id": int("9" * 4_200)}, "speaker_id has 4200 characters"),
    "a speaker with a line feed": ({"speaker_id": "a\nb"}, "speaker_id has an unusable character (U+000A)"),
    "a speaker spelt two ways": ({"speaker_id": "0"}, "speaker '0' is 0 at tasks[0]; write the id as a number or"),
    "a speaker with two references": ({"npy_file": "refs/1.npy"}, "speaker 0 has the reference 'refs/1.npy' here"),
    "a speaker with two transcripts": ({"reference_text": "No."}, "another transcript of its reference"),
    "no text": ({"target_text": ...}, "target_text is missing; give the text to speak"),
    "a blank text": ({"target_text": "\n\t "}, "target_text is blank"),
    "a text of a number": ({"target_text": 12}, "target_text is 12; give the text to speak, in quotes"),
    "a text of infinity": ({"target_text": float("inf")}, "target_text is inf"),
    "a text of 10 MB": (
        {"target_text": "a" * 10 * MB},
        "target_text has 10485760 characters, and 131072 is the most; shorten it",
    ),
    "a text with a bell": ({"target_text": "Ding\x07"}, "unusable character (U+0007) at position 5; remove it"),
    "a text with a zero": ({"target_text": "a\0b"}, "unusable character (U+0000)"),
    "a text with half a letter": ({"target_text": "a\ud83d"}, "unusable character (U+D83D)"),
    "two texts": ({"text": "Another."}, "it has both target_text and text, which are the same; leave"),
    "an index that is taken": ({"segment_index": 0}, "segment_index 0 is also that of tasks[0]; number every segment"),
    "a negative index": ({"segment_index": -1}, "segment_index is -1; give a whole number, 0 or more"),
    "a huge index": (
        {"segment_index": 2**63},
        "segment_index is 9223372036854775808; give 9223372036854775807 or less",
    ),
    "a fraction of an index": ({"segment_index": 1.5}, "segment_index is 1.5"),
    "an index that is not a number": ({"segment_index": float("nan")}, "segment_index is nan"),
    "an id that is a list": ({"id": []}, "id is a list; give a whole number or a name"),
    "a blank id": ({"id": " "}, "id is blank"),
    "a segment's seed that is a text": ({"seed": "3"}, "seed is '3'; give a whole number, 0 or more"),
    "a negative seed of a segment": ({"seed": -1}, "seed is -1; give a whole number, 0 or more"),
    "an output that is taken": ({"output_file": "out/0.wav"}, "'out/0.wav' is also the output of tasks[0]"),
    "an output by a detour": ({"output_file": "x/../out//0.wav"}, "is also the output of tasks[0]"),
    "an output in an output": ({"output_file": "out/0.wav/1.wav"}, "lies in a folder which is the output of tasks[0]"),
    "an output above": ({"output_file": "../1.wav"}, "'../1.wav' is not inside the output root"),
    "an output above, later": ({"output_file": "a/b/../../../1.wav"}, "is not inside the output root"),
    "an output from the top": ({"output_file": "/etc/1.wav"}, "is not inside the output root"),
    "an output among ours": ({"output_file": ".cloner/1.wav"}, "lies in .cloner, which is not for outputs"),
    "an output that is no audio": ({"output_file": "1.m4a"}, "let it end in .wav, .flac, .ogg, .opus or .mp3"),
    "an output with a backslash": ({"output_file": "a\\b.wav"}, "has a backslash; write / between folders"),
    "an output with a zero": ({"output_file": "a\0.wav"}, "output_file has an unusable character (U+0000)"),
    "an output of 300 bytes": ({"output_file": "é" * 150 + ".wav"}, "has a name of more than 255 bytes; shorten it"),
    "an output of many folders": ({"output_file": "a/" * 900 + "b.wav"}, "is longer than 1024 bytes; shorten it"),
    "an output of a long speaker": (
        {"speaker_id": "a" * 300, "output_file": ...},
        "has a name of more than 255 bytes; shorten it",
    ),
    "a reference above": ({"speaker_id": 1, "npy_file": "../x.npy"}, "x.npy', outside of the batch's folder, and"),
    "a reference from the top": ({"speaker_id": 1, "npy_file": "/etc/passwd"}, "'/etc/passwd' lies outside of the"),
    "a reference that is a device": ({"speaker_id": 1, "npy_file": "/dev/zero"}, "'/dev/zero' lies outside of the"),
    "a reference that is a folder": ({"speaker_id": 1, "npy_file": "refs"}, "it is not a file"),
    "a reference that is not there": ({"speaker_id": 1, "npy_file": "no.npy"}, "there is no such file"),
    "a reference of 300 bytes": ({"speaker_id": 1, "npy_file": "n" * 300}, "cannot be read (File name too long)"),
    "a reference with a zero": ({"speaker_id": 1, "npy_file": "a\0b"}, "npy_file has an unusable character (U+0000)"),
    "a reference without its text": (
        {"speaker_id": 1, "reference_text": ...},
        "refs/0.npy' has no transcript: neither 0.lab nor 0.txt is beside it; write what is said in it into 0.lab, or",
    ),
    "the text of no reference": ({"npy_file": ...}, "it has a reference_text, but no npy_file; give both, or neither"),
    "no reference": ({"speaker_id": 1, "npy_file": ..., "reference_text": ...}, "name one for it, or give a folder"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content", "message"), BATCH_FILES.values(), ids=BATCH_FILES)
def test_a_file_that_is_no_batch(
    batch_folder: Path, refuse: Refuse, name: str, content: str | bytes, message: str
) -> None:
    (batch_folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse(name, message)


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_a_batch_file_that_is_no_file(batch_folder: Path, refuse: Refuse, make: bad.Make, message: str) -> None:
    (batch_folder / "b.json").unlink()
    make(batch_folder / "b.json")
    refuse("b.json", message)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "message"), ROWS.values(), ids=ROWS)
def test_a_row_that_makes_no_sense(batch_folder: Path, refuse: Refuse, changes: dict[str, Any], message: str) -> None:
    (batch_folder / "b.json").write_text(json.dumps({"tasks": [task(0), task(1, **changes)]}))
    refuse("b.json", message)


def test_an_output_may_not_leave_by_a_link(batch_folder: Path, command_line: CommandLine, redis: Redis) -> None:
    (batch_folder / "out").mkdir()
    (batch_folder / "out/out").symlink_to("/tmp")
    with nothing_done(batch_folder, redis):
        status, stderr = command_line("run", "b.json", "--engine", "fake", "--out", "out")
    assert status == 2
    assert "output_file 'out/0.wav' leads out of the output root by a link, to '/tmp'; name a file inside" in stderr


@pytest.mark.slow
def test_a_dozen_of_them_as_processes_of_their_own(batch_folder: Path, idle_fleet: Settings, redis: Redis) -> None:
    """The same by the installed command, in a process of its own."""
    chosen = ["half of utf-16", "latin-1", "deep JSON", "a YAML bomb", "a CSV line of commas", "CSV with a long cell"]
    batches = {name: BATCH_FILES[name] for name in chosen}
    rows = ["a text of 10 MB", "an output above", "a reference that is a device", "a speaker with a line feed"]
    batches |= {
        row: (f"{number}.json", json.dumps({"tasks": [task(0), task(1, **ROWS[row][0])]}), ROWS[row][1])
        for number, row in enumerate(rows)
    }
    bad.fifo(batch_folder / "pipe.json")
    bad.link("/dev/zero")(batch_folder / "device.yaml")
    for number, (name, content, _) in enumerate(batches.values()):
        (batch_folder / f"{number}-{name}").write_bytes(content if isinstance(content, bytes) else content.encode())
    asked = {f"{number}-{name}": message for number, (name, _, message) in enumerate(batches.values())}
    asked |= {"pipe.json": "it is not a file", "device.yaml": "it is not a file"}
    with nothing_done(batch_folder, redis):
        for name, message in asked.items():
            ran = run_cloner("submit", name, cwd=batch_folder)
            assert (ran.returncode, ran.stdout) == (2, "")
            assert message in ran.stderr
            assert "Traceback" not in ran.stderr
