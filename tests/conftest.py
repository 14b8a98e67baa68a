"""Fixtures of all tests: a real Redis, and no settings from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from redis import Redis

from cloner.state.connection import connect
from cloner.state.embedded import embedded_redis

# Several tests at once have more threads than there are cores: one that waits for the others of its product must not
# spin on a core that those need. For the processes that tests start, too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Triton decides when it is imported whether its kernels are compiled or interpreted: no test has a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A real Redis server behind a Unix socket."""
    with embedded_redis() as url:
        yield url


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """A client of the server, emptied first."""
    client = connect(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _plain_logging() -> Iterator[None]:
    """Reset the logging that a test configures: it would write to captured streams after the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measurements of the runs that fixtures of modules start; the user's cache folder is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("CLONER_") or name in ("CUDA_VISIBLE_DEVICES", "FISH_MODEL_MEMORY_GB"):
            monkeypatch.delenv(name)
    # What runs of other tests have measured is not this one's.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
