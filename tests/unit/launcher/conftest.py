from __future__ import annotations

import pytest
from redis import Redis

from tests.unit.launcher.scene import Scene


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)
