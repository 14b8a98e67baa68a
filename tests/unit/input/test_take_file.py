"""Strange files: each is read and checked, or refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.audio import Audio
from cloner.audio_bytes import encode_audio, encode_blocks
from cloner.batch import AudioFormat
from cloner.checks.check_set import CheckSet
from cloner.checks.measures import Take, measure
from cloner.checks.usual import PRIOR
from cloner.input import take_file
from cloner.input.cut_files import counts_frames, missing_end
from cloner.input.take_file import UnreadableTake, read_take


def noise(samples: int, channels: int = 1) -> Audio:
    found: Audio = 0.1 * np.random.default_rng(1).standard_normal((samples, channels)).astype(np.float32)
    return found


def checked(path: Path) -> tuple[str, ...]:
    """The checks that a file fails."""
    samples, rate = read_take(path)
    result = CheckSet({}).evaluate(measure(Take(samples, rate, "Good morning.")), PRIOR)
    assert all(np.isfinite(score) for score in result.scores.values())
    return result.failed


@pytest.mark.parametrize("rate", [1_000, 7_999, 8_000, 44_100, 192_000, 655_350])
@pytest.mark.parametrize("samples", [1, 2, 3, 10, 79, 80, 81, 127, 255, 257, 441, 883, 4_000])
def test_a_take_of_a_few_samples_is_not_ok(tmp_path: Path, rate: int, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(samples), rate, subtype="FLOAT")
    assert checked(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("samples", "failed"),
    [
        (np.full(44_100, np.nan), "not_a_number"),
        (np.full(44_100, -np.inf), "not_a_number"),
        (np.full(44_100, 1e300), "not_a_number"),
        (np.full(44_100, 1e-42), "too_quiet"),
        (np.zeros(44_100), "too_quiet"),
        (np.ones(44_100), "clipping"),
        (np.eye(1, 44_100, 20_000)[0], "too_quiet"),
        (np.where(np.arange(44_100) % 3, 0.1, 1e6), "loop"),
        (noise(44_100) * np.array([1, -1], np.float32), "too_quiet"),
    ],
    ids=["nan", "infinity", "double", "denormal", "zeros", "constant", "click", "loud", "opposite channels"],
)
def test_samples_that_are_no_speech_are_not_ok(tmp_path: Path, samples: Audio, failed: str) -> None:
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="DOUBLE")
    assert failed in checked(tmp_path / "a.wav")


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus", "mp3"])
def test_a_file_that_was_cut_or_damaged_is_checked_or_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    options = {"format": "OGG", "subtype": "OPUS"} if ending == "opus" else {}
    soundfile.write(path, noise(48_000), 48_000, **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    checked(path)
    sentences: list[str] = []
    for size in [*range(0, 200, 7), 500, 1_000, len(whole) // 2, len(whole) - 1, *[len(whole)] * 30]:
        damaged = np.frombuffer(whole, np.uint8).copy()
        if size == len(whole):
            damaged[rng.integers(0, size, 20)] = rng.integers(0, 256, 20)
        path.write_bytes(damaged[:size].tobytes())
        try:
            checked(path)
        except UnreadableTake as error:
            sentences.append(str(error))
    assert sentences
    own = {"it is empty", "it has no samples"}
    assert all(sentence.startswith("it cannot be read") or sentence in own for sentence in sentences)


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (0, "it is empty"),
        (44, "it cannot be read in full: it has 44 bytes of the 88244 that its header says"),
        (60_000, "it cannot be read in full: it has 60000 bytes of the 88244 that its header says"),
        (88_236, "it cannot be read in full: it has 88236 bytes of the 88244 that its header says"),
        (88_242, "it cannot be read in full: it has 88242 bytes of the 88244 that its header says"),
        (88_243, "it cannot be read in full: it has 88243 bytes of the 88244 that its header says"),
    ],
)
def test_a_wav_file_that_was_cut_is_named_as_that(tmp_path: Path, keep: int, sentence: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(44_100), 44_100, subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(UnreadableTake) as caught:
        read_take(path)
    assert str(caught.value) == sentence


SHORT = {
    "flac": "it cannot be read as audio",
    "ogg": "it cannot be read in full: the last page of its Ogg stream is missing, or cut",
    "opus": "it cannot be read in full: the last page of its Ogg stream is missing, or cut",
    "mp3": "it cannot be read in full: it has .* samples of the 48000 that its header says",
}


@pytest.mark.parametrize("bytes_short", [1, 8, 100, 900])
@pytest.mark.parametrize("ending", SHORT)
def test_a_file_that_has_lost_its_end_is_named_as_that(tmp_path: Path, ending: str, bytes_short: int) -> None:
    path = tmp_path / f"a.{ending}"
    whole = encode_audio(noise(48_000)[:, 0], 48_000, AudioFormat(ending))
    path.write_bytes(whole)
    assert len(read_take(path)[0]) == 48_000
    path.write_bytes(whole[:-bytes_short])
    with pytest.raises(UnreadableTake, match=SHORT[ending]):
        read_take(path)


def test_letters_of_a_page_within_the_last_one_do_not_make_a_file_whole_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    whole = encode_audio(noise(48_000)[:, 0], 48_000, AudioFormat.OGG)
    path.write_bytes(whole + b"TAG" + bytes(125))
    assert len(read_take(path)[0]) == 48_000
    for letters in (b"OggS", b"OggS" + bytes(23)):
        path.write_bytes(whole + letters)
        assert missing_end(path, len(whole + letters)) == ""
        path.write_bytes(whole[:-40] + letters)
        assert missing_end(path, len(whole) - 40 + len(letters))


def test_an_mp3_file_without_a_count_of_its_frames_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    whole = encode_blocks([noise(48_000)[:, 0]], 48_000, AudioFormat.MP3, {"title": "Good morning."})
    path.write_bytes(whole)
    assert counts_frames(path)
    path.write_bytes(whole.replace(b"Info", b"Inf0").replace(b"Xing", b"Xin0"))
    assert not counts_frames(path)
    read_take(path)


def test_a_wav_file_may_have_more_than_samples_of_which_the_end_is_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(44_100), 44_100, subtype="PCM_16")
    whole = path.read_bytes()
    notes = b"LIST" + (13).to_bytes(4, "little") + b"INFOIART\1\0\0\0A\0"
    size = (len(whole) - 8 + 2 * len(notes)).to_bytes(4, "little")
    path.write_bytes(whole[:4] + size + whole[8:36] + notes + whole[36:] + notes[:-5])
    assert len(read_take(path)[0]) == 44_100
    path.write_bytes(whole[:4] + size + whole[8:36] + notes + whole[36:-1])
    with pytest.raises(
        UnreadableTake, match=f"it has {len(whole) + len(notes) - 1} bytes of the {len(whole) + len(notes)} "
    ):
        read_take(path)
    path.write_bytes(whole[:4] + size + whole[8:36] + notes[:-5])
    with pytest.raises(UnreadableTake, match="it cannot be read in full"):
        read_take(path)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 88_244])
def test_a_wav_file_whose_header_does_not_know_its_size_is_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(44_100), 44_100, subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:])
    assert len(read_take(path)[0]) == 44_100


def test_a_file_without_samples_is_named_as_that(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0), 44_100)
    with pytest.raises(UnreadableTake, match="it has no samples"):
        read_take(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("rate", "channels", "sentence"),
    [(1, 1, "it has 1 samples a second, and 1000 to 768000 can be used"), (8_000, 9, "it has 9 channels, and 8 is")],
)
def test_a_form_that_no_take_has_is_refused(tmp_path: Path, rate: int, channels: int, sentence: str) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100, channels), rate)
    with pytest.raises(UnreadableTake, match=sentence):
        read_take(tmp_path / "a.wav")


@pytest.mark.parametrize(("rate", "seconds"), [(8_000, 3), (96_000, 1.5)])
def test_a_take_is_as_long_as_its_samples_may_take_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, seconds: float
) -> None:
    monkeypatch.setattr(take_file, "MAX_SECONDS", 3)
    monkeypatch.setattr(take_file, "MAX_SAMPLES", 3 * 48_000)
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(round(seconds * rate), 2), rate)
    assert len(read_take(path)[0]) == seconds * rate
    soundfile.write(path, noise(round(seconds * rate) + 1, 2), rate)
    with pytest.raises(UnreadableTake, match=rf"it is longer than {int(seconds)} s, the most at its sample rate"):
        read_take(path)


def test_memory_that_runs_out_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Audio:
        raise MemoryError

    monkeypatch.setattr(take_file, "read_mono", fail)
    soundfile.write(tmp_path / "a.wav", noise(100), 8_000)
    with pytest.raises(UnreadableTake, match="it needs more memory than there is"):
        read_take(tmp_path / "a.wav")
