"""The models of a review, and what they say of a take or a reference."""

from __future__ import annotations

from dataclasses import dataclass

from cloner.audio import Audio
from cloner.review.likeness import Embedder, VoiceSample
from cloner.review.naturalness import NaturalnessModel


@dataclass(frozen=True, slots=True)
class Heard:
    """What the models say of a take or a reference. None where it is too short to say, or has no speech."""

    voice: VoiceSample | None
    naturalness: float | None


class ReviewModels:
    """The models, loaded once in a process. Raises `MissingPackage`."""

    def __init__(self) -> None:
        self._embedder = Embedder()
        self._naturalness = NaturalnessModel()

    def hear(self, samples: Audio, rate: int) -> Heard:
        """What they say of mono samples, ``[samples]``."""
        return Heard(self._embedder.embed(samples, rate), self._naturalness.score(samples, rate))
