"""Hostile data in a fleet's keys: batches that are broken, state that makes no sense."""

from __future__ import annotations

import json
import pickle
import zlib
from typing import Any

import pytest

from cloner.errors import BatchBroken, Damaged
from cloner.names import CLOSE_BATCH, FIND_FINISHED, FIND_PART, OPEN_BATCH
from cloner.protocol.queries import FinishedResponse, PartResponse
from cloner.state.progress import ChunkProgress
from cloner.state.registry import WorkerInfo
from tests.support.bad_files import OpensDoor
from tests.support.hostile_messages import bomb, manifest
from tests.support.hostile_scene import Scene

pytestmark = pytest.mark.slow


def test_batches_that_are_none_are_broken_and_the_next_one_is_spoken(scene: Scene) -> None:
    elsewhere = str(scene.folder / "elsewhere")
    right = manifest("right")
    bad_output = manifest("above") | {"speakers": [right["speakers"][0] | {"segments": [[0, "One.", "../0.wav", 0]]}]}
    bad_parts = manifest("parts") | {"chunks": right["chunks"] * 50}
    packed: dict[str, bytes] = {
        "junk": b"junk",
        "pickled": pickle.dumps(OpensDoor(scene.door)),
        "pickled-inside": zlib.compress(pickle.dumps(OpensDoor(scene.door))),
        "json": json.dumps(right).encode(),
        "bomb": b"".join(bomb()),
        "cut": zlib.compress(json.dumps(right).encode())[:-9],
        "another": zlib.compress(json.dumps(right).encode()),
        "deep": zlib.compress(b"[" * 100_000),
        "huge": zlib.compress(json.dumps(manifest("huge") | {"submitted_at": 1e400}).encode()),
        "above": zlib.compress(json.dumps(bad_output).encode()),
        "parts": zlib.compress(json.dumps(bad_parts).encode()),
    }
    blobs, keys, queues = scene.client.blobs, scene.keys, scene.queues
    for batch_id, data in packed.items():
        blobs.set(keys.manifest(batch_id), data)
        blobs.hset(keys.batch(batch_id), mapping={"state": "submitting", "total": "1", "chunks": "1"})
        scene.send(OPEN_BATCH, batch_id, queue=queues.collector_queue)
    requests: list[object] = [pickle.dumps(OpensDoor(scene.door)), packed["bomb"], b"", "text", None]
    responses = [scene.app.send_task(FIND_FINISHED, (data, 2.0**40), queue=queues.collector_queue) for data in requests]
    part = scene.app.send_task(FIND_PART, (packed["bomb"], 2.0**40), queue=queues.collector_queue)
    wrong: list[object] = ["../../elsewhere", elsewhere, 7, None, ["right"], "a" * 10_000]
    for name in wrong:
        scene.send(OPEN_BATCH, name, queue=queues.collector_queue)
        scene.app.send_task(
            CLOSE_BATCH,
            args=([],),
            kwargs={"batch_id": batch_id},
            queue=queues.collector_queue,
            ignore_result=True,
        )
    scene.is_unharmed()
    for response in responses:
        error = FinishedResponse.unpack(response.get(timeout=60)).error
        assert "what Redis holds as a FinishedRequest is damaged" in error
    assert "what Redis holds as a PartRequest is damaged" in PartResponse.unpack(part.get(timeout=60)).error
    for batch_id in packed:
        with pytest.raises(BatchBroken, match=f"batch {batch_id} is broken: what Redis holds as "):
            scene.client.batch(batch_id).result()
    assert not scene.door.exists()


def test_nonsense_in_redis_is_a_sentence_to_who_asks(scene: Scene) -> None:
    redis, keys = scene.client.redis, scene.keys
    whole: dict[Any, Any] = {"state": "running", "total": "1", "chunks": "1"}
    for batch_id, changes, counts in [
        ("words", {"total": "many"}, ChunkProgress().pack()),
        ("stateless", {"chunks": ""}, ChunkProgress().pack()),
        ("junk", {}, "junk"),
        ("short", {}, "[]"),
        ("texts", {}, '{"generated": "a", "failed": "b", "frames": "c", "samples": "d", "finished": "e"}'),
        ("object", {}, "{}"),
        ("number", {}, "7"),
    ]:
        redis.hset(keys.batch(batch_id), mapping=whole | changes)
        redis.hset(keys.progress(batch_id), "0", counts)
        with pytest.raises(Damaged, match=f"what Redis holds of batch {batch_id} makes no sense"):
            scene.client.batch(batch_id).progress()
    scene.client.blobs.set(keys.result("result"), pickle.dumps(OpensDoor(scene.door)))
    with pytest.raises(Damaged, match="what Redis holds as a BatchResult is damaged"):
        scene.client.batch("result").result()
    for name, score in ((b"\xff\xfe", 1.0), (b"../../x", 2.0), (b"junk", 3.0), (b"timeless", 4.0)):
        scene.client.blobs.zadd(keys.batches, {name: score})
    redis.hset(keys.batch("../../x"), mapping=whole | {"submitted_at": "soon"})
    redis.hset(keys.batch("timeless"), "state", "submitting")
    redis.hset(keys.batch("junk"), mapping={"state": "submitting", "submitted_at": "soon"})
    redis.hset(keys.worker("junk"), mapping=dict.fromkeys(WorkerInfo.__dataclass_fields__, "junk"))
    redis.zadd(keys.workers, {"junk": 2**40})
    assert [worker.name for worker in scene.client.fleet()] == [scene.worker.name]
    scene.is_unharmed()
