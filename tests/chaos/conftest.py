"""Chaos tests inject faults into real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import client, launch, launch_loaded, settings, tiny_checkpoint  # noqa: F401
from tests.support.module_patches import ModulePatcher
from tests.support.redis_server import RedisServer


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
