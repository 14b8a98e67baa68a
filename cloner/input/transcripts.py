"""Transcripts that lie beside their recordings, or codes, with the same name; missing ones may be recognised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloner.batch import ReferenceKind
from cloner.errors import BadReference, one_line, printable
from cloner.events import Event
from cloner.input.reference_files import outside, read_recording, read_transcript
from cloner.logs import log_event
from cloner.output.atomic_file import FileAt, write_new
from cloner.recogniser.whisper import Recogniser
from cloner.validation import prose_flaw

ENDINGS = (".lab", ".txt")
"""A transcript's ending; the first is preferred."""


class Transcripts:
    """Finds and reads the transcripts of a batch's references, and writes those that recordings lack."""

    def __init__(self, roots: Sequence[Path], batch: Path | None = None, recogniser: Recogniser | None = None) -> None:
        """They must lie, links followed, in one of the `roots` or beside their recording. `batch` is none.

        Without a `recogniser`, none are written.
        """
        self._roots = roots
        self._batch = batch
        self._recogniser = recogniser
        self._unheard: dict[Path, str] = {}
        """Recordings in which nothing was recognised, with a sentence each."""

    def find(self, kind: ReferenceKind, path: Path) -> str | None:
        """The transcript of the recording, or the codes, at `path`; None if it is missing, and can be recognised.

        Raises `BadReference`.
        """
        found = self._beside(path)
        if found is None:
            beside = _names(path)
            if self._recogniser is None or kind is not ReferenceKind.AUDIO:
                names = " nor ".join(file.name for file in beside)
                raise BadReference(f"{str(path)!r} has no transcript: neither {names} is beside it")
            # None is written outside of the roots, unless the command names this recording.
            own = [path.parent] if path in self._roots else []
            if flaw := outside(beside[0], (*self._roots, *own)):
                raise BadReference(flaw)
            return None
        if flaw := outside(found, (*self._roots, path.parent)):
            raise BadReference(flaw)
        return read_transcript(found)

    def is_missing(self, path: Path) -> bool:
        """Whether no transcript is beside the recording at `path`."""
        return self._beside(path) is None

    def _beside(self, path: Path) -> Path | None:
        return next((file for file in _names(path) if _exists(file) and file != self._batch), None)

    def recognise(self, kind: ReferenceKind, path: Path) -> str:
        """The same, but a missing one is written first. Raises also what `Recogniser.hear` raises."""
        text = self.find(kind, path)
        if text is None and self._recogniser:
            self._write(path, path.with_suffix(ENDINGS[0]), self._recogniser)
            text = self.find(kind, path)
        if text is None:
            raise BadReference(f"{str(path)!r} has no transcript, and the one that was recognised is gone")
        return text

    def _write(self, path: Path, transcript: Path, recogniser: Recogniser) -> None:
        """Write what is said in what is used of the recording at `path`, and log it, so that it can be corrected.

        No file is replaced.
        """
        if flaw := self._unheard.get(path):  # many speakers may name it
            raise BadReference(flaw)
        recording = read_recording(path)
        heard = recogniser.hear(recording.samples, recording.rate)
        if not heard.text or prose_flaw(heard.text):
            self._unheard[path] = f"{str(path)!r} has no transcript, and no speech is recognised in it"
            raise BadReference(self._unheard[path])
        part = transcript.with_name(f".{transcript.name}.part")
        try:
            write_new([f"{heard.text}\n".encode()], FileAt(part), FileAt(transcript), may_replace=lambda: False)
        except OSError as error:
            what = f"{transcript.name}, which would have what is recognised in it, cannot be written"
            raise BadReference(f"{str(path)!r} has no transcript: {what} ({error.strerror})") from error
        log_event(
            Event.TRANSCRIPT_WRITTEN,
            recording=one_line(printable(path)),
            language=heard.language,
            certainty=heard.certainty,
            text=one_line(heard.text),
            transcript=one_line(printable(transcript)),
        )


def _names(path: Path) -> list[Path]:
    """The files that may have the transcript of the recording at `path`."""
    return [path.with_suffix(ending) for ending in ENDINGS]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name may be longer than the recording's, and too long
        return False
