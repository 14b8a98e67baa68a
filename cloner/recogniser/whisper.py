"""The recogniser: faster-whisper, of the extras ``asr`` and ``review``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from cloner.audio import Audio
from cloner.errors import BadSetting, MissingPackage, first_line
from cloner.recogniser.models import find_model
from cloner.settings import Settings
from cloner.validation import primary_language, shown

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

_RATE = 16_000
"""Sample rate of Whisper's models, Hz."""

LEAST_PROBABILITY = 1e-9
"""Of a token: its logarithm stays finite."""


OTHER_CODES = {"nb": "no", "jv": "jw", "fil": "tl", "cmn": "zh", "iw": "he"}
"""Codes of languages for which Whisper has others."""


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word, with its punctuation, as it is heard."""

    text: str
    """With the space before it, where its language has spaces."""
    start_s: float
    """When it begins, seconds."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is said in a recording."""

    words: tuple[HeardWord, ...]
    """None if no speech is found."""
    language: str
    """Its code, such as "en"."""
    certainty: float
    """How probable that language is, 0 to 1; 1 with a model of one language."""

    @property
    def text(self) -> str:
        """All words, on one line."""
        return " ".join("".join(word.text for word in self.words).split())


def whisper_language(tag: str) -> str | None:
    """Whisper's code of a language, such as "pt" for "pt-BR", whether its model knows it or not; None if the tag is
    empty."""
    language = primary_language(tag)
    return OTHER_CODES.get(language, language) or None


def recogniser_of(settings: Settings) -> Recogniser | None:
    """The recogniser that the settings name, if they name one."""
    return Recogniser(settings.recogniser, settings.recogniser_cache) if settings.recogniser else None


class Recogniser:
    """Recognises speech in any language that its model knows. The model is loaded for the first recording."""

    def __init__(self, wanted: Path, cache: Path) -> None:
        """`wanted` and `cache` are those of `find_model`."""
        self._wanted = wanted
        self._cache = cache

    def load(self) -> None:
        """Load the model now. Raises `BadSetting`, `MissingPackage`."""
        self._model  # noqa: B018 - it is loaded when it is first read

    @property
    def languages(self) -> list[str]:
        """The languages that the model recognises, as codes such as "en". Raises `BadSetting`, `MissingPackage`."""
        languages: list[str] = self._model.supported_languages
        return languages

    def hear(
        self, samples: Audio, rate: int, language: str | None = None, note_step: Callable[[], object] = lambda: None
    ) -> Recognition:
        """What is said in mono ``[samples]`` in -1..1: the same each time.

        `language` is one that the model knows; it finds out if None. `note_step` is called again and again while it
        works. Raises `BadSetting`, `MissingPackage`.
        """
        model, samples = self._model, soxr.resample(samples, rate, _RATE)
        try:
            segments, info = model.transcribe(
                samples,
                language=language,
                temperature=0,  # no random retries
                condition_on_previous_text=False,
                vad_filter=True,  # what is no speech is left out: Whisper would invent words for it
                word_timestamps=True,
            )
            words = []
            for segment in segments:  # each is recognised when it is asked for
                words += [HeardWord(word.word, word.start) for word in segment.words]
                note_step()
        except Exception as error:  # files of different models make CTranslate2 and tokenizers raise errors of any type
            raise BadSetting(
                f"CLONER_RECOGNISER={shown(str(self._wanted))}: its files do not belong together"
                f" ({first_line(error)}); fetch it again"
            ) from error
        return Recognition(tuple(words), info.language, info.language_probability)

    def surprise(self, samples: Audio, rate: int, text: str, language: str) -> float | None:
        """How improbable the model finds that the first 30 s of mono ``[samples]`` are this `text`: the mean of its
        tokens' negative logarithms of probability, nats. None if there are no tokens or no samples.

        `language` is one that the model knows. Raises `BadSetting`, `MissingPackage`.
        """
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        model, samples = self._model, soxr.resample(samples, rate, _RATE)
        tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=language)
        tokens = tokenizer.encode(f" {text.strip()}")
        if not (tokens and len(samples)):
            return None
        features = model.feature_extractor(samples)
        heard = model.encode(pad_or_trim(features))
        frames = min(features.shape[-1], model.feature_extractor.nb_max_frames)
        (alignment,) = model.model.align(heard, [*tokenizer.sot_sequence], [tokens], frames)
        probabilities = np.maximum(alignment.text_token_probs, LEAST_PROBABILITY)
        return float(-np.log(probabilities).mean())

    @cached_property
    def _model(self) -> WhisperModel:
        """The model, of files alone: nothing is downloaded."""
        folder = find_model(self._wanted, self._cache)
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingPackage(
                f"faster-whisper cannot be used ({first_line(error)}), and CLONER_RECOGNISER asks for it: run"
                " `pip install '.[asr]'` in a checkout"
            ) from error
        try:
            return WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
        except Exception as error:  # a damaged model makes CTranslate2 and tokenizers raise errors of any type
            raise BadSetting(
                f"CLONER_RECOGNISER: the model in {folder} cannot be loaded ({first_line(error)}); fetch it again"
            ) from error
