from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloner.settings import Settings
from launcher.cpu import find_cpu
from launcher.layout import Layout
from launcher.managed_process import Backoff, Commands, make_processes

KILLED_WITH_A_LOCK = """
import billiard, os, signal
lock = billiard.get_context("spawn").Lock()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_delays_double_up_to_a_minute() -> None:
    backoff = Backoff()

    assert [backoff.delay_s(ran_s=0.1) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_delay_is_one_second_again_after_a_start_that_ran_for_ten() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(ran_s=59.9)

    assert [backoff.delay_s(ran_s=10.0), backoff.delay_s(ran_s=0.1)] == [1, 2]


def test_what_a_killed_process_leaves_is_removed_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warnings(environment: dict[str, str]) -> str:
        # The tracker has the pipe, too: this returns when it has ended.
        ran = subprocess.run(
            [sys.executable, "-c", KILLED_WITH_A_LOCK], env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        return ran.stderr

    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")
    assert "leaked semaphores" in warnings(dict(os.environ))
    layout = Layout(find_cpu(), places=(), specs=())
    (collector,) = make_processes(Settings(out_dir=tmp_path), layout, (), (), {}, Commands())
    assert collector.environment["PYTHONWARNINGS"].startswith("ignore::DeprecationWarning,")
    assert warnings(dict(collector.environment)) == ""
