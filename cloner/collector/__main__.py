"""``python -m cloner.collector``: the CPU worker that opens and closes batches."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from cloner.names import COLLECTOR_TASKS, PARENT, collector_name
from cloner.process import die_with_parent, lasting_imports

if TYPE_CHECKING:
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

        with output_lock(settings.out_dir, settings.fleet):
            threading.Thread(target=watch_stalled_batches, args=(settings,), name="recovery", daemon=True).start()
            Heartbeat(settings, name, PARENT).add(_beat)
            queues = [settings.queues.collector_queue]
            return run_worker(settings, "cloner.collector.tasks", COLLECTOR_TASKS, name, queues)
    except ClonerError as error:
        log_event(Event.FAILED, error=error.message)
        return error.exit_code


def _beat(registry: Registry) -> None:
    """Note that this collector is alive: clients that wait for a batch check for one."""
    registry.beat_collector(os.getpid())


if __name__ == "__main__":
    sys.exit(main())
