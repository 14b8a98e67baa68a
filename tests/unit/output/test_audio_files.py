"""Audio under the output root."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, replace
from os.path import realpath
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cloner.errors import NoRoom, OutputUnavailable, SegmentFailed
from cloner.output import audio_files
from cloner.output.audio_files import OutputRoot
from cloner.protocol.results import SegmentResult
from tests.support.ownership import Known

TONE = np.sin(np.arange(22_050, dtype=np.float32) / 20) * np.float32(0.5)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_audio_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    outputs = OutputRoot(tmp_path)
    written = outputs.write_audio(f"a/b.{suffix}", TONE, 44_100)
    audio, rate = soundfile.read(tmp_path / f"a/b.{suffix}", dtype="float32")
    assert rate == 44_100
    assert len(audio) == len(TONE)
    assert written.size == (tmp_path / f"a/b.{suffix}").stat().st_size


def test_a_wav_holds_the_samples_in_16_bits(tmp_path: Path) -> None:
    OutputRoot(tmp_path).write_audio("a.wav", TONE, 44_100)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    audio, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert np.abs(audio - TONE).max() < 1 / 32_000


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    outputs.write_audio("a.wav", TONE, 44_100)
    outputs.write_audio("a.wav", TONE[:100], 44_100, Known())
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


def test_an_output_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")
    with pytest.raises(SegmentFailed, match=r"a/b\.wav cannot be written under .*: "):
        OutputRoot(tmp_path).write_audio("a/b.wav", TONE, 44_100)


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    OutputRoot(tmp_path).write_audio("link/a/b.wav", TONE, 44_100)
    assert soundfile.info(tmp_path / "real/a/b.wav").frames == len(TONE)


@pytest.mark.parametrize("output", ["a/b/c.wav", "a/c.wav"])
def test_a_link_that_is_put_there_after_the_check_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "a/b").mkdir(parents=True)
    (elsewhere / "b").mkdir(parents=True)

    def resolve_and_be_overtaken(path: Path) -> str:
        seen = realpath(path)
        if path != root / ".cloner":
            (root / "a").rename(root / "away")
            (root / "a").symlink_to(elsewhere)
        return seen

    outputs = OutputRoot(root)
    monkeypatch.setattr(audio_files, "realpath", resolve_and_be_overtaken)
    with pytest.raises(SegmentFailed, match="cannot be written"):
        outputs.write_audio(output, TONE, 44_100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_a_file_that_is_there_is_replaced_only_by_its_batch(tmp_path: Path, ending: str) -> None:
    outputs = OutputRoot(tmp_path)
    path = tmp_path / f"a{ending}"
    first = outputs.write_audio(path.name, TONE, 44_100)
    before = path.read_bytes()
    knows = Known(digests=set())
    with pytest.raises(SegmentFailed, match=rf"^a{ending} is there, and not as this batch has written it: ") as failure:
        outputs.write_audio(path.name, TONE[:100], 44_100, knows)
    assert failure.value.code == "output"
    assert path.read_bytes() == before
    assert len(list(tmp_path.rglob("*"))) == 2, "a temporary file is left"
    outputs.write_audio(path.name, TONE[:100], 44_100, Known(digests={first.digest}))
    assert soundfile.info(path).frames == 100
    assert len(knows.published) == 1


def test_a_file_of_the_same_bytes_and_an_empty_one_are_replaced(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    first = outputs.write_audio("a.wav", TONE, 44_100)
    assert outputs.write_audio("a.wav", TONE, 44_100).digest == first.digest
    (tmp_path / "a.wav").write_bytes(b"")  # as a loss of power leaves a file that has reached its name only
    assert outputs.write_audio("a.wav", TONE, 44_100).size == (tmp_path / "a.wav").stat().st_size


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_is_new_also_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", no_links)
    outputs = OutputRoot(tmp_path)
    written = outputs.write_audio("a.wav", TONE, 44_100)
    assert (tmp_path / "a.wav").stat().st_size == written.size
    with pytest.raises(SegmentFailed, match="is there"):
        outputs.write_audio("a.wav", TONE[:100], 44_100)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.wav"]


def test_a_temporary_file_that_a_crash_left_beside_its_final_name_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    outputs = OutputRoot(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            outputs.write_audio("a.wav", TONE, 44_100)
    before = (tmp_path / "a.wav").read_bytes()
    outputs.write_audio("b.wav", TONE[:100], 44_100)
    assert (tmp_path / "a.wav").read_bytes() == before


def test_a_link_in_the_place_of_an_output_is_replaced_by_its_owner_alone_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.wav").symlink_to("../secret")
    outputs = OutputRoot(tmp_path / "root")
    with pytest.raises(SegmentFailed, match="is there"):
        outputs.write_audio("a.wav", TONE, 44_100)
    assert (tmp_path / "root/a.wav").is_symlink()
    outputs.write_audio("a.wav", TONE, 44_100, Known())
    assert not (tmp_path / "root/a.wav").is_symlink()
    assert (tmp_path / "secret").read_text() == "secret"


def test_our_own_folder_may_not_lead_out_either(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root/.cloner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentFailed, match=r"\.cloner leads out of the output folder"):
        OutputRoot(tmp_path / "root").write_audio("a.wav", TONE, 44_100)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def line_of(outputs: OutputRoot, audio: np.ndarray[Any, Any]) -> SegmentResult:
    written = outputs.write_audio("a.wav", audio.astype(np.float32), 44_100, Known())
    return SegmentResult(segment=0, speaker="a", output="a.wav", key="k", assignment=0, worker="w", **asdict(written))


def test_a_line_of_the_record_identifies_its_file(tmp_path: Path) -> None:
    outputs = OutputRoot(tmp_path)
    first = line_of(outputs, TONE)
    assert outputs.has_result(first)
    # Copied without its time, it is the same file.
    os.utime(tmp_path / "a.wav", ns=(0, 0))
    assert outputs.has_result(first)
    # Another batch has written a file of the same size there, and crashed before it could record it.
    second = line_of(outputs, -TONE)
    os.utime(tmp_path / "a.wav", ns=(0, second.mtime_ns + 10**9))
    assert second.size == first.size
    assert not outputs.has_result(first)
    assert outputs.has_result(second)
    # Lines of an earlier version know no more than the size.
    assert outputs.has_result(replace(first, digest="", mtime_ns=0))
    line_of(outputs, TONE[:100])
    assert not outputs.has_result(first)
    (tmp_path / "a.wav").unlink()
    assert not outputs.has_result(first)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EIO, OutputUnavailable), (errno.EACCES, SegmentFailed)],
)
def test_a_failed_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[SegmentFailed]
) -> None:
    def failing(_file: int, _data: object) -> int:
        raise OSError(number, os.strerror(number))

    outputs = OutputRoot(tmp_path)
    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(SegmentFailed, match=r"a\.wav cannot be written under .*: ") as failure:
        outputs.write_audio("a.wav", TONE, 44_100)
    assert type(failure.value) is kind
    assert failure.value.code == "output"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_in_the_place_of_an_output_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(SegmentFailed, match="cannot be written"):
        OutputRoot(tmp_path).write_audio("a.wav", TONE, 44_100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("number", "room"), [(None, True), (errno.ENOSPC, False), (errno.EACCES, True)])
def test_checking_for_room_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, room: bool
) -> None:
    def allocate(_file: int, _start: int, size: int) -> None:
        assert size == 5000
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert OutputRoot(tmp_path).has_room(5000) is room
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_temporary_file_of_another_process_can_be_removed(tmp_path: Path) -> None:
    crashed, outputs = OutputRoot(tmp_path), OutputRoot(tmp_path)
    (tmp_path / ".cloner").mkdir()
    (tmp_path / ".cloner" / crashed.part).write_text("RIFF")
    outputs.discard(crashed.part)
    outputs.discard(crashed.part)
    assert list((tmp_path / ".cloner").iterdir()) == []
