"""The take of a segment that a batch has kept, with all that it was generated from, as it lies on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cloner.audio import format_of
from cloner.batch import AudioFormat, SpeechOptions
from cloner.errors import NotReproduced, SegmentFailed, UnknownBatch, UsageError
from cloner.output.audio_files import OutputRoot, content_digest
from cloner.output.environments import Environment, environment_at
from cloner.output.kept_batch import KeptBatch
from cloner.output.own_folder import OwnFolder
from cloner.output.record import Record, batch_folder, translate_disk_errors
from cloner.output.takes import Takes, replaced_path
from cloner.output.verify import choose_by_files
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest, SpeakerRow
from cloner.protocol.results import SegmentResult
from cloner.protocol.rows import SegmentRow
from cloner.validation import shown


@dataclass(frozen=True)
class KeptTake:
    """A segment's line in the record of a batch, and what the batch says of the segment."""

    batch: Manifest
    """Without speakers."""
    speaker: SpeakerRow
    row: SegmentRow
    line: SegmentResult
    environment: Environment | None
    """What it was generated with; None if that was not noted, as by version 0.1."""

    def __str__(self) -> str:
        return f"segment {self.line.segment} of batch {self.batch.batch_id}"

    @property
    def text(self) -> str:
        return self.row.text

    @property
    def seed(self) -> int:
        """That of the first attempt at the take."""
        return self.line.seed if self.line.take > 1 else self.row.seed

    @property
    def seeds(self) -> dict[int, int]:
        """The seeds of the attempts that were kept, by the place of the piece, where that was not the first."""
        return {attempt.piece: attempt.seed for attempt in self.line.attempts if attempt.kept}

    @property
    def is_of_16_bits(self) -> bool:
        """Whether it is an attempt that failed a check: it was kept as samples of 16 bits before it was written."""
        return any(attempt.kept and attempt.failed for attempt in self.line.attempts)

    def check_options(self) -> None:
        """Raise `NotReproduced` if it was not generated from what the batch says: text, seed, reference, options; or if
        its file's format is unknown."""
        engine, fingerprint = self.batch.engine, self.batch.fingerprint
        if self.environment:
            engine, fingerprint = self.environment.engine, self.environment.fingerprint
        options = SpeechOptions(
            generation=self.batch.generation, audio=self.batch.audio, engine=engine, fingerprint=fingerprint
        )
        try:
            format_of(self.line.output)
            key = ContentKeys(options).of(self.speaker, self.row)
        except ValueError as error:
            raise NotReproduced(
                f"{self} cannot be reproduced: its file {self.line.output} has the ending of no format that this"
                f" version writes ({', '.join(AudioFormat)})"
            ) from error
        if key != self.line.key:
            raise NotReproduced(
                f"{self} cannot be reproduced: its content key is of"
                " another text, reference, option of speech, engine or checkpoint than those kept of its batch"
            )


def find_kept_take(root: Path, batch_id: str, segment: int | str) -> KeptTake:
    """The take that is kept of a segment, which is named by its index or its output.

    Raises `UnknownBatch`, `UsageError`, `Damaged`, `RecordFailed`.
    """
    folder = batch_folder(root, batch_id)
    kept = KeptBatch(folder)
    with translate_disk_errors(folder.path):
        try:
            batch = kept.head()
            found = next((found for found in kept.segments() if segment in {found.row.segment, found.row.output}), None)
        except FileNotFoundError:
            raise UnknownBatch(
                f"no batch {batch_id} is kept under {root}: `cloner list --out {root}` lists those that are"
            ) from None
    if found is None:
        raise UsageError(f"batch {batch_id} has no segment {shown(segment)}: its segments are listed in manifest.csv")
    index = found.row.segment
    record = Record(root, batch_id)
    record.refresh()
    outputs = OutputRoot(root)
    choose_by_files(record, outputs)
    line = record.results.get(index)
    if line is None or not line.generated:
        why = f"failed ({line.message})" if line else "has not been generated"
        raise UsageError(f"segment {index} of batch {batch_id} {why}: there is nothing to reproduce")
    with translate_disk_errors(folder.path):
        environment = environment_at(outputs, line.worker, line.mtime_ns)
    return KeptTake(batch, found.speaker, found.row, line, environment)


def bytes_of(take: KeptTake, outputs: OutputRoot) -> tuple[str, bytes] | None:
    """The take's file, relative to the output root, and its bytes; None if it is nowhere as it was written.

    A take that was replaced since lies among the takes of the batch that did it.
    """
    for path in _paths(take.line, outputs):
        try:
            if not outputs.has_result(replace(take.line, output=path)):
                continue
            data = b"".join(outputs.blocks(path, 2**20))
        except (OSError, SegmentFailed):
            continue
        # Where size and time are those of the line, a disk may still have lost what was written.
        if take.line.digest in {"", content_digest(data)}:
            return path, data
    return None


def _paths(line: SegmentResult, outputs: OutputRoot) -> Iterator[str]:
    yield line.output
    for folder in OwnFolder(outputs.root).inner_folders():
        batch_id = folder.path.name
        yield replaced_path(batch_id, line.output, line.key, line.digest)
        yield Takes(outputs, batch_id).path(line)
