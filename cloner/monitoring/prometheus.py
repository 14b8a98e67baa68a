"""An exporter of a fleet's metrics for Prometheus. One serves all boxes, because every metric comes from Redis.

Each scrape reads Redis. While Redis does not answer, the only metric is ``cloner_redis_up``, with the value 0.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from redis import RedisError

from cloner.errors import MissingPackage, UsageError
from cloner.events import Event
from cloner.logs import log_event
from cloner.monitoring.snapshot import CHECK_NAMES, GONE, FleetReader, WorkerSnapshot
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import HASTE_S, connect
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.keys import RedisKeys
from cloner.state.progress import BatchState, Progress
from cloner.state.registry import WorkerState

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError:
    raise MissingPackage("prometheus-client is not installed: run `pip install '.[launcher]'` in a checkout") from None

BATCHES = 200
"""The number of newest batches that a scrape reads."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Answer Prometheus until the process is stopped. Raises `UsageError` if the address cannot be listened on."""
    registry = CollectorRegistry()
    registry.register(FleetMetrics(settings))
    try:
        start_http_server(port, host, registry)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error}): give another --host or --port") from error
    log_event(Event.METRICS_SERVED, fleet=settings.fleet, host=host, port=port)
    threading.Event().wait()


class FleetMetrics(Collector):
    """Collects a fleet's metrics, one scrape at a time: the HTTP server has several threads."""

    def __init__(self, settings: Settings) -> None:
        redis = connect(settings.require_redis_url(), answer_s=HASTE_S)
        batches = connect(settings.require_redis_url(), decode=False, answer_s=HASTE_S)
        self._fleet = FleetReader(settings, redis, BatchStore.of(settings, batches))
        self._counts = Counters(redis, RedisKeys(settings.fleet))
        self._closed: dict[str, Progress] = {}
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Return no metrics, so that registering does not need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("cloner_redis_up", "Whether the fleet's Redis can be used.")
        with self._lock:
            try:
                metrics = list(self._read())
            except RedisError:
                metrics = []
            up.add_metric([], float(bool(metrics)))
        yield up
        yield from metrics

    def _read(self) -> Iterator[Metric]:
        workers = self._fleet.workers()
        yield from _worker_metrics(workers)
        yield from _gpu_metrics(workers)
        yield from _counter_metrics(self._counts.read())
        yield _queue_metric(self._fleet.queue_lengths(workers))
        yield from self._batch_metrics()

    def _batch_metrics(self) -> Iterator[Metric]:
        ids = self._fleet.batches(BATCHES)
        self._closed = {batch_id: seen for batch_id, seen in self._closed.items() if batch_id in ids}
        progress = {**self._closed, **self._fleet.progress(ids, known=self._closed)}
        self._closed = {batch_id: seen for batch_id, seen in progress.items() if seen.closed}
        states = Counter(seen.state for seen in progress.values())
        batches = GaugeMetricFamily("cloner_batches", "Batches in Redis, by state.", labels=["state"])
        for state in BatchState:
            batches.add_metric([state], states[state])
        yield batches
        yield _error_rate_metric([seen for batch_id in ids if (seen := progress.get(batch_id))])
        left = sum(seen.total - seen.finished for seen in progress.values() if not seen.closed)
        yield GaugeMetricFamily(
            "cloner_segments_unfinished", "Segments of open batches that are neither generated nor failed.", value=left
        )


def _worker_metrics(workers: list[WorkerSnapshot]) -> Iterator[Metric]:
    states = Counter(worker.state for worker in workers)
    count = GaugeMetricFamily("cloner_workers", "Registered workers, by state.", labels=["state"])
    for state in (*WorkerState, GONE):
        count.add_metric([state], states[state])
    yield count
    gauges: dict[str, tuple[str, Callable[[WorkerSnapshot], float]]] = {
        "up": ("Whether the worker sends heartbeats.", lambda worker: not worker.gone),
        "slots": ("Segments that the worker decodes together.", lambda worker: worker.info.slots),
        "slots_used": ("Segments that the worker has in flight.", lambda worker: worker.slots_used),
        "frames_per_second": (
            "Frames that the worker decodes a second, over its last 15 seconds.",
            lambda worker: worker.frames_s,
        ),
        "load_seconds": ("Seconds that the worker's last load of its model took.", lambda worker: worker.info.load_s),
        "memory_bytes": ("Host memory of the process with the model.", lambda worker: worker.info.memory_bytes),
    }
    for name, (what, value) in gauges.items():
        gauge = GaugeMetricFamily(f"cloner_worker_{name}", what, labels=["worker", "box", "device"])
        for worker in workers:
            gauge.add_metric([worker.info.name, worker.info.box, worker.info.device], value(worker))
        yield gauge


def _gpu_metrics(workers: list[WorkerSnapshot]) -> Iterator[Metric]:
    usage = {(gpu.box, gpu.card): gpu for worker in workers if (gpu := worker.gpu_usage)}
    labels = ["box", "card", "gpu"]
    total = GaugeMetricFamily("cloner_gpu_memory_bytes", "Memory of the GPU.", labels=labels)
    used = GaugeMetricFamily("cloner_gpu_memory_used_bytes", "Memory of the GPU that is in use.", labels=labels)
    use = GaugeMetricFamily(
        "cloner_gpu_use_ratio", "Share of the time in which the GPU computes, 0 to 1.", labels=labels
    )
    for gpu in usage.values():
        values = [gpu.box, gpu.card, gpu.gpu]
        total.add_metric(values, gpu.total_bytes)
        used.add_metric(values, gpu.used_bytes)
        if gpu.use is not None:
            use.add_metric(values, gpu.use)
    yield from (total, used, use)


def _counter_metrics(counts: dict[str, dict[str, float]]) -> Iterator[Metric]:
    outcomes = {
        "segments": ("Finished segments, by outcome.", (Count.SEGMENTS_GENERATED, Count.SEGMENTS_FAILED)),
        "chunks": ("Finished chunks, by outcome.", (Count.CHUNKS_FINISHED, Count.CHUNKS_FAILED)),
    }
    for name, (what, kinds) in outcomes.items():
        counter = CounterMetricFamily(f"cloner_{name}", what, labels=["worker", "outcome"])
        for worker, done in counts.items():
            for kind in kinds:
                counter.add_metric([worker, kind.removeprefix(f"{name}_")], done[kind])
        yield counter
    plain = {
        "frames": ("Frames of generated segments.", Count.FRAMES),
        "audio_seconds": ("Seconds of audio of generated segments.", Count.AUDIO_S),
        "loads": ("Loads of the model.", Count.LOADS),
        "restarts": ("Loads after the first one under the same launcher.", Count.RESTARTS),
        "attempts_again": ("Attempts after the first at a segment, or at a piece of one.", Count.ATTEMPTS_AGAIN),
    }
    for name, (what, kind) in plain.items():
        counter = CounterMetricFamily(f"cloner_{name}", what, labels=["worker"])
        for worker, done in counts.items():
            counter.add_metric([worker], done[kind])
        yield counter
    suspects = CounterMetricFamily(
        "cloner_suspects",
        "Generated segments that may have gone wrong, by what found it: the checks when the segment is generated, or"
        " the review alone when the batch is closed.",
        labels=["worker", "found_by"],
    )
    for worker, done in counts.items():
        suspects.add_metric([worker, "checks"], done[Count.SUSPECTS])
        suspects.add_metric([worker, "review"], done[Count.REVIEW_SUSPECTS])
    yield suspects
    failures = CounterMetricFamily(
        "cloner_attempt_failures",
        "Attempts that failed a check, also of a review, by check.",
        labels=["worker", "check"],
    )
    for worker, done in counts.items():
        for check in CHECK_NAMES:
            failures.add_metric([worker, check], done.get(failed_check(check), 0.0))
    yield failures
    queued = SummaryMetricFamily(
        "cloner_chunk_queue_seconds",
        "Seconds from a batch's submission until a worker takes one of its chunks.",
        labels=["worker"],
    )
    for worker, done in counts.items():
        queued.add_metric([worker], count_value=int(done[Count.CHUNKS_TAKEN]), sum_value=done[Count.QUEUED_S])
    yield queued


def _error_rate_metric(newest_first: list[Progress]) -> Metric:
    rate = GaugeMetricFamily(
        "cloner_review_error_rate",
        "Share of segments that have gone wrong, 0 to 1, of the last batch of which a review estimates it.",
        labels=["bound"],
    )
    estimated = next((found for batch in newest_first if (found := batch.error_rate)), None)
    if estimated:
        for bound in ("estimate", "low", "high"):
            rate.add_metric([bound], getattr(estimated, bound))
    return rate


def _queue_metric(lengths: dict[str, int]) -> Metric:
    depth = GaugeMetricFamily("cloner_queue_messages", "Messages that no process has taken.", labels=["queue"])
    for queue, length in lengths.items():
        depth.add_metric([queue], length)
    return depth
