"""A browser, and what is needed to have something to look at. It is Debian's, so these tests run with those of
containers, by `make test-compose`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import client, launch, settings  # noqa: F401 - fixtures
from tests.support.chromium import Page, browser

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
    """Where photographs go; CLONER_PICTURES of the environment keeps them for people to look at."""
    return Path(PICTURES or tmp_path)
