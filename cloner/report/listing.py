"""What a report lists, gathered from a batch's result and record and from what is kept beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cloner.errors import Damaged, RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.kept_batch import KeptBatch
from cloner.output.kept_references import recording_path
from cloner.output.peaks import PeaksReader, find_peaks
from cloner.output.record import batch_folder
from cloner.output.reviews import Reviewed, Reviews, TakeReview, larger_suspicion
from cloner.protocol.results import BatchResult, SegmentResult
from cloner.report.rows import CANCELLED, ListedSpeaker, Listing, OtherAudio, Row, choose_segments
from cloner.report.takes import EarlierTake, earlier_takes, other_attempts, readable, rejected_takes

MAX_TEXT = 1_000
"""Characters of a text that are shown."""

MAX_READ_FILES = 2_000
MAX_READ_S = 3_600.0
"""The most files, and seconds of their audio, that are read for peaks which were not kept."""


def read_listing(outputs: OutputRoot, result: BatchResult, lines: Mapping[int, SegmentResult]) -> Listing:
    """The listing of a batch; `lines` are its record's, by segment. What cannot be read is missing: the listing or the
    log says so."""
    all_reviews = _read_reviews(outputs, result.batch_id)
    reviews = _present(all_reviews, lines)
    unheard = _rejected_before(all_reviews, lines)
    chosen = choose_segments(result, lines, {**reviews, **unheard})
    kept = _read_kept(outputs, result.batch_id, set(chosen))
    generated = [lines[index] for index in chosen if index in result.results]
    takes = earlier_takes(outputs, result.batch_id, generated)
    rejected = rejected_takes(
        outputs, result.batch_id, {line.segment: line for line in generated}, all_reviews.takes.values()
    )
    others = [take for earlier, _ in takes.values() for take in earlier]
    others += [take for group in rejected.values() for _, take in group]
    peaks = _Peaks(outputs, result.batch_id, generated, others)
    names = dict.fromkeys(
        lines[index].speaker if index in result.results else result.errors[index].speaker for index in sorted(chosen)
    )
    speakers = {name: number for number, name in enumerate(names)}
    rows = []
    for index in chosen:
        text, segment_id = kept.texts.get(index, ("", ""))
        if index in result.results:
            line = lines[index]
            row = Row(index, speakers[line.speaker], text, result.results[index], segment_id)
            _add_audio(row, line, takes.get(index), peaks, reviews.get(index), unheard.get(index))
            row.others = [
                *row.others,
                *(
                    OtherAudio(label, take.path, peaks.of(take.path, take.digest))
                    for label, take in rejected.get(index, ())
                ),
                *_attempts(outputs, result.batch_id, line, peaks),
            ]
        else:
            error = result.errors[index]
            row = Row(index, speakers[error.speaker], text, error.output, segment_id, error=error.message[:MAX_TEXT])
        rows.append(row)
    rows.sort(key=lambda row: row.index)
    return Listing(
        rows=rows,
        speakers=[_speaker(outputs, kept, name) for name in speakers],
        total=len(result.results) + sum(error.code != CANCELLED for error in result.errors.values()),
        is_judged=bool(reviews) or any(line.suspicion for line in generated),
        problem=kept.problem,
    )


def _read_reviews(outputs: OutputRoot, batch_id: str) -> Reviews:
    reviews = Reviews(outputs.root, batch_id)
    try:
        reviews.refresh()
    except RecordFailed as error:
        log_event(Event.REVIEWS_UNREADABLE, error=error.message)
    return reviews


def _present(reviews: Reviews, lines: Mapping[int, SegmentResult]) -> dict[int, TakeReview]:
    """Segment -> the review of the take that its line tells of; those that were not reviewed are left out."""
    if not reviews.takes:
        return {}
    found = ((line, reviews.takes.get(Reviewed(line.segment, line.digest))) for line in lines.values())
    return {line.segment: review for line, review in found if review and not review.error}


def _rejected_before(reviews: Reviews, lines: Mapping[int, SegmentResult]) -> dict[int, TakeReview]:
    """Segment -> the review that the take before failed, of those whose present take was not heard."""
    found = ((segment, lines.get(segment)) for segment in reviews.rejected)
    rejected = ((segment, reviews.rejected_before(Reviewed(segment, line.digest))) for segment, line in found if line)
    return {segment: review for segment, review in rejected if review}


def _add_audio(  # noqa: PLR0913, PLR0917 - what is known, each from its own source
    row: Row,
    line: SegmentResult,
    takes: tuple[list[EarlierTake], int] | None,
    peaks: _Peaks,
    review: TakeReview | None,
    rejected: TakeReview | None,
) -> None:
    """Add what is known of a segment's audio, and its earlier takes. `rejected` is the review of the take before, where
    the present one was not heard."""
    earlier, row.take = takes or ([], line.take if line.take > 1 else 0)
    row.others = [OtherAudio(f"take {take.number}", take.path, peaks.of(take.path, take.digest)) for take in earlier]
    if line.digest in {take.digest for take in earlier}:
        # A later redo has replaced what the line tells of.
        row.peaks = peaks.of(row.output)
        return
    if review and review.take < row.take == line.take:
        row.take_before = review.take
    row.seconds, row.suspicion = line.audio_s, larger_suspicion(line, review or rejected)
    row.failed = [readable(check) for check in [*line.failed_checks, *(review.failed if review else ())]]
    row.only_beginning = review is not None and review.words == "beginning"
    row.failed_before = [readable(check) for check in rejected.failed] if rejected else ()
    row.peaks = peaks.of(row.output, line.digest)


def _attempts(outputs: OutputRoot, batch_id: str, line: SegmentResult, peaks: _Peaks) -> Iterator[OtherAudio]:
    for label, path in other_attempts(outputs, batch_id, line):
        yield OtherAudio(label, path, peaks.of(path))


class _Peaks:
    """Peaks as they were kept, else of the files themselves, as far as those may be read."""

    def __init__(
        self, outputs: OutputRoot, batch_id: str, lines: Sequence[SegmentResult], takes: Sequence[EarlierTake]
    ) -> None:
        own = (line.digest for line in lines)
        others = [*(line.digest for line in lines if line.reused), *(take.digest for take in takes)]
        self._kept = find_peaks(outputs.root, batch_id, own, others)
        self._reader = PeaksReader(outputs, MAX_READ_FILES, MAX_READ_S)

    def of(self, path: str, digest: str = "") -> bytes:
        """The peaks of a file; empty if they are not known."""
        return self._kept.get(digest) or self._reader.read(path)


@dataclass
class _Kept:
    """What the batch that is kept beside the record says."""

    texts: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Segment -> its text and its id, of those that are listed."""
    recordings: dict[str, str] = field(default_factory=dict)
    """Speaker -> the reference's recording, relative to the output root."""
    transcripts: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def _read_kept(outputs: OutputRoot, batch_id: str, chosen: Collection[int]) -> _Kept:
    kept = _Kept()
    try:
        for speaker, row, segment_id in KeptBatch(batch_folder(outputs.root, batch_id)).segments():
            if row.segment in chosen:
                kept.texts[row.segment] = _shortened(row.text), segment_id or ""
                if speaker.id not in kept.recordings:
                    kept.recordings[speaker.id] = recording_path(speaker.reference)
                    kept.transcripts[speaker.id] = _shortened(speaker.reference.text)
    except Damaged as error:
        kept.problem = error.message
    except FileNotFoundError:
        kept.problem = "the batch was not kept beside its record"
    except OSError as error:
        kept.problem = f"the batch that is kept beside its record cannot be read ({error.strerror})"
    return kept


def _speaker(outputs: OutputRoot, kept: _Kept, name: str) -> ListedSpeaker:
    recording = kept.recordings.get(name, "")
    is_there = bool(recording) and outputs.is_taken(recording)
    return ListedSpeaker(name, recording if is_there else "", kept.transcripts.get(name, ""))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
