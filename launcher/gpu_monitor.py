"""Reads the box's cards again and again for who watches the fleet: the workers see only what is theirs of a card."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis import RedisError

from cloner.logs import get_logger
from cloner.settings import Settings
from cloner.state.connection import HASTE_S, connect
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from launcher.gpus import Gpu
from launcher.layout import Layout


@contextmanager
def watching_cards(settings: Settings, layout: Layout) -> Iterator[None]:
    """Inside it, a thread writes down at each heartbeat how full and how busy the layout's cards are.

    Neither a card that cannot be read nor a Redis that is away ends it.
    """
    cards = [place.gpu for place in layout.places if place.gpu and place.gpu.uuid]
    if not cards:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(settings, cards, stop), name="cards", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2 * HASTE_S)


def read_cards(box: str, cards: Sequence[Gpu]) -> list[GpuUsage]:
    """What NVML says of these cards now; those that it cannot read are left out."""
    import pynvml  # where no GPU was found, it need not be there

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
    use = None
    with suppress(nvml.NVMLError):  # of a MIG instance it is not told
        use = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return GpuUsage(box, card.card, card.name, int(memory.used), int(memory.total), use)


def _watch(settings: Settings, cards: Sequence[Gpu], stop: threading.Event) -> None:
    redis = connect(settings.require_redis_url(), retries=0, answer_s=HASTE_S)
    known = GpuUsageTable(redis, RedisKeys(settings.fleet))
    readings: list[GpuUsage] = []
    while True:
        try:
            readings = read_cards(settings.box, cards)
            known.write(readings)
        except RedisError as error:
            get_logger().debug(f"reading of cards missed: {error}")
        if stop.wait(settings.heartbeat_s):
            break
    with suppress(RedisError):
        known.remove(readings)
