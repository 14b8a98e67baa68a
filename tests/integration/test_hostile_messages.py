"""Hostile messages in the queues: workers read and write no other files because of them, and none ends."""

from __future__ import annotations

import gzip
import pickle
import re
from collections import Counter

import pytest

from cloner.batch import ReferenceKind
from cloner.events import Event
from cloner.names import SCHEMA, SPEAK_CHUNK
from cloner.protocol.references import reference_key
from cloner.state.dead_letters import DeadLetters
from tests.support.bad_files import OpensDoor
from tests.support.batches import write_codes
from tests.support.hostile_messages import DIGEST, chunk, envelope
from tests.support.hostile_scene import Scene
from tests.support.polling import eventually

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


HEADERS = {"lang": "py", "task": SPEAK_CHUNK, "id": "1", "argsrepr": "()", "kwargsrepr": "{}"}

BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def test_malformed_messages_go_to_the_dead_letter_list_and_end_no_process(scene: Scene) -> None:
    pickled = pickle.dumps(OpensDoor(scene.door))
    packed = gzip.compress(bytes(64 * 1024**2))
    junk: list[str | bytes] = [
        b"junk",
        envelope(b"junk"),
        envelope(b"[]"),
        envelope(b"[[], {}, {}]", headers=[]),
        envelope(b'[["a"], 7, 8]'),
        envelope(b'[[{"a": ' + b"[" * 5_000),
        envelope(b"\xff\xfe\x00"),
        envelope(pickled, **{"content-type": "application/x-python-serialize"}),
        envelope(pickled, **{"content-type": "application/data"}),
        envelope(pickled, **{"content-encoding": "binary"}),
        envelope(b"a: !!python/object/apply:os.system [id]", **{"content-type": "application/x-yaml"}),
        envelope(packed, headers=HEADERS | {"compression": "application/x-gzip"}),
        # Each of these ended the process that took it, again and again.
        envelope(BODY, headers=HEADERS | {"timelimit": ["a", None]}),
        envelope(BODY, headers=HEADERS | {"eta": {}}),
        envelope(BODY, headers=HEADERS | {"id": ["a"]}),
    ]
    queues = [scene.worker.queue, scene.queues.collector_queue]
    for message in junk:
        for queue in queues:
            scene.client.redis.lpush(queue, message)
    scene.is_unharmed()
    assert not any("Traceback" in line for line in scene.fleet.lines)
    letters = DeadLetters(scene.client.redis, scene.keys)
    eventually(lambda: len(letters) == len(junk) * len(queues))
    assert Counter(letter.queue for letter in letters.newest_first()) == dict.fromkeys(queues, len(junk))
