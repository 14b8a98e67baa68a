"""``python -m cloner.collector``: the CPU worker that opens and closes batches."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloner.settings import Settings


def main() -> int:
    """Run until told to stop."""
    from cloner.errors import ClonerError
    from cloner.logs import configure, get_logger
    from cloner.process import die_with_parent
    from cloner.settings import load_settings

    configure()
    try:
        settings = load_settings()
        name = settings.names.collector(settings.box)
        configure(worker=name)
        die_with_parent()
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        from cloner.collector.recovery import watch_stalled_batches
        from cloner.output.lock import output_lock
        from cloner.queueing.app import run_worker

        with output_lock(settings.out_dir, settings.fleet):
            threading.Thread(target=_beat, args=(settings,), name="heartbeat", daemon=True).start()
            threading.Thread(target=watch_stalled_batches, args=(settings,), name="lost", daemon=True).start()
            return run_worker(settings, "cloner.collector.tasks", name, [settings.names.collector_queue])
    except ClonerError as error:
        get_logger().error(error.message)
        return error.exit_code


def _beat(settings: Settings) -> None:
    """Say that this collector is alive, again and again: who waits for a batch wants to know."""
    from redis import RedisError

    from cloner.state.connection import connect

    redis = connect(settings.require_redis_url())
    while True:
        with suppress(RedisError):  # Celery tells of an outage
            redis.set(settings.names.collector_life, os.getpid(), px=max(1, round(settings.alive_s * 1000)))
        time.sleep(settings.heartbeat_s)


if __name__ == "__main__":
    sys.exit(main())
