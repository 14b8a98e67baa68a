from __future__ import annotations

import pytest
from redis import Redis

from tests.support.launcher_command import launcher  # noqa: F401
from tests.support.launcher_scene import Scene


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)
