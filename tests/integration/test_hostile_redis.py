"""Somebody else's hand on Redis: whatever it writes there, no worker reads or writes elsewhere, and all live on."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloner import Client
from cloner.batch import Generation, ReferenceKind
from cloner.errors import BatchBroken, Damaged
from cloner.names import CLOSE_BATCH, FIND_FINISHED, OPEN_BATCH, SCHEMA, SPEAK_CHUNK
from cloner.protocol.messages import (
    ChunkMessage,
    ChunkRow,
    FinishedResponse,
    Manifest,
    ReferenceRow,
    SpeakerRow,
    SpeakerSegments,
    SpeakerSliceRow,
)
from cloner.protocol.packing import MAX_BYTES
from cloner.protocol.references import reference_key
from cloner.queueing.app import make_app
from cloner.settings import Settings
from cloner.state.batches import ChunkProgress
from cloner.state.keys import RedisKeys
from cloner.state.registry import WorkerInfo
from tests.integration.conftest import Said, Start, eventually
from tests.support.bad_files import OpensDoor
from tests.support.batches import write_batch, write_codes

DIGEST = "d" * 64


class Scene:
    """A fleet of one worker, and all that lies around its output folder."""

    def __init__(self, fleet: Said, client: Client, settings: Settings, folder: Path) -> None:
        self.fleet = fleet
        self.client = client
        self.keys, self.queues = RedisKeys(settings.fleet), settings.queues
        self.app = make_app(settings)
        self.folder = folder
        self.out = settings.out_dir
        self.out.mkdir(exist_ok=True)
        self.batch = write_batch(folder, [3])
        self.door = folder / "door"
        self.before = self.around()
        (self.worker,) = client.fleet()

    def around(self) -> set[Path]:
        """All files and folders but those under the output folder."""
        return {path for path in self.folder.rglob("*") if not path.is_relative_to(self.out)}

    def send(self, task: str, *args: object, queue: str | None = None) -> None:
        self.app.send_task(task, args=args, queue=queue or self.worker.queue, ignore_result=True)

    def is_unharmed(self, same_process: bool = True) -> None:
        """A right batch is spoken, by the same process; and nothing was written but that."""
        result = self.client.submit(self.batch).wait(timeout=100)
        assert (result.generated, result.failed) == (3, 0)
        assert self.around() == self.before
        written = {path.relative_to(self.out) for path in self.out.rglob("*.*") if ".cloner" not in path.parts}
        assert {str(path) for path in written} == set(result.results.values())
        (worker,) = self.client.fleet()
        if same_process:
            assert (worker.pid, worker.loads) == (self.worker.pid, 1)
        eventually(lambda: self.client.redis.llen(self.worker.queue) == 0)


@pytest.fixture
def scene(launch: Start, client: Client, settings: Settings, tmp_path: Path) -> Scene:
    fleet = launch("--workers", "1")
    fleet.wait_for("Models loaded!")
    return Scene(fleet, client, settings, tmp_path)


def chunk(**changes: Any) -> dict[str, Any]:
    """A right message of one segment, with changes."""
    part = SpeakerSegments(
        id="anna",
        reference=ReferenceRow(kind=ReferenceKind.CODES, digest=DIGEST, text="Said."),
        segments=[(0, "One.", "0.wav")],
        position=1,
        texts=1,
    )
    message = ChunkMessage(
        batch_id="hostile",
        number=0,
        assignment=0,
        speakers=1,
        texts=1,
        shared=False,
        generation=Generation(),
        slices=[part],
    ).model_dump(mode="json")
    for key in changes.keys() & {"output", "digest", "id", "index"}:
        value: Any = changes.pop(key)
        (part_of,) = message["slices"]
        if key == "id":
            part_of["id"] = value
        elif key == "digest":
            part_of["reference"]["digest"] = value
        else:
            part_of["segments"][0][{"index": 0, "output": 2}[key]] = value
    return message | changes


def manifest(batch_id: str) -> dict[str, Any]:
    """A right manifest of one segment."""
    reference = ReferenceRow(kind=ReferenceKind.CODES, digest=DIGEST, text="Said.")
    part = SpeakerSliceRow(speaker=0, start=0, stop=1, position=1, texts=1)
    return Manifest(
        batch_id=batch_id,
        source="b.json",
        submitted_at=1.0,
        generation=Generation(),
        speakers=[SpeakerRow(id="anna", reference=reference, segments=[(0, "One.", "0.wav")])],
        chunks=[ChunkRow(number=0, queue="q", assignment=0, speakers=1, texts=1, shared=False, slices=[part])],
    ).model_dump(mode="json")


def envelope(body: bytes, **changes: object) -> str:
    """A message as Celery has it in a queue."""
    message = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": SPEAK_CHUNK, "id": "1", "argsrepr": "()", "kwargsrepr": "{}"},
        "properties": {
            "body_encoding": "base64",
            "correlation_id": "1",
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "delivery_mode": 2,
            "delivery_tag": "1",
            "priority": 0,
            "reply_to": "",
        },
    }
    return json.dumps(message | {"body": base64.b64encode(body).decode()} | changes)


def bomb() -> Iterator[bytes]:
    """A few hundred KB that unpack to more than a worker will have of anything."""
    deflating = zlib.compressobj(9)
    yield from (deflating.compress(bytes(1024**2)) for _ in range(MAX_BYTES // 1024**2 + 8))
    yield deflating.flush()


def test_chunks_that_would_lead_elsewhere_are_refused(scene: Scene) -> None:
    elsewhere = scene.folder / "elsewhere"
    hostile: list[object] = [
        *(chunk(output=output) for output in ("../0.wav", "a/../../0.wav", str(elsewhere / "0.wav"), ".cloner/0.wav")),
        *(chunk(output=output) for output in ("0.sh", "0.wav\n", "a\0.wav", "a\\0.wav", "a" * 300 + ".wav", 7, None)),
        *(chunk(batch_id=batch_id) for batch_id in ("../../elsewhere", str(elsewhere), "..", "", 7, {"a": 1})),
        *(chunk(digest=digest) for digest in ("../../../elsewhere/a", "d" * 63, "D" * 64, "")),
        *(chunk(number=number) for number in (-1, 10**30, 1e308, "many")),
        *(chunk(index=index) for index in (-1, 2**64, 10**300, "first")),
        chunk(id="anna\n[Worker 0] All done!"),
        chunk(generation={"max_new_tokens": 10**12}),
        chunk(slices=[[]] * 1000),
        chunk(schema_version=None),
        *("junk", 7, None, [], [[[[]]]], {}, {"schema_version": SCHEMA}),
    ]
    for message in hostile:
        scene.send(SPEAK_CHUNK, message)
    scene.is_unharmed()
    scene.fleet.wait_for("A message was refused: ", len(hostile))
    assert not any("Traceback" in line for line in scene.fleet.lines)


def test_other_tasks_than_ours_are_not_run(scene: Scene) -> None:
    scene.send(SPEAK_CHUNK)
    scene.send("os.system", "touch door")
    scene.send("celery.map", {"task": "os.system", "args": [], "options": {}}, [["touch door"]])
    scene.is_unharmed()


def test_a_right_chunk_stays_within_the_output_folder_whatever_lies_there(scene: Scene) -> None:
    codes = write_codes(scene.folder / "other.npy").read_bytes()
    key = reference_key(ReferenceKind.CODES, codes)
    scene.client.blobs.set(scene.keys.reference(key), codes)
    scene.client.blobs.set(scene.keys.reference(DIGEST), codes)
    elsewhere = scene.folder / "elsewhere"
    elsewhere.mkdir()
    (scene.out / "link").symlink_to(elsewhere)
    scene.before = scene.around()
    # Right in its form; its output leads out by a link, or its reference is another one's.
    scene.send(SPEAK_CHUNK, chunk(batch_id="by-a-link", digest=key, output="link/0.wav"))
    scene.send(SPEAK_CHUNK, chunk(batch_id="by-its-voice", digest=DIGEST, output="1.wav"))
    scene.is_unharmed()
    assert list(elsewhere.iterdir()) == []
    scene.fleet.wait_for("leads out of the output folder")
    scene.fleet.wait_for("did not arrive whole")


def test_messages_that_are_none_are_dropped(scene: Scene) -> None:
    pickled = pickle.dumps(OpensDoor(scene.door))
    junk = [
        envelope(b"junk"),
        envelope(b"[[], {}, {}]"),
        envelope(b'[["a"], 7, 8]'),
        envelope(b'[[{"a": ' + b"[" * 5_000),
        envelope(b"\xff\xfe\x00"),
        envelope(pickled, **{"content-type": "application/x-python-serialize"}),
        envelope(pickled, **{"content-type": "application/data"}),
        envelope(pickled, **{"content-encoding": "binary"}),
        envelope(b"a: !!python/object/apply:os.system [id]", **{"content-type": "application/x-yaml"}),
        envelope(zlib.compress(b"[]"), headers={"compression": "application/x-bz2"}),
    ]
    for message in junk:
        scene.client.redis.lpush(scene.worker.queue, message)
        scene.client.redis.lpush(scene.queues.collector_queue, message)
    scene.is_unharmed()


@pytest.mark.parametrize("message", [b"junk", envelope(b"[]")], ids=["no JSON", "a body of nothing"])
def test_what_breaks_celery_itself_costs_a_load_and_no_work(scene: Scene, message: str | bytes) -> None:
    """Who writes past Celery's own format into a queue ends the worker; the launcher starts it again."""
    scene.client.redis.lpush(scene.worker.queue, message)
    scene.fleet.wait_for("Models loaded!", 2)
    scene.is_unharmed(same_process=False)


def test_batches_that_are_none_are_broken_and_the_next_one_is_spoken(scene: Scene) -> None:
    elsewhere = str(scene.folder / "elsewhere")
    right = manifest("right")
    bad_output = manifest("above") | {"speakers": [right["speakers"][0] | {"segments": [[0, "One.", "../0.wav"]]}]}
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
    responses = [scene.app.send_task(FIND_FINISHED, (data,), queue=queues.collector_queue) for data in requests]
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
    redis.hset(keys.worker("nobody"), mapping=dict.fromkeys(WorkerInfo.__dataclass_fields__, "junk"))
    redis.zadd(keys.workers, {"nobody": 2**40})
    assert [worker.name for worker in scene.client.fleet()] == [scene.worker.name]
    scene.is_unharmed()
