"""What an engine generates with on this box, as it is noted beside the takes. Importing this takes no torch."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cloner.engine.base import Engine
from cloner.output.environments import Environment
from cloner.settings import EngineName, Settings

PACKAGES = ("cloner", "numpy", "torch", "triton", "fish-speech", "soundfile", "soxr", "pyloudnorm")
"""Packages whose versions may change samples."""

CPU_INFO = Path("/proc/cpuinfo")
DRIVER = Path("/proc/driver/nvidia/version")
"""Its first line has the version of the GPUs' driver; containers see it too."""


def environment_of(settings: Settings, engine: Engine, *, fingerprint: str, codec: str, gpu: str) -> Environment:
    """The environment of a loaded engine, on the GPU of that kind or, if it is empty, on the CPU.

    The fake engine generates the same on every device.
    """
    is_fake = settings.engine is EngineName.FAKE
    threads = 0 if gpu or is_fake else _threads()
    return Environment(
        engine=engine.name,
        fingerprint=fingerprint,
        codec=codec,
        device="any" if is_fake else gpu or _cpu_kind(),
        threads=threads,
        slots=engine.slots,
        deterministic=settings.deterministic,
        warning=engine.warning,
        versions=_versions(with_driver=bool(gpu)),
    )


def _threads() -> int:
    """Threads of a CPU's arithmetic, by OpenMP's variable, where "4,2" is 4, and in each of them 2; what is no number
    there is ignored, as by OpenMP."""
    with suppress(ValueError):
        if (threads := int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])) > 0:
            return threads
    return os.cpu_count() or 1


@cache
def _versions(*, with_driver: bool) -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    if with_driver and (driver := driver_version()) is not None:
        found["driver"] = driver
    return found


def driver_version() -> str | None:
    """The version of the GPUs' driver; None where it cannot be read."""
    with suppress(OSError):
        return DRIVER.read_text(encoding="ascii", errors="replace").partition("\n")[0]
    return None


def _cpu_kind() -> str:
    with suppress(OSError):
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
