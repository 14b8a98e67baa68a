"""What errors say."""

from __future__ import annotations

import os

from cloner.errors import BadReference, NoWorkers, reason_of

ODD = os.fsdecode(b"caf\xe9.wav")


def test_every_message_can_be_written_as_utf_8() -> None:
    for error in (BadReference(f"{ODD} is silent"), FileNotFoundError(ODD)):
        assert "caf\\udce9.wav" in reason_of(error)
        reason_of(error).encode()


def test_our_errors_are_told_in_their_own_words_and_others_with_their_type() -> None:
    assert reason_of(NoWorkers()).startswith("No worker is registered: ")
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
