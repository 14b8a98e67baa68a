"""Counts how often a test's own process waits for Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection


class RoundTrips:
    """What was sent so far: a command, or all commands of a pipeline."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0
        """Bytes of the longest."""


@contextmanager
def counted_round_trips(*connected: Redis) -> Iterator[RoundTrips]:
    """Count inside it, in all threads. The clients given are connected before."""
    for client in connected:
        client.ping()
    trips = RoundTrips()
    send: Any = AbstractConnection.send_packed_command

    def counted(self: AbstractConnection, command: Any, *args: Any, **options: Any) -> None:
        trips.count += 1
        trips.longest = max(trips.longest, len(command) if isinstance(command, bytes) else sum(map(len, command)))
        send(self, command, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", counted)
        yield trips


def calls(redis: Redis, command: str) -> int:
    """How often all clients have called a command since the server's last ``CONFIG RESETSTAT``."""
    stats: dict[str, dict[str, int]] = redis.info("commandstats")
    return stats.get(f"cmdstat_{command}", {}).get("calls", 0)
