"""The checks of a batch's attempts in one worker's process, which learn what is usual for each speaker."""

from __future__ import annotations

from threading import Lock

from cloner.checks.catalogue import COMPARING
from cloner.checks.check_set import PASSED, CheckResult, CheckSet, parse_limits
from cloner.checks.measures import Take, measure
from cloner.errors import reason_of
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

    def evaluate(self, take: Take, speaker: str, language: str, *, is_first: bool) -> CheckResult:
        """What the checks say of an attempt at a text of that `language`, empty if it is not known.

        One that raises is left out, and where the attempt cannot be measured, it passes: that is the checks' fault.
        Each such error has one log line in a batch and a process, not one an attempt.
        """
        try:
            measures = measure(take)
        except Exception as error:  # noqa: BLE001 - any error of what measures takes
            with self._lock:
                self._log("measures", error)
            return PASSED
        with self._lock:
            usual = self._history.usual(speaker, measures.script, language)
            result = self._checks.evaluate(measures, usual, self._log)
            if is_first and COMPARING.issuperset(result.failed):
                self._history.add(speaker, measures, language)
        return result

    def _log(self, check: str, error: Exception) -> None:
        if self._worker.mark_logged(f"{self._batch_id}/check/{check}"):
            log_event(Event.CHECK_BROKEN, check=check, error=reason_of(error))
