"""The recogniser, on real voices and on what is no speech, with the weights of Whisper's tiny.en."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile

from cloner.audio import Audio
from cloner.errors import BadSetting
from cloner.recogniser.whisper import OTHER_CODES, Recogniser, whisper_language
from cloner.review.models import compare_words
from tests.support.recognition import MODEL
from tests.support.voices import find_recordings

pytestmark = pytest.mark.slow


@pytest.fixture
def recogniser(tmp_path: Path) -> Recogniser:
    return Recogniser(MODEL, tmp_path)


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_arguments: object) -> NoReturn:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_languages_are_known_by_whispers_codes() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    tags = ("en-GB", "pt", "zh-Hant-TW", "nb-NO", "nn", "fil", "cmn", "haw", "")
    assert list(map(whisper_language, tags)) == ["en", "pt", "zh", "no", "nn", "tl", "zh", "haw", None]
    assert set(OTHER_CODES.values()) <= set(_LANGUAGE_CODES)
    assert set(OTHER_CODES).isdisjoint(_LANGUAGE_CODES)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.usefixtures("_no_network")
def test_what_is_said_in_a_clean_recording_is_heard(recogniser: Recogniser) -> None:
    recordings = {recording.name: recording for recording in find_recordings()["en"]}
    for name in ("agent-alreadyon", "vm-password"):
        samples, rate = soundfile.read(recordings[name].path, dtype="float32")
        heard = recogniser.hear(samples, rate)
        assert words(heard.text) == words(recordings[name].text)
        assert (heard.language, heard.certainty) == ("en", 1)


@pytest.mark.usefixtures("_no_network")
def test_a_word_that_is_said_surprises_less_than_another(recogniser: Recogniser) -> None:
    recordings = {recording.name: recording for recording in find_recordings()["en"]}
    sounds: list[tuple[Audio, int]] = [
        soundfile.read(recordings[name].path, dtype="float32") for name in ("letters/c", "digits/mon-3", "digits/0")
    ]
    texts = [recordings[name].text for name in ("letters/c", "digits/mon-3", "digits/0")]
    surprise = [[recogniser.surprise(*sound, text, "en") or 0.0 for text in texts] for sound in sounds]
    own = [surprise[place][place] for place in range(3)]
    others = [surprise[place][other] for place in range(3) for other in range(3) if place != other]
    assert min(own) > 0
    assert max(own) + 2 < min(others)
    assert recogniser.surprise(*sounds[0], texts[0], "en") == surprise[0][0]
    assert recogniser.surprise(np.zeros(0, np.float32), 8000, "c", "en") is None


def test_only_short_texts_are_judged_by_their_probability(recogniser: Recogniser) -> None:
    recordings = {recording.name: recording for recording in find_recordings()["en"]}
    for name, text, is_short in (
        ("digits/mon-3", "April", True),
        ("digits/mon-3", "April showers", True),
        ("digits/mon-3", "April showers bring", False),
        ("digits/mon-3", "...", False),
    ):
        samples, rate = soundfile.read(recordings[name].path, dtype="float32")
        errors = compare_words(recogniser, samples, rate, recogniser.hear(samples, rate), text, "en")
        assert (errors.surprise is not None) == is_short


def test_the_beginning_of_a_long_take_is_compared_with_the_beginning_of_its_text(recogniser: Recogniser) -> None:
    long = [recording for recording in find_recordings()["en"] if len(recording.text.split()) > 8][:8]
    sounds = [soundfile.read(recording.path, dtype="float32")[0] for recording in long]
    half, whole = np.concatenate(sounds[:4]), np.concatenate(sounds)
    heard, part = recogniser.hear(half, 8_000), len(half) / len(whole)
    text = " ".join(recording.text for recording in long)
    other = " ".join(recording.text for recording in reversed(long))
    errors, others = (compare_words(recogniser, half, 8_000, heard, one, "en", part=part) for one in (text, other))
    assert 0.7 * part < errors.units / len(text.split()) < 1.3 * part
    assert errors.rate < 0.2
    assert others.rate > 0.6


def test_no_words_are_invented_for_what_is_no_speech(recogniser: Recogniser) -> None:
    time = np.arange(3 * 44_100) / 44_100
    noise = np.random.default_rng(0).normal(0, 0.1, time.size)
    for sound in (noise, 0.3 * np.sin(2 * np.pi * 440 * time)):
        assert recogniser.hear(sound.astype(np.float32), 44_100).text == ""


@pytest.mark.parametrize("damaged", ["model.bin", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_one_sentence(damaged: str, tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    (model / damaged).write_bytes(b"no")
    with pytest.raises(BadSetting) as caught:
        Recogniser(model, tmp_path).hear(np.zeros(16_000, np.float32), 16_000)
    assert f"the model in {model} cannot be loaded (" in caught.value.message
    assert "\n" not in caught.value.message


def test_files_of_different_models_are_one_sentence(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    (model / "preprocessor_config.json").write_text('{"feature_size": 128}')  # of Whisper's large-v3; tiny has 80
    recording = next(iter(find_recordings()["en"]))
    samples, rate = soundfile.read(recording.path, dtype="float32")
    with pytest.raises(
        BadSetting, match=r"^CLONER_RECOGNISER=.*: its files do not belong together \(.+\); fetch it again$"
    ):
        Recogniser(model, tmp_path).hear(samples, rate)
