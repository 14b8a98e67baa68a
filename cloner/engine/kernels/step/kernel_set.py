"""The kernels that a step is made of, each either Triton's or its twin."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace

from cloner.engine.kernels.step import sampling_twins
from cloner.engine.kernels.step.attend_decode import attend_decode, attend_decode_twin
from cloner.engine.kernels.step.attend_fast import attend_fast, attend_fast_twin
from cloner.engine.kernels.step.attend_prompt import attend_prompt, attend_prompt_twin
from cloner.engine.kernels.step.embed import embed, embed_twin
from cloner.engine.kernels.step.linear import linear, linear_twin
from cloner.engine.kernels.step.sampling import sample_first, sample_next

Kernel = Callable[..., None]


@dataclass(frozen=True)
class KernelSet:
    """One function of each family."""

    embed: Kernel
    linear: Kernel
    attend_prompt: Kernel
    attend_decode: Kernel
    attend_fast: Kernel
    sample_first: Kernel
    sample_next: Kernel

    def without(self, names: Collection[str]) -> KernelSet:
        """The same with twins in place of the kernels of these names."""
        return replace(self, **{each.name: getattr(TWINS, each.name) for each in fields(self) if each.name in names})


TRITON = KernelSet(embed, linear, attend_prompt, attend_decode, attend_fast, sample_first, sample_next)

TWINS = KernelSet(
    embed_twin,
    linear_twin,
    attend_prompt_twin,
    attend_decode_twin,
    attend_fast_twin,
    sampling_twins.sample_first_twin,
    sampling_twins.sample_next_twin,
)
"""Plain torch: on a CPU, and on a GPU for a kernel that its compiler or its check refuses."""
