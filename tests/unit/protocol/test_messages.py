"""Manifests and messages: they survive their way, and what could lead elsewhere is refused."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pytest
from pydantic import ValidationError

from cloner.errors import Damaged, WrongSchema
from cloner.names import SCHEMA
from cloner.protocol.fields import check_batch_id, is_batch_id
from cloner.protocol.messages import Manifest, read_chunk, schema_of
from cloner.validation import MAX_TEXT
from tests.support.manifests import in_languages, manifest


def test_a_manifest_survives_its_way() -> None:
    assert Manifest.unpack(manifest().pack()) == manifest()


@pytest.mark.parametrize("version", [SCHEMA - 1, SCHEMA + 1])
def test_a_manifest_of_another_version_is_named_and_not_read(version: int) -> None:
    other = manifest().model_dump(mode="json") | {"schema_version": version, "from": "another version", "speakers": 7}
    packed = zlib.compress(json.dumps(other).encode())
    with pytest.raises(Damaged, match=f"is of schema version {version}, and this process reads version {SCHEMA}"):
        Manifest.unpack(packed)


def test_a_chunks_message_holds_its_own_segments_and_survives_json() -> None:
    message = manifest().message(manifest().chunks[0])
    assert [row.segments for row in message.slices] == [[(1, "text 1", "1.wav", 1), (2, "text 2", "2.wav", 2)]]
    assert (message.number, message.assignment, message.total) == (7, 2, 2)
    assert read_chunk(json.loads(json.dumps(message.model_dump(mode="json")))) == message


def test_the_languages_of_texts_survive_their_way() -> None:
    whole = Manifest.unpack(in_languages().pack())
    assert [whole.speakers[0].language_of(n) for n in range(5)] == ["de", "", "de", "pt-BR", "de"]
    message = read_chunk(whole.message(whole.chunks[0]).model_dump(mode="json"))
    assert [message.slices[0].language_of(n) for n in (1, 2)] == ["", "de"]
    assert message.slices[0].other_languages == [(1, "")], "a chunk has no other's"
    part = whole.part(lambda row: row.segment in {2, 3})
    assert part.speakers[0].other_languages == [(3, "pt-BR")]
    assert [part.speakers[0].language_of(n) for n in (2, 3)] == ["de", "pt-BR"]


def test_a_language_takes_nothing_of_each_segment_of_its_speaker() -> None:
    whole = manifest()
    speaker = whole.speakers[0].model_copy(update={"language": "de"})
    grown = whole.model_copy(update={"speakers": [speaker]}).model_dump_json()
    assert len(grown) == len(whole.model_dump_json()) + len("de")


def test_messages_without_languages_are_read() -> None:
    """As an earlier version has sent them."""
    old = json.loads(manifest().message(manifest().chunks[0]).model_dump_json())
    for name in ("language", "other_languages"):
        del old["slices"][0][name]
    assert read_chunk(old) == manifest().message(manifest().chunks[0])


@pytest.mark.parametrize("language", ["english", "pt_BR", "EN", "en-", 7, "e\nn"])
def test_a_language_that_no_batch_has_is_refused(language: object) -> None:
    message = manifest().message(manifest().chunks[0]).model_dump(mode="json")
    with pytest.raises(WrongSchema, match="language"):
        read_chunk({**message, "slices": [{**message["slices"][0], "language": language}]})


def test_a_summary_names_speakers_and_counts_and_no_text() -> None:
    summary = manifest().message(manifest().chunks[0]).summary()
    assert summary == "speakers [anna], 2 texts, chunk 7 of batch b"


@pytest.mark.parametrize("message", [{}, {"schema_version": "1"}, {"schema_version": True}])
def test_a_message_without_a_version_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(WrongSchema, match="names no schema version"):
        schema_of(message)


def test_a_message_that_is_not_what_its_version_says_is_refused_with_the_place() -> None:
    message = manifest().message(manifest().chunks[0]).model_dump(mode="json")
    message["slices"][0]["reference"]["kind"] = "video"
    with pytest.raises(WrongSchema, match=rf"schema version {SCHEMA}: slices\.0\.reference\.kind: "):
        read_chunk(message)


def test_values_do_not_change() -> None:
    with pytest.raises(ValidationError):
        manifest().batch_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("batch_id", ["b", "20261125-155000-a1b2c3", "run.7_x-y", "a" * 80])
def test_what_a_batch_may_be_called(batch_id: str) -> None:
    assert is_batch_id(batch_id)
    assert check_batch_id(batch_id) == batch_id


@pytest.mark.parametrize(
    "batch_id", ["", ".", "..", "a..b", "a/b", "/etc", "-a", ".a", "a b", "a\n", "a\0", "é", "a" * 81, 7, None, ["b"]]
)
def test_what_no_batch_may_be_called(batch_id: object) -> None:
    assert not is_batch_id(batch_id)
    with pytest.raises(WrongSchema, match="is no batch's id"):
        check_batch_id(batch_id)


HOSTILE: list[tuple[tuple[str | int, ...], object]] = [
    (("batch_id",), "../../etc"),
    (("batch_id",), "b\n"),
    (("number",), -1),
    (("number",), 10**400),
    (("assignment",), float("nan")),
    (("texts",), 2**31),
    (("slices",), {}),
    (("slices", 0, "id"), "anna\n[Main] All done!"),
    (("slices", 0, "id"), "a" * 5_000),
    (("slices", 0, "reference", "digest"), "../../../etc/passwd"),
    (("slices", 0, "reference", "digest"), "d" * 64 + "\n"),
    (("slices", 0, "reference", "digest"), "D" * 64),
    (("slices", 0, "reference", "text"), "a\0"),
    (("slices", 0, "segments", 0, 0), -1),
    (("slices", 0, "segments", 0, 0), 2**63),
    (("slices", 0, "segments", 0, 3), -1),
    (("slices", 0, "segments", 0, 1), "a" * (MAX_TEXT + 1)),
    (("slices", 0, "segments", 0, 2), "/etc/cron.d/1.wav"),
    (("slices", 0, "segments", 0, 2), "../1.wav"),
    (("slices", 0, "segments", 0, 2), "a/../../1.wav"),
    (("slices", 0, "segments", 0, 2), "./.cloner/1.wav"),
    (("slices", 0, "segments", 0, 2), ".cloner/1.wav"),
    (("slices", 0, "segments", 0, 2), "a//1.wav"),
    (("slices", 0, "segments", 0, 2), "1.py"),
    (("slices", 0, "segments", 0, 2), "1.wav\n"),
    (("slices", 0, "segments", 0, 2), "a\0.wav"),
    (("slices", 0, "segments", 0, 2), "a\\1.wav"),
    (("slices", 0, "segments", 0, 2), "\ud800.wav"),
    (("slices", 0, "segments", 0, 2), "a" * 300 + ".wav"),
    (("slices", 0, "segments", 0, 2), "a/" * 600 + "1.wav"),
    (("generation", "max_new_tokens"), 10**9),
    (("generation", "temperature"), float("inf")),
    (("extra",), 1),
]


@pytest.mark.parametrize(("place", "value"), HOSTILE, ids=repr)
def test_a_message_that_could_lead_elsewhere_is_refused(place: tuple[str | int, ...], value: object) -> None:
    message: Any = manifest().message(manifest().chunks[0]).model_dump(mode="json")
    inner = message
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(WrongSchema, match=f"schema version {SCHEMA}: {re.escape('.'.join(map(str, place)))}"):
        read_chunk(message)


def test_a_message_that_is_refused_says_why_without_the_words_of_a_library() -> None:
    message = manifest().message(manifest().chunks[0]).model_dump(mode="json")
    message["slices"][0]["segments"][0][1] = " "
    with pytest.raises(WrongSchema) as raised:
        read_chunk(message)
    reason = "slices.0.segments.0.1: it is blank"
    assert raised.value.message == f"a chunk's message is not of schema version {SCHEMA}: {reason}"


@pytest.mark.parametrize("message", [None, 7, "text", [], [1], {"schema_version": 0}, {"schema_version": 10**500}])
def test_what_is_no_message_is_refused(message: object) -> None:
    with pytest.raises(WrongSchema, match="names no schema version"):
        schema_of(message)


@pytest.mark.parametrize(
    "change",
    [{"speaker": 1}, {"speaker": -1}, {"stop": 6}, {"start": 3}, {"start": -1}, {"stop": 2**40}],
    ids=str,
)
def test_a_manifest_whose_chunks_are_not_of_its_segments_is_refused(change: dict[str, int]) -> None:
    values = manifest().model_dump(mode="json")
    values["chunks"][0]["slices"][0] |= change
    with pytest.raises(ValidationError):
        Manifest.model_validate(values)


def test_a_manifest_whose_chunks_repeat_its_segments_is_refused() -> None:
    """A small one could make the collector send any number of messages."""
    values = manifest().model_dump(mode="json")
    values["chunks"] = [values["chunks"][0]] * 3
    with pytest.raises(ValidationError, match="its chunks are not of its speakers' segments"):
        Manifest.model_validate(values)
