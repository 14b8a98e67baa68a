"""How many recordings of real voices a review suspects, and how many that are another person's or sound unnatural.

Each language is a speaker, in a batch with the speakers of the other languages who are other people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import soundfile

from cloner.audio import Audio
from cloner.review.heard import Heard
from cloner.review.judge import Judge
from cloner.review.models import ReviewModels
from tests.support.judging import learn_and_judge
from tests.support.unnatural import UNNATURAL
from tests.support.voice_checks import Count
from tests.support.voices import PEOPLE, Recording

REFERENCE_CLIPS = 3
"""Clips of 3 to 12 s that are a speaker's reference: about 15 s."""

SHORTEST_S, LONGEST_S = 1.2, 12.0
"""Seconds of a recording that is reviewed: in a shorter one there is too little speech for any score, and longer ones
would take hours."""

OTHER, ABSENT = "another speaker's", "of a speaker who is not in the batch"

ALL_ABSENT = "all of the speaker's takes, of one who is not in the batch"


@dataclass
class ReviewOutcome:
    """What a review says."""

    good: Count = field(default_factory=Count)
    """The recordings as they are: each that failed is a false alarm."""
    false_alarms: Counter[str] = field(default_factory=Counter)
    """How many of them failed each check."""
    too_short: int = 0
    """How many of them have too little speech to say whose voice it is."""
    other_language: Count = field(default_factory=Count)
    """The recordings of a person in another language than the reference's: each that failed is a false alarm."""
    wrong: dict[str, Count] = field(default_factory=dict)
    """The takes that are wrong, by kind."""
    by_voice: dict[tuple[str, str], Count] = field(default_factory=dict)
    """The same by kind and voice."""

    def add(self, kind: str, voice: str, *, failed: bool) -> None:
        """Count a wrong take."""
        self.wrong.setdefault(kind, Count()).add(failed=failed)
        self.by_voice.setdefault((kind, voice), Count()).add(failed=failed)


@dataclass(frozen=True)
class _Voice:
    reference: Heard
    takes: list[Heard]
    unnatural: list[tuple[str, Heard]]


def review_voices(
    recordings: Mapping[str, Sequence[Recording]], takes: int, others: int, unnatural: int
) -> ReviewOutcome:
    """Review so many takes of each voice, so many of other people as if they were its own, and so many that are made to
    sound unnatural in each way."""
    models = ReviewModels()
    voices = {name: _hear(models, found, takes, unnatural) for name, found in recordings.items()}
    outcome = ReviewOutcome()
    for name, voice in voices.items():
        strangers = {other: voices[other] for other in PEOPLE if PEOPLE[other] != PEOPLE[name]}
        _review(outcome, name, voice, strangers, others)
        for other, takes_of in voices.items():
            results = [*_review_all(voice.reference, takes_of.takes)] if other != name else []
            for failed in results:
                if other in strangers:
                    outcome.add(ALL_ABSENT, name, failed=failed)
                else:
                    outcome.other_language.add(failed=failed)
    return outcome


def _review_all(reference: Heard, takes: Sequence[Heard]) -> Iterator[bool]:
    """Whether each of a speaker's takes fails, where all are of one person, and what is usual is learnt from all."""
    judge = Judge({"speaker": reference}, {})
    for take in takes:
        learn_and_judge(judge, "speaker", take)
    for take in takes:
        if take.voice and take.voice.is_long_enough:
            yield bool(learn_and_judge(judge, "speaker", take).failed)


def _review(outcome: ReviewOutcome, name: str, voice: _Voice, strangers: Mapping[str, _Voice], others: int) -> None:
    references = {other: stranger.reference for other, stranger in strangers.items()}
    judge = Judge({name: voice.reference, **references}, {})
    wrong = [*_others(strangers, others)]
    labelled = [("", take) for take in voice.takes] + [(OTHER, take) for _, take in wrong] + voice.unnatural
    for place in np.random.default_rng(0).permutation(len(labelled)):
        kind, take = labelled[place]
        result = learn_and_judge(judge, name, take)
        if kind:
            outcome.add(kind, name, failed=bool(result.failed))
        else:
            outcome.good.add(failed=bool(result.failed))
            outcome.false_alarms.update(result.failed)
            outcome.too_short += "another_voice" not in result.scores
    for absent in strangers:  # the same, in a batch without this speaker
        judge = Judge({name: voice.reference} | {o: heard for o, heard in references.items() if o != absent}, {})
        for take in voice.takes:
            learn_and_judge(judge, name, take)
        for other, take in wrong:
            if other == absent:
                outcome.add(ABSENT, name, failed=bool(learn_and_judge(judge, name, take).failed))


def _others(strangers: Mapping[str, _Voice], count: int) -> Iterator[tuple[str, Heard]]:
    """Takes of other people that are long enough, by turns."""
    left = {
        name: [take for take in voice.takes if take.voice and take.voice.is_long_enough]
        for name, voice in strangers.items()
    }
    for number in range(count):
        name = [*left][number % len(left)]
        yield name, left[name].pop(0)


def _hear(models: ReviewModels, recordings: Sequence[Recording], takes: int, unnatural: int) -> _Voice:
    read = [(*_read(one), one.name) for one in sorted(recordings, key=_order)]
    reviewed = [one for one in read if SHORTEST_S <= len(one[0]) / one[1] <= LONGEST_S]
    clips = [one for one in reviewed if len(one[0]) >= 3 * one[1]][:REFERENCE_CLIPS]
    chosen = {name for *_, name in clips}
    rest = [one for one in reviewed if one[2] not in chosen][:takes]
    reference = np.concatenate([samples for samples, *_ in clips])
    rng = np.random.default_rng(0)
    long = [one for one in rest if len(one[0]) >= 2 * one[1]][:unnatural]
    return _Voice(
        models.hear(reference, clips[0][1]),
        [models.hear(samples, rate) for samples, rate, _ in rest],
        [
            (kind, models.hear(damage(samples, rate, rng), rate))
            for kind, damage in UNNATURAL.items()
            for samples, rate, _ in long
        ],
    )


def _order(recording: Recording) -> bytes:
    return sha256(recording.name.encode()).digest()


def _read(recording: Recording) -> tuple[Audio, int]:
    samples, rate = soundfile.read(recording.path, dtype="float32")
    return samples, rate
