"""A running fleet and its clients, also when workers end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloner import Client
from cloner.client.assignment import Strategy
from cloner.errors import BatchBroken, UnknownBatch, WrongCheckpoint
from cloner.events import Event
from cloner.names import OPEN_BATCH, SCHEMA, SPEAK_CHUNK
from cloner.protocol.results import BatchResult
from cloner.queueing.app import make_app
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow


def test_a_batch_outlives_the_client_that_submitted_it(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "2", fake_segment_s=0.05).wait_for(Event.MODELS_LOADED, 2)
    command = [sys.executable, "-m", "cloner", "submit", str(write_batch(tmp_path)), "--wait"]
    waiting = LoggedProcess(command, environment(settings), tmp_path)
    batch_id = fields_of(waiting.wait_for(Event.BATCH_SUBMITTED)[0], Event.BATCH_SUBMITTED)["batch"]
    assert waiting.stop(signal.SIGKILL) == -signal.SIGKILL

    waited = run_cloner("wait", batch_id, cwd=tmp_path, env=environment(settings))
    assert waited.returncode == 0, waited.stderr
    result = json.loads(waited.stdout)
    assert (result["batch_id"], result["generated"]) == (batch_id, 46)
    written = json.loads((settings.out_dir / ".cloner" / batch_id / "result.json").read_text())
    assert written == result
    again = run_cloner("result", batch_id, cwd=tmp_path, env=environment(settings))
    assert json.loads(again.stdout) == result
    status = run_cloner("status", batch_id, cwd=tmp_path, env=environment(settings))
    assert status.stdout.startswith(f"{batch_id}: done, 46/46 segments generated, 0 failed, ")


@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_strategy_speaks_every_segment_once(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path, strategy: Strategy
) -> None:
    launch("--workers", "3", fake_slots=2).wait_for(Event.MODELS_LOADED, 3)
    batch = client.submit(write_batch(tmp_path, [40, 3, 1, 7]), strategy=strategy)
    result = batch.wait(timeout=60)
    assert result.results == {index: f"batch/audio/{index}.wav" for index in range(51)}
    assert batch.paths() == {index: settings.out_dir / f"batch/audio/{index}.wav" for index in range(51)}
    assert all(path.is_file() for path in batch.paths().values())
    assert recorded_segments(settings, result.batch_id) == list(range(51))
    if strategy is Strategy.LONGEST_FIRST:
        assert sorted(result.workers.values()) == [17, 17, 17]


def test_an_event_loop_goes_on_while_a_batch_is_waited_for(launch: Launch, client: Client, tmp_path: Path) -> None:
    launch("--workers", "1", fake_segment_s=0.3).wait_for(Event.MODELS_LOADED)

    async def cancel_while_waiting() -> BatchResult:
        batch = client.submit(write_batch(tmp_path, [200]))
        with pytest.raises(TimeoutError, match=f"batch {batch.id} is not finished after 0 s"):
            await batch.wait_async(0)
        waiting = asyncio.create_task(batch.wait_async(60))
        await asyncio.sleep(0)  # lets the task begin
        batch.cancel()
        return await waiting

    assert asyncio.run(cancel_while_waiting()).cancelled


def test_cancel_stops_what_is_not_spoken_and_keeps_what_is(launch: Launch, client: Client, tmp_path: Path) -> None:
    fleet = launch("--workers", "1", fake_segment_s=0.3)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [200]))
    fleet.wait_for(Event.SPEAKER_PROGRESS, speaker=0, finished=1, texts=200)
    batch.cancel()
    result = batch.wait(timeout=60)
    assert result.cancelled
    assert 1 <= result.generated < 200
    assert result.generated + result.failed == 200
    assert {error.code for error in result.errors.values()} == {"cancelled"}


def test_a_lost_reference_fails_its_speaker_and_no_other(launch: Launch, client: Client, tmp_path: Path) -> None:
    fleet = launch("--workers", "1", fake_load_s=2.0)
    fleet.wait_for(Event.LAUNCHING_WORKER, index=0)
    batch = client.submit(write_batch(tmp_path, [3, 3]))
    reference = next(iter(client.redis.scan_iter(client.keys.reference("*"))))
    client.redis.delete(reference)
    result = batch.wait(timeout=60)
    assert (result.generated, result.failed) == (3, 3)
    assert {error.code for error in result.errors.values()} == {"bad_reference"}
    assert len({error.speaker for error in result.errors.values()}) == 1


def test_a_batch_for_another_checkpoint_is_refused_with_both_names(
    launch: Launch, client: Client, tmp_path: Path
) -> None:
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    with pytest.raises(WrongCheckpoint, match=r"'other-model'.*'openaudio-s1-mini'"):
        client.submit(write_batch(tmp_path, checkpoint_dir="checkpoints/other-model"))
    own = write_batch(tmp_path, [1], checkpoint_dir="somewhere/openaudio-s1-mini")
    assert client.submit(own).wait(timeout=60).generated == 1


def test_an_unknown_batch_is_a_sentence(client: Client) -> None:
    with pytest.raises(UnknownBatch, match="no batch nonsense is known"):
        client.batch("nonsense").wait()


def test_a_chunk_of_another_wire_version_is_left_for_a_worker_that_can_read_it(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    app = make_app(settings)
    app.send_task(
        SPEAK_CHUNK, args=({"schema_version": SCHEMA + 1, "novelty": True},), queue=worker.queue, task_id="from-next"
    )
    fleet.wait_for(Event.CHUNK_OF_OTHER_SCHEMA, version=SCHEMA + 1, own_version=SCHEMA)
    # The worker goes on, and the message is in the queue of workers of that version.
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=60).generated == 2
    waiting = client.redis.lrange(settings.queues.shared_queue(SCHEMA + 1), 0, -1)
    assert [json.loads(message)["headers"]["id"] for message in waiting] == ["from-next"]


def test_a_pickled_message_is_refused(launch: Launch, client: Client, settings: Settings, tmp_path: Path) -> None:
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    app = make_app(settings)
    app.send_task(SPEAK_CHUNK, args=({"a": 1},), queue=worker.queue, serializer="pickle")
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=60).generated == 2
    fleet.wait_for(Event.MESSAGE_DEAD_LETTERED, queue=worker.queue, reason=re.compile("content-type"))


def test_opening_a_batch_twice_speaks_it_once(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "2", fake_segment_s=0.02).wait_for(Event.MODELS_LOADED, 2)
    batch = client.submit(write_batch(tmp_path))
    make_app(settings).send_task(OPEN_BATCH, args=(batch.id,), queue=settings.queues.collector_queue)
    assert batch.wait(timeout=60).generated == 46
    assert recorded_segments(settings, batch.id) == list(range(46))


def test_an_output_root_that_cannot_be_written_any_more_fails_every_segment_and_ends(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2")
    fleet.wait_for(Event.MODELS_LOADED, 2)
    settings.out_dir.rename(tmp_path / "moved")
    settings.out_dir.write_text("a file where a folder should be")
    result = client.submit(write_batch(tmp_path, [2, 2, 2])).wait(timeout=60)
    assert (result.generated, result.failed) == (0, 6)
    assert {error.code for error in result.errors.values()} == {"output"}
    assert not any("Traceback" in line for line in fleet.lines)


def test_a_worker_that_redis_has_forgotten_enters_itself_again(launch: Launch, client: Client, tmp_path: Path) -> None:
    launch("--workers", "1", heartbeat_s=0.1).wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    client.redis.delete(client.keys.workers, client.keys.worker(worker.name))
    eventually(lambda: [known.name for known in client.fleet()] == [worker.name])
    assert client.submit(write_batch(tmp_path, [2])).wait(timeout=60).generated == 2


def test_a_batch_that_cannot_be_opened_says_why_to_who_waits(launch: Launch, client: Client, tmp_path: Path) -> None:
    fleet = launch("--workers", "1", fake_load_s=2.0)
    fleet.wait_for(Event.LAUNCHING_WORKER, index=0)
    batch = client.submit(write_batch(tmp_path, [1]))
    client.redis.set(client.keys.manifest(batch.id), "not a manifest")
    with pytest.raises(BatchBroken, match=f"batch {batch.id} is broken: "):
        batch.wait(timeout=60)


def test_a_base_client_imports_no_torch() -> None:
    imports = "import sys, cloner, cloner.cli.main, cloner.client.client, cloner.collector.tasks"
    script = f"{imports}; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
