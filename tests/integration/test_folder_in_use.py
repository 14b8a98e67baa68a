"""One fleet at a time writes in an output folder: launchers, workers and collectors hold its lock, each by itself."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.fixtures import Alone
from tests.support.fleet_processes import Role, fleet_processes
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch, LoggedProcess, run_cloner

pytestmark = pytest.mark.slow

OUTLIVING_CHILD = """
import cloner.process

module.set_pdeathsig = lambda name: None
cloner.process.die_with_parent = lambda: None
"""
"""The kernel does not kill the child of a killed process: as where the child is in a system call."""


def run_of_another_fleet(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return run_cloner("run", str(write_batch(folder, [2])), "--engine", "fake", "--out", str(out), cwd=folder)


def assert_refused(folder: Path, settings: Settings) -> None:
    """Another fleet is refused in the output folder, and writes nothing."""
    ran = run_of_another_fleet(folder, settings.out_dir)
    assert ran.returncode == 2, ran.stderr
    assert f"fleet {settings.fleet} (process " in ran.stderr.splitlines()[-1]
    assert "--out" in ran.stderr.splitlines()[-1]
    assert not list(settings.out_dir.rglob("*.wav"))


def process_of(settings: Settings, role: Role) -> psutil.Process:
    (found,) = (process.process for process in fleet_processes(settings.fleet) if process.role is role)
    return found


def test_a_run_is_refused_where_a_fleet_writes_whose_collector_is_stopped(
    launch: Launch, settings: Settings, tmp_path: Path
) -> None:
    launch("--workers", "1", "--no-collector").wait_for(Event.MODELS_LOADED)
    assert_refused(tmp_path, settings)
    elsewhere = run_of_another_fleet(tmp_path, tmp_path / "elsewhere")
    assert elsewhere.returncode == 0, elsewhere.stderr


def test_the_folder_is_locked_while_a_killed_worker_waits_to_be_started_again(
    launch: Launch, settings: Settings, tmp_path: Path
) -> None:
    fleet = launch("--workers", "1", "--no-collector")
    fleet.wait_for(Event.MODELS_LOADED)
    for deaths in range(1, 4):  # by now, the launcher waits for seconds
        eventually(lambda: any(found.role is Role.WORKER for found in fleet_processes(settings.fleet)))
        process_of(settings, Role.WORKER).kill()
        fleet.wait_for(Event.RESTARTING, deaths, title="Worker 0")
    assert_refused(tmp_path, settings)


def test_a_worker_without_a_launcher_holds_the_folder_frozen_and_while_its_child_is_replaced(
    alone: Alone, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLONER_WORKER_INDEX", "0")  # by which `fleet_processes` knows a worker
    worker = alone("cloner.worker")
    worker.wait_for(Event.MODELS_LOADED)
    for role in (Role.WORKER, Role.WORKER_CHILD):
        process_of(settings, role).suspend()
    assert_refused(tmp_path, settings)
    for role in (Role.WORKER_CHILD, Role.WORKER):
        process_of(settings, role).resume()
    process_of(settings, Role.WORKER_CHILD).kill()
    assert_refused(tmp_path, settings)
    worker.wait_for(Event.MODELS_LOADED, 2)
    assert worker.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not list(fleet_processes(settings.fleet)))
    ran = run_of_another_fleet(tmp_path, settings.out_dir)
    assert ran.returncode == 0, ran.stderr


def test_the_child_of_a_killed_collector_holds_the_folder_until_it_ends(
    alone: Alone, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        ModulePatcher(tmp_path / "patches", patch)("celery.platforms", OUTLIVING_CHILD)
        collector = alone("cloner.collector")
    eventually(lambda: any(found.role is Role.COLLECTOR_CHILD for found in fleet_processes(settings.fleet)))
    child = process_of(settings, Role.COLLECTOR_CHILD)
    eventually(lambda: f" {child.pid} " in Path("/proc/locks").read_text())  # not only open
    child.suspend()
    collector.process.kill()
    assert collector.process.wait() == -signal.SIGKILL
    assert_refused(tmp_path, settings)
    child.kill()
    eventually(lambda: not list(fleet_processes(settings.fleet)))
    ran = run_of_another_fleet(tmp_path, settings.out_dir)
    assert ran.returncode == 0, ran.stderr


def test_a_worker_is_refused_where_another_fleet_writes(alone: Alone, settings: Settings) -> None:
    alone("cloner.worker").wait_for(Event.MODELS_LOADED)
    second = alone("cloner.worker", fleet=f"{settings.fleet}-second")
    (line,) = second.wait_for(Event.FAILED, error=re.compile(f"fleet {settings.fleet} "))
    assert f"writes under {settings.out_dir}" in line
    assert second.wait() == 2
    assert second.find(Event.LOADING_TEXT2SEMANTIC) == []


def test_a_second_run_and_a_fleet_are_refused_where_a_run_writes_until_it_is_gone(
    launch: Launch, settings: Settings, tmp_path: Path
) -> None:
    batch = str(write_batch(tmp_path, [40]))
    command = [sys.executable, "-m", "cloner", "run", batch, "--engine", "fake", "--out", str(settings.out_dir)]
    run = LoggedProcess(command, {"CLONER_FAKE_SEGMENT_S": "30"}, tmp_path)
    run.wait_for(Event.MODELS_LOADED)
    (lock,) = (settings.out_dir / ".cloner" / "fleets").iterdir()
    fleet_of_run = lock.stem
    second = run_cloner(*command[3:], cwd=tmp_path)
    assert second.returncode == 2
    assert f"(process {run.process.pid} on " in second.stderr
    fleet = launch("--workers", "1")
    assert fleet.wait() == 2
    assert fleet.lines[-1].startswith(f"fleet {fleet_of_run} (process ")
    assert f"writes under {settings.out_dir}" in fleet.lines[-1]
    assert fleet.find(Event.LAUNCHING_WORKER) == []
    run.process.kill()  # the kernel lets go of its lock
    assert run.wait() < 0
    eventually(lambda: not list(fleet_processes(fleet_of_run)))
    third = run_cloner(*command[3:], cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    assert json.loads(third.stdout)["generated"] == 40
