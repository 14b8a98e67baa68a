from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from cloner.process import LEASE
from launcher.process import LONGEST_LINE, Child, Ended, Line, ProcessEvent, kill_started_under

# Opens the FIFO (which waits for the test to open it), and forks a child that keeps it open: the FIFO ends when that
# grandchild does.
LEAVE_A_GRANDCHILD = """
import os, signal, sys
fifo = os.open(sys.argv[1], os.O_WRONLY)
if os.fork() == 0:
    signal.pause()
"""


@pytest.fixture
def events() -> SimpleQueue[ProcessEvent]:
    return SimpleQueue()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def start(events: SimpleQueue[ProcessEvent], script: str, *arguments: str | Path) -> Child:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return Child("Worker 0", command, dict(os.environ), events)


def run(events: SimpleQueue[ProcessEvent], script: str) -> tuple[list[str], int]:
    """Lines and exit status of a script."""
    start(events, script)
    lines: list[str] = []
    while True:
        match events.get(timeout=60):
            case Line(text=text):
                lines.append(text)
            case Ended(status=status):
                return lines, status


def test_lines_of_both_streams_come_in_order_and_before_the_end(events: SimpleQueue[ProcessEvent]) -> None:
    script = "import sys; print('one'); print('two', file=sys.stderr); print('✅ three'); sys.exit(3)"

    assert run(events, script) == (["one", "two", "✅ three"], 3)


def test_the_last_line_is_remembered_even_without_its_newline(events: SimpleQueue[ProcessEvent]) -> None:
    child = start(events, "print('one'); print('why', end='')")

    while not isinstance(events.get(timeout=60), Ended):
        pass
    assert child.last_line == "why"


def test_bytes_that_are_not_utf_8_are_replaced(events: SimpleQueue[ProcessEvent]) -> None:
    assert run(events, r"import sys; sys.stdout.buffer.write(b'a\xffb\n')") == (["a\ufffdb"], 0)


def test_a_very_long_line_is_cut_and_the_next_is_whole(events: SimpleQueue[ProcessEvent]) -> None:
    lines, _ = run(events, f"print('x' * {3 * LONGEST_LINE}); print('next')")

    assert lines == ["x" * LONGEST_LINE + " ... (cut)", "next"]


def test_of_a_progress_bar_the_last_state_is_passed_on(events: SimpleQueue[ProcessEvent]) -> None:
    lines, _ = run(events, r"print('10%\r50%\r100%'); print('done\r')")

    assert lines == ["100%", "done"]


def test_a_child_reads_nothing_and_has_a_session_of_its_own(events: SimpleQueue[ProcessEvent]) -> None:
    lines, _ = run(events, "import os, sys; print(os.getsid(0) == os.getpid()); print(repr(sys.stdin.read()))")

    assert lines == ["True", "''"]


def test_stop_sends_sigterm_and_kill_sends_sigkill(events: SimpleQueue[ProcessEvent]) -> None:
    child = start(
        events,
        "import signal; signal.signal(signal.SIGTERM, lambda *_: print('not yet')); print('up')\n"
        "while True: signal.pause()",
    )

    assert events.get(timeout=60) == Line(child, "up")
    child.stop()
    assert events.get(timeout=60) == Line(child, "not yet")
    child.kill()
    assert events.get(timeout=60) == Ended(child, -signal.SIGKILL)
    child.kill()


def test_a_childs_own_children_are_killed_when_it_ends(events: SimpleQueue[ProcessEvent], fifo: Path) -> None:
    child = start(events, LEAVE_A_GRANDCHILD, fifo)

    with fifo.open() as held_by_the_grandchild:
        assert held_by_the_grandchild.read() == ""
    assert events.get(timeout=60) == Ended(child, 0)


def test_a_child_that_calls_die_with_parent_does_not_outlive_a_killed_launcher(fifo: Path) -> None:
    child = (
        "import signal, sys; from cloner.process import die_with_parent; die_with_parent()\n"
        "fifo = open(sys.argv[1], 'w'); fifo.write('alive'); fifo.flush(); signal.pause()"
    )
    launcher = (
        "import os, signal, sys; from queue import SimpleQueue; from launcher.process import Child\n"
        "Child('Worker 0', [sys.executable, '-c', *sys.argv[1:]], os.environ, SimpleQueue()); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", launcher, child, str(fifo)]) as process, fifo.open() as held:
        assert held.read(5) == "alive"
        process.kill()
        assert held.read() == ""


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (0, "ended with exit status 0"),
        (2, "ended with exit status 2"),
        (-15, "was killed by SIGTERM"),
        (-9, "was killed by SIGKILL (out of memory?)"),
        (-40, "was killed by signal 40"),
    ],
)
def test_an_end_is_described(events: SimpleQueue[ProcessEvent], status: int, how: str) -> None:
    child = start(events, "")

    assert Ended(child, status).how == how


@pytest.mark.parametrize("is_frozen", [False, True])
def test_only_what_was_started_under_a_lease_is_killed(is_frozen: bool) -> None:
    def start_under(lease: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
        process = subprocess.Popen(command, env={**os.environ, LEASE: lease}, stdout=subprocess.PIPE)
        assert process.stdout
        assert process.stdout.readline()
        return process

    left, other = start_under("process 7 on box abc"), start_under("process 7 on box abcd")
    try:
        if is_frozen:
            left.send_signal(signal.SIGSTOP)
        assert kill_started_under({"process 7 on box abc", "process 8 on box"}) == 1
        assert left.wait(timeout=60) == -signal.SIGKILL
        assert kill_started_under({"process 7 on box abc"}) == 0
        assert kill_started_under(set()) == 0
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.communicate()
