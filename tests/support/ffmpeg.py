"""The ``ffmpeg`` that some tests need, and recordings as phones and browsers write them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

CODECS = {".m4a": ["-c:a", "aac"], ".mp4": ["-c:a", "aac"], ".webm": ["-c:a", "libopus"], ".aac": ["-c:a", "aac"]}
"""ffmpeg's options for each ending."""


def require_ffmpeg() -> None:
    """Skip the test where ffmpeg is not installed; fail it in CI."""
    if not shutil.which("ffmpeg"):
        missing = "ffmpeg is not installed: apt-get install --no-install-recommends ffmpeg"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def write_with_ffmpeg(path: Path, seconds: float, *options: str, channels: int = 1) -> Path:
    """A recording of a voice-like tone in the format of the path's ending."""
    times = np.arange(round(seconds * 48_000)) / 48_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * times) * np.sin(2 * np.pi * 2 * times) ** 2
    source = path.with_name(f"{path.stem}-source.wav")
    soundfile.write(source, np.stack([tone] * channels, axis=1), 48_000)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(source), *CODECS[path.suffix], *options, str(path)]
    subprocess.run(command, check=True)
    source.unlink()
    return path
