"""The checks of a review: whose voice a take has, how natural it sounds, and whether it says its text.

Each has a limit and a sentence. As in `cloner.checks.catalogue`, a score is larger the worse the take is, and above its
limit the check fails.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from cloner.checks.catalogue import LimitedCheck, beyond
from cloner.checks.check_set import CheckResult, result_of
from cloner.checks.usual import certainty
from cloner.review.heard import Heard, WordErrors
from cloner.review.likeness import Likeness, Voices
from cloner.review.medians import SpeakerMedians

PROBABLE = 3.0
"""`WordErrors.surprise` of a text below which it was said, whatever words the recogniser writes."""

USUAL_LIKENESS = 0.85
"""How like a take is to its reference, before a speaker's takes are known: the median of the voices in
`ops/BENCHMARKS.md`."""


UNCERTAIN_S = 8.0
"""Seconds of speech whose likeness to the reference has twice the variance that it has of a long take: a short one has
few sounds, and the embedding follows those."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the models say of a take. None where the take or the speaker's reference is too short to say."""

    likeness: Likeness | None
    speech_s: float
    """Seconds of speech that `likeness` is of."""
    usual_likeness: float
    """To its own reference, of the speaker's other takes."""
    naturalness: float | None
    usual_naturalness: float | None
    """Of the speaker's other takes and the reference."""
    words: WordErrors | None = None
    """None without a recogniser."""


class ReviewCheck(LimitedCheck):
    """One thing that a review may find wrong with a take."""

    @abstractmethod
    def score(self, finding: Finding) -> float | None:
        """The figure that is compared with the limit; None if it cannot be known."""

    @abstractmethod
    def sentence(self, score: float, finding: Finding) -> str:
        """What is wrong with a take that has this score."""


class AnotherVoice(ReviewCheck):
    """By how much the take is more like another speaker's reference than like its own, as a difference of cosines."""

    name, default = "another_voice", 0.03

    def score(self, finding: Finding) -> float | None:
        return finding.likeness.margin if finding.likeness else None

    def sentence(self, score: float, finding: Finding) -> str:
        speaker = finding.likeness.nearest if finding.likeness else ""
        shown = beyond(score, self.limit, 2)
        return (
            f"its voice is more like that of speaker {speaker!r} than like its own reference, by {shown} (at most"
            f" {self.limit:g})"
        )


class Unlike(ReviewCheck):
    """By how much less the take is like its reference than the speaker's other takes, as a difference of cosines, which
    counts less the shorter the take is."""

    name, default = "unlike", 0.057

    def score(self, finding: Finding) -> float | None:
        if finding.likeness is None:
            return None
        return certainty(finding.speech_s, UNCERTAIN_S) * (finding.usual_likeness - finding.likeness.own)

    def sentence(self, score: float, finding: Finding) -> str:  # noqa: ARG002 - as others have it
        shown = beyond(score, self.limit, 3)
        return (
            f"its voice is less like the reference than the speaker's other takes, by {shown}, weighted by its"
            f" length (at most {self.limit:g})"
        )


class WrongVoice(ReviewCheck):
    """How unlike the reference the speaker's takes are, one less their usual cosine: where the model has fallen into
    another voice from the start, no take is unlike the others.

    Of a take that is more like the reference than that, the mean of the two cosines counts, and its own alone where it
    is the usual one of all speakers: then the model has found the voice.
    """

    name, default = "wrong_voice", 0.28

    def score(self, finding: Finding) -> float | None:
        if finding.likeness is None:
            return None
        own, usual = finding.likeness.own, finding.usual_likeness
        return 1 - (own if own >= USUAL_LIKENESS else max(usual, (usual + own) / 2))

    def sentence(self, score: float, finding: Finding) -> str:  # noqa: ARG002
        return (
            "neither its voice nor that of the speaker's other takes is the reference's: they are alike by"
            f" {1 - float(beyond(score, self.limit, 2)):g} (at least {1 - self.limit:g})"
        )


class Unnatural(ReviewCheck):
    """By how much less natural the take sounds than the reference and the speaker's other takes, as opinion scores."""

    name, default = "unnatural", 0.8

    def score(self, finding: Finding) -> float | None:
        if finding.naturalness is None or finding.usual_naturalness is None:
            return None
        return finding.usual_naturalness - finding.naturalness

    def sentence(self, score: float, finding: Finding) -> str:  # noqa: ARG002
        shown = beyond(score, self.limit, 1)
        return f"it sounds less natural than the speaker's other takes, by {shown} points of 5 (at most {self.limit:g})"


class WrongWords(ReviewCheck):
    """Errors for each word of the text, without the first error: a recogniser mishears a word now and then, and a short
    text has few. One of a word or two that it finds probable is not compared: it writes "Fold your five" for
    "Folder 5"."""

    name, default = "wrong_words", 0.4

    def score(self, finding: Finding) -> float | None:
        words = finding.words
        if words is None or (words.surprise is not None and words.surprise < PROBABLE):
            return None
        return words.repeated_rate

    def sentence(self, score: float, finding: Finding) -> str:
        errors = finding.words.errors if finding.words else 0
        shown = beyond(score, self.limit, 2)
        return (
            f"a recogniser hears other words than its text in {errors} places, {shown} for each word (at most"
            f" {self.limit:g})"
        )


class WrongRun(ReviewCheck):
    """Most words in a row that are missing, wrong or too many, however long the text: a sentence may be left out."""

    name, default = "wrong_run", 4

    def score(self, finding: Finding) -> float | None:
        return finding.words.longest_run if finding.words else None

    def sentence(self, score: float, finding: Finding) -> str:  # noqa: ARG002
        return f"a recogniser hears {score:g} words in a row otherwise than in its text (at most {self.limit:g})"


class ImprobableText(ReviewCheck):
    """How improbable the recogniser finds a text of one or two words: that it hears another one says little, because it
    writes "See" for "c" and "Marge" for "March"."""

    name, default = "improbable_text", 6.75

    def score(self, finding: Finding) -> float | None:
        return finding.words.surprise if finding.words else None

    def sentence(self, score: float, finding: Finding) -> str:  # noqa: ARG002
        return (
            f"a recogniser hears another text: it gives this one a probability of {exp(-score):.2g} a token (at least"
            f" {exp(-self.limit):.2g})"
        )


REVIEW_CHECKS: tuple[type[ReviewCheck], ...] = (
    AnotherVoice,
    Unlike,
    WrongVoice,
    Unnatural,
    WrongWords,
    WrongRun,
    ImprobableText,
)


class Judge:
    """The checks of a batch's takes, with their limits, and what is usual for each of its speakers.

    To be used from one thread: it learns from takes.
    """

    def __init__(self, references: Mapping[str, Heard], limits: Mapping[str, float]) -> None:
        """`references`: what the models say of each speaker's. `limits`: by a check's name, where not the usual one."""
        self._checks = [kind(limits.get(kind.name)) for kind in REVIEW_CHECKS]
        self._voices = Voices({speaker: heard.voice for speaker, heard in references.items() if heard.voice})
        self._naturalness = {speaker: heard.naturalness for speaker, heard in references.items()}
        self._usual_likeness, self._usual_naturalness = SpeakerMedians(), SpeakerMedians()

    def judge(self, speaker: str, take: Heard, likeness: Likeness | None) -> CheckResult:
        """What is wrong with a take of this `likeness`, by what is usual so far. Checks whose score cannot be known
        have none."""
        expected = self._naturalness.get(speaker)
        finding = Finding(
            likeness=likeness,
            speech_s=take.voice.speech_s if take.voice else 0.0,
            usual_likeness=self._usual_likeness.usual(speaker, USUAL_LIKENESS),
            naturalness=take.naturalness,
            usual_naturalness=None if expected is None else self._usual_naturalness.usual(speaker, expected),
            words=take.words,
        )
        scores = {check: score for check in self._checks if (score := check.score(finding)) is not None}
        return result_of(scores, lambda check, score: check.sentence(score, finding))

    def likeness(self, speaker: str, take: Heard) -> Likeness | None:
        """How like a take is to its speaker's reference and to the others'; None if one of the first two is too short
        to say."""
        return self._voices.likeness(take.voice, speaker) if take.voice else None

    def learn(self, speaker: str, likeness: float | None, naturalness: float | None) -> None:
        """Learn what a take is like; `likeness` is to its own reference."""
        if likeness is not None:
            self._usual_likeness.add(speaker, likeness)
        if naturalness is not None:
            self._usual_naturalness.add(speaker, naturalness)
