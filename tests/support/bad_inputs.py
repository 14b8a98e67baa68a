"""Bad input given to the command line's own entry, in this process.

It gives an exit status and an error message, never a traceback; nothing is queued, nothing written, and at most 1 GB
of memory taken.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cloner.__main__ import main
from cloner.settings import Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_worker
from tests.support.batch_files import task, write_references
from tests.support.memory import memory_limit
from tests.support.processes import environment

RunCommand = Callable[..., tuple[int, str, str]]
"""The type of the fixture `run_command`."""

CommandLine = Callable[..., tuple[int, str]]
"""The type of the fixture `command_line`."""

Refuse = Callable[..., None]
"""The type of the fixture `refuse`."""

RIGHT_JSON = json.dumps({"tasks": [task()]})


@pytest.fixture
def batch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two references of codes, a recording and a valid batch."""
    folder = write_references(tmp_path / "batch")
    (folder / "b.json").write_text(RIGHT_JSON)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def idle_fleet(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A fleet whose one registered worker does not run: messages for it stay queued."""
    Registry(redis, RedisKeys(settings.fleet), settings.alive_s).register(expected_worker(settings, WorkerSettings()))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run the command line in this process; returns its exit status, standard output and standard error."""

    def call(*arguments: str, entry: Callable[[], object] = main) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cloner", *arguments])
        try:
            with memory_limit():
                status = entry()
        except SystemExit as exit_:
            status = exit_.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return (status if isinstance(status, int) else 0), printed.out, printed.err

    return call


@pytest.fixture
def command_line(run_command: RunCommand) -> CommandLine:
    """As `run_command`, without standard output, which must be empty."""

    def call(*arguments: str, entry: Callable[[], object] = main) -> tuple[int, str]:
        status, stdout, stderr = run_command(*arguments, entry=entry)
        assert stdout == ""
        return status, stderr

    return call


@contextmanager
def nothing_done(folder: Path, redis: Redis) -> Iterator[None]:
    """Check that the block leaves no key in Redis and no file."""

    def traces() -> tuple[set[Any], set[Path]]:
        return set(redis.scan_iter("*")), {*folder.rglob("*")}

    before = traces()
    yield
    assert traces() == before


@pytest.fixture
def refuse(batch_folder: Path, idle_fleet: Settings, redis: Redis, command_line: CommandLine) -> Refuse:
    """Check that a fleet, a run and its plan refuse a batch, given with these options, with this message."""

    def refuse(batch: str, message: str, *options: str) -> None:
        with nothing_done(batch_folder.parent, redis):
            here = [batch, "--engine", "fake", "--out", "out"]
            for command in (["submit", batch], ["run", *here], ["plan", *here]):
                status, stderr = command_line(*command, *options)
                assert status == 2
                assert message in stderr
                assert max(map(len, stderr.splitlines())) < 3_000

    return refuse
