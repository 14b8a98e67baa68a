"""The audio that a segment's audio is compared with: the takes that `cloner redo` has replaced, and other attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from cloner.errors import RecordFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.attempts import ATTEMPTS
from cloner.output.audio_files import OutputRoot
from cloner.output.own_folder import OwnFolder
from cloner.output.redo import REDO, NotedTake, noted_takes
from cloner.output.reviews import TakeReview
from cloner.output.takes import replaced_path
from cloner.protocol.fields import is_batch_id
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING


@dataclass(frozen=True)
class EarlierTake:
    """A file that a later take has replaced."""

    number: int
    path: str
    """Relative to the output root."""
    digest: str


class _Noted(NamedTuple):
    batch_id: str
    take: NotedTake


def earlier_takes(
    outputs: OutputRoot, batch_id: str, lines: Iterable[SegmentResult]
) -> dict[int, tuple[list[EarlierTake], int]]:
    """Segment -> the takes of it that were replaced and are kept, in their order, and the number of the present one.

    `lines` are those of a batch's record. Segments that were never redone are left out. Redos whose notes cannot be
    read are logged and skipped.
    """
    wanted = {line.output: line for line in lines}
    noted: defaultdict[tuple[str, str], list[_Noted]] = defaultdict(list)
    for folder in OwnFolder(outputs.root).inner_folders():
        for take in _notes(outputs, folder):
            if take.output in wanted:
                noted[take.output, take.key].append(_Noted(folder.path.name, take))
    found = {}
    for (output, _), group in noted.items():
        line = wanted[output]
        # Another version of the batch may have given the same output another text: its takes have another content key.
        if not any(note.batch_id == batch_id or note.take.row.replaces == line.digest for note in group):
            continue
        earlier: list[EarlierTake] = []
        present = 1
        for note in sorted(group, key=lambda note: note.take.row.number):
            digest = note.take.row.replaces
            path = replaced_path(note.batch_id, output, note.take.key, digest)
            if note.take.round and (note.batch_id == batch_id or any(take.path == path for take in earlier)):
                continue  # `rejected_takes` has it, or it was given its name again meanwhile
            if digest and outputs.is_taken(path):  # else that redo has failed
                earlier.append(EarlierTake(present, path, digest))
                present = note.take.row.number
        if earlier:
            found[line.segment] = earlier, present
    return found


def rejected_takes(
    outputs: OutputRoot, batch_id: str, lines: Mapping[int, SegmentResult], reviews: Iterable[TakeReview]
) -> dict[int, list[tuple[str, EarlierTake]]]:
    """Segment -> the takes that its review has rejected and that are kept, each with its label; the others are left
    out."""
    others = [review for review in reviews if (line := lines.get(review.segment)) and review.digest != line.digest]
    found: defaultdict[int, list[tuple[str, EarlierTake]]] = defaultdict(list)
    folder = OwnFolder(outputs.root, batch_id)
    keys = {note.row.segment: note.key for note in _notes(outputs, folder) if note.round} if others else {}
    for review in others:
        if key := keys.get(review.segment):
            path = replaced_path(batch_id, lines[review.segment].output, key, review.digest)
            if outputs.is_taken(path):
                failed = f": {', '.join(map(readable, review.failed))}" if review.failed else ""
                take = EarlierTake(review.take, path, review.digest)
                found[review.segment].append((f"take {review.take}{failed}", take))
    return found


def _notes(outputs: OutputRoot, folder: OwnFolder) -> Iterator[NotedTake]:
    try:
        if is_batch_id(folder.path.name) and folder.files(REDO):
            yield from noted_takes(outputs, folder.path.name)
    except (OSError, RecordFailed) as error:
        log_event(Event.REDO_UNREADABLE, path=folder.path, error=error)


def other_attempts(outputs: OutputRoot, batch_id: str, line: SegmentResult) -> Iterator[tuple[str, str]]:
    """The attempts of a segment that were not kept, and whose files are there: (label, path)."""
    pieces = len({attempt.piece for attempt in line.attempts})
    for attempt in line.attempts:
        # The name is of a file: a line that other programs have written may have more.
        if attempt.kept or not attempt.file or PurePosixPath(attempt.file).name != attempt.file:
            continue
        path = f"{HOUSEKEEPING}/{batch_id}/{ATTEMPTS}/{attempt.file}"
        if outputs.is_taken(path):
            piece = f"piece {attempt.piece + 1}, " if pieces > 1 else ""
            failed = f": {', '.join(map(readable, attempt.failed))}" if attempt.failed else ""
            yield f"{piece}attempt {attempt.number}{failed}", path


def readable(check: str) -> str:
    """The name of a check as words."""
    return check.replace("_", " ")
