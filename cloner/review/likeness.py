"""Whose voice a take has: likeness of speaker embeddings to the speaker's reference, and to the other speakers'.

The embeddings are Resemblyzer's (generalised end-to-end loss, https://arxiv.org/abs/1710.10467), and are compared by
their cosine. How like a take is to its own reference says less than whether another speaker's reference is more like it
(`ops/BENCHMARKS.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloner.audio import Audio
from cloner.review.excerpts import MODEL_RATE, excerpts
from cloner.review.heard import VoiceSample
from cloner.review.packages import review_packages

EXCERPT_S = 10.0
"""Seconds of an excerpt: references of so many seconds tell speakers apart."""

SHORTEST_S = 0.03
"""Seconds of the windows in which speech is found."""

PARTIAL_S = 1.6
"""Seconds that the model looks at together. Shorter speech is repeated up to that: with zeros in its place, two to
three times as many takes of less than 0.8 s are more like another speaker."""

LOUDNESS_DB = -30.0
"""Level to which quiet audio is amplified, dB of full scale: that of the model's training."""

SAME_VOICE = 0.88
"""References that are more alike are of one voice, so that neither is another speaker to the other: a batch may have a
person twice. Ten seconds of different people have up to 0.87, of one person in one language from 0.88."""


class Embedder:
    """Resemblyzer's model, on the CPU. Its weights are in the installed package.

    Raises `MissingPackage` if that is not installed. Takes 0.1 s to load, after 3 s of imports.
    """

    def __init__(self) -> None:
        with review_packages():
            import resemblyzer  # with torch, librosa and numba
        self._package: Any = resemblyzer
        self._model: Any = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, samples: Audio, rate: int) -> VoiceSample | None:
        """The voice of a take or a reference, or None if there is no speech in it.

        Of one that is longer than 30 s, three excerpts are used, so that it takes 1.5 s of a core at most.
        """
        parts = [self._speech(part) for part in excerpts(samples, rate, EXCERPT_S)]
        speech = np.concatenate([*parts, np.zeros(0, np.float32)])
        if not len(speech):
            return None
        repeated = np.tile(speech, -(-round(PARTIAL_S * MODEL_RATE) // len(speech)))
        return VoiceSample(self._model.embed_utterance(repeated), len(speech) / MODEL_RATE)

    def _speech(self, samples: Audio) -> Audio:
        """The samples without long silences."""
        if len(samples) < SHORTEST_S * MODEL_RATE or not samples.any():
            return samples[:0]
        loud = self._package.normalize_volume(samples, LOUDNESS_DB, increase_only=True)
        speech: Audio = self._package.trim_long_silences(np.clip(loud, -1, 1))
        return speech


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like a take is to the references of a batch: cosines, 1 being the same voice."""

    own: float
    """To its speaker's reference."""
    other: float | None = None
    """To the most like reference of another speaker; None if there is no other voice."""
    nearest: str = ""
    """That speaker."""

    @property
    def margin(self) -> float:
        """By how much the take is more like another speaker's reference than like its own; below 0 if it is less."""
        return -1.0 if self.other is None else self.other - self.own


class Voices:
    """The voices of a batch's references, by speaker."""

    def __init__(self, references: Mapping[str, VoiceSample]) -> None:
        known = {speaker: voice.embedding for speaker, voice in references.items() if voice.is_long_enough}
        self._speakers = [*known]
        self._place = {speaker: place for place, speaker in enumerate(self._speakers)}
        self._embeddings = np.array([*known.values()], np.float32)

    def likeness(self, take: VoiceSample, speaker: str) -> Likeness | None:
        """How like the take is to the speaker's reference and to the others'. None if it, or the speaker's reference,
        is too short to say."""
        place = self._place.get(speaker)
        if place is None or not take.is_long_enough:
            return None
        likeness = self._embeddings @ take.embedding
        own = float(likeness[place])
        likeness[self._embeddings @ self._embeddings[place] > SAME_VOICE] = -np.inf  # its own among them
        nearest = int(likeness.argmax())
        if np.isinf(likeness[nearest]):
            return Likeness(own)
        return Likeness(own, float(likeness[nearest]), self._speakers[nearest])
