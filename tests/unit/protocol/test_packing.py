"""Packed values: damaged data is a clear error, and cannot fill the memory."""

from __future__ import annotations

import pickle
import tracemalloc
import zlib

import pytest

from cloner.errors import Damaged, UsageError
from cloner.protocol import packing
from cloner.protocol.packing import Packed


class Value(Packed):
    text: str


def test_a_value_survives_its_way() -> None:
    assert Value.unpack(Value(text="naïve").pack()) == Value(text="naïve")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"junk", "incorrect header check"),
        (Value(text="a").pack()[:-5], "cut off"),
        (pickle.dumps({"text": "a"}), "incorrect header check"),
        (zlib.compress(pickle.dumps({"text": "a"})), "1 validation errors"),
        (zlib.compress(b"{"), "1 validation errors"),
        (zlib.compress(b'{"text": 1}'), "1 validation errors"),
    ],
)
def test_what_is_no_packed_value_is_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(
        Damaged, match=r"what Redis holds as a Value is damaged, or another version wrote it \("
    ) as error:
        Value.unpack(data)
    assert reason in error.value.message
    assert "\n" not in error.value.message


def test_a_bomb_takes_no_more_memory_than_the_longest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 1024**2)
    deflating = zlib.compressobj(9)
    bomb = b"".join(deflating.compress(bytes(1024**2)) for _ in range(256)) + deflating.flush()
    tracemalloc.start()
    with pytest.raises(Damaged, match="longer than 1048576 bytes"):
        Value.unpack(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 * 1024**2
    tracemalloc.stop()


def test_what_could_not_be_unpacked_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="the batch is too large"):
        Value(text="a" * 100).pack()
