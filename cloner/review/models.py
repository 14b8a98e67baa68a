"""The models of a review, and what they say of a take or a reference."""

from __future__ import annotations

from cloner.audio import Audio
from cloner.review.heard import Heard
from cloner.review.likeness import Embedder
from cloner.review.naturalness import NaturalnessModel


class ReviewModels:
    """The models, loaded once in a process. Raises `MissingPackage`."""

    def __init__(self) -> None:
        self._embedder = Embedder()
        self._naturalness = NaturalnessModel()

    def hear(self, samples: Audio, rate: int) -> Heard:
        """What they say of mono samples, ``[samples]``."""
        return Heard(self._embedder.embed(samples, rate), self._naturalness.score(samples, rate))
