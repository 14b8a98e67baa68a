"""Real containers of a compose project, and what tests ask of them."""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import secrets
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloner import Client
from cloner.settings import Settings
from tests.support import polling
from tests.support.records import record_paths

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240.0
SHIPPED = ("docker-compose.yml",)
ON_CPU = (*SHIPPED, "ops/compose.cpu.yml")
WORKERS = "ops/compose.workers.yml"
SOON = "tests/compose/soon.yml"
"""Has the services' health looked at every few seconds, for `Box.up` waits for the next look; threads do not spin."""
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CLIENT_IMAGE, WORKER_IMAGE, CPU_IMAGE, REVIEWER_IMAGE = (
    f"cloner-{name}:{VERSION}" for name in ("client", "worker", "worker-cpu", "reviewer")
)
DASHBOARD = json.loads((ROOT / "ops/monitoring/grafana/dashboards/cloner.json").read_text())
UID = 1234
"""The owner of the outputs, another user than the images' own."""

eventually = functools.partial(polling.eventually, timeout_s=TIMEOUT_S)


class Box:
    """A compose project: its .env, its folders on the host, its ports."""

    def __init__(self, folder: Path, files: tuple[str, ...], variables: dict[str, str]) -> None:
        self.folder = folder
        folder.chmod(0o755)  # for the containers' user
        self.out = folder / "out"
        self.password = secrets.token_hex(12)
        self._files = files
        self._project = f"test-{secrets.token_hex(3)}"
        self._variables = {
            "REDIS_PASSWORD": self.password,
            "FLOWER_PASSWORD": self.password,
            "REDIS_PORT": "16379",
            "FLOWER_PUBLISH": "127.0.0.1:15555",
            "GRAFANA_PASSWORD": self.password,
            "GRAFANA_PORT": "13000",
            "CLONER_OUT_DIR": str(self.out),
            "CLONER_REFERENCES_DIR": str(folder),
            "CLONER_UID": str(UID),
            "CLONER_GID": str(UID),
            # A killed worker must count as gone before the test's timeout.
            "CLONER_ALIVE_S": "5",
            **variables,
        }
        self.configure()

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self._variables['REDIS_PORT']}/0"

    def configure(self, **variables: str) -> None:
        """Change .env; `up` applies it."""
        self._variables.update(variables)
        lines = [f"{name}={value}\n" for name, value in self._variables.items()]
        (self.folder / ".env").write_text("".join(lines))

    def compose(self, *arguments: str) -> str:
        """Run `docker compose`; returns its standard output. Fails with its errors and the containers' logs."""
        files = [part for file in self._files for part in ("-f", file)]
        command = ["docker", "compose", "-p", self._project, "--env-file", str(self.folder / ".env"), *files]
        ran = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
        if ran.returncode:
            logs = subprocess.run([*command, "logs", "--tail", "40"], cwd=ROOT, capture_output=True, text=True)
            pytest.fail(f"compose {' '.join(arguments)} ended with {ran.returncode}:\n{ran.stderr}\n{logs.stdout}")
        return ran.stdout

    def up(self) -> None:
        """Start the project, or apply .env to it, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(TIMEOUT_S)))

    def inspect(self, service: str) -> dict[str, Any]:
        """`docker inspect` of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).strip()
        told: list[dict[str, Any]] = json.loads(docker("inspect", name))
        return told[0]

    def address(self, service: str, port: int) -> str:
        """The address of a service that is not published, on its container's own network address."""
        return f"http://{self._network(service)['IPAddress']}:{port}"

    @property
    def host(self) -> str:
        """The address of this host for containers."""
        gateway: str = self._network("fleet")["Gateway"]
        return gateway

    def host_address(self, port: int) -> str:
        """The address of a server on this host for containers."""
        return f"http://{self.host}:{port}"

    def _network(self, service: str) -> dict[str, Any]:
        network: dict[str, Any]
        (network,) = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return network

    def cloner(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the command line on the host."""
        env = {**os.environ, "CLONER_REDIS_URL": self.redis_url}
        return subprocess.run(["cloner", *arguments], cwd=folder, env=env, capture_output=True, text=True)

    def client(self) -> Client:
        """A client on the host."""
        return Client(settings=Settings(redis_url=self.redis_url, out_dir=self.out))

    def recorded_segments(self, batch_id: str) -> list[int]:
        """The segments in the batch's record, sorted; a segment that was generated twice is there twice."""
        files = record_paths(self.out, batch_id)
        return sorted(json.loads(line)["segment"] for file in files for line in file.read_text().splitlines())


def docker(*arguments: str, text: str | None = None) -> str:
    """Run `docker`, with `text` on its standard input; returns its standard output."""
    ran = subprocess.run(["docker", *arguments], cwd=ROOT, input=text, capture_output=True, text=True)
    assert ran.returncode == 0, f"docker {' '.join(arguments)}: {ran.stdout}\n{ran.stderr}"
    return ran.stdout


@functools.cache
def _demo() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "ops/scripts/demo.py"))


def write_batch(folder: Path) -> Path:
    """Write the demo's batch: six speakers with a recording each, 46 texts, for the checkpoint tiny-random."""
    folder.mkdir(exist_ok=True)
    path: Path = _demo()["write_batch"](folder)
    return path


def env_recipe() -> str:
    """The shell lines in .env.example that make .env."""
    text = (ROOT / ".env.example").read_text()
    found = re.search(r"^#   \(umask.*?> \.env\)$", text, re.MULTILINE | re.DOTALL)
    assert found
    return re.sub(r"^#", "", found.group(), flags=re.MULTILINE)
