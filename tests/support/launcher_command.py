"""The launcher's command line, run in the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from launcher import cli
from launcher.__main__ import main
from launcher.cpu import Cpu
from launcher.gpus import GB, Gpu

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line on a box of two cores, 23.5 GB and no GPU: exit status, standard output, standard error."""
    monkeypatch.setattr(cli, "find_cpu", lambda: Cpu(2, int(23.5 * GB)))
    monkeypatch.setattr(cli, "find_gpus", lambda **_: list[Gpu]())

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["launcher", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run
