"""Recordings that ffmpeg decodes, and files that pretend to be such."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloner.batch import Reference, ReferenceKind
from cloner.errors import BadReference
from cloner.input import ffmpeg
from cloner.input.reference_files import read_recording
from cloner.input.references import find_reference, load_reference
from cloner.protocol.references import audio_from_bytes
from tests.support.batch_files import problems, read, write
from tests.support.ffmpeg import CODECS, require_ffmpeg, write_with_ffmpeg

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{file}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{file}'\n"
TYPED = "file '{file}'\n"


@pytest.fixture
def _installed() -> None:
    require_ffmpeg()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[list[str]]:
    """A pipe in the folder, and whether another process has opened it."""
    pipe = tmp_path / "secret.wav"
    os.mkfifo(pipe)
    found: list[str] = []

    def wait() -> None:
        with pipe.open("wb"):  # returns once there is a reader
            found.append("opened")

    waiting = threading.Thread(target=wait)
    waiting.start()
    yield found
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    waiting.join()
    os.close(reader)


@pytest.mark.usefixtures("_installed")
class TestDecoding:
    @pytest.mark.parametrize("ending", CODECS)
    def test_what_phones_and_browsers_write_is_taken(self, tmp_path: Path, ending: str) -> None:
        path = write_with_ffmpeg(tmp_path / f"anna{ending}", 4, channels=2)
        recording = read_recording(path)
        assert recording.whole_s == pytest.approx(4, abs=0.2)
        audio = audio_from_bytes(load_reference(Reference(ReferenceKind.AUDIO, (path,), "Said.")).data)
        spectrum = np.abs(np.fft.rfft(audio))
        assert np.argmax(spectrum) * 44_100 / audio.size == pytest.approx(220, abs=5)
        assert np.abs(audio).max() == pytest.approx(0.3, abs=0.1)

    def test_thirty_seconds_of_a_long_one_are_used(self, tmp_path: Path) -> None:
        recording = read_recording(write_with_ffmpeg(tmp_path / "anna.m4a", 90))
        assert recording.samples.size == 30 * 44_100
        assert recording.whole_s == pytest.approx(31, abs=0.1)

    def test_a_batch_and_a_folder_of_references_may_have_them(self, tmp_path: Path) -> None:
        (tmp_path / "anna").mkdir()
        path = write_with_ffmpeg(tmp_path / "anna/one's -recording.m4a", 4)
        path.with_suffix(".txt").write_text("I am Anna.")
        assert find_reference(path.parent, [tmp_path]).paths == (path,)
        group = {"id": "a", "reference": {"audio": f"anna/{path.name}"}, "texts": ["One."]}
        batch = read(write(tmp_path / "b.json", {"speakers": [group]}))
        assert batch.speakers[0].reference.text == "I am Anna."

    def test_they_are_left_out_beside_other_recordings(self, tmp_path: Path) -> None:
        write_with_ffmpeg(tmp_path / "anna.m4a", 4)
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "anna.m4a", tmp_path / "anna.wav"], check=True)
        (tmp_path / "anna.lab").write_text("I am Anna.")
        assert find_reference(tmp_path, [tmp_path]).paths == (tmp_path / "anna.wav",)

    @pytest.mark.parametrize("content", [PLAYLIST, CONCAT, TYPED], ids=["playlist", "concat", "list of files"])
    @pytest.mark.parametrize("ending", CODECS)
    def test_a_list_of_files_is_no_recording(
        self, tmp_path: Path, opened: list[str], content: str, ending: str
    ) -> None:
        path = tmp_path / f"anna{ending}"
        path.write_text(content.format(file=tmp_path / "secret.wav") * 100)
        with pytest.raises(BadReference, match="it cannot be read as audio") as caught:
            read_recording(path)
        assert str(path) in caught.value.message
        assert not opened

    @pytest.mark.parametrize("data", [b"", b"not a recording" * 999, b"\0" * 9999])
    @pytest.mark.parametrize("ending", CODECS)
    def test_other_bytes_are_a_sentence(self, tmp_path: Path, ending: str, data: bytes) -> None:
        (tmp_path / f"anna{ending}").write_bytes(data)
        with pytest.raises(BadReference, match=r"it cannot be read as audio \(ffmpeg: .+\)$"):
            read_recording(tmp_path / f"anna{ending}")

    def test_a_recording_that_is_cut_short_is_a_sentence(self, tmp_path: Path) -> None:
        path = write_with_ffmpeg(tmp_path / "anna.m4a", 4)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(BadReference, match="it cannot be read as audio"):
            read_recording(path)

    def test_a_film_without_sound_is_a_sentence(self, tmp_path: Path) -> None:
        path = tmp_path / "film.mp4"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-c:v", "mpeg4", str(path)]
        subprocess.run(command, check=True)
        with pytest.raises(BadReference, match="it cannot be read as audio"):
            read_recording(path)

    def test_it_has_little_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_with_ffmpeg(tmp_path / "anna.m4a", 4)
        assert ("prlimit", f"--as={1024**3}") == ffmpeg._LIMITS[:2]
        monkeypatch.setattr(ffmpeg, "_LIMITS", ("prlimit", "--as=50000000"))
        with pytest.raises(BadReference, match="it cannot be read as audio"):
            read_recording(path)

    def test_it_has_little_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_with_ffmpeg(tmp_path / "anna.m4a", 4)
        monkeypatch.setattr(ffmpeg, "TIMEOUT_S", 0.0001)
        with pytest.raises(
            BadReference, match=r"has not decoded it in 0.0001 s: convert the recording elsewhere, with"
        ):
            read_recording(path)


def test_only_files_are_opened_and_no_shell(tmp_path: Path) -> None:
    command = ffmpeg._command(tmp_path / "-i; x.m4a", "mov")
    assert command[command.index("-protocol_whitelist") + 1] == "file"
    assert command[command.index("-f") + 1] == "mov"
    assert command[command.index("-i") + 1] == f"file:{tmp_path}/-i; x.m4a"
    assert command.index("-protocol_whitelist") < command.index("-i") < command.index("-vn")


def test_without_ffmpeg_one_message_has_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.m4a").write_bytes(b"any")
    groups = [
        {"id": name, "reference": {"audio": f"{name}.m4a", "text": "Said."}, "texts": ["One."]}
        for name in ("anna", "ben")
    ]
    assert problems(write(tmp_path / "b.json", {"speakers": groups})) == [
        "speakers[0].reference (and 1 more speaker): ffmpeg is not installed, and a .m4a is read with it; install it,"
        " or convert the recording elsewhere, with `ffmpeg -i 'anna.m4a' 'anna.wav'`"
    ]
    with pytest.raises(
        BadReference, match=r"anna.m4a': ffmpeg is not installed, .* or convert the recording elsewhere"
    ):
        read_recording(tmp_path / "anna.m4a")
