"""How far a batch is, and how a person is told."""

from __future__ import annotations

import random
import sys

import pytest
from redis import Redis

from cloner.console import Rate, Screen
from cloner.errors import ClonerError, Damaged, OutputsTaken, UnknownBatch
from cloner.protocol.messages import Manifest
from cloner.protocol.results import BatchResult
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.manifests import PIECE_BYTES, read_manifest, write_manifest
from cloner.state.progress import BatchState, ChunkProgress, Progress, Round
from tests.support.manifests import manifest
from tests.support.round_trips import calls, counted_round_trips

KEYS = RedisKeys("test")


@pytest.fixture
def batches(redis: Redis, valkey_url: str) -> BatchStore:
    return BatchStore(connect(valkey_url, decode=False), KEYS, ttl_s=600)


def progress(**changes: object) -> Progress:
    values: dict[str, object] = {
        "batch_id": "b",
        "state": BatchState.RUNNING,
        "total": 10,
        "chunks": 2,
        "generated": 0,
        "failed": 0,
        "frames": 0,
        "audio_s": 0.0,
        "chunks_finished": 0,
        "cancelled": False,
    }
    return Progress(**{**values, **changes})  # type: ignore[arg-type]


def test_chunks_are_added_up_and_one_that_runs_twice_counts_once(redis: Redis, batches: BatchStore) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": "running", "total": 10, "chunks": 2})
    batches.report("b", {0: ChunkProgress(2, 1, 60, 110250, False)})
    batches.report("b", {0: ChunkProgress(3, 1, 80, 154350, True)})
    batches.report("b", {1: ChunkProgress(1, 0, 20, 44100, False)})
    expected = progress(generated=4, failed=1, frames=100, audio_s=4.5, chunks_finished=1)
    assert batches.progress("b") == expected
    assert expected.finished == 5
    assert not expected.all_chunks_finished
    redis.hset(KEYS.batch("b"), mapping={"state": "done", "cancelled": 1})
    assert batches.progress("b").closed
    assert batches.progress("b").cancelled


def test_an_unknown_batch_is_said(redis: Redis, batches: BatchStore) -> None:
    with pytest.raises(UnknownBatch, match="no batch b is known"):
        batches.progress("b")


def test_the_rate_counts_from_the_first_finished_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("cloner.console.time.monotonic", lambda: now)
    rate = Rate()
    rate.update(progress())
    assert str(rate) == "waiting for the first segment"
    now = 500.0  # loading took its time
    rate.update(progress(generated=2, audio_s=4.0))
    now = 510.0
    rate.update(progress(generated=6, audio_s=24.0))
    assert str(rate) == "2.0 audio-s/s, 10 s left"


def test_without_a_terminal_progress_is_plain_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("cloner.console.time.monotonic", lambda: now)
    with Screen().progress_display(plain_lines=True) as show:
        show(progress())
        show(progress(generated=1))
        now = 106.0
        show(progress(generated=3, failed=2))
        show(progress(generated=8, failed=2, state=BatchState.DONE))
    assert capsys.readouterr().err.splitlines() == [
        "[Main] Progress: 0/10 segments, waiting for the first segment",
        "[Main] Progress: 5/10 segments (2 failed), 0.0 audio-s/s, 8 s left",
        "[Main] Progress: 10/10 segments (2 failed), 0.0 audio-s/s",
    ]


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[Worker 0] ✅ Completed Speaker [bold]x[/bold]: 8 segments " + "x" * 300
    Screen().log(line)
    assert capsys.readouterr().err == line + "\n"


def test_a_broken_batch_is_closed_and_says_why(redis: Redis, batches: BatchStore) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": "broken", "error": "no room", "total": 1, "chunks": 1})
    seen = batches.progress("b")
    assert (seen.closed, seen.error) == (True, "no room")


def test_only_progress_of_the_right_form_is_read() -> None:
    progress = ChunkProgress(generated=3, failed=1, frames=80, samples=154_350, finished=True, runs=2)
    assert ChunkProgress.unpack(progress.pack().encode()) == progress
    assert progress.audio_s == 3.5
    for junk in (b"junk", b"{}", b"[3, 1, 80, 3.5, true]", b"7"):
        with pytest.raises((ValueError, TypeError, LookupError)):
            ChunkProgress.unpack(junk)


def test_an_open_batch_is_one_that_is_neither_done_nor_broken_nor_cancelled(redis: Redis, batches: BatchStore) -> None:
    for number, (state, cancelled) in enumerate(
        [("submitting", False), ("running", False), ("running", True), ("done", False), ("broken", False), ("", False)]
    ):
        redis.zadd(KEYS.batches, {f"b{number}": number})
        redis.hset(KEYS.batch(f"b{number}"), mapping={"state": state, **({"cancelled": 1} if cancelled else {})})
    assert batches.open_ids(cancelled=False) == ["b0", "b1"]
    assert batches.open_ids(cancelled=True) == ["b0", "b1", "b2"]
    assert [batches.is_open(f"b{number}") for number in range(7)] == [True, True, False, False, False, False, False]


def test_a_batch_that_expired_is_not_made_broken(redis: Redis, batches: BatchStore) -> None:
    batches.set_broken("b", "no room")
    assert not redis.exists(KEYS.batch("b"))


@pytest.mark.parametrize("state", ["done", "broken"])
def test_a_batch_that_is_closed_is_not_made_broken(redis: Redis, batches: BatchStore, state: str) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": state, "error": "the first"})
    batches.set_broken("b", "failures could not be counted")
    assert redis.hmget(KEYS.batch("b"), "state", "error") == [state, "the first"]


def test_of_two_collectors_that_end_a_round_one_begins_the_next(redis: Redis, batches: BatchStore) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": "running", "total": 10, "chunks": 2})
    redis.set("celery-task-meta-b.0", "the chunk's result in the first round")
    following = Round(1, (0,), missing=2)
    assert batches.begin_round("b", following, {0: ChunkProgress(generated=3)}, 2)
    assert not batches.begin_round("b", following, {0: ChunkProgress()}, 2)
    assert batches.round("b") == following
    assert batches.progress("b").round == following
    assert batches.chunk_progress("b") == {0: ChunkProgress(generated=3)}
    assert not redis.exists("celery-task-meta-b.0")


@pytest.mark.parametrize("state", ["done", "broken"])
def test_no_round_begins_once_the_batch_is_closed(redis: Redis, batches: BatchStore, state: str) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": state, "total": 10, "chunks": 2})
    assert not batches.begin_round("b", Round(1, (0,), missing=2), {}, 2)
    assert batches.round("b") == Round()


def test_a_round_that_cannot_be_read_is_damage(redis: Redis, batches: BatchStore) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": "running", "total": 10, "chunks": 2, "round": "[]"})
    with pytest.raises(Damaged, match="batch b makes no sense"):
        batches.round("b")
    with pytest.raises(Damaged, match="batch b makes no sense"):
        batches.progress("b")


def test_a_chunk_that_is_given_up_counts_as_finished_and_keeps_its_counts(redis: Redis, batches: BatchStore) -> None:
    redis.hset(KEYS.batch("b"), mapping={"state": "running", "total": 10, "chunks": 2})
    batches.report("b", {0: ChunkProgress(generated=3, runs=1), 1: ChunkProgress(generated=4, finished=True)})
    launcher = BatchStore(redis, KEYS, ttl_s=600)  # its connection decodes
    launcher.give_up_chunk("b", 0)
    assert launcher.progress_of("b", 0) == ChunkProgress(generated=3, runs=1, finished=True, given_up=True)
    assert batches.given_up_chunks("b") == {0}
    assert batches.progress("b").all_chunks_finished
    assert redis.ttl(KEYS.progress("b")) == 600


def test_no_chunk_of_an_expired_batch_is_given_up(redis: Redis, batches: BatchStore) -> None:
    batches.give_up_chunk("b", 0)
    assert redis.keys() == []
    assert batches.progress_of("b", 0) is None


def test_a_batch_is_kept_anew_at_each_round(redis: Redis, batches: BatchStore) -> None:
    batches.add(manifest(), "round-robin", check=lambda: None)
    lasting = [KEYS.batch("b"), KEYS.manifest("b"), KEYS.progress("b")]
    for key in lasting:
        redis.expire(key, 5)
    assert batches.begin_round("b", Round(1, (), reviews=1), {}, 1)
    assert all(5 < redis.ttl(key) <= 600 for key in lasting)


def test_only_batches_that_have_expired_are_listed_no_more(redis: Redis, batches: BatchStore) -> None:
    for batch_id in ("b0", "b1"):
        batches.add(manifest().model_copy(update={"batch_id": batch_id}), "round-robin", check=lambda: None)
    redis.delete(KEYS.batch("b0"))
    later = manifest().model_copy(update={"batch_id": "b2", "submitted_at": manifest().submitted_at + 601})
    batches.add(later, "round-robin", check=lambda: None)
    assert batches.newest(9) == ["b2", "b1"]
    assert batches.open_ids(cancelled=False) == ["b1", "b2"]


def test_the_progress_of_many_batches_is_read_in_one_round_trip(redis: Redis, valkey_url: str) -> None:
    blobs = connect(valkey_url, decode=False)
    batches = BatchStore(blobs, KEYS, ttl_s=600)
    for number in range(50):
        batches.add(manifest().model_copy(update={"batch_id": f"b{number}"}), "round-robin", check=lambda: None)
    batches.report("b3", {7: ChunkProgress(2, 0, 40, 88200, finished=True)})
    redis.delete(KEYS.batch("b1"))
    redis.delete(KEYS.progress("b2"))
    redis.set(KEYS.progress("b2"), "another program's")
    with counted_round_trips(blobs) as trips:
        found = batches.progress_of_each([f"b{number}" for number in range(50)])
    assert trips.count == 1
    assert isinstance(found[1], UnknownBatch)
    assert isinstance(found[2], Damaged)
    assert found[3] == batches.progress("b3")
    assert [one.source for one in found if isinstance(one, Progress)] == ["b.json"] * 48


def large_manifest() -> Manifest:
    """Of three megabytes, which cannot be compressed."""
    rng = random.Random(0)
    rows = [(n, rng.randbytes(1500).hex(), f"{n}.wav", n) for n in range(2000)]
    (speaker,) = manifest().speakers
    return manifest().model_copy(update={"speakers": [speaker.model_copy(update={"segments": rows})]})


def test_a_large_manifest_is_written_and_read_in_pieces(redis: Redis, valkey_url: str) -> None:
    blobs, large = connect(valkey_url, decode=False), large_manifest()
    batches = BatchStore(blobs, KEYS, ttl_s=600)
    with counted_round_trips(blobs) as trips:
        batches.add(large, "round-robin", check=lambda: None)
    assert redis.strlen(KEYS.manifest("b")) > 3 * PIECE_BYTES
    assert trips.longest < 1.1 * PIECE_BYTES
    redis.config_resetstat()
    assert batches.manifest("b") == large
    assert (calls(redis, "getrange"), calls(redis, "get")) == (4, 0)
    assert 0 < redis.ttl(KEYS.manifest("b")) <= 600


def test_a_batch_whose_client_dies_while_it_writes_is_none_and_expires(
    redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = connect(valkey_url, decode=False)
    batches = BatchStore(blobs, KEYS, ttl_s=600)
    monkeypatch.setattr(blobs, "append", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        batches.add(large_manifest(), "round-robin", check=lambda: None)
    assert (batches.newest(9), batches.open_ids(cancelled=True)) == ([], [])
    assert redis.keys() == [KEYS.manifest("b")]
    assert redis.ttl(KEYS.manifest("b")) > 0


def test_a_batch_that_is_refused_after_another_client_was_faster_leaves_nothing(
    redis: Redis, batches: BatchStore
) -> None:
    calls: list[object] = []

    def check() -> None:
        calls.append(redis.zadd(KEYS.batches, {f"other{len(calls)}": 1}))
        if len(calls) == 2:
            raise OutputsTaken("taken")

    with pytest.raises(OutputsTaken):
        batches.add(manifest(), "round-robin", check=check)
    assert redis.keys() == [KEYS.batches]
    with pytest.raises(ClonerError, match="too many clients"):
        batches.add(
            manifest(), "round-robin", check=lambda: calls.append(redis.zadd(KEYS.batches, {f"x{len(calls)}": 1}))
        )
    assert redis.keys() == [KEYS.batches]


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES])
def test_a_manifest_of_any_length_is_read_whole(redis: Redis, valkey_url: str, size: int) -> None:
    blobs, data = connect(valkey_url, decode=False), random.Random(size).randbytes(size)
    write_manifest(blobs, "key", data, 60)
    assert read_manifest(blobs, "key") == data
    assert read_manifest(blobs, "expired") == b""


def test_all_of_a_batch_is_kept_as_long_as_its_result(redis: Redis, batches: BatchStore) -> None:
    """Also where it had expired before it was closed."""
    result = BatchResult(
        batch_id="b",
        total=1,
        generated=1,
        failed=0,
        workers={},
        cancelled=False,
        out_dir="out",
        results={0: "a.wav"},
        errors={},
        elapsed_s=1,
        audio_s=1,
        frames=1,
    )
    for expires_first in (False, True):
        batches.add(manifest(), "round-robin", check=lambda: None)
        if expires_first:
            redis.delete(KEYS.batch("b"))
        else:
            redis.expire(KEYS.batch("b"), 5)
        batches.close(result, Round(), 1)
        assert 5 < redis.ttl(KEYS.batch("b")) <= redis.ttl(KEYS.result("b"))
