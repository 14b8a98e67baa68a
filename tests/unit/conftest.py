"""What several unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.batch_files import write_references
from tests.support.fixtures import server  # noqa: F401


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two references of codes and one recording."""
    return write_references(tmp_path)
