"""Fixtures of tests that start real launchers, workers and collectors; a test waits for an event, never for a time."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch, LaunchLoaded, LoggedProcess, environment, run_cloner
from tests.support.redis_server import RedisServer


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    """Settings of a fleet with the fake engine and a name of its own, on the session's one Redis."""
    return Settings(
        redis_url=valkey_url, fleet=f"test-{secrets.token_hex(4)}", out_dir=tmp_path / "out", engine=EngineName.FAKE
    )


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(settings=settings)


@pytest.fixture
def launch(settings: Settings, tmp_path: Path) -> Iterator[Launch]:
    """Start ``launcher up`` with some arguments and changed settings; it is stopped after the test."""
    with _launchers("up", settings, tmp_path) as start:
        yield start


@pytest.fixture
def launch_reviewers(settings: Settings, tmp_path: Path) -> Iterator[Launch]:
    """The same of ``launcher review``."""
    with _launchers("review", settings, tmp_path) as start:
        yield start


@contextmanager
def _launchers(command: str, settings: Settings, folder: Path) -> Iterator[Launch]:
    started: list[LoggedProcess] = []

    def start(*arguments: str, **changes: object) -> LoggedProcess:
        env = environment(settings.model_copy(update=changes))
        process = LoggedProcess([sys.executable, "-m", "launcher", command, *arguments], env, folder)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.end()


@pytest.fixture
def launch_loaded(launch: Launch) -> LaunchLoaded:
    """Start a launcher with so many workers and changed settings, and wait until they have loaded."""

    def start(workers: int = 1, **changes: object) -> LoggedProcess:
        fleet = launch("--workers", str(workers), **changes)
        fleet.wait_for(Event.MODELS_LOADED, workers)
        return fleet

    return start


Alone = Callable[..., LoggedProcess]
"""The type of the fixture `alone`."""


@pytest.fixture
def alone(settings: Settings, tmp_path: Path) -> Iterator[Alone]:
    """Start a worker or a collector, by its module and with changed settings, without a launcher."""
    started: list[LoggedProcess] = []

    def start(module: str, **changes: object) -> LoggedProcess:
        env = environment(settings.model_copy(update=changes))
        process = LoggedProcess([sys.executable, "-m", module], env, tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.stop()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, in fish-speech's layout, made by the command line."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made = run_cloner("checkpoint", "init", "tiny-random", "--preset", "tiny", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder / "tiny-random"


@pytest.fixture
def patch_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModulePatcher:
    """Changes modules in the processes that the test starts."""
    return ModulePatcher(tmp_path / "patches", monkeypatch)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill and start again."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()
