"""Measures the checks of takes on real human voices, and what they cost, and prints tables. ``make voices`` runs it.

The voices are those of Debian's packages asterisk-core-sounds: 5 languages, about 2,600 recordings. The limits of the
checks were chosen on one half of them, and the first table is of the other half. The last table is of the deeper checks
by models, on `REVIEWED` recordings of each language.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cloner.audio import SAMPLE_RATE
from cloner.checks.check_set import CheckSet
from cloner.checks.measures import Take, measure
from cloner.checks.usual import PRIOR
from tests.support.damage import KINDS
from tests.support.review_checks import ReviewOutcome, review_voices
from tests.support.voice_checks import Outcome, check_voices, half_of
from tests.support.voices import LANGUAGES, Recording, find_recordings

COST_RECORDINGS = 200
"""Recordings that the cost is measured on, resampled to 44.1 kHz."""

REVIEWED, OTHERS, UNNATURAL = 80, 40, 8
"""Takes of each language that are reviewed: its own, those of other people, and those that sound unnatural in each
way. They take six minutes of a core, most of it for the naturalness."""


def main() -> None:
    """Print the tables."""
    try:
        recordings = find_recordings()
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    print(f"| seconds of processor for a second of audio at {SAMPLE_RATE} Hz | {cost_ms(recordings):.2f} ms |\n")
    for half, name in ((1, "the half that no limit was chosen on"), (0, "the other half")):
        part = {voice: [one for one in found if half_of(one) == half] for voice, found in recordings.items()}
        print(f"{name}:\n\n{table(check_voices(part))}\n")
    print(f"the review:\n\n{review_table(review_voices(recordings, REVIEWED, OTHERS, UNNATURAL))}")


def table(outcome: Outcome) -> str:
    """An outcome as Markdown."""
    lines = [f"| kind | caught | {' | '.join(LANGUAGES)} |", f"|---|---|{'---|' * len(LANGUAGES)}"]
    for kind in KINDS:
        voices = [outcome.by_voice[kind, voice] for voice in LANGUAGES]
        shares = " | ".join(f"{100 * count.failed / count.total:.1f}%" for count in voices)
        lines.append(f"| {kind} | {outcome.damaged[kind]} | {shares} |")
    alarms = ", ".join(f"{name} {count}" for name, count in outcome.false_alarms.most_common()) or "none"
    return "\n".join([*lines, f"\nFalse alarms: {outcome.good}; by check: {alarms}."])


def review_table(outcome: ReviewOutcome) -> str:
    """An outcome of the review as Markdown."""
    lines = [f"| kind | caught | {' | '.join(LANGUAGES)} |", f"|---|---|{'---|' * len(LANGUAGES)}"]
    for kind, count in outcome.wrong.items():
        voices = " | ".join(f"{v.failed} of {v.total}" for v in (outcome.by_voice[kind, voice] for voice in LANGUAGES))
        lines.append(f"| {kind} | {count} | {voices} |")
    alarms = ", ".join(f"{name} {count}" for name, count in outcome.false_alarms.most_common()) or "none"
    too_short = f"{outcome.too_short} are too short to say whose voice it is"
    language = f"of a person in another language than the reference's: {outcome.other_language}"
    return "\n".join([*lines, f"\nFalse alarms: {outcome.good}; by check: {alarms}; {too_short}; {language}."])


def cost_ms(recordings: dict[str, list[Recording]]) -> float:
    """Milliseconds of processor for a second of audio: measuring, and evaluating all checks."""
    checks = CheckSet({})
    takes = []
    for recording in [one for voice in recordings.values() for one in voice[:: len(LANGUAGES)]][:COST_RECORDINGS]:
        samples, rate = soundfile.read(recording.path, dtype="float32")
        takes.append(Take(soxr.resample(samples, rate, SAMPLE_RATE), SAMPLE_RATE, recording.text))
    measure(takes[0])
    began = time.process_time()
    for take in takes:
        checks.evaluate(measure(take), PRIOR)
    spent = time.process_time() - began
    return 1000 * spent / (sum(len(take.samples) for take in takes) / SAMPLE_RATE)


if __name__ == "__main__":
    main()
