"""``python -m cloner.collector``: the CPU worker that opens and closes batches."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cloner.names import COLLECTOR_TASKS, PARENT, collector_name
from cloner.process import die_with_parent, lasting_imports

if TYPE_CHECKING:
    from cloner.settings import Settings
    from cloner.state.registry import Registry


def main() -> int:
    """Run until stopped; returns the exit status."""
    with lasting_imports():
        from cloner.errors import ClonerError
        from cloner.events import Event
        from cloner.logs import configure, log_event
        from cloner.settings import load_settings

    configure()
    try:
        settings = load_settings()
        name = collector_name(settings.box)
        configure(worker=name)
        if settings.check_limits:
            from cloner.checks.check_set import parse_limits

            parse_limits(settings.check_limits)  # an unknown name ends the collector, not each of its batches
        die_with_parent()
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        with lasting_imports():
            from cloner.collector.recovery import watch_stalled_batches
            from cloner.output.lock import output_lock
            from cloner.queueing.app import run_worker
            from cloner.queueing.heartbeat import Heartbeat
            from cloner.state.key_types import check_own_keys

        check_own_keys(settings, name)
        with output_lock(settings.out_dir, settings.fleet):
            threading.Thread(target=watch_stalled_batches, args=(settings,), name="recovery", daemon=True).start()
            presence = _Presence(name)
            Heartbeat(settings, name, PARENT).add(presence.beat)
            queues = [settings.queues.collector_queue]
            try:
                return run_worker(settings, "cloner.collector.tasks", COLLECTOR_TASKS, name, queues)
            finally:
                presence.end(settings)
    except ClonerError as error:
        log_event(Event.FAILED, error=error.message)
        return error.exit_code


class _Presence:
    """Whether this collector counts as alive: clients that wait for a batch check for one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ended = False
        self._lock = threading.Lock()
        """Held while a heartbeat is sent: none may follow the end."""

    def beat(self, registry: Registry) -> None:
        """Note that it is alive. Raises `RedisError`."""
        with self._lock:
            if not self._ended:
                registry.beat_collector(self._name)

    def end(self, settings: Settings) -> None:
        """It stops. Where Redis does not answer, it counts as alive until its last heartbeat expires."""
        from redis import RedisError

        from cloner.state.connection import HASTE_S, connect
        from cloner.state.keys import RedisKeys
        from cloner.state.registry import Registry

        redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
        with self._lock, suppress(RedisError):
            self._ended = True
            Registry(redis, RedisKeys(settings.fleet), settings.alive_s).remove_collector(self._name)


if __name__ == "__main__":
    sys.exit(main())
