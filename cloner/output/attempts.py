"""Audio of attempts that failed a check: ``OUT/.cloner/BATCH_ID/attempts/SEGMENT.PIECE.NUMBER.flac``.

A file is there before the journal names it. Once its segment has a line in the record, that names the attempts which
another has replaced; what neither names is removed when the batch is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import soundfile

from cloner.audio import SAMPLE_RATE, Samples16
from cloner.audio_bytes import decode_audio, encode_audio, to_16_bits
from cloner.batch import AudioFormat
from cloner.output.atomic_file import FileAt, write_and_rename
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record, batch_folder

ATTEMPTS = "attempts"


def attempt_file(segment: int, piece: int, number: int) -> str:
    """The name of an attempt's file."""
    return f"{segment}.{piece}.{number}.flac"


class AttemptFiles:
    """The attempts of one batch that one worker writes and reads."""

    def __init__(self, outputs: OutputRoot, batch_id: str, worker: str) -> None:
        self._folder = batch_folder(outputs.root, batch_id).inner(ATTEMPTS)
        self._worker = worker

    def write(self, name: str, audio: Samples16) -> None:
        """Write a file as a whole or not at all; it may be written again. Raises `OSError`, `SoundFileError`."""
        data = encode_audio(audio, SAMPLE_RATE, AudioFormat.FLAC)
        with self._folder.opened(make=True) as folder:
            write_and_rename([data], FileAt(f"{name}.{self._worker}.part", folder), FileAt(name, folder))

    def read(self, name: str) -> Samples16 | None:
        """The samples of a file; None if it cannot be read, as after a loss of power."""
        try:
            return to_16_bits(decode_audio(self._folder.read(name), lambda _file: None))
        except (OSError, soundfile.SoundFileError):
            return None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; what cannot be removed stays until the batch is closed."""
        with suppress(OSError):
            for name in names:
                self._folder.remove(name)


def discard_unnamed_attempts(record: Record) -> None:
    """Remove the files of attempts that no line of the record names: their workers died, or they were kept. What cannot
    be removed stays. No chunk of the batch may run any more."""
    folder = record.folder.inner(ATTEMPTS)
    with suppress(OSError):
        if files := folder.files("*"):
            named = {attempt.file for line in record.results.values() for attempt in line.attempts}
            for name in files.keys() - named:
                folder.remove(name)
