"""Part `cold`: from the start of a process until its engine is ready, without compiled kernels, and with them."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.engine_bench.children import in_child
from ops.engine_bench.table import Row

USABLE = 0.9
"""Fraction of the card's memory that the engine may take, as in the launcher."""

STARTS = (
    ("first on a machine, no kernel compiled", "<= 25"),
    ("again, kernels compiled and tried before", "<= 8"),
)


@dataclass(frozen=True)
class _Ready:
    """What a process reports: its steps, each with when it began (the machine's monotonic clock), when all was ready,
    processor seconds of its own and of the processes that tried kernels, and the engine's warning."""

    steps: list[tuple[float, str]]
    at: float
    own_cpu_s: float
    children_cpu_s: float
    warning: str

    def remark(self) -> str:
        """Where the time went."""
        ends = [*(at for at, _ in self.steps[1:]), self.at]
        spans = [f"{end - at:.1f} s {step!r}" for (at, step), end in zip(self.steps, ends, strict=True)]
        cpu = f"processor: {self.own_cpu_s:.1f} s, and {self.children_cpu_s:.1f} s of processes that try kernels"
        return "; ".join([*([self.warning] if self.warning else []), *spans, cpu])


def measure(directory: Path, name: str, slots: int) -> Iterator[Row]:
    """A row for each start, in a process of its own and with a folder of kernels that is empty at first."""
    with TemporaryDirectory(prefix="cloner-bench-kernels-") as folder:
        for how, goal in STARTS:
            began = time.monotonic()
            ready = in_child(_load, began, directory, name, slots, Path(folder, "kernels"))
            what = f"cold: from the start of Python until the engine is ready, {how}"
            yield Row(what, "s", [ready.at - began], goal=goal, remark=ready.remark())


def _load(began: float, directory: Path, name: str, slots: int, kernels: Path) -> _Ready:
    """In a new process: import the engine and load it."""
    steps = [(began, "Python and torch"), (time.monotonic(), "importing the engine")]
    import torch

    from cloner.engine.batched import BatchedEngine
    from cloner.engine.kernel_trial.cache import KernelCache
    from cloner.engine.pipeline import Options
    from cloner.settings import load_settings

    steps.append((time.monotonic(), "starting CUDA"))
    cuda = name == "cuda"
    memory_gb = torch.cuda.get_device_properties(0).total_memory * USABLE / 2**30 if cuda else 2.0
    precision = torch.bfloat16 if cuda else torch.float32
    options = Options(memory_gb, slots, kernel_cache=KernelCache(kernels, load_settings().out_dir))
    engine = BatchedEngine(directory, torch.device(name), precision, options)
    steps.append((time.monotonic(), "importing what a GPU needs"))
    engine.load(lambda line: steps.append((time.monotonic(), str(line))))  # a log line cannot be sent to a process
    at = time.monotonic()
    engine.close()
    own_cpu_s, children_cpu_s = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
    return _Ready(steps, at, own_cpu_s, children_cpu_s, str(engine.warning))


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
