"""The data of Flower's fleet page, as values that can be sent as JSON."""

from __future__ import annotations

import threading
from typing import Any

from redis import Redis

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.errors import Damaged, UnknownBatch
from cloner.monitoring.snapshot import CHECK_NAMES, FleetReader, WorkerSnapshot
from cloner.protocol.results import BatchResult
from cloner.report.page import body
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from cloner.state.counters import Counters, failed_check
from cloner.state.damage import pass_over
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState, Progress, Submission
from cloner.state.throughput import ThroughputMeter

SHOWN_BATCHES = 50
"""The number of newest batches that the page shows."""

REDIS_TIMEOUT_S = 5.0
"""Seconds to wait for a response of Redis, at each of two attempts: the page must not show old data as live."""


class FleetData:
    """One object a server; its methods may be called from any thread, and raise `RedisError`."""

    def __init__(self, settings: Settings) -> None:
        url = settings.require_redis_url()
        self._settings = settings
        self._redis = connect(url, retries=1, answer_s=REDIS_TIMEOUT_S)
        self._results = self._store(connect(url, decode=False))
        self._batches = self._store(connect(url, decode=False, retries=1, answer_s=REDIS_TIMEOUT_S))
        self._fleet = FleetReader(settings, self._redis, self._batches)
        self._counters = Counters(self._redis, RedisKeys(settings.fleet))
        self._lock = threading.Lock()
        self._submissions: dict[str, Submission] = {}
        self._closed: dict[str, Progress] = {}
        """A closed batch does not change: it is not read again."""
        self._throughput: dict[str, ThroughputMeter] = {}

    def snapshot(self) -> dict[str, Any]:
        """The fleet's workers and newest batches at this moment."""
        with self._lock:
            workers = self._fleet.workers()
            waiting = self._fleet.queue_lengths(workers)
            takes = waiting.pop(self._settings.queues.review_queue)
            return {
                "fleet": self._settings.fleet,
                "workers": [_worker(worker) for worker in workers],
                "batches": self._batch_rows(any(not worker.gone for worker in workers)),
                "dead_letters": self._dead_letters(),
                "failed_checks": self._failed_checks(),
                "waiting": sum(waiting.values()),
                "takes_waiting": takes,
                "frames_per_audio_s": SAMPLE_RATE / FRAME_SAMPLES,
            }

    def result(self, batch_id: str) -> str:
        """The result of a closed batch, as JSON. Raises `UnknownBatch`, `Damaged`."""
        return self._result(batch_id).model_dump_json(indent=2)

    def report(self, batch_id: str) -> str:
        """The report of a closed batch, as a fragment of HTML. Raises `UnknownBatch`, `Damaged`."""
        return body(self._result(batch_id), self._settings.fleet)

    def _result(self, batch_id: str) -> BatchResult:
        result = self._results.result(batch_id)
        if result is None:
            raise UnknownBatch(f"batch {batch_id} has no result: it is not finished, never existed, or has expired")
        return result

    def _store(self, blobs: Redis) -> BatchStore:
        return BatchStore.of(self._settings, blobs)

    def _dead_letters(self) -> list[dict[str, Any]]:
        """The dead-letter list without its messages; one entry without an id if it is damaged."""
        now = self._fleet.now()
        try:
            letters = self._fleet.dead_letters()
        except Damaged as error:
            return [{"id": "", "queue": "", "reason": error.message, "bytes": 0, "age_s": 0.0}]
        return [
            {
                "id": letter.id,
                "queue": letter.queue,
                "reason": letter.reason,
                "bytes": letter.bytes,
                "age_s": round(max(0.0, now - letter.added_at), 1),
            }
            for letter in letters
        ]

    def _failed_checks(self) -> list[dict[str, Any]]:
        """Attempts of all workers that failed a check, by check, the most frequent first."""
        counts = self._counters.read().values()
        sums = {name: sum(done.get(failed_check(name), 0) for done in counts) for name in CHECK_NAMES}
        return [
            {"check": name.replace("_", " "), "attempts": int(attempts)}
            for name, attempts in sorted(sums.items(), key=lambda item: -item[1])
            if attempts
        ]

    def _batch_rows(self, has_workers: bool) -> list[dict[str, Any]]:
        ids = self._fleet.batches(SHOWN_BATCHES)
        for kept in (self._submissions, self._closed, self._throughput):
            for batch_id in set(kept) - set(ids):
                kept.pop(batch_id)
        progress = {**self._closed, **self._fleet.progress(ids, known=self._closed)}
        self._closed.update((batch_id, seen) for batch_id, seen in progress.items() if seen.closed)
        now = self._fleet.now()
        return [
            self._batch(progress[batch_id], submission, now, has_workers)
            for batch_id in ids
            if batch_id in progress and (submission := self._submission(batch_id))
        ]

    def _batch(self, progress: Progress, submission: Submission, now: float, has_workers: bool) -> dict[str, Any]:
        meter = self._throughput.setdefault(progress.batch_id, ThroughputMeter(submission.submitted_at))
        throughput = meter.update(now, progress)
        return {
            "id": progress.batch_id,
            "source": submission.source,
            "speakers": submission.speakers,
            "age_s": round(now - submission.submitted_at, 1),
            "state": progress.status,
            "closed": progress.closed,
            "total": progress.total,
            "generated": progress.generated,
            "failed": progress.failed,
            "audio_s": round(progress.audio_s, 1),
            "attempts": 1 + progress.attempts_again / progress.finished if progress.finished else None,
            "suspects": progress.suspects,
            "reviewing": "" if progress.closed else progress.reviewing,
            "error_rate": progress.error_rate.model_dump() if progress.error_rate else None,
            "speed": throughput.audio_s if has_workers else None,
            "left_s": throughput.left_s if has_workers else None,
            "error": progress.error,
            "has_result": progress.state is BatchState.DONE,
        }

    def _submission(self, batch_id: str) -> Submission | None:
        """What was noted at the batch's submission; None if that is damaged."""
        if batch_id not in self._submissions:
            try:
                self._submissions[batch_id] = self._batches.submission(batch_id)
            except Damaged as error:
                pass_over(f"batch {batch_id}", error.message)
                return None
        return self._submissions[batch_id]


def _worker(worker: WorkerSnapshot) -> dict[str, Any]:
    info = worker.info
    usage = None if worker.gone else worker.gpu_usage
    return {
        "name": info.name,
        "box": info.box,
        "index": info.index,
        "device": info.device,
        "gpu": info.gpu,
        "engine": info.engine,
        "checkpoint": info.checkpoint,
        "state": worker.state,
        "silent_s": round(worker.silent_s, 1),
        "slots": info.slots,
        "slots_used": worker.slots_used,
        "frames_s": worker.frames_s,
        "loads": info.loads,
        "load_s": info.load_s,
        "error": info.error,
        "warning": info.warning,
        "memory_bytes": usage.used_bytes if usage else 0 if worker.gone else info.memory_bytes,
        "memory_total_bytes": usage.total_bytes if usage else None,
        "use": usage.use if usage else None,
    }
