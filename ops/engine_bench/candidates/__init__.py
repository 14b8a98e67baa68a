"""Other kernels and other choices for the decoding step, which part `tune` measures beside today's.

None has run on a card. One that is faster there becomes the product's, the others are removed.
"""

from __future__ import annotations

from ops.engine_bench.candidates.attention import ATTENTION
from ops.engine_bench.candidates.candidate import Candidate
from ops.engine_bench.candidates.products import PRODUCTS
from ops.engine_bench.candidates.sampling import SAMPLING

CANDIDATES: tuple[Candidate, ...] = (*ATTENTION, *PRODUCTS, *SAMPLING)
"""In the order in which they are measured: the greatest expected gain first."""
