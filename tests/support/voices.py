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
    voices: dict[str, list[Path]] = {}
    for language in LANGUAGES:
        for folder in SOUNDS.glob(f"{language}_*"):
            clips = (clip for clip in sorted(folder.glob("*.wav")) if 1 <= soundfile.info(clip).duration <= 6)
            voices[language] = [clip for clip, _ in zip(clips, range(3), strict=False)]
    if set(voices) != set(LANGUAGES):
        missing = f"real voices are not installed: apt-get install {PACKAGES}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return voices
