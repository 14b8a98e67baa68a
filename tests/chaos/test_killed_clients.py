"""A client that is killed leaves a batch that is whole or not there; one that waits is missed by nobody."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from cloner import Client
from cloner.protocol.messages import Manifest
from cloner.settings import Settings, WorkerSettings
from cloner.state.registry import Registry, expected_worker
from tests.integration.conftest import PATIENCE_S, Said, Start, environment, run_cloner, spoken
from tests.support.batches import write_batch
from tests.support.middleman import Middleman, Moment

COMMANDS = (
    b"ZRANGEBYSCORE",  # which workers are alive
    b":reference:",
    b"WATCH",
    b"HMGET",  # what other batches write
    b"ZADD",  # the batch is written down, in one transaction
    b"assignment",
    b"_kombu.binding.",
    b"LPUSH",  # the message
    b"task.sent",  # whoever watches hears of it
)
"""What a client says, in this order, when it submits a batch."""

FOR_EVER = (":workers", ":worker:cpu.0@box", ":batches", ":queues")
"""What a fleet keeps without an expiry: it does not grow with the batches."""


def submit(middleman: Middleman, settings: Settings, batch: Path, word: bytes, moment: Moment) -> int:
    """Submit the batch by the command line, which dies when it says `word`; returns its exit status."""
    middleman.expect(word, moment)
    env = environment(settings.model_copy(update={"redis_url": middleman.url}))
    process = subprocess.Popen(
        [sys.executable, "-m", "cloner", "submit", str(batch)],
        env={**env, "PATH": "/usr/bin:/bin"},
        cwd=batch.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    middleman.let_in(process)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


def sent(client: Client) -> list[str]:
    """The batches whose message waits for the collector."""
    messages = [json.loads(message) for message in client.redis.lrange(client.queues.collector_queue, 0, -1)]
    return sorted(str(batch.id) for batch in map(client.batch, known(client)) if _named(messages, batch.id))


def _named(messages: list[dict[str, dict[str, str]]], batch_id: str) -> bool:
    return any(batch_id in message["headers"]["argsrepr"] for message in messages)


def known(client: Client) -> list[str]:
    return [str(batch_id) for batch_id in client.redis.zrange(client.keys.batches, 0, -1)]


def test_a_batch_whose_client_is_killed_at_any_command_is_whole_or_not_there(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    # A worker that is expected, so that nobody but the client speaks to Redis.
    settings = settings.model_copy(update={"alive_s": 3600.0})
    registry = Registry(client.redis, client.keys, settings.alive_s)
    registry.register(expected_worker(settings, WorkerSettings()))
    middleman = Middleman(settings.require_redis_url().removeprefix("unix://"), tmp_path / "redis.sock")
    assert submit(middleman, settings, write_batch(tmp_path / "whole", [2, 1], outputs="whole"), b"", Moment.DONE) == 0
    for number, word in enumerate(COMMANDS):
        for moment in Moment:
            name = f"{moment.name}{number}".lower()
            status = submit(middleman, settings, write_batch(tmp_path / name, [2, 1], outputs=name), word, moment)
            assert status == -signal.SIGKILL, (word, moment)

    whole = sent(client)
    lost = sorted(set(known(client)) - set(whole))
    # The first one and those that died once the message was there; those that died between the record and the message.
    assert (len(whole), len(lost)) == (4, 6)
    for batch_id in whole:
        data = client.blobs.get(client.keys.manifest(batch_id))
        assert isinstance(data, bytes)
        assert Manifest.unpack(data).total == 3
    kept = [key for key in map(str, client.redis.scan_iter(f"cloner:{settings.fleet}:*")) if client.redis.ttl(key) < 0]
    assert [key for key in kept if not key.endswith(FOR_EVER)] == []

    fleet = launch("--workers", "1")
    fleet.wait_for("Models loaded!")
    for batch_id in whole:
        assert client.batch(batch_id).wait(timeout=PATIENCE_S).generated == 3
        assert spoken(settings, batch_id) == [0, 1, 2]
    # The others are there as well, and the collector sees that nobody has opened them.
    for batch_id in lost:
        assert client.batch(batch_id).wait(timeout=PATIENCE_S).generated == 3
        assert spoken(settings, batch_id) == [0, 1, 2]
    assert len(list(settings.out_dir.rglob("*.wav"))) == 3 * len(whole + lost)
    # None is in the way of who did not hear of it and submits it again.
    for folder in sorted(path.parent for path in tmp_path.glob("*/batch.json")):
        assert client.submit(folder / "batch.json").wait(timeout=PATIENCE_S).generated == 3


def test_a_batch_whose_waiting_clients_are_killed_is_picked_up_by_another(
    launch: Start, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.6)  # three clients start and are killed meanwhile
    fleet.wait_for("Models loaded!", 2)
    batch = str(write_batch(tmp_path, [20, 20]))
    submitting = Said([sys.executable, "-m", "cloner", "submit", batch, "--wait"], environment(settings), tmp_path)
    batch_id = submitting.wait_for("[Main] Batch: ")[0].rpartition(" ")[2]
    command = [sys.executable, "-m", "cloner", "wait", batch_id]
    waiting = [Said(command, environment(settings), tmp_path) for _ in range(2)]
    for said in waiting:
        said.wait_for("[Main] Progress: ")
    for said in (submitting, *waiting):
        assert said.stop(signal.SIGKILL) == -signal.SIGKILL

    waited = run_cloner("wait", batch_id, cwd=tmp_path, env=environment(settings))
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["generated"] == 40
    assert spoken(settings, batch_id) == list(range(40))
