"""Processor time of the processes of a session."""

from __future__ import annotations

import subprocess
import sys

from launcher.cpu_time import cpu_times

COMPUTES = """
import subprocess, sys, time
while time.process_time() < 0.25: pass
code = "import sys; print(1, flush=True); sys.stdin.read()"
started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
sys.stdin.read()
"""


def test_each_process_of_a_session_is_counted_apart_and_other_sessions_are_not() -> None:
    command = [sys.executable, "-c", COMPUTES]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"1\n"
        times = cpu_times({process.pid, 999_999_999})
        assert times[999_999_999] == {}
        assert len(times[process.pid]) == 2
        own = times[process.pid].pop(process.pid)
        (started,) = times[process.pid].values()
        assert own >= 2 > started
        process.stdin.close()
