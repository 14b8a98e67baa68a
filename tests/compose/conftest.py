"""Real containers, in the daemon that `ops/scripts/with-dockerd` started; this process is the host's client, without
torch. Run by `make test-compose`."""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloner import Client
from cloner.settings import Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
SHIPPED = ("docker-compose.yml",)
ON_CPU = (*SHIPPED, "ops/compose.cpu.yml")
DASHBOARD = json.loads((ROOT / "ops/monitoring/grafana/dashboards/cloner.json").read_text())
UID = 1234
"""Whom the outputs belong to: not the images' own user."""


class Box:
    """A box with a compose project of its own: its .env, its host folders, its ports."""

    def __init__(self, folder: Path, files: tuple[str, ...], knobs: dict[str, str]) -> None:
        self.folder = folder
        folder.chmod(0o755)  # for the containers' user
        self.out = folder / "out"
        self.password = secrets.token_hex(12)
        self._files = files
        self._project = f"test-{secrets.token_hex(3)}"
        self._knobs = {
            "REDIS_PASSWORD": self.password,
            "FLOWER_PASSWORD": self.password,
            "REDIS_PORT": "16379",
            "FLOWER_ADDRESS": "127.0.0.1:15555",
            "GRAFANA_PASSWORD": self.password,
            "GRAFANA_PORT": "13000",
            "CLONER_OUT_DIR": str(self.out),
            "CLONER_REFERENCES_DIR": str(folder),
            "CLONER_UID": str(UID),
            "CLONER_GID": str(UID),
            # So that a killed worker counts as gone before the test's patience ends.
            "CLONER_ALIVE_S": "5",
            **knobs,
        }
        self.configure()

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self._knobs['REDIS_PORT']}/0"

    def configure(self, **knobs: str) -> None:
        """Change what .env says; `up` makes it so."""
        self._knobs.update(knobs)
        lines = [f"{name}={value}\n" for name, value in self._knobs.items()]
        (self.folder / ".env").write_text("".join(lines))

    def compose(self, *arguments: str) -> str:
        """Run `docker compose`; returns what it prints. Fails, with all that was said, if it does."""
        files = [part for file in self._files for part in ("-f", file)]
        command = ["docker", "compose", "-p", self._project, "--env-file", str(self.folder / ".env"), *files]
        ran = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
        if ran.returncode:
            logs = subprocess.run([*command, "logs", "--tail", "40"], cwd=ROOT, capture_output=True, text=True)
            pytest.fail(f"compose {' '.join(arguments)} ended with {ran.returncode}:\n{ran.stderr}\n{logs.stdout}")
        return ran.stdout

    def up(self) -> None:
        """Start it, or make it as .env says, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(PATIENCE_S)))

    def inspect(self, service: str) -> dict[str, Any]:
        """What Docker says of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).strip()
        told: list[dict[str, Any]] = json.loads(docker("inspect", name))
        return told[0]

    def address(self, service: str, port: int) -> str:
        """Where this host finds a service that is not published: at its container's own address."""
        return f"http://{self._network(service)['IPAddress']}:{port}"

    def host_address(self, port: int) -> str:
        """Where containers find this host."""
        return f"http://{self._network('fleet')['Gateway']}:{port}"

    def _network(self, service: str) -> dict[str, Any]:
        network: dict[str, Any]
        (network,) = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return network

    def cloner(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the host's command line."""
        env = {**os.environ, "CLONER_REDIS_URL": self.redis_url}
        return subprocess.run(["cloner", *arguments], cwd=folder, env=env, capture_output=True, text=True)

    def client(self) -> Client:
        """The same from Python."""
        return Client(settings=Settings(redis_url=self.redis_url, out_dir=self.out))

    def spoken(self, batch_id: str) -> list[int]:
        """The segments that the record has, in order: one that was spoken twice is there twice."""
        files = (self.out / ".cloner" / batch_id).glob("*.jsonl")
        return sorted(json.loads(line)["segment"] for file in files for line in file.read_text().splitlines())


def docker(*arguments: str, text: str | None = None) -> str:
    """Run `docker`, with `text` on its standard input; returns what it prints."""
    ran = subprocess.run(["docker", *arguments], cwd=ROOT, input=text, capture_output=True, text=True)
    assert ran.returncode == 0, f"docker {' '.join(arguments)}: {ran.stdout}\n{ran.stderr}"
    return ran.stdout


def eventually(holds: Callable[[], bool]) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.1)


@functools.cache
def _demo() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "ops/scripts/demo.py"))


def write_batch(folder: Path) -> Path:
    """The demo's: six speakers with a recording each, 46 texts, for the checkpoint tiny-random."""
    folder.mkdir(exist_ok=True)
    path: Path = _demo()["write_batch"](folder)
    return path


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Both images, built as users build them."""
    assert "DOCKER_HOST" in os.environ, "no daemon of the tests' own: run them by `make test-compose`"
    env = {**os.environ, "REDIS_PASSWORD": "x", "FLOWER_PASSWORD": "x"}
    files = [part for file in ON_CPU for part in ("-f", file)]
    for service in ("collector", "fleet"):
        built = subprocess.run(
            ["docker", "compose", *files, "build", service], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]


@pytest.fixture(scope="module")
def make_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Box]]:
    """Make a box of some compose files and knobs; it is gone after the module, with its volumes."""
    boxes: list[Box] = []

    def make(*files: str, **knobs: str) -> Box:
        boxes.append(Box(tmp_path_factory.mktemp("box"), files, knobs))
        return boxes[-1]

    yield make
    for box in boxes:
        box.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def recipe() -> str:
    """The shell lines by which .env.example says to make .env."""
    text = (ROOT / ".env.example").read_text()
    found = re.search(r"^#   \(umask.*?> \.env\)$", text, re.MULTILINE | re.DOTALL)
    assert found
    return re.sub(r"^#", "", found.group(), flags=re.MULTILINE)
