"""A killed client leaves a batch that is whole or absent; a killed waiting client changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.protocol.messages import Manifest
from cloner.settings import Settings, WorkerSettings
from cloner.state.registry import Registry, expected_worker
from tests.support.batches import write_batch
from tests.support.log_lines import fields_of
from tests.support.polling import TIMEOUT_S
from tests.support.processes import Launch, LoggedProcess, environment, run_cloner
from tests.support.records import recorded_segments
from tests.support.redis_proxy import KillingProxy, Moment

pytestmark = pytest.mark.slow

COMMANDS = (
    b"WITHSCORES",  # the workers and their heartbeats
    b":reference:",
    b"WATCH",
    b"HMGET",  # what other batches write
    b"ZADD",  # the transaction that adds the batch
    b"assignment",
    b"_kombu.binding.",
    b"LPUSH",  # the message
    b"task.sent",  # the event for monitors
)
"""Parts of the commands that a client sends, in this order, when it submits a batch."""

FOR_EVER = (":workers", ":worker:cpu.0@box", ":batches", ":worker_queues")
"""Ends of the keys that have no expiry: they do not grow with the batches."""


def submit(proxy: KillingProxy, settings: Settings, batch: Path, command: bytes, moment: Moment) -> int:
    """Submit the batch by the command line, which is killed at `command`; returns its exit status."""
    proxy.kill_at(command, moment)
    env = environment(settings.model_copy(update={"redis_url": proxy.url}))
    process = subprocess.Popen(
        [sys.executable, "-m", "cloner", "submit", str(batch)],
        env={**env, "PATH": "/usr/bin:/bin"},
        cwd=batch.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    proxy.serve(process)
    process.communicate(timeout=TIMEOUT_S)
    return process.returncode


def sent(client: Client) -> list[str]:
    """The batches whose message is in the collector's queue."""
    messages = [json.loads(message) for message in client.redis.lrange(client.queues.collector_queue, 0, -1)]
    return sorted(str(batch.id) for batch in map(client.batch, known(client)) if _named(messages, batch.id))


def _named(messages: list[dict[str, dict[str, str]]], batch_id: str) -> bool:
    return any(batch_id in message["headers"]["kwargsrepr"] for message in messages)


def known(client: Client) -> list[str]:
    return [str(batch_id) for batch_id in client.redis.zrange(client.keys.batches, 0, -1)]


def test_a_batch_whose_client_is_killed_at_any_command_is_whole_or_not_there(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    # The worker is registered and not started, so that only the client sends commands.
    settings = settings.model_copy(update={"alive_s": 3600.0})
    registry = Registry(client.redis, client.keys, settings.alive_s)
    registry.register(expected_worker(settings, WorkerSettings()))
    proxy = KillingProxy(settings.require_redis_url().removeprefix("unix://"), tmp_path / "redis.sock")
    assert submit(proxy, settings, write_batch(tmp_path / "whole", [2, 1], outputs="whole"), b"", Moment.DONE) == 0
    for number, command in enumerate(COMMANDS):
        for moment in Moment:
            name = f"{moment.name}{number}".lower()
            status = submit(proxy, settings, write_batch(tmp_path / name, [2, 1], outputs=name), command, moment)
            assert status == -signal.SIGKILL, (command, moment)

    whole = sent(client)
    lost = sorted(set(known(client)) - set(whole))
    # Whole: the first batch and those killed after the message. Lost: those killed between the keys and the message.
    assert (len(whole), len(lost)) == (4, 6)
    for batch_id in whole:
        data = client.blobs.get(client.keys.manifest(batch_id))
        assert isinstance(data, bytes)
        assert Manifest.unpack(data).total == 3
    kept = [key for key in map(str, client.redis.scan_iter(f"cloner:{settings.fleet}:*")) if client.redis.ttl(key) < 0]
    assert [key for key in kept if not key.endswith(FOR_EVER)] == []

    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    for batch_id in whole:
        assert client.batch(batch_id).wait(timeout=TIMEOUT_S).generated == 3
        assert recorded_segments(settings, batch_id) == [0, 1, 2]
    # The others are in Redis too, and the collector finds that they were never opened.
    for batch_id in lost:
        assert client.batch(batch_id).wait(timeout=TIMEOUT_S).generated == 3
        assert recorded_segments(settings, batch_id) == [0, 1, 2]
    assert len(list(settings.out_dir.rglob("*.wav"))) == 3 * len(whole + lost)
    # None blocks a client that submits it again.
    for folder in sorted(path.parent for path in tmp_path.glob("*/batch.json")):
        assert client.submit(folder / "batch.json").wait(timeout=TIMEOUT_S).generated == 3


def test_a_batch_whose_waiting_clients_are_killed_is_picked_up_by_another(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", fake_segment_s=0.6)  # three clients start and are killed meanwhile
    fleet.wait_for(Event.MODELS_LOADED, 2)
    batch = str(write_batch(tmp_path, [20, 20]))
    submitting = LoggedProcess(
        [sys.executable, "-m", "cloner", "submit", batch, "--wait"], environment(settings), tmp_path
    )
    batch_id = fields_of(submitting.wait_for(Event.BATCH_SUBMITTED)[0], Event.BATCH_SUBMITTED)["batch"]
    command = [sys.executable, "-m", "cloner", "wait", batch_id]
    waiting = [LoggedProcess(command, environment(settings), tmp_path) for _ in range(2)]
    for client_process in waiting:
        client_process.wait_for(Event.PROGRESS)
    for client_process in (submitting, *waiting):
        assert client_process.stop(signal.SIGKILL) == -signal.SIGKILL

    waited = run_cloner("wait", batch_id, cwd=tmp_path, env=environment(settings))
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["generated"] == 40
    assert recorded_segments(settings, batch_id) == list(range(40))
