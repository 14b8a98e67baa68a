"""Messages of errors."""

from __future__ import annotations

import os

import pytest

from cloner.errors import BadReference, ClonerError, NoWorkers, one_line, reason_of

ODD = os.fsdecode(b"caf\xe9.wav")


def test_every_message_can_be_written_as_utf_8() -> None:
    for error in (BadReference(f"{ODD} is silent"), FileNotFoundError(ODD)):
        assert "caf\\udce9.wav" in reason_of(error)
        reason_of(error).encode()


def test_reason_is_the_message_of_a_cloner_error_and_type_and_message_of_another() -> None:
    assert reason_of(NoWorkers()).startswith("No worker is registered: ")
    assert reason_of(KeyError("x")) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Zoë’s 你好 \u00a0\u200d", "Zoë’s 你好 \u00a0\u200d"),
        ("a\r\n\tb", "a b"),
        ("\x00\x1b[2J\x7f\x9b", "\\x00\\x1b[2J\\x7f\\x9b"),
        ("\u2028\u202e\u2066", "\\u2028\\u202e\\u2066"),
        ("\udcff", "\\udcff"),
    ],
)
def test_a_line_has_no_control_characters_and_all_letters(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_message_keeps_its_lines_and_loses_control_characters() -> None:
    assert ClonerError("one\n\ttwo\x1b[2J").message == "one\n\ttwo\\x1b[2J"
