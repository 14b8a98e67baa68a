"""Large batch files, most of them bad: they are refused within the limit on memory, and soon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from cloner.settings import Settings
from tests.support.bad_inputs import CommandLine, nothing_done

MB = 1024**2


def repeated(ending: str, begin: str, unit: str, end: str = "") -> tuple[str, str]:
    """The ending and the text of a 20 MB file that repeats `unit`, its number in place of each ``#``."""
    size = (20 * MB - len(begin) - len(end)) // (len(unit) + 6 * unit.count("#"))
    return ending, begin + "".join(unit.replace("#", str(number)) for number in range(size)) + end


LARGE_BATCH_FILES: dict[str, tuple[Callable[[], tuple[str, str]], str]] = {
    # 20 MB, most of it bad, and the sentence
    "numbers": (lambda: repeated("json", '{"tasks": [', "1,", "1]}"), "100000 problems and more"),
    "objects of nothing": (lambda: repeated("json", '{"tasks": [', "{},", "{}]}"), "tasks[0]: speaker_id is missing"),
    "rows that repeat a key": (
        lambda: repeated("json", '{"tasks": [', '{"":1,"":2},', "{}]}"),
        "the key '' appears more than once",
    ),
    "a row of a million keys": (lambda: repeated("json", '{"tasks": [{', '"#":1,', '"a":1}]}'), "100000 problems"),
    "a generation of a million keys": (
        lambda: repeated("json", '{"tasks": [], "generation": {', '"#":1,', '"a":1}}'),
        "generation: the key '0' is not known",
    ),
    "a speaker of bad texts": (
        lambda: repeated("json", '{"speakers": [{"id": 1, "texts": [', "1,", "1]}]}"),
        "speakers[0].texts[0]: it is 1; give the text to speak, in quotes",
    ),
    "texts without end": (
        lambda: repeated("json", '{"speakers": [{"id": 1, "texts": [', '"a",', '"a"]}]}'),
        "it has more than 1000000 segments; split it into several",
    ),
    "lines of nothing": (lambda: repeated("jsonl", "", "x\n"), "line 1, column 1: this is not JSON"),
    "lines of objects": (lambda: repeated("jsonl", "", "{}\n"), "line 1: speaker_id is missing"),
    "cells": (lambda: repeated("csv", "speaker_id,text\n", "a\n"), "it has 1 cells, but there are 2 columns"),
    "columns": (lambda: repeated("csv", "speaker_id,text", ",#"), "the column '0' is not known, and is left out"),
    "YAML": (lambda: repeated("yaml", "tasks: [", "1,", "1]"), "more than 1000000 keys and values; write so large a"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "message"), LARGE_BATCH_FILES.values(), ids=LARGE_BATCH_FILES)
def test_a_large_file_that_is_no_batch_takes_no_memory(
    batch_folder: Path,
    command_line: CommandLine,
    idle_fleet: Settings,
    redis: Redis,
    make: Callable[[], tuple[str, str]],
    message: str,
) -> None:
    ending, text = make()
    (batch_folder / f"b.{ending}").write_text(text)
    with nothing_done(batch_folder, redis):
        status, stderr = command_line("submit", f"b.{ending}")
    assert (status, message in stderr) == (2, True), stderr[:300]
    assert stderr.count("\n") <= 1_002


def test_all_problems_are_counted_and_the_first_are_listed(
    batch_folder: Path, command_line: CommandLine, idle_fleet: Settings
) -> None:
    (batch_folder / "b.jsonl").write_text("[]\n" * 5_000)
    status, stderr = command_line("submit", "b.jsonl")
    assert status == 2
    first, *lines = stderr.splitlines()
    assert first == "b.jsonl: 5000 problems, nothing was queued: the first 1000 are:"
    assert lines[999:] == ["  line 1000: it is a list; give an object"]
