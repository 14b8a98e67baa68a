"""Audio under the output root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.errors import SegmentFailed
from cloner.store import OutputRoot

TONE = np.sin(np.arange(22_050, dtype=np.float32) / 20) * np.float32(0.5)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_audio_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    outputs = OutputRoot(tmp_path)
    size = outputs.write_audio(f"a/b.{suffix}", TONE, 44_100)
    audio, rate = soundfile.read(tmp_path / f"a/b.{suffix}", dtype="float32")
    assert rate == 44_100
    assert len(audio) == len(TONE)
    assert outputs.has(f"a/b.{suffix}", size)
    assert not outputs.has(f"a/b.{suffix}", size + 1)
    assert not outputs.has("a/c.wav", size)


def test_a_wav_holds_the_samples_in_16_bits(tmp_path: Path) -> None:
    OutputRoot(tmp_path).write_audio("a.wav", TONE, 44_100)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    audio, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert np.abs(audio - TONE).max() < 1 / 32_000


def test_no_part_is_left_beside_the_outputs(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    outputs.write_audio("a.wav", TONE, 44_100)
    outputs.write_audio("a.wav", TONE[:100], 44_100)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.wav"]
    assert soundfile.info(tmp_path / "a.wav").frames == 100


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentFailed, match="leads out of the output folder") as failure:
        OutputRoot(tmp_path / "root").write_audio("link/a.wav", TONE, 44_100)
    assert failure.value.code == "output"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_output_that_cannot_be_written_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")
    with pytest.raises(SegmentFailed, match=r"a/b\.wav cannot be written under .*: "):
        OutputRoot(tmp_path).write_audio("a/b.wav", TONE, 44_100)
