"""Real human voices: Debian's asterisk-core-sounds packages (CC-BY-SA), 8 kHz mono, one speaker a language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile

SOUNDS = Path("/usr/share/asterisk/sounds")
LANGUAGES = ("en", "es", "fr", "it", "ru")
PACKAGES = " ".join(f"asterisk-core-sounds-{language}-wav" for language in LANGUAGES)


def find_voices() -> dict[str, list[Path]]:
    """Three clips of one to six seconds of each of five speakers. Skips where they are not installed; fails in CI."""
    return {language: find_clips(language, 1, 6)[:3] for language in LANGUAGES}


def find_clips(language: str, least_s: float, most_s: float) -> list[Path]:
    """The clips of one speaker that last so many seconds. Skips or fails as `find_voices` does."""
    folders = SOUNDS.glob(f"{language}_*")
    clips = [clip for folder in folders for clip in sorted(folder.glob("*.wav"))]
    if not clips:
        missing = f"real voices are not installed: apt-get install {PACKAGES}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return [clip for clip in clips if least_s <= soundfile.info(clip).duration <= most_s]
