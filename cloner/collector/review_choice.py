"""Which takes of a batch are reviewed: with the random sample of them, and which of them earlier batches have
generated."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from cloner.batch import ReviewSample
from cloner.output.record import Record
from cloner.output.reviews import Reviewed, Reviews
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.review.error_rate import choose_sample


class ChosenTake(NamedTuple):
    """A take that is reviewed."""

    line: SegmentResult
    text: str
    language: str
    """The text's, empty if it is not known."""

    @property
    def item(self) -> Reviewed:
        return Reviewed(self.line.segment, self.line.digest)


def choose_takes(manifest: Manifest, record: Record, reviews: Reviews) -> Iterator[ChosenTake]:
    """The takes of a batch that are reviewed; those that are in its random sample, or of whose segments one was
    reviewed, are noted in `reviews`."""
    sample = set(reviews.sample or ())
    known = {item.segment for item in reviews.takes}
    for speaker in manifest.speakers:
        for row in speaker.segments:
            index = row.segment
            line = record.results.get(index)
            if not line or not line.generated or not line.digest:
                continue
            is_suspect = manifest.review == "suspects" and line.is_suspect
            if manifest.review == "all" or is_suspect or index in sample or index in known:
                yield ChosenTake(line, row.text, speaker.language_of(index))


def reused_takes(manifest: Manifest, record: Record) -> dict[str, tuple[int, str]]:
    """Digest -> segment and its text's language, of the takes that earlier batches have generated."""
    return {
        line.digest: (row.segment, speaker.language_of(row.segment))
        for speaker in manifest.speakers
        for row in speaker.segments
        if (line := record.results.get(row.segment)) and line.reused
    }


def draw_sample(manifest: Manifest, record: Record) -> list[int]:
    """The random sample of a batch's generated segments: where suspects are reviewed anyway, of the others."""
    lines = (line for line in record.results.values() if line.generated)
    match manifest.review:
        case "suspects":
            segments = [line.segment for line in lines if not line.is_suspect]
            return choose_sample(segments, manifest.generation.seed)
        case ReviewSample(sample=part):
            segments = [line.segment for line in lines]
            return choose_sample(segments, manifest.generation.seed, ceil(part * len(segments)))
        case _:
            return []
