"""References: which files are refused, and what a worker receives of the others."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from numpy.lib import format as npy
from numpy.typing import NDArray

from cloner.batch import CODEBOOK_SIZES, Reference, ReferenceKind
from cloner.errors import BadReference
from cloner.input.references import find_reference, load_reference, measure_file
from cloner.protocol.references import MAX_FRAMES, audio_from_bytes, codes_from_bytes


def random_codes(frames: int = 40) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, size, frames) for size in CODEBOOK_SIZES])


def tone(seconds: float, rate: int = 16_000, level: float = 0.3) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)


def save_codes(path: Path, codes: object) -> Path:
    np.save(path, np.asarray(codes))
    return path


def save_tone(path: Path, seconds: float, rate: int = 16_000, transcript: str | None = None) -> Path:
    sf.write(path, tone(seconds, rate), rate)
    if transcript is not None:
        path.with_suffix(".lab").write_text(transcript, encoding="utf-8")
    return path


def audio_reference(*paths: Path) -> Reference:
    return Reference(ReferenceKind.AUDIO, paths, "What is said.")


def codes_reference(path: Path) -> Reference:
    return Reference(ReferenceKind.CODES, (path,), "What is said.")


def codes_problem(path: Path) -> str | None:
    return problem(ReferenceKind.CODES, path)


def recording_problem(path: Path) -> str | None:
    return problem(ReferenceKind.AUDIO, path)


def problem(kind: ReferenceKind, path: Path) -> str | None:
    """Why a file of a reference is refused, when a batch is read."""
    try:
        measure_file(kind, path)
    except BadReference as error:
        return error.message
    return None


class TestCodes:
    @pytest.mark.parametrize("dtype", ["<i4", ">i4", "<i8", "<u2", "<u8"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_any_integer_type_and_order_arrives_as_int32(self, tmp_path: Path, dtype: str, order: str) -> None:
        codes = random_codes()
        path = save_codes(tmp_path / "a.npy", np.asarray(codes.astype(dtype), order="F" if order == "F" else "C"))
        assert codes_problem(path) is None
        arrived = codes_from_bytes(load_reference(codes_reference(path)).data)
        assert arrived.dtype == np.int32
        np.testing.assert_array_equal(arrived, codes)

    def test_key_depends_on_the_codes_and_not_on_how_they_were_saved(self, tmp_path: Path) -> None:
        codes = random_codes()
        other = codes.copy()
        other[9, -1] = (other[9, -1] + 1) % CODEBOOK_SIZES[9]
        first, same, changed = (
            load_reference(codes_reference(save_codes(tmp_path / name, values))).key
            for name, values in [
                ("a.npy", codes.astype("<i8")),
                ("b.npy", np.asfortranarray(codes.astype(">i4"))),
                ("c.npy", other),
            ]
        )
        assert first == same
        assert first != changed

    @pytest.mark.parametrize(
        ("codes", "expected"),
        [
            (random_codes().astype(np.float32), "float32"),
            (random_codes()[:9], r"shape \[9, 40\]"),
            (random_codes()[None], r"shape \[1, 10, 40\]"),
            (random_codes(1)[:, :0], r"shape \[10, 0\]"),
            (np.zeros((10, MAX_FRAMES + 1), np.int32), "1 to 2600 frames"),
            (np.full((10, 5), -1), "-1"),
            (np.full((10, 5), 1024), "codebook 1"),
            (np.zeros((10, 5), bool), "bool"),
        ],
    )
    def test_values_that_are_not_codes_are_refused(self, tmp_path: Path, codes: object, expected: str) -> None:
        path = save_codes(tmp_path / "a.npy", codes)
        with pytest.raises(BadReference, match=expected):
            load_reference(codes_reference(path))
        with pytest.raises(BadReference, match=expected):
            codes_from_bytes(path.read_bytes())
        assert str(path) in (codes_problem(path) or "")

    def test_pickled_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        assert "object" in (codes_problem(tmp_path / "a.npy") or "")

    def test_header_that_claims_more_than_the_file_holds_is_refused(self, tmp_path: Path) -> None:
        path = save_codes(tmp_path / "a.npy", random_codes())
        path.write_bytes(path.read_bytes()[:-1])
        assert "cut off: 3199 of 3200 bytes" in (codes_problem(path) or "")

    def test_header_that_claims_terabytes_is_refused_before_reading(self) -> None:
        buffer = io.BytesIO()
        npy.write_array_header_1_0(buffer, {"shape": (10, 10**12), "fortran_order": False, "descr": "<i8"})
        with pytest.raises(BadReference, match="1 to 2600 frames"):
            codes_from_bytes(buffer.getvalue())

    @pytest.mark.parametrize(
        "data", [b"", b"RIFF", b"\x93NUMPY\x01\x00\x08\x00{'a': (\n", b"\x93NUMPY\x09\x00\x08\x00"]
    )
    def test_other_bytes_are_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.npy").write_bytes(data)
        assert "not a .npy file" in (codes_problem(tmp_path / "a.npy") or "")

    def test_missing_file_and_folder_are_refused(self, tmp_path: Path) -> None:
        assert "there is no such file" in (codes_problem(tmp_path / "a.npy") or "")
        assert "it is not a file" in (codes_problem(tmp_path) or "")


class TestRecordings:
    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
    @pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
    def test_any_format_and_rate_arrives_at_the_codecs_rate(self, tmp_path: Path, name: str, rate: int) -> None:
        path = save_tone(tmp_path / name, 1.0, rate)
        assert recording_problem(path) is None
        audio = audio_from_bytes(load_reference(audio_reference(path)).data)
        assert audio.dtype == np.float32
        assert audio.ndim == 1
        assert audio.size == pytest.approx(44_100, abs=3_000)
        spectrum = np.abs(np.fft.rfft(audio))
        assert np.argmax(spectrum) * 44_100 / audio.size == pytest.approx(220, abs=2)

    def test_a_file_name_that_is_not_utf_8_is_accepted(self, tmp_path: Path) -> None:
        path = save_tone(tmp_path / "a.wav", 1, transcript="Said.").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
        (tmp_path / "a.lab").rename(path.with_suffix(".lab"))
        assert recording_problem(path) is None
        assert audio_from_bytes(load_reference(find_reference(tmp_path, [tmp_path])).data).size == 44_100

    def test_channels_become_their_mean(self, tmp_path: Path) -> None:
        left = tone(1, 44_100)
        sf.write(tmp_path / "a.wav", np.stack([left, 0 * left], axis=1), 44_100)
        audio = audio_from_bytes(load_reference(audio_reference(tmp_path / "a.wav")).data)
        np.testing.assert_allclose(audio, left / 2, atol=1e-3)

    def test_recordings_are_joined_in_order(self, tmp_path: Path) -> None:
        sf.write(tmp_path / "a.wav", tone(1, 44_100, level=0.1), 44_100)
        sf.write(tmp_path / "b.wav", tone(2, 44_100, level=0.5), 44_100)
        audio = audio_from_bytes(load_reference(audio_reference(tmp_path / "a.wav", tmp_path / "b.wav")).data)
        assert audio.size == 3 * 44_100
        assert np.abs(audio[:44_100]).max() == pytest.approx(0.1, abs=0.01)
        assert np.abs(audio[44_100:]).max() == pytest.approx(0.5, abs=0.01)

    def test_long_recording_is_cut(self, tmp_path: Path) -> None:
        path = save_tone(tmp_path / "a.wav", 31)
        assert measure_file(ReferenceKind.AUDIO, path).too_long
        assert audio_from_bytes(load_reference(audio_reference(path)).data).size == 30 * 44_100

    def test_recording_beyond_full_scale_is_attenuated_instead_of_clipped(self, tmp_path: Path) -> None:
        sf.write(tmp_path / "a.wav", tone(1, 44_100, level=5), 44_100, subtype="FLOAT")
        audio = audio_from_bytes(load_reference(audio_reference(tmp_path / "a.wav")).data)
        np.testing.assert_allclose(audio, tone(1, 44_100, level=1), atol=1e-3)

    def test_key_depends_on_the_sound(self, tmp_path: Path) -> None:
        keys = [load_reference(audio_reference(save_tone(tmp_path / "a.wav", 1 + i / 10))).key for i in (0, 0, 1)]
        assert keys[0] == keys[1] != keys[2]

    @pytest.mark.parametrize(
        ("samples", "expected"),
        [
            (np.zeros(0), "0.00 s"),
            (tone(0.4), "0.40 s"),
            (np.zeros(16_000), "silent"),
            (np.full(16_000, 0.0005), "silent"),
            (np.where(np.arange(16_000) == 9, np.nan, 0.1), "not numbers"),
            (np.full(16_000, np.inf), "not numbers"),
        ],
    )
    def test_unusable_recordings_are_refused(self, tmp_path: Path, samples: NDArray[np.float64], expected: str) -> None:
        sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
        with pytest.raises(BadReference, match=expected) as caught:
            load_reference(audio_reference(tmp_path / "a.wav"))
        assert str(tmp_path / "a.wav") in caught.value.message

    @pytest.mark.parametrize("name", ["a.wav", "a.raw", "a.mp3"])
    def test_files_that_are_not_recordings_are_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"no sound at all " * 100)
        assert "cannot be read as audio" in (recording_problem(tmp_path / name) or "")

    def test_flac_that_claims_more_than_it_holds_is_refused(self, tmp_path: Path) -> None:
        path = save_tone(tmp_path / "a.flac", 2)
        data = bytearray(path.read_bytes())
        data[22:26] = b"\xff\xff\xff\xff"  # total samples in STREAMINFO
        path.write_bytes(bytes(data))
        with pytest.raises(BadReference, match=r"a\.flac"):
            load_reference(audio_reference(path))

    @pytest.mark.parametrize("data", [b"", b"fLaC", b"nothing"])
    def test_incomplete_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(BadReference, match="did not arrive whole"):
            audio_from_bytes(data)

    def test_bytes_at_another_rate_are_refused(self) -> None:
        buffer = io.BytesIO()
        sf.write(buffer, tone(1), 16_000, format="FLAC")
        with pytest.raises(BadReference, match="16000 Hz"):
            audio_from_bytes(buffer.getvalue())

    @pytest.mark.parametrize(
        ("form", "channels", "seconds", "expected"),
        [
            ("OGG", 255, 1, "arrived as OGG, and FLAC is needed"),
            ("FLAC", 2, 1, "arrived with 2 channels, and 1 is needed"),
            ("FLAC", 1, 60, "arrived with 2646000 samples, and 1323000 is the most"),
        ],
    )
    def test_other_recordings_are_refused_before_they_are_read(
        self, form: str, channels: int, seconds: int, expected: str
    ) -> None:
        buffer = io.BytesIO()
        sf.write(buffer, np.zeros((seconds * 44_100, channels), np.float32), 44_100, format=form)
        data = buffer.getvalue()
        tracemalloc.start()
        with pytest.raises(BadReference, match=expected):
            audio_from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 1024**2
        tracemalloc.stop()


class TestFolder:
    def test_recordings_are_ordered_by_name_and_have_transcripts(self, tmp_path: Path) -> None:
        save_tone(tmp_path / "b.wav", 2, transcript="Two.\r\n")
        save_tone(tmp_path / "a.flac", 1, transcript="\ufeffOne.")
        save_tone(tmp_path / ".hidden.wav", 1)
        (tmp_path / "notes.txt").write_text("not a recording")
        reference = find_reference(tmp_path, [tmp_path])
        assert reference.paths == (tmp_path / "a.flac", tmp_path / "b.wav")
        assert reference.text == "One. Two."
        assert reference.kind is ReferenceKind.AUDIO

    def test_recordings_are_used_while_they_fit_in_30_seconds(self, tmp_path: Path) -> None:
        for name, seconds in [("a", 20), ("b", 10), ("c", 1)]:
            save_tone(tmp_path / f"{name}.wav", seconds, rate=8_000, transcript=name)
        assert find_reference(tmp_path, [tmp_path]).text == "a b"

    def test_the_first_recording_is_used_at_any_length(self, tmp_path: Path) -> None:
        save_tone(tmp_path / "a.wav", 31, rate=8_000, transcript="a")
        save_tone(tmp_path / "b.wav", 1, rate=8_000, transcript="b")
        assert find_reference(tmp_path, [tmp_path]).text == "a"

    def test_a_transcript_may_be_a_txt(self, tmp_path: Path) -> None:
        save_tone(tmp_path / "a.wav", 1)
        (tmp_path / "a.txt").write_text("One.")
        save_tone(tmp_path / "b.wav", 1, transcript="Two.")
        (tmp_path / "b.txt").write_text("Not this one.")
        assert find_reference(tmp_path, [tmp_path]).text == "One. Two."

    def test_every_wrong_file_is_named(self, tmp_path: Path) -> None:
        save_tone(tmp_path / "a.wav", 1)
        save_tone(tmp_path / "b.wav", 1, transcript="  ")
        save_tone(tmp_path / "c.wav", 1, transcript="a\x07")
        save_tone(tmp_path / "d.wav", 0.1, transcript="short")
        save_tone(tmp_path / "e.wav", 1).with_suffix(".lab").write_bytes(b"\xff\xfe")
        with pytest.raises(BadReference) as caught:
            find_reference(tmp_path, [tmp_path])
        for expected in (
            "a.wav' has no transcript: neither a.lab nor a.txt is beside it",
            "b.lab': the transcript is blank",
            "c.lab': the transcript has an unusable character (U+0007)",
            "d.wav': the recording is 0.10 s long",
            "e.lab': the transcript is not UTF-8",
        ):
            assert expected in caught.value.message

    def test_folder_without_recordings_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadReference, match="holds no recording"):
            find_reference(tmp_path, [tmp_path])
        with pytest.raises(BadReference, match="cannot be read"):
            find_reference(tmp_path / "nobody", [tmp_path])
