"""The exporter's metrics, read by Prometheus's own parser."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from cloner.monitoring.prometheus import FleetMetrics
from cloner.monitoring.snapshot import CHECK_NAMES
from cloner.protocol.results import ErrorRateResult
from cloner.settings import Settings, WorkerSettings
from cloner.state.counters import Count, Counters, failed_check
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from cloner.state.progress import ChunkProgress
from cloner.state.registry import Registry, WorkerState, expected_worker

Samples = dict[tuple[str, tuple[str, ...]], float]


def scrape(settings: Settings) -> Samples:
    """(name, label values in the order of the labels' names) -> value."""
    registry = CollectorRegistry()
    registry.register(FleetMetrics(settings))
    text = generate_latest(registry).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_of_a_fleet_with_workers_and_batches_in_all_states(redis: Redis, valkey_url: str) -> None:
    settings = Settings(redis_url=valkey_url, fleet="test")
    keys = RedisKeys(settings.fleet)
    registry = Registry(redis, keys, 30)
    for index, state in enumerate([WorkerState.BUSY, WorkerState.LOADING, WorkerState.READY]):
        place = WorkerSettings(index=index, number=index, card="GPU-1", device="cuda:0", gpu="RTX 4090")
        worker = expected_worker(settings, place)
        registry.register(replace(worker, state=state, slots=64, slots_used=70, frames_s=100.5, load_s=7.5))
    redis.zadd(keys.workers, {"GPU-1.2@box": 1.0})
    GpuUsageTable(redis, keys).write([GpuUsage("box", "GPU-1", "RTX 4090", 20, 24, 0.5)])
    counts = Counters(redis, keys)
    counts.add("GPU-1.0@box", {Count.SEGMENTS_GENERATED: 9, Count.SEGMENTS_FAILED: 1, Count.AUDIO_S: 12.5})
    counts.add("GPU-1.0@box", {Count.CHUNKS_TAKEN: 2, Count.QUEUED_S: 30.5, Count.RESTARTS: 1})
    counts.add("GPU-1.0@box", {Count.ATTEMPTS_AGAIN: 4, Count.SUSPECTS: 2, failed_check("pause"): 3})
    counts.add("GPU-1.0@box", {failed_check("songs"): 3, Count.REVIEW_SUSPECTS: 5})
    redis.rpush(settings.queues.review_queue, "take", "take", "take")
    redis.rpush(settings.queues.worker_queue("box", "GPU-1", 1), "message", "message")
    for number, batch_state in enumerate(["running", "done", "done"]):
        batch = f"b{number}"
        redis.hset(keys.batch(batch), mapping={"state": batch_state, "total": 10, "chunks": 1})
        redis.hset(keys.progress(batch), "0", ChunkProgress(3, 1).pack())
        redis.zadd(keys.batches, {batch: number})
    for batch, estimate in ("b1", 0.02), ("b0", 0.5):
        rate = ErrorRateResult(estimate=estimate, low=0.01, high=0.04, sampled=200)
        redis.hset(keys.batch(batch), "error_rate", rate.model_dump_json())

    samples = scrape(settings)
    assert samples["cloner_redis_up", ()] == 1
    rates = {bound: samples["cloner_review_error_rate", (bound,)] for bound in ("estimate", "low", "high")}
    assert rates == {"estimate": 0.02, "low": 0.01, "high": 0.04}
    assert {key[1][0]: value for key, value in samples.items() if key[0] == "cloner_workers"} == {
        "busy": 1,
        "loading": 1,
        "ready": 0,
        "gone": 1,
    }
    first = ("box", "cuda:0", "GPU-1.0@box")
    assert samples["cloner_worker_up", first] == 1
    assert samples["cloner_worker_up", ("box", "cuda:0", "GPU-1.2@box")] == 0
    assert samples["cloner_worker_slots_used", first] == 64
    assert samples["cloner_worker_frames_per_second", first] == 100.5
    assert samples["cloner_worker_frames_per_second", ("box", "cuda:0", "GPU-1.2@box")] == 0
    assert samples["cloner_worker_load_seconds", first] == 7.5
    assert samples["cloner_gpu_memory_used_bytes", ("box", "GPU-1", "RTX 4090")] == 20
    assert samples["cloner_gpu_use_ratio", ("box", "GPU-1", "RTX 4090")] == 0.5
    assert samples["cloner_segments_total", ("generated", "GPU-1.0@box")] == 9
    assert samples["cloner_segments_total", ("failed", "GPU-1.0@box")] == 1
    assert samples["cloner_audio_seconds_total", ("GPU-1.0@box",)] == 12.5
    assert samples["cloner_restarts_total", ("GPU-1.0@box",)] == 1
    assert samples["cloner_attempts_again_total", ("GPU-1.0@box",)] == 4
    assert samples["cloner_suspects_total", ("checks", "GPU-1.0@box")] == 2
    assert samples["cloner_suspects_total", ("review", "GPU-1.0@box")] == 5
    assert samples["cloner_queue_messages", (settings.queues.review_queue,)] == 3
    failures = {key[1][0]: value for key, value in samples.items() if key[0] == "cloner_attempt_failures_total"}
    assert {"pause", "another_voice"} < set(CHECK_NAMES)
    assert failures == {name: 3 * (name == "pause") for name in CHECK_NAMES}
    assert samples["cloner_chunk_queue_seconds_sum", ("GPU-1.0@box",)] == 30.5
    assert samples["cloner_chunk_queue_seconds_count", ("GPU-1.0@box",)] == 2
    assert samples["cloner_queue_messages", (settings.queues.worker_queue("box", "GPU-1", 1),)] == 2
    assert (samples["cloner_batches", ("done",)], samples["cloner_segments_unfinished", ()]) == (2, 6)


def test_an_empty_fleet_has_metrics(redis: Redis, valkey_url: str) -> None:
    samples = scrape(Settings(redis_url=valkey_url, fleet="test"))
    assert samples["cloner_redis_up", ()] == 1
    assert samples["cloner_workers", ("gone",)] == 0
    assert not any(name == "cloner_review_error_rate" for name, _ in samples)


def test_without_redis_the_only_metric_says_so() -> None:
    assert scrape(Settings(redis_url="unix:///nowhere/at/all", fleet="test")) == {("cloner_redis_up", ()): 0}
