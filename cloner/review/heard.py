"""What the models of a review say of a take or a reference, and how it travels. Needs none of their packages."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cloner.protocol.reviews import ReviewAnswer, VoiceRow, WordsRow, pack_embedding, unpack_embedding

Embedding = NDArray[np.float32]
"""A voice, ``[256]``, of length 1."""

LEAST_SPEECH_S = 1.2
"""Seconds of speech, without silences, below which an embedding says too little of the voice: it follows the sounds
that happen to be in it."""


@dataclass(frozen=True, slots=True)
class VoiceSample:
    """The voice of a take or of a reference."""

    embedding: Embedding
    speech_s: float
    """Seconds of speech that it is of, without silences."""

    @property
    def is_long_enough(self) -> bool:
        return self.speech_s >= LEAST_SPEECH_S


@dataclass(frozen=True, slots=True)
class WordErrors:
    """How what is heard differs from the text. A unit is a word, or a character of a script without spaces."""

    units: int
    """Units of the text."""
    errors: int
    """Units that are missing, wrong or too many."""
    longest_run: float
    """Most words in a row that differ; `words.CHARACTERS_OF_A_WORD` characters count as one."""
    surprise: float | None = None
    """Of a text of one or two units: how improbable the recogniser finds it, as `Recogniser.surprise` says it."""

    @property
    def rate(self) -> float:
        """The word error rate: errors for each unit of the text, 0 or more."""
        return self.errors / max(1, self.units)

    @property
    def repeated_rate(self) -> float:
        """The same without the first error: a recogniser mishears a word now and then, and a short text has few."""
        return max(0, self.errors - 1) / max(1, self.units)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the models say of a take or a reference. None where it is too short to say, or has no speech."""

    voice: VoiceSample | None
    naturalness: float | None
    words: WordErrors | None = None
    """None without a recogniser, where there is no text to compare with, and where the recogniser does not know its
    language."""
    said: str = ""
    """What the recogniser hears."""
    unknown_language: bool = False
    """Whether there are no words because the recogniser does not know the text's language."""

    def to_answer(self) -> ReviewAnswer:
        """The same as it travels."""
        voice, words = self.voice, self.words
        return ReviewAnswer(
            voice=voice and VoiceRow(embedding=pack_embedding(voice.embedding), speech_s=voice.speech_s),
            naturalness=self.naturalness,
            words=words and WordsRow(**asdict(words), heard=self.said),
            unknown_language=self.unknown_language,
        )

    @classmethod
    def of_answer(cls, answer: ReviewAnswer) -> Heard:
        """What an answer says. One with an error says nothing."""
        voice, words = answer.voice, answer.words
        return cls(
            voice=VoiceSample(unpack_embedding(voice.embedding), voice.speech_s) if voice else None,
            naturalness=answer.naturalness,
            words=WordErrors(words.units, words.errors, words.longest_run, words.surprise) if words else None,
            said=words.heard if words else "",
            unknown_language=answer.unknown_language,
        )
