"""The client without a fleet: what it refuses, and its errors when Redis cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cloner import Client
from cloner.batch import Redo
from cloner.cli import fleet
from cloner.cli.listing import list_batches, report
from cloner.client import submit
from cloner.client.assignment import Strategy
from cloner.client.batch_handle import BatchHandle
from cloner.client.submit import check_outputs
from cloner.errors import BadBatch, BrokerUnreachable, Damaged, OutputsTaken, UnknownBatch, UsageError
from cloner.monitoring.flower.data import FleetData
from cloner.protocol.results import BatchResult
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, WorkerInfo
from tests.support.batch_files import save_recording
from tests.support.batches import write_batch
from tests.support.manifests import manifest

CALLS: list[Callable[[Client, Path], object]] = [
    lambda client, _: client.fleet(),
    lambda client, batch: client.submit(batch),
    lambda client, _: client.batch("x").progress(),
    lambda client, _: client.batch("x").wait(),
    lambda client, _: client.batch("x").result(),
    lambda client, _: client.batch("x").cancel(),
]


@pytest.mark.parametrize("call", CALLS)
def test_an_unreachable_redis_is_a_broker_error(call: Callable[[Client, Path], object], tmp_path: Path) -> None:
    client = Client("redis://:secret@127.0.0.1:1/0")
    with pytest.raises(BrokerUnreachable, match=r"Redis at redis://:\*\*\*@127.0.0.1:1/0 does not answer"):
        call(client, write_batch(tmp_path, [1]))


def test_a_redis_that_refuses_a_command_is_a_broker_error(redis: Redis, valkey_url: str) -> None:
    client = Client(valkey_url)
    with pytest.raises(BrokerUnreachable, match="cannot be used: "), client.translate_redis_errors():
        client.redis.eval("no script", 0)


def test_a_key_of_a_wrong_type_is_named_with_its_owner(redis: Redis, valkey_url: str) -> None:
    client = Client(valkey_url)
    redis.set(client.keys.workers, "no sorted set")
    with pytest.raises(Damaged) as raised, client.translate_redis_errors():
        client.redis.zrange(client.keys.workers, 0, -1)
    assert raised.value.message == (
        "Redis has a string under cloner:main:workers, where the registry of workers keeps a sorted set:"
        " another program has written it; delete that key, or give the fleet another name (CLONER_FLEET)"
    )


@pytest.fixture
def client(redis: Redis, valkey_url: str) -> Client:
    """A client of a fleet with one worker, which is registered and not started."""
    settings = Settings(redis_url=valkey_url, fleet="test")
    worker = WorkerInfo("cpu.0@box", "box", 0, "queue", "cpu", "", "fake", "openaudio-s1-mini", 1)
    Registry(redis, RedisKeys(settings.fleet), settings.alive_s).register(worker)
    return Client(settings=settings)


def test_an_unknown_strategy_is_refused_with_the_choices(client: Client, redis: Redis, tmp_path: Path) -> None:
    before = redis.keys()
    with pytest.raises(UsageError, match="'nonsense' is no strategy: give round-robin, longest-first, shared"):
        client.submit(write_batch(tmp_path, [1]), strategy="nonsense")
    assert redis.keys() == before


def test_outputs_that_would_lie_among_recordings_are_refused_by_program_and_command_line(
    client: Client, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_recording(tmp_path / "out" / "b" / "anna" / "anna.wav", "I am Anna.")
    (tmp_path / "b.csv").write_text("speaker_id,text\nanna,Hello.\n")
    voices = tmp_path / "out" / "b"
    monkeypatch.setenv("CLONER_REDIS_URL", client.settings.require_redis_url())
    monkeypatch.setenv("CLONER_FLEET", client.settings.fleet)
    monkeypatch.setenv("CLONER_OUT_DIR", str(tmp_path / "out"))
    before = redis.keys()
    calls: list[Callable[[str | None], object]] = [
        lambda prefix: Client().submit(tmp_path / "b.csv", references=voices, prefix=prefix, overwrite=True),
        lambda prefix: fleet.submit(tmp_path / "b.csv", references=voices, prefix=prefix, overwrite=True),
    ]
    for call in calls:
        with pytest.raises(BadBatch, match=r"would lie among the recordings of speaker 'anna'.*\((--)?prefix\)"):
            call(None)
        assert redis.keys() == before
    for number, call in enumerate(calls):
        call(f"c{number}")
    assert len(client.batches()) == len(calls)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_strategy_may_be_given_by_its_name(client: Client, tmp_path: Path, strategy: Strategy) -> None:
    by_name = client.submit(write_batch(tmp_path, [1, 1]), strategy=strategy.value)
    shared = strategy is Strategy.SHARED
    assert [str(assignment) for assignment in by_name.assignments] == (
        [] if shared else ["Worker 0: 2 speakers (IDs: [0, 1]), 2 texts"]
    )


def test_the_batches_of_a_fleet_are_listed_the_newest_first(
    client: Client, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, damaged = (client.submit(write_batch(tmp_path, [2]), prefix=str(number)) for number in range(3))
    second.cancel()
    redis.set(client.keys.batch(damaged.id), "no hash")
    assert repr(first) == f"<BatchHandle {first.id}>"
    listed = [handle.id for handle in client.batches()]
    assert sorted(listed) == sorted([first.id, second.id, damaged.id])
    assert [handle.id for handle in client.batches(2)] == listed[:2]
    redo = manifest().model_copy(update={"source": "batch.json", "redo": Redo()})
    BatchStore.of(client.settings, client.blobs).add(redo, "round-robin", check=lambda: None)
    monkeypatch.setattr("cloner.client.client.Client", lambda: client)
    monkeypatch.setenv("CLONER_REDIS_URL", client.settings.require_redis_url())
    list_batches()
    shown = capsys.readouterr()
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in shown.out.splitlines()}
    assert rows[first.id] == ["batch.json", "submitting", "0/2", "0", "-"]
    assert rows[redo.batch_id] == ["batch.json (redo)", "submitting", "0/5", "0", "-"]
    assert damaged.id not in rows
    assert damaged.id in shown.err


def test_the_runs_in_a_folder_are_listed_the_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_batches(tmp_path)
    assert capsys.readouterr().err == f"there are no batches in {tmp_path}\n"
    values = {"total": 3, "generated": 2, "failed": 1, "cancelled": False, "out_dir": "o", "results": {}, "errors": {}}
    result = BatchResult(batch_id="b", source="a.json", elapsed_s=1, audio_s=90, frames=1, workers={}, **values)
    files = {"20260101-a/w.jsonl": b"", "20260102-b/w.jsonl": b"", "20260103-c/w.jsonl": b"", "fleets/x.lock": b""}
    files |= {"20260102-b/result.json": result.to_json().encode(), "20260103-c/result.json": b"{"}
    for name, data in files.items():
        path = tmp_path / ".cloner" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    list_batches(tmp_path)
    shown = capsys.readouterr()
    assert [row.split("\t") for row in shown.out.splitlines()[1:]] == [
        ["20260102-b", "a.json", "done", "2/3", "1", "90 s"],
        ["20260101-a", "-", "stopped", "0", "-", "-"],
    ]
    assert shown.err.startswith("20260103-c: its result.json cannot be read: Invalid JSON: ")


def test_a_batch_is_cancelling_until_it_is_closed(
    client: Client, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = client.submit(write_batch(tmp_path, [2]))
    monkeypatch.setenv("CLONER_REDIS_URL", client.settings.require_redis_url())
    monkeypatch.setenv("CLONER_FLEET", client.settings.fleet)
    fleet.status(batch.id)
    batch.cancel()
    fleet.status(batch.id)
    redis.hset(client.keys.batch(batch.id), "state", "done")
    fleet.status(batch.id)
    redis.hset(client.keys.batch(batch.id), "state", "broken")
    fleet.status(batch.id)
    states = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["submitting,", "cancelling,", "cancelled,", "broken,"]


@pytest.mark.parametrize(("state", "status"), [("running", "cancelling"), ("done", "cancelled"), ("broken", "broken")])
def test_the_list_and_the_page_say_of_a_cancelled_batch_what_its_status_says(
    client: Client,
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
    status: str,
) -> None:
    batch = client.submit(write_batch(tmp_path, [2]))
    batch.cancel()
    redis.hset(client.keys.batch(batch.id), "state", state)
    monkeypatch.setenv("CLONER_REDIS_URL", client.settings.require_redis_url())
    monkeypatch.setenv("CLONER_FLEET", client.settings.fleet)
    list_batches()
    fleet.status(batch.id)
    listed, said = capsys.readouterr().out.splitlines()[-2:]
    (shown,) = FleetData(client.settings).snapshot()["batches"]
    assert (listed.split("\t")[2], said.split()[1], shown["state"]) == (status, f"{status},", status)


def test_of_two_clients_that_submit_at_the_same_time_one_is_refused(
    client: Client, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Client(settings=client.settings)
    batch = write_batch(tmp_path, [2])
    first: list[BatchHandle] = []

    def check_then_lose(*args: Any) -> None:
        check_outputs(*args)
        if not first:  # the other client has checked, too, and is the first to add its batch
            monkeypatch.undo()
            first.append(other.submit(batch))

    monkeypatch.setattr(submit, "check_outputs", check_then_lose)
    with pytest.raises(OutputsTaken) as refused:
        client.submit(batch)
    assert first[0].id in refused.value.message
    assert redis.zrange(client.keys.batches, 0, -1) == [first[0].id]
    assert redis.llen(client.queues.collector_queue) == 1


@pytest.mark.parametrize(
    ("segments", "seed", "sentence"),
    [([-1], None, "segments.0: Input should be greater than or equal to 0"), ([1], -1, "seed: Input should be")],
)
def test_a_number_that_no_segment_or_seed_can_have_is_a_sentence(
    client: Client, segments: list[int], seed: int | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        client.batch("b").redo(segments, seed=seed)


def test_a_report_is_written_anew_from_what_the_disk_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"total": 1, "generated": 1, "failed": 0, "cancelled": False, "out_dir": "o", "errors": {}}
    result = BatchResult(
        batch_id="b", source="a.json", elapsed_s=1, audio_s=90, frames=1, workers={}, results={0: "0.wav"}, **values
    )
    folder = tmp_path / ".cloner/b"
    for name in ("b", "none"):
        with pytest.raises(UnknownBatch, match=f"no finished batch '{name}' lies under {tmp_path}"):
            report(name, tmp_path)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result.to_json())
    report("b", tmp_path)
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert "a.json" in (folder / "report.html").read_text()
    (folder / "result.json").write_text("{")
    with pytest.raises(Damaged, match=r"result.json is damaged"):
        report("b", tmp_path)
