"""The segments of a chunk that are still to be generated, and the requests that the engine draws for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloner.batch import Generation
from cloner.engine.base import SpeechRequest, Voice
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.output.verify import line_of_file
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ChunkMessage, ReferenceRow, SpeakerSegments
from cloner.protocol.results import SegmentResult
from cloner.protocol.rows import TakeRow


@dataclass(frozen=True, slots=True)
class PendingSegment:
    """A segment that the record does not have."""

    index: int
    text: str
    output: str
    """Audio file, relative to the output root."""
    seed: int
    key: str
    """Content key."""
    speaker: SpeakerSegments
    """Its speaker, with all of that speaker's segments in the chunk."""
    take: int = 1
    """The take's number; `seed` is that of a take, and the content key is the segment's own."""
    replaces: str = ""
    """The digest of the audio file of the take before it, which is kept."""


def split_by_record(
    message: ChunkMessage, record: Record, outputs: OutputRoot, keys: ContentKeys
) -> tuple[list[SegmentResult], dict[int, PendingSegment]]:
    """The chunk's finished segments, and its pending ones by segment index, in the order of the message.

    A failed segment is finished. A generated one is, if its content key is the same, its file is as it was written, and
    that is not the file which the message's take replaces.
    """
    finished: list[SegmentResult] = []
    pending: dict[int, PendingSegment] = {}
    takes = {take.segment: take for take in message.takes}
    for speaker in message.slices:
        for row in speaker.segments:
            index = row.segment
            key = keys.of(speaker, row)
            known = record.results.get(index)
            if known and known.generated:
                known = line_of_file(record, index, outputs)
            take = takes.get(index, TakeRow(index, 1, row.seed, ""))
            is_rejected = known and take.replaces and known.digest == take.replaces and known.take < take.number
            if known and known.key == key and not is_rejected:
                finished.append(known)
            else:
                pending[index] = PendingSegment(
                    index, row.text, row.output, take.seed, key, speaker, take.number, take.replaces
                )
    return finished, pending


def by_speaker(segments: Iterable[int], pending: Mapping[int, PendingSegment]) -> list[list[PendingSegment]]:
    """The segments that are pending, grouped by speaker, in the order of `pending`."""
    wanted = set(segments)
    groups: dict[str, list[PendingSegment]] = {}
    for segment in pending.values():
        if segment.index in wanted:
            groups.setdefault(segment.speaker.id, []).append(segment)
    return list(groups.values())


def speech_requests(
    groups: Iterable[Iterable[PendingSegment]],
    generation: Generation,
    voice_of: Callable[[ReferenceRow], Voice],
    stopped: Callable[[], bool],
) -> Iterator[SpeechRequest]:
    """The requests for segments grouped by speaker; ends early once `stopped` is true.

    An engine may draw them one by one or all at once. A speaker's voice is made when its first request is drawn.
    """
    for group in groups:
        voice: Voice | None = None
        for segment in group:
            if stopped():
                return
            voice = voice or voice_of(segment.speaker.reference)
            language = segment.speaker.language_of(segment.index)
            yield SpeechRequest(segment.index, segment.text, voice, generation, segment.seed, language=language)
