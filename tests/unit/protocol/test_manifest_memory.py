"""Manifests that were made to fill a collector's memory, and large ones that are right."""

from __future__ import annotations

import json
import tracemalloc
import zlib

import pytest

from cloner.batch import MAX_SEGMENTS
from cloner.errors import Damaged
from cloner.protocol.messages import Manifest
from cloner.protocol.packing import MAX_BRACKETS, MAX_COMMAS, Packed
from cloner.protocol.queries import FinishedRequest, FinishedResponse
from tests.support.manifests import manifest
from tests.support.memory import memory_limit

MB = 1024**2
COUNT = 1_000_000

SPEAKER = manifest().speakers[0].model_dump_json().encode()


def with_field(name: str, value: bytes) -> bytes:
    """The JSON of a manifest in which one field has another value."""
    others = json.loads(manifest().model_dump_json())
    del others[name]
    return json.dumps(others).encode()[:-1] + b', "' + name.encode() + b'": ' + value + b"}"


def numbered(count: int = COUNT) -> bytes:
    return b"{" + b",".join(b'"%d":1' % number for number in range(count)) + b"}"


def lists_of(item: bytes, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    return begin + (item + b",") * COUNT + item + end


WRONG: dict[str, tuple[type[Packed], bytes]] = {
    "speakers": (Manifest, with_field("speakers", lists_of(b"1"))),
    "chunks": (Manifest, with_field("chunks", lists_of(b"[1]"))),
    "segments": (Manifest, with_field("speakers", SPEAKER.partition(b"[[")[0].join([b"[", lists_of(b"1") + b"}]"]))),
    "slices": (Manifest, with_field("chunks", lists_of(b"{}", begin=b'[{"slices":[', end=b"]}]"))),
    "fields": (Manifest, numbered()),
    "generation": (Manifest, with_field("generation", numbered())),
    "a speaker's fields": (Manifest, with_field("speakers", b"[" + numbered() + b"]")),
    "keys": (FinishedRequest, b'{"wanted":' + numbered() + b"}"),
    "finished": (FinishedResponse, b'{"finished":' + lists_of(b"1") + b"}"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "text"), WRONG.values(), ids=WRONG)
def test_a_million_wrong_values_take_little_memory(kind: type[Packed], text: bytes) -> None:
    with memory_limit(600 * MB), pytest.raises(Damaged, match="damaged, or another version wrote it"):
        kind.unpack(zlib.compress(text))


@pytest.mark.parametrize("text", [b"[" + b"1," * (MAX_COMMAS + 1), b"[]" * (MAX_BRACKETS + 1)], ids=["values", "lists"])
def test_too_many_values_are_refused_before_they_are_parsed(text: bytes) -> None:
    data = zlib.compress(text)
    tracemalloc.start()
    with memory_limit(100 * MB), pytest.raises(Damaged, match="it has too many values"):
        Manifest.unpack(data)
    assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    tracemalloc.stop()


@pytest.mark.slow
def test_a_batch_has_a_largest_number_of_segments() -> None:
    speaker = manifest().speakers[0].model_copy(update={"segments": [(0, "a", "0.wav", 0)] * (MAX_SEGMENTS + 1)})
    too_many = manifest().model_copy(update={"speakers": [speaker], "chunks": []})
    with pytest.raises(Damaged):
        Manifest.unpack(too_many.pack())
