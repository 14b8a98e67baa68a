"""The process with the model dies in the middle of a chunk: by a signal, by a segment or by its engine."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import soundfile

from cloner import Client
from cloner.events import Event
from cloner.protocol.results import BatchResult
from cloner.settings import EngineName, Settings
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

KILLER = "A killer of processes."
BATCHED = {"engine": EngineName.BATCHED, "slots": 2, "deterministic": True}
"""With one thread and fixed shapes, a segment's audio does not depend on the other slots."""


def check_whole(result: BatchResult, settings: Settings, failed: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Check that each segment was finished once, all except `failed` have a whole file, and nothing else is left."""
    assert set(result.errors) == failed
    assert set(result.results) == set(range(result.total)) - failed
    assert recorded_segments(settings, result.batch_id) == list(range(result.total))
    for output in result.results.values():
        assert soundfile.info(settings.out_dir / output).frames > 0
    strays = [
        path for path in settings.out_dir.rglob("*") if path.name.startswith("part-") or path.suffix == ".journal"
    ]
    assert strays == []


def loads(client: Client) -> int:
    return sum(worker.loads for worker in client.fleet())


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_child_that_is_killed_speaks_on_where_it_was(
    engine: str, launch: Launch, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"fake_segment_s": 0.2} if engine == "fake" else {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [24], {"min_new_tokens": 20, "max_new_tokens": 20}))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=5, texts=24)
    (worker,) = client.fleet()
    before = {path: path.stat().st_mtime_ns for path in (settings.out_dir / "audio").iterdir()}
    os.kill(worker.pid, signal.SIGKILL)
    result = batch.wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2
    # At most two had a file and no line yet.
    assert sum(path.stat().st_mtime_ns != before[path] for path in before) <= 2


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_segment_that_kills_each_time_is_set_aside_and_all_others_are_spoken(
    engine: str,
    launch: Launch,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    if engine == "fake":
        patch_module(
            "cloner.engine.fake",
            """
            generate = module._generate
            module._generate = lambda request: die() if "killer" in request.text else generate(request)
            """,
        )
        # Loading lasts for several health checks, which must not count it as a worker that never loads.
        changes: dict[str, object] = {"fake_slots": 3, "fake_load_s": 1.0, "heartbeat_s": 0.2}
    else:
        # The text goes into the prompt when the chunk comes; it kills when it is decoded.
        patch_module(
            "cloner.engine.scheduler",
            """
            step = module.Scheduler._step
            def stepping(self, running):
                if any("killer" in segment.request.text and segment.frames == 3 for segment in running):
                    die()
                return step(self, running)
            module.Scheduler._step = stepping
            """,
        )
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    path = write_batch(tmp_path, [6, 4], {"min_new_tokens": 8, "max_new_tokens": 8}, texts={4: KILLER})
    result = client.submit(path).wait(timeout=280)
    check_whole(result, settings, failed={4})
    assert result.errors[4].code == "crashed"
    assert "died 3 times while it spoke this segment and no other" in result.errors[4].message
    # Once with others, three times alone; the launcher does not restart the worker.
    assert loads(client) == 5
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=0)) == 1


def test_a_segment_that_kills_only_in_company_is_spoken_alone(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        speak = module.FakeEngine.speak
        def speaking(self, requests, observer=module.NULL_OBSERVER):
            requests = list(requests)
            if len(requests) > 1 and any("killer" in request.text for request in requests):
                for request in requests[:3]:
                    observer.started(request.segment)
                die()
            return speak(self, requests, observer)
        module.FakeEngine.speak = speaking
        """,
    )
    fleet = launch("--workers", "1", fake_slots=3)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [6], texts={1: KILLER})).wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2


def test_an_engine_that_kills_at_every_segment_is_given_up_and_the_batch_ends(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.engine.fake", "module._generate = lambda request: die()")
    fleet = launch("--workers", "1", fake_slots=4, fake_load_s=0.4, heartbeat_s=0.2)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [8])).wait(timeout=280)
    check_whole(result, settings, failed=set(range(8)))
    assert {error.code for error in result.errors.values()} == {"engine_failed"}
    assert "died 10 times without a segment generated in between" in result.errors[0].message
    assert loads(client) == 11
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=0)) == 1
    fleet.wait_for(Event.CHUNK_GIVEN_UP, error=re.compile("the worker's process died 10 times"))


def test_a_worker_that_dies_at_every_segment_is_given_up_and_the_others_speak_all(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        is_broken = os.environ.get("CLONER_WORKER_INDEX") == "1"
        module._generate = lambda request: die() if is_broken else generate(request)
        """,
    )
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [2, 1, 2, 1]))
    assert [assignment.speakers for assignment in batch.assignments] == [("0", "2"), ("1", "3")]
    fleet.wait_for(Event.CHUNK_PASSED_ON, child="Worker 1", to=re.compile("cpu.0@"))
    assert fleet.find(Event.CHUNK_PASSED_ON, child="Worker 0") == []
    check_whole(batch.wait(timeout=280), settings)
    batch = client.submit(write_batch(tmp_path, [2, 2], outputs="again"))
    reason = re.compile("is broken: it could speak nothing of two chunks in a row")
    fleet.wait_for(Event.WORKER_GIVEN_UP, title="Worker 1", reason=reason)
    check_whole(batch.wait(timeout=280), settings)
    (worker,) = client.fleet()
    assert (worker.index, worker.loads) == (0, 1)
    assert len(fleet.wait_for(Event.LAUNCHING_WORKER, index=1)) == 1
    assert not [line for line in fleet.lines if "Traceback" in line]


def test_a_speaker_who_kills_every_worker_costs_nobody_his_place(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        module._generate = lambda request: die() if "killer" in request.text else generate(request)
        """,
    )
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path, [2, 1, 2, 3], texts={2: KILLER}))
    check_whole(batch.wait(timeout=280), settings, failed={2})
    assert batch.result().errors[2].code == "crashed"
    assert {worker.index: worker.loads for worker in client.fleet()} == {0: 2, 1: 4}


def test_an_engine_that_breaks_ends_its_process_and_a_fresh_one_goes_on(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module(
        "cloner.engine.fake",
        """
        generate = module._generate
        def generating(request):
            if "killer" in request.text and once("broken"):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return generate(request)
        module._generate = generating
        """,
    )
    fleet = launch("--workers", "1", fake_slots=2)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [9], texts={3: KILLER})).wait(timeout=200)
    check_whole(result, settings)
    assert loads(client) == 2
    error = re.compile("the engine broke: RuntimeError: CUDA error: an illegal memory access")
    assert len(fleet.wait_for(Event.ENGINE_RELOADING, error=error)) == 1
    fleet.wait_for(Event.CHILD_DIED, how="exitcode 75")
    assert not [line for line in fleet.lines if "Traceback" in line]


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_worker_that_is_told_to_stop_puts_nothing_under_suspicion(
    engine: str, launch: Launch, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    changes: dict[str, object] = {"fake_segment_s": 0.5, "fake_slots": 2}
    if engine == "batched":
        changes = {**BATCHED, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [8], {"min_new_tokens": 100, "max_new_tokens": 100}))
    eventually(lambda: any('"segment"' in line for line in hands(settings)))
    assert fleet.stop() == 0
    # The journal's run has an end, so none of its segments is generated alone.
    assert hands(settings)[-1].endswith('"ended":true}')
    launch("--workers", "1", **changes)
    check_whole(batch.wait(timeout=200), settings)


STUCK = """
import ctypes
generate = module._generate
def generating(request):
    if "killer" in request.text and not os.path.exists("free"):
        once("stuck")
        # A lock that this thread holds: it waits for ever, in one step that no signal interrupts.
        lock = ctypes.create_string_buffer(64)
        libc = ctypes.CDLL(None)
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)
    return generate(request)
module._generate = generating
"""


def test_a_stop_that_takes_too_long_puts_nothing_under_suspicion(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.engine.fake", STUCK)
    fleet = launch("--workers", "1", fake_slots=3, stop_s=3.0)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [6], texts={4: KILLER}))
    eventually((tmp_path / "patches/stuck").exists)
    assert fleet.stop() == 0
    fleet.wait_for(Event.KILLING, processes=re.compile("Worker 0"))
    assert hands(settings)[-1].endswith('"ended":true}')
    (tmp_path / "free").touch()
    launch("--workers", "1")
    check_whole(batch.wait(timeout=200), settings)


def test_a_worker_that_is_killed_because_it_hangs_leaves_suspects(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    patch_module("cloner.engine.fake", STUCK)
    fleet = launch("--workers", "1", fake_slots=3, hang_s=3.0, heartbeat_s=0.2, stop_s=3.0)
    fleet.wait_for(Event.MODELS_LOADED)
    client.submit(write_batch(tmp_path, [6], texts={4: KILLER}))
    fleet.wait_for(Event.KILLING_UNHEALTHY, title="Worker 0", reason="has been busy for 3 s without a step")
    eventually(lambda: '{"run":2,"segment":4,"alone":true}' in hands(settings))
    assert not [line for line in hands(settings) if "ended" in line]


def hands(settings: Settings) -> list[str]:
    """The lines of all journals."""
    return [line for path in settings.out_dir.rglob("*.journal") for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (
            "cloner.output.record",
            """
            append = module.append_line
            def dying(file, line):
                if b'"output"' in line and once("dead"):
                    die()
                append(file, line)
            module.append_line = dying
            """,
        ),
        (
            "cloner.output.record",
            """
            append = module.append_line
            def dying(file, line):
                if b'"output"' in line and once("dead"):
                    os.write(file, line[:40])
                    die()
                append(file, line)
            module.append_line = dying
            """,
        ),
        (
            "cloner.output.atomic_file",
            """
            write = module._write_all
            def dying(file, data):
                if once("dead"):
                    write(file, data[:100])
                    die()
                write(file, data)
            module._write_all = dying
            """,
        ),
    ],
    ids=["between the file and its line", "in the middle of the line", "in the middle of the file"],
)
def test_a_death_in_the_middle_of_writing_loses_nothing(
    module: str,
    change: str,
    launch: Launch,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    patch_module(module, change)
    fleet: LoggedProcess = launch("--workers", "1", fake_slots=2)
    fleet.wait_for(Event.MODELS_LOADED)
    result = client.submit(write_batch(tmp_path, [5])).wait(timeout=200)
    assert set(result.results) == set(range(5))
    for output in result.results.values():
        assert soundfile.info(settings.out_dir / output).frames > 0
    assert [path for path in settings.out_dir.rglob("*") if "part" in path.name or path.suffix == ".journal"] == []
    assert loads(client) == 2


def test_a_file_that_has_no_line_is_not_taken_for_the_one_of_an_earlier_line(
    launch: Launch, client: Client, settings: Settings, patch_module: ModulePatcher, tmp_path: Path
) -> None:
    """A text is changed, all is killed between the new file and its line, and the text is changed back: both files are
    of one size."""
    patch_module(
        "cloner.output.record",
        """
        import time
        append = module.append_line
        def waiting(file, line):
            while b'"output"' in line and os.path.exists("hold"):
                time.sleep(0.01)
            append(file, line)
        module.append_line = waiting
        """,
    )
    path = settings.out_dir / "audio/0.wav"
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    assert client.submit(write_batch(tmp_path, [1], texts={0: "Text A."})).wait(timeout=100).generated == 1
    first = path.read_bytes()
    (tmp_path / "hold").touch()
    batch = client.submit(write_batch(tmp_path, [1], texts={0: "Text B."}))
    eventually(lambda: path.read_bytes() != first)
    assert len(path.read_bytes()) == len(first)
    batch.cancel()
    fleet.stop(signal.SIGKILL)
    (tmp_path / "hold").unlink()
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    batch.wait(timeout=100)
    result = client.submit(write_batch(tmp_path, [1], texts={0: "Text A."})).wait(timeout=100)
    assert (result.generated, result.reused) == (1, 0)
    assert path.read_bytes() == first
