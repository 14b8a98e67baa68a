"""`launcher up` with described GPUs: real processes, the fake engine."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from cloner.state.registry import Registry
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines
from tests.support.process_tree import has_ended
from tests.support.processes import Launch, environment, run_cloner

pytestmark = pytest.mark.slow


ONE_CARD = """\
[GPU 0] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB
[GPU 0] Can run 4 workers (Available: 21.60 GB)
[Main] Using 4 parallel workers across 1 GPU(s)
[Main] GPU 0: 4 workers
[Main] Launching 4 workers...
[Main] Launching Worker 0 on GPU 0
[Main] Launching Worker 1 on GPU 0
[Main] Launching Worker 2 on GPU 0
[Main] Launching Worker 3 on GPU 0
""".splitlines()

TWO_CARDS = """\
[GPU 0] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB
[GPU 0] Can run 2 workers (Available: 21.60 GB)
[GPU 1] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB
[GPU 1] Can run 2 workers (Available: 21.60 GB)
[Main] Using 4 parallel workers across 2 GPU(s)
[Main] GPU 0: 2 workers
[Main] GPU 1: 2 workers
[Main] Launching 4 workers...
[Main] Launching Worker 0 on GPU 0
[Main] Launching Worker 1 on GPU 0
[Main] Launching Worker 2 on GPU 1
[Main] Launching Worker 3 on GPU 1
""".splitlines()

CARD = ("--gpu", "NVIDIA GeForce RTX 4090:24")


@pytest.mark.parametrize(
    ("cards", "memory_gb", "lines", "pins"),
    [
        (CARD, 5.3, ONE_CARD, ["0", "0", "0", "0"]),
        (CARD * 2, 8.0, TWO_CARDS, ["0", "0", "1", "1"]),
    ],
    ids=["one card at 5.3 GB", "two cards at 8 GB"],
)
def test_the_designs_gpu_examples(
    launch: Launch, client: Client, cards: tuple[str, ...], memory_gb: float, lines: list[str], pins: list[str]
) -> None:
    fleet = launch(*cards, model_memory_gb=memory_gb)
    loaded = fleet.wait_for(Event.MODELS_LOADED, 4)
    assert fleet.lines[: len(lines)] == lines

    starting = fleet.wait_for(Event.STARTING, 4)
    assert sorted(starting) == [f"[Worker {n}] Starting on cuda:{pin}" for n, pin in enumerate(pins)]
    last_start = max(fleet.lines.index(line) for line in starting)
    assert last_start < min(fleet.lines.index(line) for line in loaded)

    workers = client.fleet()
    assert [worker.device for worker in workers] == [f"cuda:{pin}" for pin in pins]
    assert {worker.state for worker in workers} == {"ready"}
    for worker, pin in zip(workers, pins, strict=True):
        environ = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
        assert f"CUDA_VISIBLE_DEVICES={pin}".encode() in environ

    assert fleet.stop() == 0
    assert client.fleet() == []
    assert all(has_ended(worker.pid) for worker in workers)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_batch_costs_as_many_loads_as_workers(launch: Launch, client: Client, tmp_path: Path, workers: int) -> None:
    fleet = launch("--workers", str(workers))
    fleet.wait_for(Event.LAUNCHING_WORKER, index=workers - 1)
    batch = client.submit(write_batch(tmp_path))
    assert batch.wait(timeout=60).generated == 46
    assert [worker.loads for worker in client.fleet()] == [1] * workers
    assert len(fleet.wait_for(Event.LOADING_TEXT2SEMANTIC, workers)) == workers


def test_a_batch_submitted_while_the_fleet_loads_is_dealt_over_all_of_it(
    launch: Launch, client: Client, tmp_path: Path
) -> None:
    fleet = launch("--workers", "3", fake_load_s=3.0)
    fleet.wait_for(Event.LAUNCHING_WORKER, index=2)
    batch = client.submit(write_batch(tmp_path))
    assert {worker.state for worker in client.fleet()} == {"loading"}
    assert [assignment.speakers for assignment in batch.assignments] == [("0", "3"), ("1", "4"), ("2", "5")]
    result = batch.wait(timeout=60)
    assert sorted(result.workers.values()) == [15, 15, 16]


def test_a_model_that_does_not_load_stops_the_launcher_with_its_own_status_and_one_line(
    launch: Launch, client: Client, tmp_path: Path
) -> None:
    fleet = launch("--workers", "2", engine=EngineName.UPSTREAM, checkpoint_dir=tmp_path / "nothing-here")
    assert fleet.wait() == 78
    assert find_lines(fleet.lines[-1:], Event.FAILED, error=re.compile("cannot load its model: .*nothing-here"))
    assert not any("Traceback" in line for line in fleet.lines)
    # No worker reads the queue, and the registry lists none.
    assert client.fleet() == []


def test_a_fleet_that_loads_stops_when_it_is_asked_to(launch: Launch, client: Client) -> None:
    fleet = launch("--workers", "2", fake_load_s=600.0)
    fleet.wait_for(Event.LOADING_TEXT2SEMANTIC, 2)
    assert fleet.stop() == 0
    assert fleet.find(Event.KILLING) == []
    assert client.fleet() == []


def test_a_collector_that_has_stopped_does_not_count_as_alive(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(client.redis, client.keys, settings.alive_s)
    fleet = launch("--workers", "1", alive_s=3600.0)
    fleet.wait_for(Event.MODELS_LOADED)
    client.submit(write_batch(tmp_path, [1])).wait(timeout=60)
    assert registry.collector_is_alive()
    assert fleet.stop() == 0
    assert not registry.collector_is_alive()


def test_the_second_signal_kills(launch: Launch, client: Client, tmp_path: Path) -> None:
    fleet = launch("--workers", "1", fake_segment_s=600.0)
    fleet.wait_for(Event.MODELS_LOADED)
    (worker,) = client.fleet()
    client.submit(write_batch(tmp_path, [1]))
    fleet.wait_for(Event.SPEAKER_TEXTS, texts=1)
    # A frozen process cannot act on SIGTERM.
    parent = psutil.Process(worker.pid).parent()
    assert parent is not None
    parent.send_signal(signal.SIGSTOP)
    fleet.process.send_signal(signal.SIGINT)
    fleet.wait_for(Event.STOPPING, signal="SIGINT")
    fleet.process.send_signal(signal.SIGINT)
    fleet.wait()
    fleet.wait_for(Event.KILLING, processes=re.compile("Worker 0"))
    psutil.wait_procs([parent], timeout=10)
    assert has_ended(worker.pid)


def test_plan_says_what_up_would_do(settings: Settings, tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "launcher", "plan", *CARD * 2, "--speakers", "3"]
    plan = subprocess.run(
        command, env={**environment(settings), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert plan.returncode == 0, plan.stderr
    assert "[Main] Using 3 parallel workers across 2 GPU(s)" in plan.stdout.splitlines()


def test_status_and_fleet_list_the_workers(launch: Launch, settings: Settings, tmp_path: Path) -> None:
    launch(*CARD, "--workers", "2").wait_for(Event.MODELS_LOADED, 2)
    listed = run_cloner("fleet", cwd=tmp_path, env=environment(settings))
    assert listed.returncode == 0
    assert listed.stdout.count("cuda:0") == 2
    assert listed.stdout.count("NVIDIA GeForce RTX 4090") == 2


def test_no_workers_is_a_sentence_and_status_2(settings: Settings, tmp_path: Path) -> None:
    submitted = run_cloner("submit", str(write_batch(tmp_path)), cwd=tmp_path, env=environment(settings))
    assert submitted.returncode == 2
    assert submitted.stderr.startswith("No worker is registered")
    assert submitted.stdout == ""
