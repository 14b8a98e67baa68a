"""Each check on something like speech, which is damaged in one way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloner.audio import Audio
from cloner.checks.catalogue import CHECKS
from cloner.checks.check_set import CheckResult, CheckSet, parse_limits
from cloner.checks.measures import Measures, Take, measure
from cloner.checks.usual import History
from cloner.errors import BadSetting
from tests.support.speech import TEXT, speech

RATE = 22_050
SPEECH = speech(RATE)


@pytest.fixture(scope="module")
def history() -> History:
    """Twenty good takes of one speaker."""
    takes = History()
    for seed in range(1, 21):
        takes.add("anna", measure(Take(speech(RATE, seed=seed), RATE, TEXT)))
    return takes


def evaluate(history: History, take: Take, **limits: float) -> CheckResult:
    measured = measure(take)
    return CheckSet(limits).evaluate(measured, history.usual("anna", measured.script))


def failed(history: History, samples: Audio, text: str = TEXT) -> set[str]:
    return {*evaluate(history, Take(samples.astype(np.float32), RATE, text)).failed}


def with_zeros(start_s: float, seconds: float) -> Audio:
    samples = SPEECH.copy()
    samples[round(start_s * RATE) : round((start_s + seconds) * RATE)] = 0
    return samples


def test_a_good_take_fails_nothing_and_has_all_scores(history: History) -> None:
    result = evaluate(history, Take(SPEECH, RATE, TEXT))
    assert (result.failed, result.sentences) == ((), ())
    assert [*result.scores] == [kind.name for kind in CHECKS]


def test_names_are_unique() -> None:
    assert len({kind.name for kind in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("too_quiet", SPEECH * 0.003),
        ("level", SPEECH * 0.1),
        ("clipping", np.clip(SPEECH * 8, -1, 1)),
        ("silence_at_start", np.concatenate([np.zeros(2 * RATE), SPEECH])),
        ("silence_at_end", np.concatenate([SPEECH, np.full(2 * RATE, 1e-4)])),
        ("pause", np.concatenate([SPEECH, np.full(2 * RATE, 1e-4), SPEECH])),
        ("too_little_sound", np.concatenate([SPEECH, np.full(40 * RATE, 1e-4), SPEECH])),
        ("hole", with_zeros(1, 0.5)),
        ("loop", np.concatenate([SPEECH[: 2 * RATE], SPEECH[RATE : 2 * RATE], SPEECH[RATE:]])),
        ("cut_end", SPEECH[: round(1.27 * RATE)]),
        ("too_slow", np.concatenate([speech(RATE, seed=seed) for seed in range(4)])),
    ],
)
def test_a_check_fails_and_says_why(history: History, name: str, samples: Audio) -> None:
    result = evaluate(history, Take(samples.astype(np.float32), RATE, TEXT))
    assert name in result.failed
    assert len(result.sentences) == len(result.failed)
    assert result.scores[name] > next(kind.default for kind in CHECKS if kind.name == name)


@pytest.mark.parametrize("gain", [1e-3, 3e-4, 1e-4, 5e-5, 3e-5])
def test_a_take_whose_last_sounds_are_digital_silence_is_nearly_mute(history: History, gain: float) -> None:
    rng = np.random.default_rng(3)
    samples = np.concatenate(
        [tone * gain / 10 ** (step / 10) for step, tone in enumerate(rng.uniform(-1, 1, (20, RATE // 10)))]
    )
    for bits in (samples, np.round(samples * 2**15) / 2**15):
        result = evaluate(history, Take(bits.astype(np.float32), RATE, TEXT))
        assert "too_quiet" in result.failed
        assert any("nearly mute" in sentence for sentence in result.sentences)


def test_a_take_that_says_twice_as_much_in_its_time_is_too_fast(history: History) -> None:
    # Every other sample at the same rate: twice as fast, and higher.
    assert "too_fast" in failed(history, SPEECH[::2])
    assert "too_fast" not in failed(history, SPEECH)


def test_samples_that_are_no_numbers_leave_no_other_score(history: History) -> None:
    samples = SPEECH.copy()
    samples[100:110] = np.nan
    samples[200] = np.inf
    result = evaluate(history, Take(samples, RATE, TEXT))
    assert result.failed == ("not_a_number",)
    assert [*result.scores] == ["not_a_number", "cut_off", "too_quiet"]
    assert result.scores["not_a_number"] == pytest.approx(100 * 11 / len(samples), rel=0.01)


def test_samples_far_beyond_full_scale_are_no_numbers(history: History) -> None:
    result = evaluate(history, Take(SPEECH * np.float32(1e25), RATE, TEXT))
    assert result.failed == ("not_a_number",)
    assert all(np.isfinite(score) for score in result.scores.values())
    assert "not_a_number" not in failed(history, SPEECH * 32768)


def test_a_pause_that_the_text_asks_for_is_right(history: History) -> None:
    samples = np.concatenate([SPEECH[: len(SPEECH) // 2], np.full(2 * RATE, 1e-4), SPEECH[len(SPEECH) // 2 :]])
    assert "pause" in failed(history, samples)
    half = len(TEXT) // 2
    assert "pause" not in failed(history, samples, f"{TEXT[:half]} [pause:2] {TEXT[half:]}")


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.zeros(3), np.zeros(0)])
def test_a_take_without_sound_is_too_quiet_and_nothing_else(history: History, samples: Audio) -> None:
    assert failed(history, samples) == {"too_quiet"}


def test_a_take_that_was_truncated_is_cut_off(history: History) -> None:
    assert evaluate(history, Take(SPEECH, RATE, TEXT, truncated=True)).failed == ("cut_off",)


def test_codes_that_come_again_are_a_loop(history: History) -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (10, 60)).astype(np.int32)
    assert evaluate(history, Take(SPEECH, RATE, TEXT, codes=codes)).failed == ()
    again = np.concatenate([codes, codes[:, -15:], codes[:, -15:]], axis=1)
    assert evaluate(history, Take(SPEECH, RATE, TEXT, codes=again)).failed == ("loop_in_codes",)


def test_limits_replace_the_checks_own(history: History) -> None:
    samples = np.concatenate([SPEECH, np.full(2 * RATE, 1e-4)]).astype(np.float32)
    assert "silence_at_end" in evaluate(history, Take(samples, RATE, TEXT)).failed
    assert (
        "silence_at_end"
        not in evaluate(history, Take(samples, RATE, TEXT), **parse_limits("silence_at_end=3.5")).failed
    )
    assert evaluate(history, Take(SPEECH, RATE, TEXT), **parse_limits("pause=0.01,level=12")).failed == ("pause",)


def test_a_limit_of_an_unknown_check_is_a_sentence() -> None:
    with pytest.raises(BadSetting, match="no check is called 'volume'; the checks are not_a_number, "):
        parse_limits("volume=1")


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_scores_hardly_depend_on_the_rate(history: History, rate: int) -> None:
    at_rate = measure(Take(speech(rate, seed=3), rate, TEXT))
    assert not CheckSet({}).evaluate(at_rate, history.usual("anna", at_rate.script)).failed


def test_any_text_and_rate_can_be_measured(history: History) -> None:
    for text in ("", "...", "你好，世界。", "สวัสดี", "7", "A" * 1000):
        for rate in (1_000, 768_000):
            take = measure(Take(SPEECH[:10_000], rate, text))
            assert all(
                np.isfinite(score) for score in CheckSet({}).evaluate(take, history.usual("x", "")).scores.values()
            )


def test_a_take_is_not_changed_and_measured_alike_each_time() -> None:
    samples = SPEECH.copy()
    first: Measures = measure(Take(samples, RATE, TEXT))
    assert (samples == SPEECH).all()
    assert measure(Take(samples, RATE, TEXT)) == replace(first)
