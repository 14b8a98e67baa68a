"""Candidates for the sampler: other numbers of warps. With 8 or 32 warps `sample_first` keeps registers in memory."""

from __future__ import annotations

from cloner.engine.kernels.step.sampling import sample_next
from ops.engine_bench.candidates.candidate import Candidate, relaunched

SAMPLING = tuple(
    Candidate(f"sample_next with {warps} warps", {"sample_next": relaunched(sample_next, num_warps=warps)})
    for warps in (2, 8)
)
