"""What is usual for a speaker: medians that bad takes do not move, and a prior where takes are few."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloner.checks.measures import Measures, Take, measure
from cloner.checks.usual import MOST_TAKES, PRIOR, PRIOR_TAKES, History
from tests.support.speech import TEXT, speech

GOOD = measure(Take(speech(), 22_050, TEXT))


def takes(history: History, *paces: float, speaker: str = "anna") -> None:
    for pace in paces:
        history.add(speaker, replace(GOOD, pace=pace))


def test_without_takes_the_prior_is_usual() -> None:
    assert History().usual("anna", "LATIN") == PRIOR


def test_a_few_bad_takes_move_nothing() -> None:
    good, spoilt = History(), History()
    takes(good, *[0.3, 0.32, 0.28] * 30)
    takes(spoilt, *[0.3, 0.32, 0.28] * 30, *[5.0] * 9)
    assert spoilt.usual("anna", "LATIN").pace.centre == pytest.approx(good.usual("anna", "LATIN").pace.centre, abs=0.02)


def test_the_more_takes_the_less_the_prior_counts() -> None:
    history = History()
    distances = []
    for count in (1, PRIOR_TAKES, 1000):
        takes(history, *[1.0] * count)
        distances.append(1.0 - history.usual("anna", "LATIN").pace.centre)
    assert distances[0] == pytest.approx((1 - PRIOR.pace.centre) * PRIOR_TAKES / (PRIOR_TAKES + 1))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.01


def test_speakers_and_scripts_are_learnt_apart() -> None:
    history = History()
    takes(history, *[1.0] * 50)
    takes(history, *[-1.0] * 50, speaker="bob")
    history.add("anna", replace(GOOD, script="CJK", pace=3.0))
    assert history.usual("anna", "LATIN").pace.centre > 0.8
    assert history.usual("bob", "LATIN").pace.centre < -0.8
    assert history.usual("anna", "CYRILLIC") == PRIOR


def test_languages_are_learnt_apart_and_their_regions_together() -> None:
    history = History()
    for language, pace in (("de", 1.0), ("pt-BR", -1.0), ("pt-PT", -1.0), ("", 3.0)):
        for _ in range(50):
            history.add("anna", replace(GOOD, pace=pace), language)
    assert history.usual("anna", "LATIN", "de-AT").pace.centre == pytest.approx(1.0, abs=0.2)
    portuguese = history.usual("anna", "LATIN", "pt")
    assert portuguese.pace.centre == pytest.approx(-1.0, abs=0.1), "of a hundred takes"
    assert history.usual("anna", "LATIN").pace.centre > 2.5
    assert history.usual("anna", "LATIN", "fr") == PRIOR


def test_the_last_takes_count() -> None:
    history = History()
    takes(history, *[0.0] * MOST_TAKES, *[1.0] * MOST_TAKES)
    assert history.usual("anna", "LATIN").pace.centre > 0.95


def test_the_memory_of_a_speaker_is_bounded_and_few_takes_are_all_learnt_from() -> None:
    history = History()
    takes(history, *[n / MOST_TAKES for n in range(MOST_TAKES)])
    usual = history.usual("anna", "LATIN").pace
    share = MOST_TAKES / (MOST_TAKES + PRIOR_TAKES)
    middle = (MOST_TAKES - 1) / 2 / MOST_TAKES
    assert usual.centre == pytest.approx(share * middle + (1 - share) * PRIOR.pace.centre)
    takes(history, *[0.5] * 3 * MOST_TAKES)
    (kept,) = history._takes.values()
    assert kept.buffer_info()[1] * kept.itemsize == 32 * MOST_TAKES


def test_nothing_is_learnt_from_a_take_without_sound() -> None:
    history = History()
    silent: Measures = measure(Take(speech() * 0, 22_050, TEXT))
    history.add("anna", silent)
    assert history.usual("anna", silent.script) == PRIOR


def test_takes_that_are_all_alike_have_a_spread() -> None:
    history = History()
    takes(history, *[0.5] * 500)
    usual = history.usual("anna", "LATIN")
    assert min(usual.pace.spread, usual.end_db.spread, usual.change.spread) > 0.02
