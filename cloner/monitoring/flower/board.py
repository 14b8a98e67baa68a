"""What the fleet page shows, as plain values that travel as JSON."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.errors import UnknownBatch
from cloner.monitoring.snapshot import Watcher, WorkerNow
from cloner.protocol.results import BatchResult
from cloner.report.page import body
from cloner.settings import Settings
from cloner.state.batches import Progress
from cloner.state.connection import connect
from cloner.state.throughput import ThroughputMeter

SHOWN = 50
"""Batches that are shown: the newest."""

LOOK_S = 5.0
"""Seconds to wait for an answer of Redis, at each of two tries: a page that says "live" must not be old."""


@dataclass(frozen=True)
class _Submission:
    source: str
    speakers: int
    submitted_at: float


class Board:
    """One a server, whoever looks at it; asked from any thread. Raises `RedisError`."""

    def __init__(self, settings: Settings) -> None:
        url = settings.require_redis_url()
        self._settings = settings
        self._redis = connect(url, retries=1, answer_s=LOOK_S)
        self._blobs = connect(url, decode=False)
        self._watcher = Watcher(self._redis, settings.names, settings.alive_s)
        self._lock = threading.Lock()
        self._submissions: dict[str, _Submission] = {}
        self._closed: dict[str, Progress] = {}
        """A batch that is closed stays as it is: it is not read again."""
        self._speeds: dict[str, ThroughputMeter] = {}

    def look(self) -> dict[str, Any]:
        """The fleet now."""
        with self._lock:
            workers = self._watcher.workers()
            return {
                "fleet": self._settings.fleet,
                "workers": [_worker(worker) for worker in workers],
                "batches": self._batches(any(not worker.gone for worker in workers)),
                "waiting": sum(self._watcher.waiting(workers).values()),
                "frames_per_audio_s": SAMPLE_RATE / FRAME_SAMPLES,
            }

    def result(self, batch_id: str) -> str:
        """What came of a closed batch, as JSON. Raises `UnknownBatch`, `Damaged`."""
        return self._result(batch_id).model_dump_json(indent=2)

    def report(self, batch_id: str) -> str:
        """The same for people, as a part of a page. Raises `UnknownBatch`, `Damaged`."""
        return body(self._result(batch_id), self._settings.fleet)

    def _result(self, batch_id: str) -> BatchResult:
        data = self._blobs.get(self._settings.names.result(batch_id))
        if not isinstance(data, bytes):
            raise UnknownBatch(
                f"batch {batch_id} has no result: it is not finished, or was never there, or is long gone"
            )
        return BatchResult.unpack(data)

    def _batches(self, attended: bool) -> list[dict[str, Any]]:
        ids = self._watcher.batches(SHOWN)
        for kept in (self._submissions, self._closed, self._speeds):
            for batch_id in set(kept) - set(ids):
                kept.pop(batch_id)
        progress = {**self._closed, **self._watcher.progress(ids, known=self._closed)}
        self._closed.update((batch_id, seen) for batch_id, seen in progress.items() if seen.closed)
        now = self._watcher.now()
        return [self._batch(progress[batch_id], now, attended) for batch_id in ids if batch_id in progress]

    def _batch(self, progress: Progress, now: float, attended: bool) -> dict[str, Any]:
        submission = self._submission(progress.batch_id)
        meter = self._speeds.setdefault(progress.batch_id, ThroughputMeter(submission.submitted_at))
        speed = meter.update(now, progress)
        state = "cancelled" if progress.cancelled and progress.state != "broken" else progress.state
        return {
            "id": progress.batch_id,
            "source": submission.source,
            "speakers": submission.speakers,
            "age_s": round(now - submission.submitted_at, 1),
            "state": state,
            "closed": progress.closed,
            "total": progress.total,
            "generated": progress.generated,
            "failed": progress.failed,
            "audio_s": round(progress.audio_s, 1),
            "speed": speed.audio_s if attended else None,
            "left_s": speed.left_s if attended else None,
            "error": progress.error,
            "has_result": progress.state == "done",
        }

    def _submission(self, batch_id: str) -> _Submission:
        if batch_id not in self._submissions:
            key = self._settings.names.batch(batch_id)
            source, speakers, submitted_at = self._redis.hmget(key, "source", "speakers", "submitted_at")
            self._submissions[batch_id] = _Submission(str(source or ""), int(speakers or 0), float(submitted_at or 0))
        return self._submissions[batch_id]


def _worker(worker: WorkerNow) -> dict[str, Any]:
    info = worker.info
    card = None if worker.gone else worker.card
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
        "memory_bytes": card.used_bytes if card else 0 if worker.gone else info.memory_bytes,
        "memory_total_bytes": card.total_bytes if card else None,
        "use": card.use if card else None,
    }
