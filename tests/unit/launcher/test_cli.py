from __future__ import annotations

import functools
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from redis import Redis

from cloner.events import Event
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, ReviewerInfo, WorkerInfo, WorkerState
from launcher import cli
from launcher.gpus import GB, Gpu
from launcher.managed_process import Commands
from tests.support.launcher_command import Run
from tests.support.log_lines import find_lines

STOP_THE_LAUNCHER = "import os, signal; print('up'); os.kill(os.getppid(), signal.SIGTERM); signal.pause()"


def stand_in(monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
    """Have `up` start a script for each worker, and one that does nothing as the collector."""
    commands = functools.partial(
        Commands,
        worker=[sys.executable, "-c", worker],
        collector=[sys.executable, "-c", "import signal; signal.pause()"],
    )
    monkeypatch.setattr(cli, "Commands", commands)


def test_plan_prints_what_would_be_started(launcher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FISH_MODEL_MEMORY_GB", "8.0")
    status, out, err = launcher("plan", "--gpu", "NVIDIA GeForce RTX 4090:24", "--speakers", "6")

    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "[GPU 0] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB",
        "[GPU 0] Can run 2 workers (Available: 21.60 GB)",
        "[Main] Using 2 parallel workers across 1 GPU(s)",
        "[Main] GPU 0: 2 workers",
        "[Main] Speakers: 6",
        "[Main] Workers:",
        '  Worker 0: cuda:0, CUDA_VISIBLE_DEVICES="0", 1 thread',
        '  Worker 1: cuda:0, CUDA_VISIBLE_DEVICES="0", 1 thread',
    ]


def test_plan_takes_the_memory_of_a_worker_from_the_environment(launcher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FISH_MODEL_MEMORY_GB", "5.3")

    assert "[Main] GPU 0: 4 workers" in launcher("plan", "--gpu", "A:24")[1]


def test_plan_gives_a_card_to_one_batched_worker_unless_told_otherwise(
    launcher: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "[Main] GPU 0: 1 workers" in launcher("plan", "--gpu", "A:24")[1]
    assert "[Main] GPU 0: 2 workers" in launcher("plan", "--gpu", "A:24", "--engine", "upstream")[1]
    monkeypatch.setenv("CLONER_WORKERS_PER_GPU", "3")
    assert "[Main] GPU 0: 3 workers" in launcher("plan", "--gpu", "A:24")[1]


def test_workers_run_only_on_the_gpus_that_the_setting_names(launcher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def find(only: str | None) -> list[Gpu]:
        asked.append(only)
        return [Gpu(2, "NVIDIA L4", "GPU-77e0a0b0-0000", 22 * GB, 22 * GB)]

    monkeypatch.setattr(cli, "find_gpus", find)
    monkeypatch.setenv("CLONER_GPUS", "2")
    _, out, _ = launcher("plan")
    assert asked == ["2"]
    assert out.splitlines()[-1].startswith('  Worker 0: cuda:2, CUDA_VISIBLE_DEVICES="GPU-77e0a0b0-0000", ')


def test_plan_without_a_gpu_is_for_the_cpu(launcher: Run) -> None:
    _, out, _ = launcher("plan", "--workers", "1")

    assert out.splitlines() == [
        "[CPU] 2 cores, Total Memory: 23.50 GB",
        "[CPU] Can run 2 workers (Available: 21.15 GB)",
        "[Main] Using 1 parallel workers across 0 GPU(s)",
        "[Main] CPU: 1 workers",
        "[Main] Workers:",
        '  Worker 0: cpu, CUDA_VISIBLE_DEVICES="", 2 threads',
    ]


def test_plan_warns_on_standard_error_of_cards_that_are_too_small(launcher: Run) -> None:
    _, _, err = launcher("plan", "--gpu", "Small:6", "--engine", "upstream")

    assert err == "[GPU 0] 1 workers take about 8.00 GB, and only 6.00 of 6.00 GB are free: they may not fit\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "--gpu", "24"], '--gpu "24" is not a name and a size in GB: write NAME:GB'),
        (["plan", "--workers", "0"], "--workers 0 makes no sense: give 1 or more"),
        (["up"], "CLONER_REDIS_URL is not set"),
        (["status"], "CLONER_REDIS_URL is not set"),
        (["plan", "--engine", "magic"], "Invalid value for '--engine'"),
    ],
)
def test_a_usage_error_is_a_sentence_and_exit_status_2(launcher: Run, arguments: list[str], sentence: str) -> None:
    status, out, err = launcher(*arguments)

    assert status == 2
    assert sentence in err
    assert "Traceback" not in err + out


def test_status_without_redis_is_a_sentence_without_the_password(
    launcher: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", "redis://:secret@127.0.0.1:1/0")

    status, _, err = launcher("status")

    assert status == 1
    assert err.splitlines()[-1].startswith("Redis at redis://:***@127.0.0.1:1/0 does not answer: ")
    assert "secret" not in err


def test_up_without_redis_waits_until_sigterm_ends_it_at_once(launcher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    # As another process sends it while the launcher waits.
    monkeypatch.setattr("launcher.box.time.sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))

    status, _, err = launcher("up", "--workers", "1")

    assert status == 0
    assert len(find_lines(err.splitlines(), Event.REGISTRY_UNREACHABLE)) == 1
    assert "secret" not in err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("redis")
def test_up_logs_its_plan_starts_the_workers_and_stops_on_sigterm(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    print_engine = "import os; print(os.environ['CLONER_ENGINE'])\n" + STOP_THE_LAUNCHER
    stand_in(monkeypatch, worker=print_engine)

    status, out, err = launcher("up", "--workers", "1", "--speakers", "6", "--engine", "fake")

    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[:7] == [
        "[CPU] 2 cores, Total Memory: 23.50 GB",
        "[CPU] Can run 2 workers (Available: 21.15 GB)",
        "[Main] Using 1 parallel workers across 0 GPU(s)",
        "[Main] CPU: 1 workers",
        "[Main] Speakers: 6",
        "[Main] Launching 1 workers...",
        "[Main] Launching Worker 0 on CPU",
    ]
    # The signal may arrive before the lines.
    assert sorted(lines[7:]) == [
        "[Main] SIGTERM: stopping within 20 s; a second signal kills at once",
        "[Worker 0] fake",
        "[Worker 0] up",
    ]


@pytest.mark.usefixtures("redis")
def test_review_keeps_reviewers_running_without_an_output_folder(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLONER_OUT_DIR", str(tmp_path / "file" / "out"))  # no folder can be made there
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    commands = functools.partial(Commands, reviewer=[sys.executable, "-c", STOP_THE_LAUNCHER])
    monkeypatch.setattr(cli, "Commands", commands)

    status, out, err = launcher("review")

    assert (status, out) == (0, "")
    assert err.splitlines()[:2] == ["[Main] Launching 1 reviewers...", "[Main] Launching Reviewer 0"]
    assert sorted(err.splitlines()[2:]) == [
        "[Main] SIGTERM: stopping within 20 s; a second signal kills at once",
        "[Reviewer 0] up",
    ]


@pytest.mark.parametrize("command", [("up", "--reviewers", "1"), ("review",)], ids=" ".join)
def test_reviewers_without_their_model_are_refused_before_anything_starts(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", "redis://127.0.0.1:1")  # nothing listens there, and nothing asks
    monkeypatch.setenv("CLONER_RECOGNISER", "small")
    monkeypatch.setenv("CLONER_RECOGNISER_CACHE", "/nowhere")

    status, out, err = launcher(*command)

    assert (status, out) == (2, "")
    assert err == (
        "CLONER_RECOGNISER='small': there is no such folder, and no model of that name has been fetched; run"
        " `cloner recogniser pull small`, or name the folder of a model\n"
    )


@pytest.mark.usefixtures("redis")
def test_collect_keeps_a_collector_running_and_nothing_else(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    commands = functools.partial(Commands, collector=[sys.executable, "-c", STOP_THE_LAUNCHER])
    monkeypatch.setattr(cli, "Commands", commands)

    status, out, err = launcher("collect")

    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "[Main] Launching the collector..."
    assert sorted(lines[1:]) == [
        "[Collector] up",
        "[Main] SIGTERM: stopping within 20 s; a second signal kills at once",
    ]


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("command", [["up", "--workers", "1"], ["collect"]], ids=" ".join)
def test_an_output_folder_that_cannot_be_written_is_found_before_anything_is_started(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str, command: list[str]
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    monkeypatch.setenv("CLONER_OUT_DIR", "/proc/out")
    monkeypatch.setattr(cli, "Supervisor", lambda *_, **__: pytest.fail("something is started"))

    status, _, err = launcher(*command)

    assert status == 2
    assert err.splitlines()[-1].startswith("the output folder /proc/out cannot be written (No such file or directory):")


@pytest.mark.usefixtures("redis")
def test_up_with_a_model_that_does_not_load_ends_with_78(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    stand_in(monkeypatch, worker="print('no model.pth'); raise SystemExit(78)")

    status, _, err = launcher("up", "--workers", "1")

    assert status == 78
    assert err.splitlines()[-1] == "Worker 0 cannot load its model: no model.pth"


def test_status_lists_the_workers_of_this_box_alone(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, redis: Redis, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    monkeypatch.setenv("CLONER_BOX", "here")
    registry = Registry(redis, RedisKeys("main"), alive_s=30)
    for box, index in (("here", 1), ("here", 0), ("there", 0)):
        name = f"GPU-5fd4f087.{index}@{box}"
        registry.register(
            WorkerInfo(name, box, index, "q", "cuda:0", "RTX 4090", "fake", "mini", 1, state=WorkerState.READY, loads=2)
        )

    status, out, err = launcher("status")

    assert (status, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["Worker", "Name", "State", "Device", "Slots", "Loads", "Steps", "Engine", "Checkpoint", "GPU"],
        ["0", "GPU-5fd4f087.0@here", "ready", "cuda:0", "1", "2", "0", "fake", "mini", "RTX 4090"],
        ["1", "GPU-5fd4f087.1@here", "ready", "cuda:0", "1", "2", "0", "fake", "mini", "RTX 4090"],
    ]


def test_status_is_ready_once_each_worker_that_up_would_start_has_loaded(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, redis: Redis, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    monkeypatch.setenv("CLONER_BOX", "here")
    registry = Registry(redis, RedisKeys("main"), alive_s=30)
    names = ["cpu.0@here", "cpu.1@here"]  # a box of two cores
    for index, name in enumerate(names):
        state = (WorkerState.BUSY, WorkerState.LOADING)[index]
        registry.register(WorkerInfo(name, "here", index, "q", "cpu", "", "batched", "mini", 1, state=state))
    assert launcher("status")[0] == 0
    assert launcher("status", "--ready")[::2] == (1, "Not ready: cpu.1@here\n")

    registry.update("cpu.1@here", state=WorkerState.READY)
    status, out, err = launcher("status", "--ready")
    assert (status, err) == (0, "")
    assert "cpu.1@here" in out

    redis.zadd(RedisKeys("main").workers, {"cpu.0@here": 0})  # its last heartbeat was long ago
    assert launcher("status", "--ready")[::2] == (1, "Not ready: cpu.0@here\n")


def test_status_on_a_terminal_is_a_table(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, redis: Redis, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    monkeypatch.setenv("FORCE_COLOR", "1")
    Registry(redis, RedisKeys("main"), alive_s=30).register(
        WorkerInfo("cpu.0@box", "box", 0, "q", "cpu", "", "fake", "mini", 1)
    )

    _, out, _ = launcher("status")

    assert re.search(r"Worker .*\n.*\n *0 +cpu\.0@box +loading +cpu +1 +0 ", re.sub(r"\x1b\[[0-9;]*m", "", out))


@pytest.mark.usefixtures("redis")
def test_status_of_a_box_without_workers_is_exit_status_1(
    launcher: Run, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)

    assert launcher("status") == (1, "", 'No worker of box "box" is alive: start them with `launcher up`\n')


def test_a_collector_of_the_fleet_is_asked_for_alone(
    launcher: Run, redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    code, out, err = launcher("status", "--collector")
    assert (code, out, "No collector is alive: start one with" in err) == (1, "", True)
    registry = Registry(redis, RedisKeys("main"), alive_s=30)
    registry.beat_collector("collector@a")
    registry.remove_collector("collector@b")
    assert launcher("status", "--collector") == (0, "", "")
    registry.remove_collector("collector@a")
    assert launcher("status", "--collector")[0] == 1


def test_the_reviewers_of_the_box_are_asked_for_alone(
    launcher: Run, redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", valkey_url)
    missing = 'No reviewer of box "box" is alive: start one with `launcher review`\n'
    assert launcher("status", "--reviewers") == (1, "", missing)
    entries = Registry(redis, RedisKeys("main"), alive_s=30).reviewer_entries
    for box in ("box", "other"):
        entries.register(ReviewerInfo(f"reviewer-0@{box}", box, words=False))
    assert launcher("status", "--reviewers") == (1, "", "Not ready: reviewer-0@box\n")
    entries.update("reviewer-0@box", state=WorkerState.READY)
    assert launcher("status", "--reviewers") == (0, "", "")
    listed = launcher("status")
    assert (listed[0], listed[2]) == (0, "")
    assert [line.split("\t")[1] for line in listed[1].splitlines()] == ["Name", "reviewer-0@box"]
