"""A real Valkey, real launchers and workers; tests wait for what these say, never for time to pass."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloner import Client
from cloner.output.record import batch_directory
from cloner.settings import EngineName, Settings

PATIENCE_S = 120.0


class Said:
    """What a process says on standard error, line by line, to wait for."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, words: str, count: int = 1) -> list[str]:
        """Wait until `count` lines have these words; returns them."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while len(found := [line for line in self.lines if words in line]) < count:
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    said = "\n".join(self.lines)
                    pytest.fail(f"{count} x {words!r} did not come; it said:\n{said}")
            return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    """A fleet with a name of its own on the one server, with the fake engine."""
    return Settings(
        redis_url=valkey_url, fleet=f"test-{secrets.token_hex(4)}", out_dir=tmp_path / "out", engine=EngineName.FAKE
    )


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(settings=settings)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as a process reads them."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        "FISH_MODEL_MEMORY_GB" if k == "model_memory_gb" else f"CLONER_{k.upper()}": str(v) for k, v in values.items()
    }


Start = Callable[..., Said]


@pytest.fixture
def launch(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start ``launcher up`` with some arguments; it is stopped after the test."""
    started: list[Said] = []

    def start(*arguments: str, **changes: object) -> Said:
        env = environment(settings.model_copy(update=changes))
        said = Said([sys.executable, "-m", "launcher", "up", *arguments], env, tmp_path)
        started.append(said)
        return said

    yield start
    for said in started:
        if said.process.poll() is None:
            said.stop()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, in fish-speech's layout, made by the command line."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made = run_cloner("checkpoint", "init", "tiny-random", "--preset", "tiny", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder / "tiny-random"


def eventually(holds: Callable[[], bool]) -> None:
    """Look until it holds: for what is only seen in Redis, where nobody tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        threading.Event().wait(0.05)


def spoken(settings: Settings, batch_id: str) -> list[int]:
    """The segments that the record has, in order: one that was spoken twice is there twice."""
    files = batch_directory(settings.out_dir, batch_id).glob("*.jsonl")
    return sorted(json.loads(line)["segment"] for file in files for line in file.read_text().splitlines())


def run_cloner(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cloner", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
