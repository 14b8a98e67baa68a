"""Measures word errors on real human voices, and prints a table. ``make voices`` runs it.

200 English recordings of Debian's asterisk-core-sounds, 100 of each half, are recognised with the weights of Whisper's
tiny.en, and compared with their own texts and with each other's. The limits of each half were chosen on the other.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cloner.audio import Audio
from cloner.recogniser.whisper import Recogniser, Recognition
from cloner.review.heard import Heard, WordErrors
from cloner.review.judge import Judge
from cloner.review.models import compare_words
from tests.support.recognition import MODEL
from tests.support.voice_checks import Count, half_of
from tests.support.voices import Recording, find_recordings

RECORDINGS = 100
"""Recordings of each half."""


@dataclass
class Take:
    """A recording, and what is heard in it."""

    text: str
    samples: Audio
    rate: int
    heard: Recognition
    recogniser: Recogniser

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def compared_with(self, text: str) -> WordErrors:
        """Its words against a text."""
        return compare_words(self.recogniser, self.samples, self.rate, self.heard, text, "en")


def main() -> None:
    """Print the table."""
    try:
        recordings = find_recordings()["en"]
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    recognise = Recogniser(MODEL, MODEL)
    recordings.sort(key=lambda recording: crc32(recording.name.encode()))
    print("| half | texts | false alarms | another text is caught | word error rate | CPU s an audio-second |")
    print("|---|---|---|---|---|---|")
    for half, name in ((1, "the half that no limit was chosen on"), (0, "the other half")):
        began = time.process_time()
        part = [one for one in recordings if half_of(one) == half][:RECORDINGS]
        takes = [heard(recognise, recording) for recording in part]
        cost = (time.process_time() - began) / sum(take.seconds for take in takes)
        for least in (1, 2):
            print(f"| {name} | of {least} word{'s' * (least > 1)} or more | {row(takes, least)} | {cost:.2f} |")


def heard(recogniser: Recogniser, recording: Recording) -> Take:
    """Recognise a recording."""
    samples, rate = soundfile.read(recording.path, dtype="float32")
    return Take(recording.text, samples, rate, recogniser.hear(samples, rate), recogniser)


def row(takes: list[Take], least: int) -> str:
    """False alarms, catches and the word error rate of the texts with at least so many words."""
    good, other = Count(), Count()
    errors = units = 0
    for place, take in enumerate(takes):
        own = take.compared_with(take.text)
        if own.units < least:
            continue
        good.add(failed=is_suspected(own))
        errors, units = errors + own.errors, units + own.units
        another = takes[(place + 1) % len(takes)].compared_with(take.text)
        other.add(failed=is_suspected(another))
    return f"{good} | {other} | {100 * errors / units:.1f}%"


def is_suspected(errors: WordErrors) -> bool:
    """Whether the review's checks of words find something wrong."""
    return bool(Judge({}, {}).judge("", Heard(None, None, errors), None).failed)


if __name__ == "__main__":
    main()
