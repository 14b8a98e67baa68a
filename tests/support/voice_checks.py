"""How many recordings of real voices the checks suspect, and how many of their damaged copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from zlib import crc32

import numpy as np
import soundfile

from cloner.audio import Audio
from cloner.checks.check_set import CheckSet
from cloner.checks.measures import Measures, Take, measure
from cloner.checks.usual import History
from tests.support.damage import KINDS, LEAST_SPEECH_S, speech_bounds
from tests.support.voices import Recording

DAMAGED_EVERY = 10
"""What is usual is learnt from all good takes, and from one damaged take for each ten of them."""


@dataclass
class Count:
    """Takes, and how many of them failed a check."""

    total: int = 0
    failed: int = 0

    def add(self, *, failed: bool) -> None:
        self.total += 1
        self.failed += failed

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} ({100 * self.failed / self.total:.1f}%)"


@dataclass
class Outcome:
    """What the checks say."""

    good: Count = field(default_factory=Count)
    """The recordings as they are: each that failed is a false alarm."""
    false_alarms: Counter[str] = field(default_factory=Counter)
    """How many of them failed each check."""
    damaged: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    by_voice: dict[tuple[str, str], Count] = field(default_factory=dict)
    """The damaged ones of each kind and voice."""


@dataclass
class _Measured:
    voice: str
    good: Measures
    damaged: dict[str, Measures]


def half_of(recording: Recording) -> int:
    """The half that the recording belongs to: the limits were chosen on half 0."""
    return sha256(f"{recording.speaker}/{recording.name}".encode()).digest()[3] % 2


def check_voices(recordings: Mapping[str, Sequence[Recording]], damaged_per_voice: int | None = None) -> Outcome:
    """Check all the recordings, and copies of them that are damaged in each way, of at most so many a voice."""
    measured = [take for voice in recordings.values() for take in _measure(voice, damaged_per_voice)]
    history = History()
    for number, take in enumerate(measured):
        history.add(take.voice, take.good)
        if take.damaged and number % DAMAGED_EVERY == 0:
            kinds = [*take.damaged.values()]
            history.add(take.voice, kinds[number // DAMAGED_EVERY % len(kinds)])
    checks, outcome = CheckSet({}), Outcome()
    for take in measured:
        failed = checks.evaluate(take.good, history.usual(take.voice, take.good.script)).failed
        outcome.good.add(failed=bool(failed))
        outcome.false_alarms.update(failed)
        for kind, damaged in take.damaged.items():
            caught = bool(checks.evaluate(damaged, history.usual(take.voice, damaged.script)).failed)
            outcome.damaged[kind].add(failed=caught)
            outcome.by_voice.setdefault((kind, take.voice), Count()).add(failed=caught)
    return outcome


def _measure(voice: Sequence[Recording], damaged: int | None) -> Iterator[_Measured]:
    left = len(voice) if damaged is None else damaged
    step = 1 if damaged is None else max(1, len(voice) // (3 * damaged))  # spread over the recordings
    for number, recording in enumerate(voice):
        samples, rate = soundfile.read(recording.path, dtype="float32")
        take = _Measured(recording.speaker, measure(Take(samples, rate, recording.text)), {})
        if left and number % step == 0 and _is_long_enough(samples, rate):
            left -= 1
            rng = np.random.default_rng(crc32(recording.name.encode()))
            for kind, damage in KINDS.items():
                take.damaged[kind] = measure(Take(damage(samples, rate, rng), rate, recording.text))
        yield take


def _is_long_enough(samples: Audio, rate: int) -> bool:
    start, end = speech_bounds(samples, rate)
    return end - start >= LEAST_SPEECH_S * rate
