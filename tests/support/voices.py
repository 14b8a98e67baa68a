"""Real human voices: Debian's asterisk-core-sounds packages (CC-BY-SA), 8 kHz mono, one speaker a language.

The English and the Spanish ones are of one person, Allison Smith, as the packages' copyright files say.
"""

from __future__ import annotations

import gzip
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import soundfile

SOUNDS = Path("/usr/share/asterisk/sounds")
TRANSCRIPTS = Path("/usr/share/doc")
LANGUAGES = ("en", "es", "fr", "it", "ru")
PEOPLE = {"en": "Allison", "es": "Allison", "fr": "June", "it": "Carlo", "ru": "IvrvoiceRU"}
"""Who speaks each language, as the folders of the recordings are named."""
PACKAGES = " ".join(f"asterisk-core-sounds-{language}{part}" for language in LANGUAGES for part in ("", "-wav"))

_NEXT_ENTRY = re.compile(r"(?<=[ .])([a-z0-9]+(?:-[a-z0-9]+)+):\s")
"""The name of another recording within a line of a transcript, where the end of a line is missing."""

_NO_SPEECH = re.compile(r"[\[(<]|beep")
"""In the transcript of a recording of tones, of silence or of music, such as "[ascending tones]", or of a beep."""


@dataclass(frozen=True)
class Recording:
    """A recording and what is said in it."""

    speaker: str
    name: str
    path: Path
    text: str


def find_recordings() -> dict[str, list[Recording]]:
    """All recordings of speech that have one transcript, by language. As `find_voices` where they are not installed."""
    found = {language: [*_recordings(language)] for language in LANGUAGES}
    if not all(found.values()):
        _not_installed()
    return found


def _recordings(language: str) -> Iterator[Recording]:
    packed = TRANSCRIPTS / f"asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    folder = _folder(language)
    if folder is None or not packed.exists():
        return
    transcript = _NEXT_ENTRY.sub(r"\n\1: ", gzip.decompress(packed.read_bytes()).decode("utf-8-sig"))
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for line in transcript.splitlines():
        name, _, text = line.partition(":")
        texts[name].add(text.strip())
    for name, (text, *others) in texts.items():
        path = folder / f"{name}.wav"
        # Which of two texts a recording says is not known.
        if text and not others and not _NO_SPEECH.search(text) and path.is_file():
            yield Recording(language, name, path, text)


def find_voices() -> dict[str, list[Path]]:
    """Three clips of one to six seconds of each of five speakers. Skips where they are not installed; fails in CI."""
    return {language: find_clips(language, 1, 6)[:3] for language in LANGUAGES}


def find_clips(language: str, least_s: float, most_s: float) -> list[Path]:
    """The clips of one speaker that last so many seconds. Skips or fails as `find_voices` does."""
    folder = _folder(language) or _not_installed()
    return [clip for clip in sorted(folder.glob("*.wav")) if least_s <= soundfile.info(clip).duration <= most_s]


def _folder(language: str) -> Path | None:
    """The folder of the language's recordings; Debian has links to it, too, with shorter names."""
    return next(iter(sorted(SOUNDS.glob(f"{language}_*_*"))), None)


def _not_installed() -> NoReturn:
    missing = f"real voices are not installed: apt-get install {PACKAGES}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
