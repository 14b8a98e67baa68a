"""Child processes for measurements, all with the same settings, and the checkpoints that they load."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

KEEP_BYTES = str(2**32)
"""Bytes that the allocator may keep instead of returning them to the system after each layer."""


def set_environment(threads: int) -> None:
    """Set the environment of child processes: the number of threads, and the settings of glibc's allocator, which reads
    them when a process starts."""
    os.environ.update(
        OMP_NUM_THREADS=str(threads),
        MKL_NUM_THREADS=str(threads),
        MALLOC_MMAP_THRESHOLD_=KEEP_BYTES,
        MALLOC_TRIM_THRESHOLD_=KEEP_BYTES,
    )


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `function` in a new process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


class Checkpoints:
    """Random weights of each size, made when first requested."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, size: str) -> Path:
        """The folder of a checkpoint of that size (a `Preset`)."""
        directory = self._folder / size
        if not directory.exists():
            in_child(make_checkpoint, directory, size)
        return directory


@contextmanager
def checkpoints() -> Iterator[Checkpoints]:
    """Checkpoints for one run, removed afterwards: S1-mini's size takes 3.3 GB."""
    with tempfile.TemporaryDirectory(prefix="cloner-bench-") as folder:
        yield Checkpoints(Path(folder))


def make_checkpoint(directory: Path, size: str) -> None:
    """Write a checkpoint of random weights."""
    from cloner.engine.checkpoint.folder import init_checkpoint
    from cloner.engine.checkpoint.presets import Preset

    init_checkpoint(directory, Preset(size))


def multiplies(device: torch.device, precision: torch.dtype) -> bool:
    """Whether the device has instructions for products in that precision: a CPU without them takes a hundred times as
    long as in float32."""
    lacking = device.type == "cpu" and precision is torch.bfloat16
    return not lacking or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
