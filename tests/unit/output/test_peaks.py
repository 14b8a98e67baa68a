"""Peaks beside the record: torn entries, other batches, disks that fail, and files that are read instead."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.audio import SAMPLE_RATE
from cloner.events import Event
from cloner.logs import configure
from cloner.output import peaks as module
from cloner.output.audio_files import OutputRoot
from cloner.output.audio_peaks import PEAKS, peaks_of
from cloner.output.peaks import DIGEST_BYTES, ENTRY_BYTES, PeaksReader, PeaksWriter, find_peaks
from cloner.output.record import batch_folder
from tests.support.log_lines import find_lines

A, B, C = (f"{n:032x}" for n in (10, 11, 12))
FIRST, SECOND, THIRD = (bytes([n]) * PEAKS for n in (1, 2, 3))


def write(root: Path, batch_id: str, entries: dict[str, bytes], worker: str = "cpu.0@box") -> Path:
    folder = batch_folder(root, batch_id)
    writer = PeaksWriter(folder, worker)
    for digest, peaks in entries.items():
        writer.append(digest, peaks)
    writer.close()
    return folder.path / f"{worker}.peaks"


def test_peaks_are_found_by_the_digests_of_their_files(tmp_path: Path) -> None:
    write(tmp_path, "b", {A: FIRST, B: SECOND})
    write(tmp_path, "b", {C: THIRD}, worker="gpu.1@box")
    assert find_peaks(tmp_path, "b", [C, A, "f" * 32, "", "no digest"], []) == {A: FIRST, C: THIRD}


def test_what_a_batch_has_reused_is_found_with_the_latest_batch_that_has_it(tmp_path: Path) -> None:
    write(tmp_path, "20260101-a", {A: FIRST, B: FIRST})
    write(tmp_path, "20260102-a", {A: SECOND})
    write(tmp_path, "20260103-a", {C: THIRD})
    assert find_peaks(tmp_path, "20260103-a", [C], [A, B]) == {A: SECOND, B: FIRST, C: THIRD}
    assert find_peaks(tmp_path, "20260103-a", [A, C], [B]) == {B: FIRST, C: THIRD}, (
        "its own files are in no other batch"
    )


@pytest.mark.parametrize("torn", [1, DIGEST_BYTES, ENTRY_BYTES - 1])
def test_an_entry_that_a_crash_left_incomplete_is_passed_over_and_cut_off(tmp_path: Path, torn: int) -> None:
    path = write(tmp_path, "b", {A: FIRST})
    with path.open("ab") as file:
        file.write((bytes.fromhex(B) + SECOND)[:torn])
    assert find_peaks(tmp_path, "b", [A, B], []) == {A: FIRST}
    write(tmp_path, "b", {C: THIRD})
    assert find_peaks(tmp_path, "b", [A, B, C], []) == {A: FIRST, C: THIRD}


def test_more_entries_than_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_ENTRIES", 2)
    entries = {f"{n:032x}": bytes([n]) * PEAKS for n in range(5)}
    write(tmp_path, "b", entries)
    assert find_peaks(tmp_path, "b", entries, []) == entries


def test_a_full_disk_costs_the_peaks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    configure()
    writer, real = PeaksWriter(batch_folder(tmp_path, "b"), "w"), os.write

    def part(file: int, data: bytes) -> int:
        return real(file, data[:50])

    def full(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for broken, digest in ((part, A), (full, B), (full, B)):
        monkeypatch.setattr(os, "write", broken)
        writer.append(digest, FIRST)
    monkeypatch.setattr(os, "write", real)
    writer.append(C, THIRD)
    writer.close()
    assert find_peaks(tmp_path, "b", [A, B, C], []) == {C: THIRD}
    assert len(find_lines(capfd.readouterr().err.splitlines(), Event.PEAKS_UNUSABLE)) == 1


def test_a_link_in_the_place_of_peaks_is_not_followed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure()
    path = write(tmp_path, "b", {A: FIRST})
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert find_peaks(tmp_path, "b", [A], []) == {}
    assert find_lines(capfd.readouterr().err.splitlines(), Event.PEAKS_UNUSABLE)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_file_is_read_for_its_peaks(tmp_path: Path, ending: str) -> None:
    audio = (np.sin(np.arange(SAMPLE_RATE) / 20) * np.linspace(0, 0.9, SAMPLE_RATE)).astype(np.float32)
    soundfile.write(tmp_path / f"a.{ending}", audio, SAMPLE_RATE)
    found = np.frombuffer(PeaksReader(OutputRoot(tmp_path), 1, 10).read(f"a.{ending}"), np.uint8)
    assert np.abs(found.astype(int) - np.frombuffer(peaks_of(audio), np.uint8)).max() <= (8 if ending == "ogg" else 1)


def test_so_many_files_and_seconds_are_read(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(tmp_path / name, np.ones(SAMPLE_RATE), SAMPLE_RATE)
    for files, seconds in ((2, 60), (9, 2.5)):
        reader = PeaksReader(OutputRoot(tmp_path), files, seconds)
        assert [bool(reader.read(name)) for name in ("a.wav", "b.wav", "c.wav")] == [True, True, False]


def test_what_is_no_audio_file_has_no_peaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure()
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    reader = PeaksReader(OutputRoot(tmp_path), 9, 60)
    assert [reader.read(name) for name in ("text.wav", "folder.wav", "away/missing.wav")] == [b"", b"", b""]
    assert not (tmp_path / "away").exists()
    assert len(find_lines(capfd.readouterr().err.splitlines(), Event.PEAKS_UNUSABLE, path="text.wav")) == 1
