"""Faults done to real processes: the fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import client, launch, settings, tiny_checkpoint  # noqa: F401
from tests.support.crash_plugins import Plugin


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Changes modules in the processes that the test starts."""
    return Plugin(tmp_path / "plugin", monkeypatch)
