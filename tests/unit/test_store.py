"""Audio under the output root."""

from __future__ import annotations

from os.path import realpath
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner import store
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


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    OutputRoot(tmp_path).write_audio("link/a/b.wav", TONE, 44_100)
    assert soundfile.info(tmp_path / "real/a/b.wav").frames == len(TONE)


@pytest.mark.parametrize("output", ["a/b/c.wav", "a/c.wav"])
def test_a_link_that_is_planted_after_the_look_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "a/b").mkdir(parents=True)
    (elsewhere / "b").mkdir(parents=True)

    def look_and_be_overtaken(path: Path) -> str:
        seen = realpath(path)
        if path != root / ".cloner":
            (root / "a").rename(root / "away")
            (root / "a").symlink_to(elsewhere)
        return seen

    outputs = OutputRoot(root)
    monkeypatch.setattr(store, "realpath", look_and_be_overtaken)
    with pytest.raises(SegmentFailed, match="cannot be written"):
        outputs.write_audio(output, TONE, 44_100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_in_the_place_of_an_output_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.wav").symlink_to("../secret")
    OutputRoot(tmp_path / "root").write_audio("a.wav", TONE, 44_100)
    assert not (tmp_path / "root/a.wav").is_symlink()
    assert (tmp_path / "secret").read_text() == "secret"


def test_our_own_folder_may_not_lead_out_either(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root/.cloner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentFailed, match=r"\.cloner leads out of the output folder"):
        OutputRoot(tmp_path / "root").write_audio("a.wav", TONE, 44_100)
    assert list((tmp_path / "elsewhere").iterdir()) == []
