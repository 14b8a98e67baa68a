"""What a candidate is: kernels and attributes that are replaced while a step is captured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from cloner.engine.kernels.launch import launch, recorded_launches
from cloner.engine.kernels.step.kernel_set import Kernel
from cloner.engine.token_rows.token_step import TokenStep

Change = tuple[object, str, Any]
"""An object, the name of its attribute, and the value that it gets."""


@dataclass(frozen=True)
class Candidate:
    """`kernels` replaces fields of the step's `KernelSet`; each call is compared with that of today's kernel on the
    same input. `changes` replaces attributes, where a kernel's own call does not show the change: then the step's
    logits alone are compared. A Triton kernel needs a name (``fn.__name__``) that no other kernel has, since launches
    of one name and the same constants count as one compiled form."""

    name: str
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @contextmanager
    def in_place(self, step: TokenStep) -> Iterator[None]:
        """Within it `step` runs, is recorded or captured with these kernels and attributes."""
        with ExitStack() as stack:
            for target, attribute, value in self.changes:
                stack.enter_context(patch.object(target, attribute, value))
            stack.enter_context(patch.object(step, "kernels", replace(step.kernels, **self.kernels)))
            yield


def relaunched(kernel: Kernel, **options: Any) -> Kernel:
    """The same kernel with other launch options or constants, such as `num_warps`."""

    def changed(*arguments: Any, **named: Any) -> None:
        with recorded_launches() as found:
            kernel(*arguments, **named)
        for each in found:
            launch(each.kernel, each.grid, *each.arguments, **each.options | options)

    return changed
