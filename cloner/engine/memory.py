"""How many slots a worker's memory holds, and how it is told that memory has run out."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import torch

from cloner.errors import LoadFailed
from cloner.events import Event, LogLine

GB = 1024**3

PREFIX_SHARE = 0.2
"""Part of the cache's memory that goes to references that were read already."""


_RAN_OUT = ("can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
"""Words of torch's allocator on a CPU, and of CUDA's libraries, which have no error of their own for it."""


def ran_out(error: BaseException) -> bool:
    """Whether the error says that there is no more memory on the device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _RAN_OUT)


@dataclass(frozen=True)
class CacheSize:
    """What the cache gets: `slots` of `positions`, and room for references that were read."""

    slots: int
    positions: int
    prefix_bytes: int
    slot_bytes: int

    def line(self) -> LogLine:
        """The sizes as a log line."""
        return Event.CACHE_PLANNED.line(
            slots=self.slots,
            positions=self.positions,
            slots_gb=self.slots * self.slot_bytes / GB,
            prefixes_gb=self.prefix_bytes / GB,
        )


@dataclass(frozen=True)
class Memory:
    """Bytes: what a worker `may_use` in all, what its models have `used`, and what is still `free` on the device."""

    may_use: int
    used: int
    free: int
    work: int
    """Kept for what comes and goes, see `work_bytes`."""

    @property
    def left(self) -> int:
        """What the cache may take."""
        return min(self.may_use - self.used, self.free) - self.work


def plan_cache(memory: Memory, position_bytes: int, positions: int, slots: int, *, exactly: bool) -> CacheSize:
    """Divide what is left among at most `slots`, or `exactly` so many. Raises `LoadFailed` if they do not fit."""
    slot_bytes = positions * position_bytes
    fitting = min(slots, int(memory.left * (1 - PREFIX_SHARE)) // slot_bytes)
    least = slots if exactly else 1
    if fitting < least:
        needed = memory.work + int(least * slot_bytes / (1 - PREFIX_SHARE))
        raise LoadFailed(
            f"{least} slot(s) need {needed / GB:.1f} GB beside the models ({memory.used / GB:.1f} GB); of the"
            f" {memory.may_use / GB:.1f} GB that the worker may use, {memory.free / GB:.1f} GB are free: start fewer"
            " workers on the card, raise FISH_MODEL_MEMORY_GB, or lower CLONER_SLOTS"
        )
    return CacheSize(fitting, positions, memory.left - fitting * slot_bytes, slot_bytes)


def work_bytes(device: torch.device) -> int:
    """What a worker needs now and then beside models and cache: activations of prompts and of the codec, and on a GPU
    its context, its graphs, and the codec's encoder where references are recordings."""
    return 5 * GB // 2 if device.type == "cuda" else GB


def used_bytes(device: torch.device) -> int:
    """Memory of the device that this process has taken: others load at the same time."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * mmap.PAGESIZE


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024
