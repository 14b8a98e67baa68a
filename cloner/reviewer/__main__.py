"""``python -m cloner.reviewer [NUMBER]``: a Celery worker that hears takes, on the CPU. The launcher starts it so."""

from __future__ import annotations

import os
import sys

from cloner.process import die_with_parent, lasting_imports

NICENESS = 10
"""Where workers and reviewers want the same core, the reviewer gets a tenth of it."""

ON_ONE_CORE = {
    # Each library would start a thread for each core, which the workers' decoding needs.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    # Its memory is the workers'.
    "CUDA_VISIBLE_DEVICES": "",
    # Nothing is downloaded during a batch.
    "HF_HUB_OFFLINE": "1",
}
"""Environment variables of a reviewer, which must be set before libraries are imported."""


def main() -> int:
    """Run until stopped; returns the exit status.

    It is 78 if a package is missing or the models do not load, 2 if a setting is wrong.
    """
    os.environ.update(ON_ONE_CORE)
    with lasting_imports():
        from cloner.errors import ClonerError, LoadFailed, MissingPackage
        from cloner.events import Event
        from cloner.logs import configure, log_event
        from cloner.names import PARENT, REVIEWER_TASKS, reviewer_name
        from cloner.review.requirements import check_review
        from cloner.settings import load_settings

    configure()
    try:
        settings = load_settings()
        name = reviewer_name(settings.box, int(sys.argv[1]) if sys.argv[1:] else 0)
        configure(worker=name)
        log_event(Event.STARTING, device="cpu")
        die_with_parent()
        os.nice(NICENESS)
        try:
            check_review(settings)
        except MissingPackage as error:
            raise LoadFailed(error.message) from None
        # A reviewer that is stopped requeues its take at once.
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        with lasting_imports():
            from cloner.queueing.app import run_worker
            from cloner.queueing.given_up import exit_on_give_up
            from cloner.queueing.heartbeat import Heartbeat
            from cloner.reviewer.lifecycle import register_if_unknown
            from cloner.state.connection import translate_redis_errors
            from cloner.state.key_types import check_own_keys

        check_own_keys(settings, name)
        with translate_redis_errors(settings.require_redis_url()):
            register_if_unknown(settings, name)
        exit_on_give_up()
        Heartbeat(settings, name, PARENT)
        queues = [settings.queues.review_queue]
        return run_worker(settings, "cloner.reviewer.tasks", REVIEWER_TASKS, name, queues)
    except ClonerError as error:
        log_event(Event.FAILED, error=error.message)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
