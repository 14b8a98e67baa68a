"""How natural speech sounds: DNSMOS, the mean opinion score from 1 to 5 that a model expects of listeners.

The model is Microsoft's of ITU-T P.835 (https://arxiv.org/abs/2110.01763), as the package speechmos has it; of its
three scores the overall one is used. A score alone says little: a whispering voice has 1.9 and is as it should be. So a
take is compared with what is usual for its speaker.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np

from cloner.audio import Audio
from cloner.review.excerpts import MODEL_RATE, excerpts
from cloner.review.packages import review_packages

WEIGHTS = "dnsmos_models/sig_bak_ovr.onnx"

WINDOW_S = 9.01
"""Seconds that the model takes; shorter speech is repeated, as speechmos does it."""

OVERALL = 2
"""The place of the overall score in the model's output, after those of the speech and of the background."""

TO_OPINION = (-0.06766283, 1.11546468, 0.04602535)
"""Coefficients of the polynomial that turns the model's output into the score, the highest power first, as
speechmos has them."""

LEAST_S = 1.0
"""Seconds of a take below which it has no score: those of shorter takes are 0.2 lower, and spread more."""


class NaturalnessModel:
    """DNSMOS on one thread of the CPU. Its weights are in the installed package.

    Raises `MissingPackage` if that is not installed.
    """

    def __init__(self) -> None:
        with review_packages():
            import onnxruntime

            weights = files("speechmos").joinpath(WEIGHTS).read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # by default a thread for each core, and they spin while they wait
        self._session: Any = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def score(self, samples: Audio, rate: int) -> float | None:
        """The opinion score of a take or a reference, or None if it is shorter than `LEAST_S`.

        Of one that is longer than 27 s, three excerpts are used: each takes 0.6 s of a core.
        """
        if len(samples) < LEAST_S * rate:
            return None
        windows = [_filled(part) for part in excerpts(samples, rate, WINDOW_S)]
        if not windows:
            return None
        raw = [self._session.run(None, {"input_1": window[None]})[0][0][OVERALL] for window in windows]
        return float(np.polyval(TO_OPINION, raw).mean())


def _filled(samples: Audio) -> Audio:
    """The samples, repeated until they fill a window."""
    size = int(WINDOW_S * MODEL_RATE)
    return np.tile(samples, -(-size // len(samples)))[:size].astype(np.float32)
