"""What a fleet does, as Prometheus reads it: one exporter for all boxes, for all of it is in Redis.

Every scrape reads Redis anew. Where that cannot be used, ``cloner_redis_up`` is 0 and stands alone.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from redis import RedisError

from cloner.errors import ClonerError, MissingPackage
from cloner.logs import get_logger
from cloner.monitoring.snapshot import GONE, Watcher, WorkerNow
from cloner.settings import Settings
from cloner.state.batches import Progress
from cloner.state.connection import HASTE_S, connect
from cloner.state.counters import Count, Counts
from cloner.state.registry import WorkerState

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError:
    raise MissingPackage("prometheus-client is not installed: run `pip install '.[launcher]'` in a checkout") from None

BATCHES = 200
"""Batches that are looked at for what is unfinished: the newest."""


def serve(settings: Settings, host: str, port: int) -> None:
    """Answer Prometheus until the process is told to stop. Raises `ClonerError` if nobody can listen there."""
    registry = CollectorRegistry()
    registry.register(FleetMetrics(settings))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise ClonerError(f"nobody can listen on {host}:{port} ({error}): give another --host or --port") from error
    get_logger().info(f"[Main] Metrics of fleet {settings.fleet} are at http://{host}:{port}/metrics")
    threading.Event().wait()


class FleetMetrics(Collector):
    """Collects a fleet's metrics. One scrape at a time: the server's threads meet here."""

    def __init__(self, settings: Settings) -> None:
        redis = connect(settings.require_redis_url(), answer_s=HASTE_S)
        self._watcher = Watcher(redis, settings.names, settings.alive_s)
        self._counts = Counts(redis, settings.names)
        self._closed: dict[str, Progress] = {}
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: Redis need not be there yet."""
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
        workers = self._watcher.workers()
        yield from _of_workers(workers)
        yield from _of_cards(workers)
        yield from _of_counts(self._counts.read())
        yield _of_queues(self._watcher.waiting(workers))
        yield from self._of_batches()

    def _of_batches(self) -> Iterator[Metric]:
        ids = self._watcher.batches(BATCHES)
        self._closed = {batch_id: seen for batch_id, seen in self._closed.items() if batch_id in ids}
        progress = {**self._closed, **self._watcher.progress(ids, known=self._closed)}
        self._closed = {batch_id: seen for batch_id, seen in progress.items() if seen.closed}
        states = Counter(seen.state for seen in progress.values())
        batches = GaugeMetricFamily("cloner_batches", "Batches that Redis still knows, by state.", labels=["state"])
        for state in ("submitting", "running", "done", "broken"):
            batches.add_metric([state], states[state])
        yield batches
        left = sum(seen.total - seen.finished for seen in progress.values() if not seen.closed)
        yield GaugeMetricFamily(
            "cloner_segments_unfinished", "Segments of open batches still to be spoken.", value=left
        )


def _of_workers(workers: list[WorkerNow]) -> Iterator[Metric]:
    states = Counter(worker.state for worker in workers)
    count = GaugeMetricFamily("cloner_workers", "Registered workers, by state.", labels=["state"])
    for state in (*WorkerState, GONE):
        count.add_metric([state], states[state])
    yield count
    gauges: dict[str, tuple[str, Callable[[WorkerNow], float]]] = {
        "up": ("Whether the worker sends heartbeats.", lambda worker: not worker.gone),
        "slots": ("Segments that the worker decodes together.", lambda worker: worker.info.slots),
        "slots_used": ("Segments that the worker has in hand.", lambda worker: worker.slots_used),
        "frames_per_second": ("Frames that the worker decodes a second, lately.", lambda worker: worker.frames_s),
        "load_seconds": ("Seconds that the worker's last load of its model took.", lambda worker: worker.info.load_s),
        "memory_bytes": ("Host memory of the process with the model.", lambda worker: worker.info.memory_bytes),
    }
    for name, (what, value) in gauges.items():
        gauge = GaugeMetricFamily(f"cloner_worker_{name}", what, labels=["worker", "box", "device"])
        for worker in workers:
            gauge.add_metric([worker.info.name, worker.info.box, worker.info.device], value(worker))
        yield gauge


def _of_cards(workers: list[WorkerNow]) -> Iterator[Metric]:
    cards = {(worker.card.box, worker.card.card): worker.card for worker in workers if worker.card}
    labels = ["box", "card", "gpu"]
    total = GaugeMetricFamily("cloner_gpu_memory_bytes", "Memory of the card.", labels=labels)
    used = GaugeMetricFamily("cloner_gpu_memory_used_bytes", "Memory of the card that is taken.", labels=labels)
    use = GaugeMetricFamily(
        "cloner_gpu_use_ratio", "SpeakerSlice of the time in which the card computes, 0 to 1.", labels=labels
    )
    for card in cards.values():
        values = [card.box, card.card, card.gpu]
        total.add_metric(values, card.total_bytes)
        used.add_metric(values, card.used_bytes)
        if card.use is not None:
            use.add_metric(values, card.use)
    yield from (total, used, use)


def _of_counts(counts: dict[str, dict[Count, float]]) -> Iterator[Metric]:
    outcomes = {
        "segments": ("Segments, by what came of them.", (Count.SEGMENTS_GENERATED, Count.SEGMENTS_FAILED)),
        "chunks": ("Chunks, by what came of them.", (Count.CHUNKS_FINISHED, Count.CHUNKS_FAILED)),
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
        "restarts": ("Loads that followed another under the same launcher.", Count.RESTARTS),
    }
    for name, (what, kind) in plain.items():
        counter = CounterMetricFamily(f"cloner_{name}", what, labels=["worker"])
        for worker, done in counts.items():
            counter.add_metric([worker], done[kind])
        yield counter
    queued = SummaryMetricFamily(
        "cloner_chunk_queue_seconds", "From a batch's submission until a worker took a chunk of it.", labels=["worker"]
    )
    for worker, done in counts.items():
        queued.add_metric([worker], count_value=int(done[Count.CHUNKS_TAKEN]), sum_value=done[Count.QUEUED_S])
    yield queued


def _of_queues(waiting: dict[str, int]) -> Metric:
    depth = GaugeMetricFamily("cloner_queue_messages", "Messages that nobody has taken yet.", labels=["queue"])
    for queue, length in waiting.items():
        depth.add_metric([queue], length)
    return depth
