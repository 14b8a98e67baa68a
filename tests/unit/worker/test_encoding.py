"""Files of every format, read back."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from pyloudnorm import Meter

from cloner.audio import SAMPLE_RATE, Audio
from cloner.audio_bytes import encode_audio, to_16_bits
from cloner.batch import AudioFormat, AudioOptions
from cloner.engine.base import SegmentAudio
from cloner.errors import SegmentFailed
from cloner.output.audio_peaks import peaks_of
from cloner.worker.encoding import EncodedAudio, encode, tags_of
from tests.support.sounds import quiet, voice

WAV, FLAC, OGG, OPUS, MP3 = AudioFormat
LOSSY = {OGG, OPUS, MP3}
TAGS = {"artist": "Ana Peña", "title": "Où est-elle ? 早上好。"}


def encoded(audio: Audio, audio_format: AudioFormat, **options: object) -> EncodedAudio:
    answer = SegmentAudio(0, audio, 1)
    return encode(answer, AudioOptions(format=audio_format, **options), audio_format, TAGS, lambda: None)  # type: ignore[arg-type]


def read_back(file: EncodedAudio) -> tuple[Audio, int]:
    audio, rate = soundfile.read(io.BytesIO(file.data), dtype="float32")
    return audio, rate


KINDS = {
    WAV: ("WAV", "PCM_16"),
    FLAC: ("FLAC", "PCM_16"),
    OGG: ("OGG", "VORBIS"),
    OPUS: ("OGG", "OPUS"),
    MP3: ("MP3", "MPEG_LAYER_III"),
}


@pytest.mark.parametrize("audio_format", AudioFormat)
@pytest.mark.parametrize("rate", [None, 24_000])
@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_a_file_has_its_format_its_rate_and_its_length(
    audio_format: AudioFormat, rate: int | None, seconds: float
) -> None:
    spoken = voice(seconds)
    file = encoded(spoken, audio_format, rate=rate)
    info = soundfile.info(io.BytesIO(file.data))
    assert (info.format, info.subtype) == KINDS[audio_format]
    assert info.channels == 1
    assert info.samplerate == (rate or (48_000 if audio_format is OPUS else SAMPLE_RATE))
    audio, _ = read_back(file)
    assert abs(len(audio) / info.samplerate - seconds) < 0.06, "within a frame of the format"
    assert file.seconds == pytest.approx(seconds)
    # The voice is in it, at its place.
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(np.sqrt(np.mean(spoken**2)), rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_mp3_has_the_rates_of_mpeg(rate: int) -> None:
    assert read_back(encoded(voice(1.0), MP3, rate=rate))[1] == rate


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_opus_has_five_rates(rate: int) -> None:
    assert read_back(encoded(voice(1.0), OPUS, rate=rate))[1] == rate


@pytest.mark.parametrize("audio_format", [WAV, FLAC, OGG])
@pytest.mark.parametrize("rate", [8_000, 11_111, 96_000, 192_000])
def test_the_other_formats_have_any_rate(audio_format: AudioFormat, rate: int) -> None:
    audio, found = read_back(encoded(voice(1.0), audio_format, rate=rate))
    assert found == rate
    assert len(audio) == pytest.approx(rate, abs=rate / 20)


@pytest.mark.parametrize("audio_format", AudioFormat)
@pytest.mark.parametrize("level", [0.004, 0.05])
def test_a_file_has_the_loudness_that_was_asked_for(audio_format: AudioFormat, level: float) -> None:
    audio, rate = read_back(encoded(voice(4.0, level), audio_format, loudness=-19.0))
    assert Meter(rate).integrated_loudness(audio) == pytest.approx(-19.0, abs=0.5)
    assert np.abs(audio).max() < (1 if audio_format in LOSSY else 10 ** (-1 / 20) + 1e-4)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_a_file_is_trimmed(audio_format: AudioFormat) -> None:
    file = encoded(np.concatenate([quiet(1.0), voice(2.0), quiet(1.5)]), audio_format, trim=True)
    audio, rate = read_back(file)
    assert 2.0 <= file.seconds <= 2.12
    assert len(audio) / rate == pytest.approx(file.seconds, abs=0.06)


@pytest.mark.parametrize("audio_format", [FLAC, OGG, OPUS, MP3])
@pytest.mark.parametrize("text", ["Où est-elle ?\n早上好。", "Good morning.", "Long. " * 20_000, "早" * 100_000])
def test_a_file_names_its_speaker_and_its_text(audio_format: AudioFormat, text: str) -> None:
    tags = tags_of("Ana Peña", text)
    file = encode(SegmentAudio(0, voice(0.5), 1), AudioOptions(), audio_format, tags, lambda: None)
    with soundfile.SoundFile(io.BytesIO(file.data)) as sound:
        assert sound.artist == "Ana Peña"
        assert sound.title == " ".join(text[:1000].split())
        assert sound.frames > 0


def test_lossless_files_of_16_bits_hold_them_as_they_are() -> None:
    samples = to_16_bits(voice(2.0))
    for audio_format in (WAV, FLAC):
        file = encode(SegmentAudio(0, samples, 1), AudioOptions(), audio_format, {}, lambda: None)
        found, _ = soundfile.read(io.BytesIO(file.data), dtype="int16")
        assert np.array_equal(found, samples)


@pytest.mark.parametrize("options", [{}, {"rate": 16_000, "loudness": -30, "trim": True}])
def test_the_peaks_are_those_of_the_file(options: dict[str, object]) -> None:
    file = encoded(np.concatenate([np.zeros(20_000, np.float32), voice(1.0)]), FLAC, **options)
    peaks = file.peaks, peaks_of(read_back(file)[0])
    found, of_file = (np.frombuffer(own, np.uint8).astype(int) for own in peaks)
    assert np.abs(found - of_file).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("audio_format", AudioFormat)
def test_a_minute_and_more_is_encoded_in_blocks(audio_format: AudioFormat) -> None:
    steps: list[None] = []
    answer = SegmentAudio(0, np.tile(voice(3.0), 30), 1)
    file = encode(answer, AudioOptions(rate=48_000), audio_format, {}, lambda: steps.append(None))
    assert soundfile.info(io.BytesIO(file.data)).duration == pytest.approx(90, abs=0.06)
    assert len(steps) > 50, "each block counts as a step"


def test_a_wav_that_would_be_too_long_at_its_rate_fails() -> None:
    class Hours(np.ndarray):
        def __len__(self) -> int:
            return 4 * 3600 * SAMPLE_RATE

    answer = SegmentAudio(0, np.zeros(1, dtype=np.int16).view(Hours), 1)
    with pytest.raises(SegmentFailed, match="longer than a WAV file of 192000 Hz can be") as failure:
        encode(answer, AudioOptions(rate=192_000), WAV, {}, lambda: None)
    assert failure.value.code == "too_long"


def test_a_wav_without_options_has_the_bytes_of_the_plain_one() -> None:
    spoken = voice(1.0)
    assert encoded(spoken, WAV).data == encode_audio(spoken, SAMPLE_RATE, WAV)
