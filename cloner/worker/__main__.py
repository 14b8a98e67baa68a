"""``python -m cloner.worker``: one Celery worker with one model on one device. The launcher starts it so."""

from __future__ import annotations

import os
import sys

from cloner.process import die_with_parent, lasting_imports


def main() -> int:
    """Run until stopped; returns the exit status.

    It is 78 if the model does not load, 2 if a setting is wrong or another fleet writes in the output folder.
    """
    with lasting_imports():
        from cloner.engine import check_engine
        from cloner.errors import ClonerError, LoadFailed, MissingPackage
        from cloner.events import Event
        from cloner.logs import configure, log_event
        from cloner.names import PARENT, WORKER_TASKS
        from cloner.settings import load_settings, load_worker_settings
        from cloner.state.registry import expected_worker

    configure()
    try:
        settings = load_settings()
        worker = expected_worker(settings, load_worker_settings())
        configure(worker=worker.name)
        log_event(Event.STARTING, device=worker.device)
        if settings.check_limits:
            from cloner.checks.check_set import parse_limits

            parse_limits(settings.check_limits)  # an unknown name ends the worker, not each of its chunks
        die_with_parent()
        try:
            check_engine(settings)
        except MissingPackage as error:
            raise LoadFailed(error.message) from None
        # A worker that is stopped requeues its chunk at once; the segments in the record are not generated again.
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        with lasting_imports():
            from cloner.output.lock import output_lock
            from cloner.queueing.app import run_worker
            from cloner.queueing.given_up import exit_on_give_up
            from cloner.queueing.heartbeat import Heartbeat
            from cloner.state.connection import translate_redis_errors
            from cloner.state.key_types import check_own_keys
            from cloner.worker.lifecycle import register_if_unknown

        check_own_keys(settings, worker.name)
        with output_lock(settings.out_dir, settings.fleet):
            with translate_redis_errors(settings.require_redis_url()):
                register_if_unknown(settings, worker)
            exit_on_give_up()
            Heartbeat(settings, worker.name, PARENT)
            queues = [worker.queue, settings.queues.shared_queue()]
            return run_worker(settings, "cloner.worker.tasks", WORKER_TASKS, worker.name, queues)
    except ClonerError as error:
        log_event(Event.FAILED, error=error.message)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
