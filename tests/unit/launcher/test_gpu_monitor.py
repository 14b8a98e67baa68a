"""Usage of the box's cards, read and written to Redis."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from redis import Redis

from cloner.settings import Settings
from cloner.state.gpu_usage import GpuUsage, GpuUsageTable
from cloner.state.keys import RedisKeys
from launcher.cpu import Cpu
from launcher.gpu_monitor import monitor_gpus, read_usage
from launcher.gpus import GB, Gpu, described_gpu
from launcher.layout import Layout, Place
from tests.integration.conftest import eventually

CARD = Gpu(0, "RTX 4090", "GPU-aaaabbbbcccc", 24 * GB, 23 * GB)
MIG = Gpu(1, "H100 MIG", "MIG-ddddeeeeffff", 10 * GB, 9 * GB)
LOST = Gpu(2, "lost", "GPU-lost", 24 * GB, 24 * GB)


class NvmlError(Exception):
    pass


class FakeNvml:
    """The functions of `pynvml` that are used; a handle is its UUID."""

    NVMLError = NvmlError
    open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid == LOST.uuid:
            raise NvmlError
        return uuid

    def nvmlDeviceGetMemoryInfo(self, _handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=5 * GB, total=24 * GB)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if handle == MIG.uuid:
            raise NvmlError
        return SimpleNamespace(gpu=50)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def layout(*gpus: Gpu) -> Layout:
    return Layout(Cpu(2, GB), tuple(Place(gpu, 1, 1) for gpu in gpus), ())


def test_a_card_that_cannot_be_read_is_left_out(nvml: FakeNvml) -> None:
    assert read_usage("box", [CARD, LOST, MIG]) == [
        GpuUsage("box", CARD.card, "RTX 4090", 5 * GB, 24 * GB, 0.5),
        GpuUsage("box", MIG.card, "H100 MIG", 5 * GB, 24 * GB, None),
    ]
    assert nvml.open == 0


def test_usage_is_written_at_each_heartbeat_and_removed_at_the_end(
    nvml: FakeNvml, redis: Redis, valkey_url: str
) -> None:
    settings = Settings(redis_url=valkey_url, fleet="test", heartbeat_s=0.05)
    cards = GpuUsageTable(redis, RedisKeys(settings.fleet))
    with monitor_gpus(settings, layout(CARD)):
        for _ in range(2):
            eventually(lambda: ("box", CARD.card) in cards.read(30))
            redis.delete(RedisKeys(settings.fleet).gpu_usage)
    assert cards.read(30) == {}


def test_nothing_is_written_for_cards_that_were_only_described(redis: Redis, valkey_url: str) -> None:
    settings = Settings(redis_url=valkey_url, fleet="test")
    with monitor_gpus(settings, layout(described_gpu("RTX 4090:24", 0))):
        assert not redis.exists(RedisKeys(settings.fleet).gpu_usage)
