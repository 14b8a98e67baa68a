"""The checks of a batch's attempts in one worker's process, which learn what is usual for each speaker."""

from __future__ import annotations

from threading import Lock

from cloner.checks.catalogue import COMPARING
from cloner.checks.check_set import PASSED, CheckResult, CheckSet, parse_limits
from cloner.checks.measures import Take, measure
from cloner.errors import CheckBroken, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.worker.worker_process import WorkerProcess


class AttemptChecks:
    """May be called from several threads."""

    def __init__(self, worker: WorkerProcess, batch_id: str) -> None:
        self._worker = worker
        self._batch_id = batch_id
        self._checks = CheckSet(parse_limits(worker.settings.check_limits))
        self._history = worker.history(batch_id)
        self._lock = Lock()

    def evaluate(self, take: Take, speaker: str, *, is_first: bool) -> CheckResult:
        """What the checks say of an attempt.

        It passes where a check raises: that is the check's fault. Such a check has one log line in a batch and a
        process, not one an attempt.
        """
        try:
            measures = measure(take)
            with self._lock:
                result = self._checks.evaluate(measures, self._history.usual(speaker, measures.script))
                if is_first and COMPARING.issuperset(result.failed):
                    self._history.add(speaker, measures)
        except Exception as error:  # noqa: BLE001 - any error of a check
            check = error.check if isinstance(error, CheckBroken) else "measures"
            with self._lock:
                if self._worker.is_first_time(f"{self._batch_id}/check/{check}"):
                    log_event(Event.CHECK_BROKEN, check=check, error=reason_of(error))
            return PASSED
        return result
