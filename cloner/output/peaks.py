"""The peaks of a batch's audio files, by the files' digests: what a report draws, without reading the audio.

``OUT/.cloner/BATCH_ID/<worker>.peaks`` is appended to by one worker only. Its entries have one size: a digest of 16
bytes, then 100 peaks. They are of use to reports alone, so the record's lines, which a collector keeps in memory, stay
without them; and a file without an entry, as after a crash, is read for its report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import soundfile

from cloner.audio_bytes import BLOCK_SAMPLES
from cloner.errors import SegmentFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.audio_peaks import PEAKS, PeakMeter
from cloner.output.own_folder import OwnFolder, open_file
from cloner.output.record import batch_folder
from cloner.protocol.fields import is_batch_id

DIGEST_BYTES = 16
ENTRY_BYTES = DIGEST_BYTES + PEAKS

READ_ENTRIES = 10_000
"""Entries that are read at once: 1.2 MB."""


class PeaksWriter:
    """Appends to this worker's file of a batch's peaks. Peaks that cannot be written are missing, and no more: the
    first error is logged."""

    def __init__(self, folder: OwnFolder, worker: str) -> None:
        self._folder = folder
        self._name = f"{worker}.peaks"
        self._file: int | None = None
        self._has_failed = False

    def append(self, digest: str, peaks: bytes) -> None:
        """Add the peaks of the file with this digest."""
        entry = bytes.fromhex(digest) + peaks
        try:
            if self._file is None:
                self._file = _open_to_append(self._folder, self._name)
            is_whole = os.write(self._file, entry) == len(entry)
        except OSError as error:
            self._log(error)
            is_whole = False
        if not is_whole:  # as on a full disk: what was written of it is cut off when the file is opened again
            self.close()

    def close(self) -> None:
        """Close the file, if it is open."""
        file, self._file = self._file, None
        try:
            if file is not None:
                os.close(file)
        except OSError as error:
            self._log(error)

    def _log(self, error: OSError) -> None:
        if not self._has_failed:
            log_event(Event.PEAKS_UNUSABLE, path=self._folder.path / self._name, error=error)
        self._has_failed = True


def _open_to_append(folder: OwnFolder, name: str) -> int:
    """A descriptor of the file, which is made if needed. An entry that a crash left incomplete is cut off."""
    file = folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(file).st_size
        if size % ENTRY_BYTES:
            os.ftruncate(file, size - size % ENTRY_BYTES)
    except OSError:
        os.close(file)
        raise
    return file


def find_peaks(root: Path, batch_id: str, own: Iterable[str], others: Iterable[str]) -> dict[str, bytes]:
    """The peaks of the files with these digests, as far as they are kept: `own` are looked for in the batch's folder
    alone, and `others`, as of what it has reused, then in those of other batches, the latest first.

    A million entries take about half a second. Folders that cannot be read are logged and skipped.
    """
    elsewhere = _as_bytes(others)
    missing = _as_bytes(own) | elsewhere
    found: dict[str, bytes] = {}
    for folder in _folders(root, batch_id):
        try:
            for name in folder.files("*.peaks"):
                for digest, peaks in _entries(folder.blocks(name, READ_ENTRIES * ENTRY_BYTES)):
                    if digest in missing:
                        missing.discard(digest)
                        found[digest.hex()] = peaks
        except OSError as error:
            log_event(Event.PEAKS_UNUSABLE, path=folder.path, error=error)
        missing &= elsewhere
        if not missing:
            break
    return found


def _as_bytes(digests: Iterable[str]) -> set[bytes]:
    return {bytes.fromhex(digest) for digest in digests if re.fullmatch("[0-9a-f]{32}", digest)}


def _folders(root: Path, batch_id: str) -> Iterator[OwnFolder]:
    own = batch_folder(root, batch_id)
    yield own
    others = OwnFolder(root).inner_folders()
    yield from (folder for folder in reversed(others) if is_batch_id(folder.path.name) and folder.path != own.path)


def _entries(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for block in blocks:
        for start in range(0, len(block) - ENTRY_BYTES + 1, ENTRY_BYTES):
            peaks_at = start + DIGEST_BYTES
            yield block[start:peaks_at], block[peaks_at : start + ENTRY_BYTES]


class PeaksReader:
    """Reads audio files for their peaks, so many files and seconds of audio at most in all; others have none."""

    def __init__(self, outputs: OutputRoot, files: int, seconds: float) -> None:
        self._outputs = outputs
        self._left_files = files
        self._left_s = seconds

    def read(self, path: str) -> bytes:
        """The peaks of an audio file, relative to the output root; empty if it is not there, or no audio of ours."""
        if not self._left_files or not self._outputs.is_taken(path):
            return b""
        self._left_files -= 1
        try:
            with self._outputs.opened_parent(path) as folder:
                file = open_file(folder, PurePosixPath(path).name, os.O_RDONLY)
            try:
                return self._read(file)
            finally:
                os.close(file)
        except (OSError, SegmentFailed, soundfile.SoundFileError) as error:
            log_event(Event.PEAKS_UNUSABLE, path=path, error=error)
            return b""

    def _read(self, file: int) -> bytes:
        with soundfile.SoundFile(file, closefd=False) as sound:
            seconds = sound.frames / sound.samplerate
            if sound.channels != 1 or seconds > self._left_s:
                return b""
            self._left_s -= seconds
            meter = PeakMeter(sound.frames)
            for block in sound.blocks(BLOCK_SAMPLES, dtype="float32"):
                meter.add(block)
            return meter.peaks()
