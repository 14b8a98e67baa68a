"""Recordings that libsndfile cannot read, decoded by ``ffmpeg``, as phones and browsers write them.

Such a file may come from anyone, and ffmpeg reads more than recordings: playlists that name other files, or addresses.
So the demuxer follows from the file's ending, nothing but files is opened, and the process has limits of time, memory
and output. It is started from a list, without a shell.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cloner.audio import SAMPLE_RATE, Audio
from cloner.errors import BadReference
from cloner.protocol.references import MAX_SECONDS
from cloner.validation import shown

DEMUXERS = {".m4a": "mov", ".mp4": "mov", ".webm": "matroska", ".aac": "aac"}
"""ffmpeg's names of the formats that are given to it, by the files' endings."""

TIMEOUT_S = 60
"""Seconds that ffmpeg gets; it decodes 30 s of audio in a tenth of one."""

MEMORY_BYTES = 1024**3
"""Address space of ffmpeg; of a usual file it takes a third."""

SECONDS = MAX_SECONDS + 1
"""Seconds that are decoded: one more than is used shows that the recording is longer."""

OUTPUT_BYTES = 8 * 1024**2
"""The largest file that ffmpeg may write; `SECONDS` of samples take 5.5 MB."""

_LIMITS = ("prlimit", f"--as={MEMORY_BYTES}", f"--fsize={OUTPUT_BYTES}", "--core=0") if sys.platform == "linux" else ()
"""The command of util-linux that sets limits and becomes ffmpeg."""


def missing(path: Path) -> str | None:
    """What is missing to read a file of this ending, or None."""
    if path.suffix.lower() in DEMUXERS:
        for program in ("ffmpeg", *_LIMITS[:1]):
            if not shutil.which(program):
                return f"{program} is not installed, and a {path.suffix.lower()} is read with it"
    return None


def conversion(path: Path) -> str:
    """What to do instead, as the end of a sentence."""
    return f"convert the recording elsewhere, with `ffmpeg -i {shown(path.name)} {shown(path.stem + '.wav')}`"


def decode(path: Path, demuxer: str) -> Audio:
    """At most the first `SECONDS` of a recording, mono ``[samples]`` at `SAMPLE_RATE`.

    Raises `BadReference`, `OSError`.
    """
    if flaw := missing(path):
        raise BadReference(f"{flaw}: install it, or {conversion(path)}")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
        try:
            status = subprocess.run(
                _command(path, demuxer),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=messages,
                timeout=TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise BadReference(f"ffmpeg has not decoded it in {TIMEOUT_S} s: {conversion(path)}") from error
        output.seek(0)
        data = output.read()
        messages.seek(0)
        if status or not data:
            reason = _reason(messages.read(), path) or f"its status is {status}"
            raise BadReference(f"it cannot be read as audio (ffmpeg: {reason})")
    return np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float32)


def _command(path: Path, demuxer: str) -> list[str]:
    reading = ["-protocol_whitelist", "file", "-f", demuxer, "-i", f"file:{path.absolute()}"]
    audio_alone = ["-vn", "-sn", "-dn", "-t", str(SECONDS)]
    # The mean of the channels, as for other recordings: by default their sum is louder.
    writing = ["-rematrix_maxval", "1", "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "pipe:1"]
    return [*_LIMITS, "ffmpeg", "-nostdin", "-v", "error", "-threads", "1", *reading, *audio_alone, *writing]


def _reason(messages: bytes, path: Path) -> str:
    """The last thing that ffmpeg said."""
    lines = messages[-4096:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix(f"file:{path.absolute()}: ")[:200] if lines else ""
