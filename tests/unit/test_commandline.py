"""Errors and signals of both command lines: the message that is printed, and the exit status."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloner.commandline import report_errors
from cloner.errors import LoadFailed

HANGS = "import signal; print('importing', flush=True); signal.pause()"


def test_an_error_is_reported_with_its_message_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, report_errors():
        raise LoadFailed("no model.pth")
    assert (stop.value.code, capsys.readouterr().err) == (78, "no model.pth\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_and_the_shells_status(capfd: pytest.CaptureFixture[str], number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop, report_errors():
        signal.raise_signal(number)
    assert (stop.value.code, capfd.readouterr().err) == (128 + number, f"Stopped by {number.name}\n")
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with report_errors():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert capfd.readouterr().err == ""
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("program", ["cloner", "launcher"])
@pytest.mark.parametrize("slow_import", ["typer", "pydantic"])
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path, program: str, slow_import: str) -> None:
    (tmp_path / f"{slow_import}.py").write_text(HANGS)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from {program}.__main__ import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "status", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "Stopped by SIGINT\n")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["checkpoint", "--help"], ["recogniser", "--help"]])
def test_commands_that_need_no_numpy_do_not_import_it(arguments: list[str]) -> None:
    without = "import sys; sys.modules.update(numpy=None, torch=None, celery=None, kombu=None, faster_whisper=None)"
    script = f"{without}; from cloner.__main__ import main; main()"
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_launcher_loads_no_numpy() -> None:
    """It starts workers that do; it would take a fifth more time until it has started them."""
    script = "import sys; sys.modules.update(numpy=None); import launcher.cli, launcher.supervisor, cloner.console"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_parent_of_a_workers_child_loads_no_numpy() -> None:
    script = "import sys; sys.modules.update(numpy=None); import cloner.worker.__main__, cloner.worker.tasks"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_package_runs_as_a_module_and_prints_its_version() -> None:
    ran = subprocess.run([sys.executable, "-m", "cloner", "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()[0]) == (0, "cloner")
