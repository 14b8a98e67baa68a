"""Launching kernels, or writing the launches down so that they can be compiled ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl


@dataclass(frozen=True)
class Launch:
    """One kernel with its grid, arguments and compile-time options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    @property
    def starts_early(self) -> bool:
        """Whether it starts while the kernel before it ends."""
        return bool(self.options.get("EARLY"))

    def variant(self) -> tuple[Any, ...]:
        """Equal for launches that run the same compiled code."""
        kinds = tuple(_kind(argument) for argument in self.arguments)
        return (self.name, kinds, tuple(sorted(self.options.items())))

    def compile(self) -> Any:
        """Compile without running, into Triton's cache."""
        return self.kernel.warmup(*self.arguments, grid=self.grid, **self.options)


@triton.jit
def after_previous(EARLY: tl.constexpr):
    """The first statement of a kernel that may be launched early: let the next kernel's programs start as soon as
    those of this one have, and wait until the kernel before has ended and its results are visible.

    No program reads or writes memory, or ends, before it has waited. So the kernel before has ended only when its own
    wait was over, and with it all kernels before that one: one may write what the last but one reads. A kernel that is
    launched as usual starts when the one before it has ended, and says nothing to the next, which then waits for its
    end. `kernel_trial/offline.py` looks for the wait in the machine code.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


_EARLY: ContextVar[bool] = ContextVar("early launches", default=False)

_RECORDED: ContextVar[list[Launch] | None] = ContextVar("recorded launches", default=None)


@contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Within it, launches are put on the list and not made. Tensors may be on the ``meta`` device."""
    found: list[Launch] = []
    token = _RECORDED.set(found)
    try:
        yield found
    finally:
        _RECORDED.reset(token)


@contextmanager
def early_launches(*, enabled: bool) -> Iterator[None]:
    """Within it, if `enabled`, kernels with a constant EARLY start while the one before them ends (programmatic
    dependent launch, which GPUs have from sm_90 on): the gaps between many short kernels become shorter."""
    token = _EARLY.set(enabled)
    try:
        yield
    finally:
        _EARLY.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run a kernel on the current stream."""
    if "EARLY" in kernel.arg_names:
        early = _EARLY.get()
        options |= {"EARLY": early, "launch_pdl": early}
    recorded = _RECORDED.get()
    if recorded is None:
        kernel[grid](*arguments, **options)
    else:
        recorded.append(Launch(kernel, grid, arguments, options))


def distinct(launches: list[Launch]) -> list[Launch]:
    """One launch of each compiled variant."""
    return list({launch.variant(): launch for launch in launches}.values())


def _kind(argument: Any) -> object:
    """What of an argument Triton specialises on: kernels here name the integers that they do not specialise."""
    return argument.dtype if isinstance(argument, torch.Tensor) else type(argument)


def power_of_two(n: int) -> int:
    """The least power of two that is not below `n`."""
    return 1 << (n - 1).bit_length()
