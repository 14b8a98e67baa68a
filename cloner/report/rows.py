"""The segments that a report lists, as the JSON that its script reads.

A browser opens some ten thousand rows at once, and a batch may have a million: what may have gone wrong comes first.
"""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from math import ceil
from types import MappingProxyType
from typing import Any

from pydantic_core import to_json

from cloner.output.reviews import TakeReview, larger_suspicion
from cloner.protocol.results import BatchResult, SegmentResult

MAX_ROWS = 20_000
"""The most rows of a report."""

CANCELLED = "cancelled"
"""Code of a segment that was not generated since the batch was cancelled: no failure."""


@dataclass(frozen=True)
class OtherAudio:
    """An audio file that is compared with that of its segment: an earlier take, or another attempt."""

    label: str
    path: str
    """Relative to the output root."""
    peaks: bytes = b""


@dataclass
class Row:
    """A segment in the list. What is empty is left out of the JSON."""

    index: int
    speaker: int
    """The speaker's place in the list of those that have rows."""
    text: str
    output: str
    id: str = ""
    seconds: float = 0.0
    peaks: bytes = b""
    take: int = 0
    """Number of the take, if it is not the only one."""
    suspicion: float = 0.0
    failed: Sequence[str] = ()
    """Names of the checks that failed."""
    error: str = ""
    """Why it has no audio."""
    others: Sequence[OtherAudio] = ()
    only_beginning: bool = False
    """Whether only the words of its beginning were compared with its text, since it is long."""
    failed_before: Sequence[str] = ()
    """Names of the checks that the take before failed in the review, where this one was not heard."""
    take_before: int = 0
    """The number that the take had before those which were worse, if it has got its name again."""

    def to_json(self) -> bytes:
        """The row as a line of JSON."""
        values: dict[str, Any] = {
            # JavaScript rounds larger numbers.
            "index": self.index if self.index < 2**53 else str(self.index),
            "speaker": self.speaker,
            "text": self.text,
            "output": self.output,
            "id": self.id,
            "seconds": round(self.seconds, 2),
            "peaks": _base64(self.peaks),
            "take": self.take,
            "takeBefore": self.take_before,
            "suspicion": ceil(100 * self.suspicion) / 100,  # what is above 1 stays above it
            "failed": self.failed,
            "failedBefore": self.failed_before,
            "onlyBeginning": self.only_beginning,
            "error": self.error,
            "others": [
                {"label": other.label, "path": other.path, "peaks": _base64(other.peaks)} for other in self.others
            ],
        }
        return to_json({name: value for name, value in values.items() if value or name in {"index", "speaker"}})


@dataclass
class ListedSpeaker:
    """A speaker of the rows."""

    id: str
    reference: str = ""
    """The recording, relative to the output root; empty if there is none."""
    transcript: str = ""
    """What is said in it."""


@dataclass
class Listing:
    """All that the list of a report shows."""

    rows: Sequence[Row]
    speakers: Sequence[ListedSpeaker]
    total: int
    """Segments that could have a row."""
    is_judged: bool
    """Whether any segment was checked."""
    problem: str = ""
    """Why texts are missing, if they are."""

    def json(self, batch_id: str) -> Iterator[str]:
        """The listing as JSON, in pieces, without any "<": it is embedded in HTML."""
        speakers = [{"id": speaker.id, "reference": speaker.reference} for speaker in self.speakers]
        head = to_json({"batch": batch_id, "judged": self.is_judged, "speakers": speakers})
        yield _without_tags(head[:-1] + b',"rows":[')
        for number, row in enumerate(self.rows):
            yield _without_tags((b",\n" if number else b"\n") + row.to_json())
        yield "]}"


def choose_segments(
    result: BatchResult, lines: Mapping[int, SegmentResult], reviews: Mapping[int, TakeReview] = MappingProxyType({})
) -> list[int]:
    """The segments that get rows, the most important first: suspects, failures, then the first of each speaker.

    `reviews` are those of the lines' takes.
    """
    known = (line for index in result.suspects if (line := lines.get(index)))
    by_suspicion = nlargest(MAX_ROWS, known, key=lambda line: larger_suspicion(line, reviews.get(line.segment)))
    suspects = [line.segment for line in by_suspicion]
    failed = (index for index, error in result.errors.items() if error.code != CANCELLED)
    chosen = list(islice(dict.fromkeys([*suspects, *failed]), MAX_ROWS))
    others: defaultdict[str, list[int]] = defaultdict(list)
    for index in result.results:
        if index not in result.suspects and (line := lines.get(index)):
            others[line.speaker].append(index)
    left = MAX_ROWS - len(chosen)
    most = max(1, fair_limit(map(len, others.values()), left))  # 0 if there are more speakers than places
    return chosen + list(islice((index for own in others.values() for index in own[:most]), left))


def fair_limit(sizes: Iterable[int], total: int) -> int:
    """Return the largest limit for each size with which the limited sizes sum up to at most `total`."""
    left = total
    ascending = sorted(sizes)
    for position, size in enumerate(ascending):
        limit = left // (len(ascending) - position)
        if size > limit:
            return limit
        left -= size
    return ascending[-1] if ascending else 0


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _without_tags(json: bytes) -> str:
    return json.decode().replace("<", "\\u003c")
