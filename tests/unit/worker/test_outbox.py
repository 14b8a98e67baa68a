"""Writing what came of segments, where there is no room and where there is again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from cloner.engine.base import SegmentAudio, SegmentFailure
from cloner.errors import NoRoom, RecordFull
from cloner.output.journal import Journal
from cloner.protocol.results import SegmentResult
from cloner.worker import outbox
from cloner.worker.chunk_watch import ChunkWatch
from cloner.worker.outbox import Outbox
from cloner.worker.runtime import Runtime
from tests.support.workers import BATCH_ID, Workers

SPOKEN = SegmentAudio(0, np.zeros(4096, dtype=np.float32), 2)
RESULT = SegmentResult(segment=0, speaker="a", output="0.wav", key="k", assignment=0, worker="w")


@pytest.fixture
def runtime(redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(outbox, "ROOM_S", 0.01)
    return Workers(redis, valkey_url, tmp_path / "out").runtime()


@pytest.fixture
def watch(runtime: Runtime) -> ChunkWatch:
    return ChunkWatch(runtime, BATCH_ID, Journal(runtime.outputs.root, BATCH_ID, 0, runtime.name))


@pytest.fixture
def box(runtime: Runtime, watch: ChunkWatch) -> Outbox:
    return Outbox(runtime, runtime.record(BATCH_ID), watch)


def test_audio_without_room_fails_and_the_next_waits(
    box: Outbox, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def no_room(*_: object) -> None:
        raise NoRoom("0.wav cannot be written: full")

    def has_room(size: int) -> bool:
        asked.append(size)
        return len(asked) == 3

    monkeypatch.setattr(runtime.outputs, "write_audio", no_room)
    monkeypatch.setattr(runtime.outputs, "has_room", has_room)
    before = runtime.steps
    with box.open() as writer:
        result = box.put(writer, RESULT, SPOKEN)
    assert (result.code, result.message, result.size) == ("output", "0.wav cannot be written: full", 0)
    assert asked == [8192] * 3
    assert runtime.steps == before + 3, "who waits does not hang"
    assert [line.partition(" in ")[0] for line in capsys.readouterr().err.splitlines()] == ["No room", "There is room"]
    assert runtime.record(BATCH_ID).results[0].code == "output"


def test_a_line_without_room_is_written_when_there_is(
    box: Outbox, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with box.open() as writer:
        append, tries = writer.append, []

        def full_at_first(result: SegmentResult) -> None:
            tries.append(result)
            if len(tries) < 3:
                raise RecordFull
            append(result)

        monkeypatch.setattr(writer, "append", full_at_first)
        assert box.put(writer, RESULT, SPOKEN).generated
    assert len(tries) == 3
    assert runtime.outputs.has_result(runtime.record(BATCH_ID).results[0])


def test_who_waits_for_room_hears_that_the_batch_is_cancelled(
    box: Outbox, watch: ChunkWatch, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.outputs, "has_room", lambda _size: watch.stop())
    with box.open() as writer:
        monkeypatch.setattr(writer, "append", lambda _result: (_ for _ in ()).throw(RecordFull()))
        with pytest.raises(RecordFull):
            box.put(writer, RESULT, SegmentFailure(0, "bad_reference", "bad"))


def test_a_folder_that_cannot_be_written_is_not_waited_for(
    box: Outbox, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with box.open() as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", read_only)
            assert box.put(writer, RESULT, SPOKEN).code == "output"
        assert box.put(writer, RESULT, SPOKEN).generated
    assert "No room" not in capsys.readouterr().err
    assert [path.name for path in runtime.outputs.root.rglob("*") if "part" in path.name] == []
