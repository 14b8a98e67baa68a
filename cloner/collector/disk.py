"""Retries while the disk under the outputs fails: a batch must not break for an error that passes."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from cloner.errors import RecordUnavailable
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import DISK_INTERVAL_S
from cloner.settings import Settings


def retry_on_failing_disk(settings: Settings) -> Retrying:
    """Calls a function with its arguments, and again after `RecordUnavailable`, for `disk_wait_s` at most."""

    def log_first(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome:
            log_event(Event.DISK_FAILS, error=state.outcome.exception(), left_s=settings.disk_wait_s)

    return Retrying(
        retry=retry_if_exception_type(RecordUnavailable),
        stop=stop_after_delay(settings.disk_wait_s),
        wait=wait_fixed(DISK_INTERVAL_S),
        before_sleep=log_first,
        reraise=True,
    )
