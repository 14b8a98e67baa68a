"""The models of a review, and what they say of a take or a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cloner.audio import Audio
from cloner.checks.levels import find_silence, frame_levels
from cloner.checks.measures import script_of
from cloner.recogniser.whisper import Recogniser, Recognition, whisper_language
from cloner.review.heard import Heard, WordErrors
from cloner.review.likeness import Embedder
from cloner.review.naturalness import NaturalnessModel
from cloner.review.words import word_errors

SHORT_TEXT = 2
"""Words of a text that is short: one misheard word is half of it."""


class ReviewModels:
    """The models, loaded once in a process; without a recogniser, words are not compared.

    Raises `MissingPackage`, and `BadSetting` if the recogniser's model cannot be loaded.
    """

    def __init__(self, recogniser: Recogniser | None = None) -> None:
        self._embedder = Embedder()
        self._naturalness = NaturalnessModel()
        self._recogniser = recogniser
        if recogniser:
            recogniser.load()

    def hear(  # noqa: PLR0913 - a take, and what is known of it
        self,
        samples: Audio,
        rate: int,
        text: str = "",
        language: str = "",
        note_step: Callable[[], object] = lambda: None,
        *,
        part: float = 1.0,
    ) -> Heard:
        """What they say of mono samples, ``[samples]``: of a take, or of its first `part`, 0 to 1.

        `text` is what should be said in the take, empty if nothing is known of it; `language` its code, empty if it is
        not known.
        `note_step` is called again and again while they work. Raises `BadSetting`.
        """
        voice = self._embedder.embed(samples, rate)
        note_step()
        naturalness = self._naturalness.score(samples, rate)
        note_step()
        recogniser, known = self._recogniser, whisper_language(language)
        if recogniser is None or not text:
            return Heard(voice, naturalness)
        if not _may_be_in(recogniser.languages, known, text):
            return Heard(voice, naturalness, unknown_language=True)
        heard = recogniser.hear(samples, rate, known, note_step)
        words = compare_words(recogniser, samples, rate, heard, text, known or heard.language, part=part)
        return Heard(voice, naturalness, words, heard.text)


def compare_words(  # noqa: PLR0913, PLR0917 - a take, and what it is compared with
    recogniser: Recogniser,
    samples: Audio,
    rate: int,
    heard: Recognition,
    text: str,
    language: str,
    *,
    part: float = 1.0,
) -> WordErrors:
    """How what the recogniser has `heard` in mono ``[samples]`` differs from a text of that `language`, which it knows.

    The samples are the first `part` of the text's take, 0 to 1. Raises `BadSetting`.
    """
    end_s = len(samples) / rate - find_silence(frame_levels(samples, rate)).end_s
    errors = word_errors(text, heard.words, language, end_s, part=part)
    if not 1 <= errors.units <= SHORT_TEXT:
        return errors
    return replace(errors, surprise=recogniser.surprise(samples, rate, text, language))


def _may_be_in(languages: list[str], known: str | None, text: str) -> bool:
    """Whether a text may be in one of the languages of a recogniser; `known` is its own, if it is known. One of English
    alone hears English in any speech."""
    if known:
        return known in languages
    return languages != ["en"] or script_of(text) == "LATIN"
