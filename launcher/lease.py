"""One launcher a box: two would start workers of the same names, which take each other's messages."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Collection

from redis import Redis

from cloner.errors import BoxTaken, one_line
from cloner.events import Event
from cloner.settings import Settings
from cloner.state.registry import Registry

LEASE_S = 10.0
"""Seconds after which the lease of a launcher that was killed expires."""

RENEW_S = LEASE_S / 4
"""Seconds between renewals, at most."""

POLL_S = 0.2
"""Seconds between checks whether another launcher's lease has expired."""

LAUNCHERS_KEPT_S = 30 * 86_400
"""Seconds for which the lease of a launcher that was killed is remembered. A process that it has left, and that is
frozen for longer, ends itself by its first heartbeat after that."""

MOVED_S = 1.0
"""Seconds by which a renewal puts the expiry off, at least; a renewal comes every two seconds or so."""

RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


def longest_lease_s(settings: Settings) -> float:
    """Seconds of the longest lease that a launcher takes: one that stops takes it for a little more than `stop_s`."""
    return settings.stop_s + LEASE_S


def shorten(redis: Redis, key: str, left_ms: int, longest_s: float) -> None:
    """Shorten a lease that has more left than a launcher takes: the server's clock was put back, and where the launcher
    is dead, its successor would wait for an hour. A launcher that lives renews it. Raises `RedisError`."""
    if left_ms > longest_s * 1000:
        redis.pexpire(key, int(longest_s * 1000))


def holder_of(registry: Registry, box: str) -> str:
    """The process of the launcher that holds a box, and its host; empty if none does. Raises `RedisError`."""
    return one_line(str(registry.redis.get(registry.keys.box_lease(box)) or "")).rpartition(" ")[0]


class Lease:
    """A key in Redis that names the launcher of a box, and expires unless it is renewed."""

    def __init__(self, registry: Registry, box: str, log: Callable[[str], object]) -> None:
        self._registry = registry
        self._redis = registry.redis
        self._key = registry.keys.box_lease(box)
        self._launchers_key = registry.keys.box_launchers(box)
        self._box = box
        self._log = log
        self.name = f"process {os.getpid()} on {socket.gethostname()} {secrets.token_hex(8)}"
        """The key's value while this launcher has the box."""

    def acquire(self, longest_s: float = LEASE_S) -> None:
        """Take the box. Waits for the lease of a launcher that has died to expire: `LEASE_S`, or up to `longest_s` if
        it was about to stop.

        Raises `BoxTaken` if another launcher renews its lease meanwhile, `RedisError`.
        """
        expiry: float | None = None
        while not self.renew():
            before, expiry = expiry, self._expiry(longest_s)
            if before is None:
                self._log(Event.BOX_IS_HELD.line(box=self._box, holder=self._holder()))
            elif expiry > before + MOVED_S:
                raise BoxTaken(
                    f'another launcher runs the workers of box "{self._box}" ({self._holder()}): stop it, or give this '
                    "box a name of its own with CLONER_BOX"
                )
            else:
                expiry = min(expiry, before)
            time.sleep(POLL_S)

    def predecessors(self) -> set[str]:
        """Names of the leases of launchers that had the box before and have not given it free. Raises `RedisError`."""
        return {str(name) for name in self._redis.smembers(self._launchers_key)} - {self.name}

    def forget(self, predecessors: Collection[str]) -> None:
        """Their launchers have left no process. Raises `RedisError`."""
        if predecessors:
            self._redis.srem(self._launchers_key, *predecessors)

    def renew(self, seconds: float = LEASE_S) -> bool:
        """Hold the box for `seconds` from now, also where Redis has lost the lease. False if another launcher has the
        box. Raises `RedisError`."""
        keys = self._key, self._launchers_key
        return bool(self._redis.eval(RENEW, 2, *keys, self.name, int(seconds * 1000), LAUNCHERS_KEPT_S))

    def require(self) -> None:
        """Renew the lease. Raises `BoxTaken` if another launcher has the box, `RedisError`."""
        if not self.renew():
            raise BoxTaken(
                f'another launcher has taken over box "{self._box}" ({self._holder()}) while this one was not heard '
                "of; this one's workers are stopped"
            )

    def release(self) -> None:
        """Give the box free, with all that was started stopped. Raises `RedisError`."""
        self.forget({self.name})
        self._redis.eval(RELEASE, 1, self._key, self.name)

    def _expiry(self, longest_s: float) -> float:
        """When the lease in the key expires, by the server's clock: only a renewal puts that off, not a clock that
        jumps."""
        with self._redis.pipeline() as pipe:
            pipe.time()
            pipe.pttl(self._key)
            (seconds, microseconds), left_ms = pipe.execute()
        shorten(self._redis, self._key, left_ms, longest_s)
        return float(seconds) + float(microseconds) / 1e6 + min(float(left_ms) / 1000, longest_s)

    def _holder(self) -> str:
        return holder_of(self._registry, self._box) or "gone by now"
