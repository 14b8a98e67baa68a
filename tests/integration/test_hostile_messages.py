"""Hostile messages in the queues: workers read and write no other files because of them, and none ends."""

from __future__ import annotations

import pickle
import re
import zlib

import pytest

from cloner.batch import ReferenceKind
from cloner.events import Event
from cloner.names import SCHEMA, SPEAK_CHUNK
from cloner.protocol.references import reference_key
from tests.support.bad_files import OpensDoor
from tests.support.batches import write_codes
from tests.support.hostile_messages import DIGEST, chunk, envelope
from tests.support.hostile_scene import Scene

pytestmark = pytest.mark.slow


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
    scene.fleet.wait_for(Event.MESSAGE_REFUSED, len(hostile))
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
    # Valid in form; the output leads out by a link, or the reference has another digest.
    scene.send(SPEAK_CHUNK, chunk(batch_id="by-a-link", digest=key, output="link/0.wav"))
    scene.send(SPEAK_CHUNK, chunk(batch_id="by-its-voice", digest=DIGEST, output="1.wav"))
    scene.is_unharmed()
    assert list(elsewhere.iterdir()) == []
    scene.fleet.wait_for(Event.SEGMENT_FAILED, error=re.compile("leads out of the output folder"))
    scene.fleet.wait_for(Event.SEGMENT_FAILED, error=re.compile("did not arrive whole"))


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
    """A message that is not in Celery's format ends the worker; the launcher starts it again."""
    scene.client.redis.lpush(scene.worker.queue, message)
    scene.fleet.wait_for(Event.MODELS_LOADED, 2)
    scene.is_unharmed(same_process=False)
