"""The reviews of a batch's takes, beside its record: ``OUT/.cloner/BATCH_ID/reviews.ndjson``.

The collector appends to it, a line for each thing that happens, so that a review which was finished is not repeated
after a death. A take is known by its segment and the digest of its file, a reference by its digest alone.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cloner.events import Event
from cloner.logs import log_event
from cloner.output.own_folder import OwnFolder
from cloner.output.record import append_line, batch_folder, open_to_append, translate_disk_errors
from cloner.protocol.results import SegmentResult
from cloner.protocol.reviews import ReviewAnswer

REVIEWS = "reviews.ndjson"

_DIGEST, _DIGEST_LENGTH = b',"digest":"', 32
"""The part of a take's line before its digest."""


class Reviewed(NamedTuple):
    """What is reviewed."""

    segment: int | None
    """None for a reference."""
    digest: str


Words = Literal["compared", "beginning", "unknown_language", ""]
"""Whether the words of a take were compared with its text, or only those of its beginning, since it is long, or none,
as the recogniser does not know its language; empty where no recogniser was there."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class TakeReview:
    """What a review says of a take. A dataclass with slots, since a batch may have a million."""

    segment: int
    digest: str
    speaker: str
    failed: dict[str, float]
    """Check that failed -> its score; empty if none did."""
    take: int = 1
    """Its number."""
    suspicion: float = 0.0
    """As that of a line of the record."""
    likeness: float | None = None
    """To the speaker's reference, and so is `naturalness`, from which the limits of later takes are learnt."""
    naturalness: float | None = None
    suspect: bool = False
    """Whether the take failed a check when it was generated."""
    words: Words | None = None
    """None where it was not reviewed, or by a version that did not note it."""
    language: str = ""
    """The text's, as far as it was known."""
    error: str = ""
    """Why it was not reviewed, if it was not."""
    taken_over: bool = False
    """Whether an earlier batch has noted it first."""


def larger_suspicion(line: SegmentResult, review: TakeReview | None) -> float:
    """The larger one of the suspicions that the checks and the review have of a take."""
    return max(line.suspicion, review.suspicion) if review else line.suspicion


class _Note(BaseModel):
    """A line. With `round`, what that round sends to the reviewers, or got no answer for; else one of the others."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sample: list[int] | None = None
    """The random sample of the batch's segments."""
    round: int | None = None
    sent: list[Reviewed] = []
    unanswered: list[Reviewed] = []
    take: TakeReview | None = None
    reference: str = ""
    """Its digest; `heard` is what the models say of it."""
    heard: ReviewAnswer | None = None


_NOTES = TypeAdapter(_Note)


class Reviews:
    """The reviews of one batch, read as they grow: each line is read once. Methods raise `RecordFailed`."""

    def __init__(self, root: Path, batch_id: str) -> None:
        self._root = root
        self._folder = batch_folder(root, batch_id)
        self._read_to = 0
        self.sample: list[int] | None = None
        self.takes: dict[Reviewed, TakeReview] = {}
        self.first: dict[int, TakeReview] = {}
        """The first review of each segment."""
        self.rejected: dict[int, TakeReview] = {}
        """The last review of each segment that it failed."""
        self.references: dict[str, ReviewAnswer] = {}
        self._sent: tuple[int, list[Reviewed]] = (0, [])
        self._unanswered: defaultdict[Reviewed, set[int]] = defaultdict(set)

    def refresh(self) -> None:
        """Read the lines that were written since the last call."""
        with translate_disk_errors(self._folder.path):
            if not self._folder.files(REVIEWS):
                return
            for line in self._folder.lines(REVIEWS, self._read_to):
                if not line.endswith(b"\n"):  # a crash left it incomplete
                    break
                self._read_to += len(line)
                try:
                    note = _NOTES.validate_json(line)
                except ValidationError:
                    log_event(Event.RECORD_LINE_TORN, file=REVIEWS)
                else:
                    self._take(note)

    def _take(self, note: _Note) -> None:
        if note.sample is not None and self.sample is None:
            self.sample = note.sample
        if note.round is not None and note.sent:
            self._sent = note.round, note.sent
        if note.round is not None:
            for item in note.unanswered:
                self._unanswered[item].add(note.round)
        if note.take:
            self.takes.setdefault(Reviewed(note.take.segment, note.take.digest), note.take)
            self.first.setdefault(note.take.segment, note.take)
            if note.take.failed:
                self.rejected[note.take.segment] = note.take
        if note.heard:
            self.references.setdefault(note.reference, note.heard)

    def sent(self, number: int) -> list[Reviewed]:
        """What the round of that number has sent to the reviewers."""
        return self._sent[1] if self._sent[0] == number else []

    def unanswered(self, item: Reviewed, but: int | None = None) -> int:
        """Rounds that have sent it and got no answer, or that it cannot be heard; without the one of the number `but`,
        whose answers may be noted twice."""
        return len(self._unanswered.get(item, set()) - {but})

    def has(self, item: Reviewed) -> bool:
        """Whether nothing is left to review of it."""
        return item in self.takes if item.segment is not None else item.digest in self.references

    def rejected_before(self, item: Reviewed) -> TakeReview | None:
        """The review of the take before, which it failed, of a take that was to replace that one and was not heard
        itself; None of others."""
        found = self.takes.get(item)
        return None if item.segment is None or (found and not found.error) else self.rejected.get(item.segment)

    def note_sample(self, segments: Sequence[int]) -> None:
        """Note the random sample, once for the batch."""
        self._append([_Note(sample=list(segments))])

    def note_sent(self, number: int, items: Sequence[Reviewed]) -> None:
        """Note what a round is about to send to the reviewers."""
        self._append([_Note(round=number, sent=list(items))])

    def note_answers(
        self,
        number: int,
        takes: Iterable[TakeReview],
        heard: Iterable[tuple[str, ReviewAnswer]],
        unanswered: Sequence[Reviewed],
    ) -> None:
        """Note, in one write, what a round got back: reviews of takes, what is heard in references, by their digests,
        and what got no answer."""
        notes = [_Note(take=take) for take in takes]
        notes += [_Note(reference=digest, heard=answer) for digest, answer in heard]
        if unanswered:
            notes.append(_Note(round=number, unanswered=list(unanswered)))
        self._append(notes)

    def take_over(self, segments: Mapping[str, tuple[int, str]]) -> None:
        """Note what earlier batches have found in takes that this one reuses; `segments` and the languages of their
        texts by the digests of their files. What was heard as a text of another language is heard again."""
        if not segments:
            return
        root = OwnFolder(self._root)
        with translate_disk_errors(root.path):
            others = [
                folder for folder in root.inner_folders() if folder.path != self._folder.path and folder.files(REVIEWS)
            ]
            found = {
                take.digest: replace(take, segment=segments[take.digest][0], taken_over=True)
                for folder in others
                for take in _reviewed_takes(folder, segments)
                if take.language == segments[take.digest][1]
            }
        self.note_answers(0, found.values(), (), ())

    def _append(self, notes: Sequence[_Note]) -> None:
        if not notes:
            return
        with translate_disk_errors(self._folder.path):
            file = open_to_append(self._folder, REVIEWS)
            try:
                append_line(file, b"\n".join(note.model_dump_json(exclude_defaults=True).encode() for note in notes))
                os.fsync(file)
            finally:
                os.close(file)
        self.refresh()


def _reviewed_takes(folder: OwnFolder, digests: Container[str]) -> Iterator[TakeReview]:
    """The reviews of a batch of takes with these digests, without those that have come to nothing. Raises `OSError`."""
    for line in folder.lines(REVIEWS):
        # Most lines are of other takes, and are not parsed.
        if line.partition(_DIGEST)[2][:_DIGEST_LENGTH].decode(errors="replace") in digests:
            try:
                take = _NOTES.validate_json(line).take
            except ValidationError:
                continue  # torn by a crash
            if take and not take.error:
                yield take
