"""Chaos tests inject faults into real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixtures import client, launch, settings, tiny_checkpoint  # noqa: F401
from tests.support.module_patches import ModulePatcher


@pytest.fixture
def patch_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModulePatcher:
    """Changes modules in the processes that the test starts."""
    return ModulePatcher(tmp_path / "patches", monkeypatch)
