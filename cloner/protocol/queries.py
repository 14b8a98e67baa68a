"""What clients ask the collector, which alone sees the output folder, and what it responds."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from cloner.batch import SpeechOptions
from cloner.errors import UsageError
from cloner.protocol.fields import BatchId, Index, Items
from cloner.protocol.messages import Manifest, Wire
from cloner.protocol.packing import Packed
from cloner.protocol.results import Line
from cloner.protocol.rows import SegmentRow
from cloner.validation import shown


def _check_keys(wanted: dict[str, Any]) -> dict[str, Any]:
    """Raise `ValueError` at the first key that is no text: pydantic would collect an error for each."""
    for key in wanted.values():
        if not isinstance(key, str):
            raise ValueError("a content key is no text")  # noqa: TRY004 - pydantic reports a ValueError
    return wanted


class FinishedRequest(Wire, Packed):
    """A client's request to the collector: which outputs exist already, since only the fleet sees them."""

    wanted: Annotated[dict[str, Any], AfterValidator(_check_keys)]
    """Output -> content key, a text."""


class FinishedResponse(Wire, Packed):
    """The collector's response, from the records; wanted outputs that are in neither list are missing."""

    finished: Items[str] = Field(default_factory=list)
    changed: Items[str] = Field(default_factory=list)
    """Outputs that were generated with another key."""
    earlier: Items[SpeechOptions] = Field(default_factory=list)
    """The options of earlier batches, the latest first."""
    error: Line = ""
    """Why the collector could not read the records, if it could not."""


class PartRequest(Wire, Packed):
    """A request for a part of a closed batch: the segments that failed, or some by index or output."""

    batch_id: BatchId
    failed: bool = False
    segments: Items[Index] = Field(default_factory=list)
    outputs: Items[str] = Field(default_factory=list)

    def choose(self, part: Callable[[Callable[[SegmentRow], bool]], Manifest], failed: Collection[int]) -> Manifest:
        """The part; `part` returns that with some segments, and `failed` are the indexes of those that failed.

        Raises `UsageError` if there is nothing of it, or not all that is asked for.
        """
        if self.failed:
            if not failed:
                raise UsageError(f"nothing of batch {self.batch_id} failed: there is nothing to retry")
            return part(lambda row: row.segment in failed)
        segments, outputs = set(self.segments), set(self.outputs)
        if not segments and not outputs:
            raise UsageError("name at least one segment that is to be generated again")
        found = part(lambda row: row.segment in segments or row.output in outputs)
        for speaker in found.speakers:
            for row in speaker.segments:
                segments.discard(row.segment)
                outputs.discard(row.output)
        unknown = [*map(str, sorted(segments)), *map(shown, sorted(outputs))]
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UsageError(
                f"batch {self.batch_id} has no segment {unknown[0]}{more}: its segments are listed in manifest.csv"
                " beside its record"
            )
        return found


class PartResponse(Wire, Packed):
    """The collector's response: the part, whose references are in Redis then, or why there is none."""

    part: Manifest | None = None
    refused: Line = ""
    """Why the request makes no sense."""
    error: Line = ""
    """Why the collector could not look."""
