"""Real containers, in the daemon that `ops/scripts/with-dockerd` started; this process is the host's client, without
torch. Run by `make test-compose`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.compose import ON_CPU, ROOT, Box


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Build both images as users do."""
    assert "DOCKER_HOST" in os.environ, "no Docker daemon for tests: run them by `make test-compose`"
    env = {**os.environ, "REDIS_PASSWORD": "x", "FLOWER_PASSWORD": "x"}
    files = [part for file in ON_CPU for part in ("-f", file)]
    for service in ("collector", "fleet"):
        built = subprocess.run(
            ["docker", "compose", *files, "build", service], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]


@pytest.fixture(scope="module")
def make_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Box]]:
    """Make a `Box` of compose files and variables of .env; it is removed after the module, with its volumes."""
    boxes: list[Box] = []

    def make(*files: str, **variables: str) -> Box:
        boxes.append(Box(tmp_path_factory.mktemp("box"), files, variables))
        return boxes[-1]

    yield make
    for box in boxes:
        box.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
