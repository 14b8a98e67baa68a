"""What may be wrong with references that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE
from cloner.batch import ReferenceKind
from cloner.input.references import find_reference, judged, measure_file
from tests.support.batches import write_codes
from tests.support.voices import LANGUAGES, find_clips

RATE = 16_000
TRANSCRIPT = (
    "This is what she says in these ten seconds of the recording, without any haste, and with pauses in between."
)


def voice(seconds: float, level: float = 0.3) -> NDArray[np.float64]:
    """A tone with overtones, loud and quiet like four syllables a second, and hiss 50 dB below it."""
    times = np.arange(round(seconds * RATE)) / RATE
    overtones = sum(np.sin(2 * np.pi * 150 * n * times) / n for n in range(1, 6))
    hiss = np.random.default_rng(0).standard_normal(times.size)
    return level / 2 * (overtones * np.sin(2 * np.pi * 2 * times) ** 2 + 0.003 * hiss)


def silence(seconds: float) -> NDArray[np.float64]:
    return np.zeros(round(seconds * RATE))


def doubts(folder: Path, samples: NDArray[np.float64], transcript: str = TRANSCRIPT) -> list[str]:
    path = folder / "anna.wav"
    sf.write(path, samples, RATE)
    return [str(doubt) for doubt in judge([path], transcript)]


def judge(paths: Sequence[Path], transcript: str, kind: ReferenceKind = ReferenceKind.AUDIO) -> list[str]:
    reference = judged(kind, paths, [measure_file(kind, path) for path in paths], transcript)
    return [str(doubt) for doubt in reference.doubts]


def test_a_good_recording_raises_no_doubt(tmp_path: Path) -> None:
    assert doubts(tmp_path, voice(10)) == []


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (voice(2.0), "'anna.wav': it lasts 2.0 s, and 3 s is the least for a voice; give 10 to 30 s of speech"),
        (
            np.r_[voice(10, 4.0).clip(-1, 1), silence(0.5)],
            "% of it is clipped; record it again at a lower level, or take another part",
        ),
        (np.r_[voice(10, 4.0).clip(-1, 1) * 0.99, silence(0.5)], "% of it is clipped"),
        (voice(10, 0.006), "it is nearly silent, its speech has -"),
        (np.r_[voice(3.5), silence(8)], "of it is silence; cut the silence"),
        (voice(10)[: -RATE // 8], "it ends within a sound, perhaps in the middle of a word; let it end after a word"),
        (
            voice(10) + 0.05 * np.random.default_rng(1).standard_normal(10 * RATE),
            "it is noisy, or has no pauses: its quietest parts are only ",
        ),
    ],
    ids=["short", "clipped", "clipped and attenuated", "quiet", "silent", "cut", "noisy"],
)
def test_each_flaw_is_a_doubt_with_advice(tmp_path: Path, samples: NDArray[np.float64], expected: str) -> None:
    seconds = samples.size / RATE
    found = doubts(tmp_path, samples, TRANSCRIPT[: round(12 * seconds)])
    assert len(found) == 1, found
    assert expected in found[0]


def test_of_a_long_recording_the_part_is_named_that_is_used(tmp_path: Path) -> None:
    (found,) = doubts(tmp_path, voice(31), TRANSCRIPT * 10)
    assert "it is longer than 30 s, and only its first 30 s are used; cut the recording and its transcript" in found


@pytest.mark.parametrize(
    ("transcript", "fits"),
    [
        ("This is what she says in these ten seconds of the recording. " * 2, True),
        ("This is what she says in these ten seconds of the recording. " * 6, False),
        ("This is what she says.", False),
        ("她在这段十秒钟的录音里说了这些话，说得不快也不慢，听起来很自然，我们都很喜欢她。", True),
        ("她在这段十秒钟的录音里说了这些话，说得不快也不慢，听起来很自然，我们都很喜欢她。" * 4, False),
        ("これは彼女が十秒間の録音の中で話している内容で、とても自然に聞こえます。", True),
        ("이것은 그녀가 십 초 동안 녹음에서 말하는 내용이며 아주 자연스럽게 들립니다.", True),
        ("นี่คือสิ่งที่เธอพูดในการบันทึกเสียงสิบวินาทีนี้ซึ่งฟังดูเป็นธรรมชาติมากและเราชอบมัน", True),
        ("هذا ما تقوله في هذه الثواني العشر من التسجيل وهو يبدو طبيعيا جدا ونحن نحبه كثيرا", True),
        ("她说话。", False),
    ],
)
def test_a_transcript_that_does_not_fit_the_recording(tmp_path: Path, transcript: str, fits: bool) -> None:
    found = doubts(tmp_path, voice(10), transcript)
    assert len(found) == (0 if fits else 1)
    if not fits:
        assert f"its transcript has {len(transcript)} characters, which take about " in found[0]
        assert found[0].endswith("and 10.0 s of it are sound; write exactly what is said in it")


def test_codes_have_a_length(tmp_path: Path) -> None:
    seconds = 20 * FRAME_SAMPLES / SAMPLE_RATE
    (found,) = judge([write_codes(tmp_path / "a.npy", 20)], "Said.", ReferenceKind.CODES)
    assert f"'a.npy': it lasts {seconds:.1f} s, and 3 s is the least" in found
    assert judge([write_codes(tmp_path / "a.npy", 215)], TRANSCRIPT, ReferenceKind.CODES) == []
    (found,) = judge([write_codes(tmp_path / "a.npy", 215)], "Said.", ReferenceKind.CODES)
    assert "its transcript has 5 characters" in found


def test_recordings_of_a_folder_are_judged_together_by_their_length(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sf.write(tmp_path / f"{name}.wav", voice(2), RATE)
        (tmp_path / f"{name}.lab").write_text("This is what she says here.")
    assert find_reference(tmp_path, [tmp_path]).doubts == ()
    sf.write(tmp_path / "b.wav", voice(2)[: -RATE // 8], RATE)
    (doubt,) = find_reference(tmp_path, [tmp_path]).doubts
    assert doubt.where == "'b.wav'"


@pytest.mark.parametrize("samples", [np.full(RATE, 0.5), np.r_[silence(1), 0.5], 0.3 * np.ones(RATE * 31)])
def test_odd_recordings_have_doubts_and_no_error(tmp_path: Path, samples: NDArray[np.float64]) -> None:
    assert doubts(tmp_path, samples)


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_voices_raise_no_doubt(language: str) -> None:
    clips = find_clips(language, 3, 30)
    assert len(clips) > 90
    assert [found for path in clips if (found := judge([path], ""))] == []
