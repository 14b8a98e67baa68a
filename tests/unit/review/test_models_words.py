"""When words are compared."""

from __future__ import annotations

import pytest

from cloner.recogniser.whisper import Recogniser
from cloner.review.heard import Heard
from cloner.review.models import ReviewModels
from tests.support.recognition import MODEL
from tests.support.speech import speech

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> ReviewModels:
    """With a recogniser of English alone."""
    return ReviewModels(Recogniser(MODEL, MODEL))


@pytest.mark.parametrize(
    ("text", "language", "is_compared"),
    [
        ("Good morning to you all", "", True),
        ("Good morning to you all", "en-GB", True),
        ("Bonjour à tous", "fr", False),
        ("Guten Morgen", "de-AT", False),
        ("Доброе утро", "", False),
        ("", "en", False),
        ("", "de", False),
    ],
)
def test_words_are_compared_where_the_recogniser_may_know_the_language(
    models: ReviewModels, text: str, language: str, is_compared: bool
) -> None:
    heard = models.hear(speech(16_000), 16_000, text, language)
    assert (heard.words is not None) == is_compared
    assert heard.unknown_language == (not is_compared and text != "")
    assert Heard.of_answer(heard.to_answer()).unknown_language == heard.unknown_language
    if heard.words:
        assert heard.words.units == len(text.split())


def test_its_work_counts_in_steps(models: ReviewModels) -> None:
    steps: list[None] = []
    models.hear(speech(16_000), 16_000, note_step=lambda: steps.append(None))
    assert len(steps) == 2
