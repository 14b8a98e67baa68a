"""Messages of errors."""

from __future__ import annotations

import os

from cloner.errors import BadReference, NoWorkers, reason_of

ODD = os.fsdecode(b"caf\xe9.wav")


def test_every_message_can_be_written_as_utf_8() -> None:
    for error in (BadReference(f"{ODD} is silent"), FileNotFoundError(ODD)):
        assert "caf\\udce9.wav" in reason_of(error)
        reason_of(error).encode()


def test_reason_is_the_message_of_a_cloner_error_and_type_and_message_of_another() -> None:
    assert reason_of(NoWorkers()).startswith("No worker is registered: ")
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
