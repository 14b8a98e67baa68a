"""Batches with outputs in common."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from redis import Redis

from cloner.batch import Generation, ReferenceKind
from cloner.client.submit import check_outputs
from cloner.errors import OutputsTaken
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys

KEYS = RedisKeys("test")


def store(blobs: Redis) -> BatchStore:
    return BatchStore(blobs, KEYS, ttl_s=600)


def manifest(batch_id: str, outputs: Sequence[str], prefix: str = "") -> Manifest:
    reference = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")
    rows = [(n, "text", output, n) for n, output in enumerate(outputs)]
    speaker = SpeakerRow(id="anna", reference=reference, segments=rows)
    return Manifest(
        batch_id=batch_id,
        prefix=prefix,
        source=f"{batch_id}.json",
        submitted_at=1.0,
        generation=Generation(),
        speakers=[speaker],
        chunks=[],
    )


@pytest.fixture
def blobs(redis: Redis, valkey_url: str) -> Redis:
    """A Redis with one open batch."""
    blobs = connect(valkey_url, decode=False)
    blobs.zadd(KEYS.batches, {"first": 1.0})
    blobs.hset(KEYS.batch("first"), "state", "running")
    blobs.set(KEYS.manifest("first"), manifest("first", [f"{n}.wav" for n in range(5)]).pack())
    return blobs


def test_a_batch_with_outputs_of_an_open_one_is_refused_with_what_to_do(blobs: Redis) -> None:
    with pytest.raises(OutputsTaken) as refused:
        check_outputs(manifest("second", ["new.wav", "4.wav", "3.wav", "0.wav", "1.wav"]), store(blobs))
    assert refused.value.message == (
        "4 outputs are also those of batch first (first.json), which is not finished: 0.wav, 1.wav, 3.wav, ...; "
        "wait for it, cancel it (`cloner cancel first`), or give the outputs other names"
    )


def test_a_batch_with_other_outputs_is_accepted(blobs: Redis) -> None:
    check_outputs(manifest("second", ["a/0.wav", "5.wav"]), store(blobs))


@pytest.mark.parametrize(("field", "value"), [("state", "done"), ("state", "broken"), ("cancelled", "1")])
def test_a_closed_or_cancelled_batch_does_not_count(blobs: Redis, field: str, value: str) -> None:
    blobs.hset(KEYS.batch("first"), field, value)
    check_outputs(manifest("second", ["0.wav"]), store(blobs))


def test_a_batch_that_is_not_opened_yet_counts(blobs: Redis) -> None:
    blobs.hset(KEYS.batch("first"), "state", "submitting")
    with pytest.raises(OutputsTaken):
        check_outputs(manifest("second", ["0.wav"]), store(blobs))


def test_an_expired_manifest_does_not_count(blobs: Redis) -> None:
    blobs.delete(KEYS.manifest("first"))
    check_outputs(manifest("second", ["0.wav"]), store(blobs))


def test_a_manifest_that_cannot_be_read_is_logged(blobs: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    blobs.set(KEYS.manifest("first"), "not a manifest")
    check_outputs(manifest("second", ["0.wav"]), store(blobs))
    assert "batch first cannot be read here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "compared"),
    [
        ("book", ["of the root", "of the book", "in the book"]),
        ("book/one", ["of the root", "of the book", "in the book"]),
        ("book/two", ["of the root", "of the book"]),
        ("bookish", ["of the root"]),
        ("", ["of the root", "of the book", "in the book", "beside the book"]),
    ],
)
def test_only_batches_are_read_whose_outputs_may_be_in_the_same_folder(
    redis: Redis, valkey_url: str, prefix: str, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = store(connect(valkey_url, decode=False))
    prefixes = {"of-the-root": "", "of-the-book": "book", "in-the-book": "book/one", "beside-the-book": "books"}
    for batch_id, other in prefixes.items():
        batches.add(manifest(batch_id, [f"{other}/0.wav".lstrip("/")], other), "round-robin", check=lambda: None)
    read: list[str] = []
    monkeypatch.setattr(batches, "manifest", read.append)
    check_outputs(manifest("new", [f"{prefix}/1.wav".lstrip("/")], prefix), batches)
    assert sorted(read) == sorted(batch_id.replace(" ", "-") for batch_id in compared)


def test_a_batch_whose_prefix_is_not_noted_is_read(blobs: Redis) -> None:
    """As one that an earlier version has submitted."""
    with pytest.raises(OutputsTaken):
        check_outputs(manifest("second", ["0.wav"], "book"), store(blobs))
