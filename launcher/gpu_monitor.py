"""Reads memory and utilization of the box's cards at each heartbeat, for Flower and Prometheus.

The launcher does it, since a worker sees only its own part of a card.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis import RedisError

from cloner.events import Event
from cloner.logs import log_event
from cloner.settings import Settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from launcher.gpus import Gpu
from launcher.layout import Layout


@contextmanager
def monitor_gpus(settings: Settings, layout: Layout) -> Iterator[None]:
    """Inside it, a thread writes the usage of the layout's cards to Redis at each heartbeat.

    Neither a card that cannot be read nor an outage of Redis ends it.
    """
    cards = [place.gpu for place in layout.places if place.gpu and place.gpu.uuid]
    if not cards:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_monitor, args=(settings, cards, stop), name="gpu-monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2 * HASTE_S)


def read_usage(box: str, cards: Sequence[Gpu]) -> list[GpuUsage]:
    """Usage of these cards, as NVML reports it; cards that it cannot read are left out."""
    import pynvml  # need not be installed where no GPU was found

    readings = []
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for card in cards:
                with suppress(pynvml.NVMLError):
                    readings.append(_read(pynvml, box, card))
        finally:
            pynvml.nvmlShutdown()
    return readings


def _read(nvml: Any, box: str, card: Gpu) -> GpuUsage:
    handle = nvml.nvmlDeviceGetHandleByUUID(card.uuid)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    utilization = None
    with suppress(nvml.NVMLError):  # not available for a MIG instance
        utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return GpuUsage(box, card.card, card.name, int(memory.used), int(memory.total), utilization)


def _monitor(settings: Settings, cards: Sequence[Gpu], stop: threading.Event) -> None:
    redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    table = GpuUsageTable(redis, RedisKeys(settings.fleet))
    readings: list[GpuUsage] = []
    while True:
        try:
            readings = read_usage(settings.box, cards)
            table.write(readings)
        except RedisError as error:
            log_event(Event.GPU_READING_MISSED, error=error)
        if stop.wait(settings.heartbeat_s):
            break
    with suppress(RedisError):
        table.remove(readings)
