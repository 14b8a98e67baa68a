"""Tests in a real browser. It is a Debian package, so they run with the tests of containers, by `make test-compose`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import Page, browser
from tests.support.fixtures import client, launch, settings  # noqa: F401 - fixtures

# Read before each test's environment is cleaned.
PICTURES = os.environ.get("CLONER_PICTURES")


@pytest.fixture(scope="session")
def _browser() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(_browser: Page) -> Page:
    return _browser


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder for screenshots; CLONER_PICTURES of the environment keeps them."""
    return Path(PICTURES or tmp_path)
