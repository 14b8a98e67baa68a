"""Which takes of a batch may be reviewed: the random sample, and those that earlier batches have generated."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from cloner.batch import ReviewSample
from cloner.output.record import Record
from cloner.output.reviews import Reviewed
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


def reused_takes(manifest: Manifest, record: Record) -> dict[str, tuple[int, str]]:
    """Digest -> segment and its text's language, of the takes that earlier batches have generated."""
    return {
        line.digest: (index, speaker.language_of(index))
        for speaker in manifest.speakers
        for index, *_ in speaker.segments
        if (line := record.results.get(index)) and line.reused
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
