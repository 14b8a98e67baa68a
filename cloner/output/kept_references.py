"""References as workers get them, kept under their content hash when a batch is opened, for all batches.

``OUT/.cloner/references/<hash>.npy`` has codes, and ``<hash>.flac`` a recording. Folders in there have the codes of
recordings, by codec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from cloner.audio import Codes
from cloner.batch import ReferenceKind
from cloner.output.atomic_file import FileAt, write_and_rename
from cloner.output.flush import flush_file_system
from cloner.output.own_folder import OwnFolder
from cloner.protocol.messages import ReferenceRow, SpeakerRow
from cloner.protocol.references import codes_from_bytes, lost_references, reference_key
from cloner.validation import HOUSEKEEPING

REFERENCES = "references"

TOGETHER = 100
"""Codes of a few KB each that are read at once: a batch may have 100,000, and the collector may be far from Redis. A
recording has up to 3 MB."""

_SUFFIXES = {ReferenceKind.CODES: ".npy", ReferenceKind.AUDIO: ".flac"}


class KeptReferences:
    """The references under an output root. Methods raise `OSError`."""

    def __init__(self, root: Path) -> None:
        self._folder = OwnFolder(root, REFERENCES)

    def keep(self, references: Iterable[ReferenceRow], read: Callable[[Sequence[str]], Mapping[str, bytes]]) -> None:
        """Keep those that are not there yet, or not as they were kept; `read` returns the bytes of some references by
        their hashes, without those that are gone.

        They are on the disk then.
        """
        missing = [row for row in {row.digest: row for row in references}.values() if self.read(row) is None]
        with self._folder.opened(make=True) as folder:
            for group in _groups(missing):
                found = read([row.digest for row in group])
                for name, data in ((_name(row), found.get(row.digest)) for row in group):
                    if data:
                        # Another collector that opens a batch with the same voice, on any box, has a file of its own.
                        write_and_rename([data], FileAt(f"{name}-{uuid4().hex}.part", folder), FileAt(name, folder))
        if missing:
            flush_file_system(self._folder.path)

    def read(self, reference: ReferenceRow) -> bytes | None:
        """A reference's bytes; None if it is not there as it was kept."""
        try:
            data = self._folder.read(_name(reference))
        except FileNotFoundError:
            return None
        return data if reference_key(reference.kind, data) == reference.digest else None

    def restore(self, speakers: Iterable[SpeakerRow], put: Callable[[str, bytes], object]) -> None:
        """Give `put` the references of some speakers, by hash. Raises `UsageError` if one is not there."""
        lost = []
        for speaker in speakers:
            if data := self.read(speaker.reference):
                put(speaker.reference.digest, data)
            else:
                lost.append(speaker.id)
        if lost:
            raise lost_references(lost, f"are not in {self._folder.path} (any more)")


def codes_of_recording(root: Path, codec: str, digest: str) -> Codes | None:
    """The codes ``[codebooks, frames]`` of a recording that a worker has kept, by its digest; None if there are none.

    Raises `OSError`, and `BadReference` if they are damaged.
    """
    try:
        data = OwnFolder(root, REFERENCES, codec).read(codes_name(digest))
    except FileNotFoundError:
        return None
    return codes_from_bytes(data)


def codes_name(digest: str) -> str:
    """Name of the file with the codes of a recording."""
    return f"{digest}.npy"


def recording_path(reference: ReferenceRow) -> str:
    """Where a reference's recording is kept, relative to the output root; empty if it has none but codes."""
    return f"{HOUSEKEEPING}/{REFERENCES}/{_name(reference)}" if reference.kind is ReferenceKind.AUDIO else ""


def _groups(references: Sequence[ReferenceRow]) -> Iterator[Sequence[ReferenceRow]]:
    """The references in groups that are read at once: `TOGETHER` that are codes, and each recording alone."""
    codes = [row for row in references if row.kind is ReferenceKind.CODES]
    yield from (codes[start : start + TOGETHER] for start in range(0, len(codes), TOGETHER))
    yield from ([row] for row in references if row.kind is ReferenceKind.AUDIO)


def _name(reference: ReferenceRow) -> str:
    return reference.digest + _SUFFIXES[reference.kind]
