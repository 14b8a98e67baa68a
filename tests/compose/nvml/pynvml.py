"""A substitute for NVML in a container without a driver: two GPUs of 24 GB, the second nearly full."""

from types import SimpleNamespace

GB = 1024**3
USED_GB = {"GPU-11111111-aaaa": 20.5, "GPU-22222222-bbbb": 23.6}


class NVMLError(Exception):
    pass


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801
    pass


class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801
    pass


def nvmlInit() -> None:  # noqa: N802
    pass


def nvmlShutdown() -> None:  # noqa: N802
    pass


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(USED_GB)


def nvmlDeviceGetHandleByIndex(index: int) -> str:  # noqa: N802
    return list(USED_GB)[index]


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:  # noqa: N802
    return uuid


def nvmlDeviceGetUUID(handle: str) -> str:  # noqa: N802
    return handle


def nvmlDeviceGetName(handle: str) -> str:  # noqa: N802
    return "NVIDIA GeForce RTX 4090"


def nvmlDeviceGetMigMode(handle: str) -> tuple[int, int]:  # noqa: N802
    raise NVMLError_NotSupported


def nvmlDeviceGetMemoryInfo(handle: str) -> SimpleNamespace:  # noqa: N802
    used = int(USED_GB[handle] * GB)
    return SimpleNamespace(total=24 * GB, used=used, free=24 * GB - used)


def nvmlDeviceGetUtilizationRates(handle: str) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=87, memory=40)
