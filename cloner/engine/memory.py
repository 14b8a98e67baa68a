"""How many slots fit into a worker's memory, and which errors mean that memory ran out."""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from cloner.errors import LoadFailed
from cloner.events import Event, LogLine

GB = 1024**3

PREFIX_SHARE = 0.2
"""Fraction of the cache's memory for references that were read already."""


_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED", ": out of memory")
"""In messages of torch's allocator on a CPU, of CUDA's libraries, and of CUDA's runtime and driver, which torch and
Triton pass on ("CUDA error: out of memory", "Triton Error [CUDA]: out of memory"): none has an exception class."""


ONE_CAPTURES = threading.RLock()
"""Held while a graph is captured, and while all of a GPU is waited for or memory is given back to it, which would break
another thread's capture whatever its mode. The codec's thread captures beside the decoding one once memory has run
out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that the device has no more memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)


@dataclass(frozen=True)
class CacheSize:
    """`slots` of `positions` and `slot_bytes` each, and `prefix_bytes` for references that were read."""

    slots: int
    positions: int
    prefix_bytes: int
    slot_bytes: int

    def log_line(self) -> LogLine:
        """The sizes as a log line."""
        return Event.CACHE_PLANNED.line(
            slots=self.slots,
            positions=self.positions,
            slots_gb=self.slots * self.slot_bytes / GB,
            prefixes_gb=self.prefix_bytes / GB,
        )


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes: the `limit` of a worker in all, what its models have `used`, and what is still `free` on the device."""

    limit: int
    used: int
    free: int
    workspace: int
    """Reserved for all else, temporary allocations included."""

    @property
    def available(self) -> int:
        """Bytes that the cache may take."""
        return min(self.limit - self.used, self.free) - self.workspace


def plan_cache(budget: MemoryBudget, position_bytes: int, positions: int, slots: int, *, exactly: bool) -> CacheSize:
    """Divide the available memory among at most `slots`, or `exactly` so many. Raises `LoadFailed` if they do not
    fit."""
    slot_bytes = positions * position_bytes
    fitting = min(slots, int(budget.available * (1 - PREFIX_SHARE)) // slot_bytes)
    least = slots if exactly else 1
    if fitting < least:
        needed = budget.workspace + int(least * slot_bytes / (1 - PREFIX_SHARE))
        raise LoadFailed(
            f"{least} slot(s) need {needed / GB:.1f} GB beside the models ({budget.used / GB:.1f} GB); of the"
            f" {budget.limit / GB:.1f} GB that the worker may use, {budget.free / GB:.1f} GB are free: start fewer"
            " workers on the card, raise FISH_MODEL_MEMORY_GB, or lower CLONER_SLOTS"
        )
    return CacheSize(fitting, positions, budget.available - fitting * slot_bytes, slot_bytes)


def workspace_bytes(device: torch.device) -> int:
    """Bytes for temporary allocations beside models and slots: activations of prompts and of the codec, and on a GPU
    its context, its graphs, and the codec's encoder if references are recordings. (That beside pages is in
    `token_rows/workspace.py`.)"""
    return 5 * GB // 2 if device.type == "cuda" else GB


def used_bytes(device: torch.device) -> int:
    """Bytes of the device's memory that this process has taken. Other processes load at the same time."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * mmap.PAGESIZE


def free_bytes(device: torch.device) -> int:
    """Bytes of the device's memory that no process uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024
