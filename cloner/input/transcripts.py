"""Transcripts that lie beside their recordings, or codes, with the same name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloner.errors import BadReference
from cloner.input.reference_files import outside, read_transcript

ENDINGS = (".lab", ".txt")
"""A transcript's ending; the first is preferred."""


class Transcripts:
    """Finds and reads the transcripts of a batch's references."""

    def __init__(self, roots: Sequence[Path], batch: Path | None = None) -> None:
        """They must lie, links followed, in one of the `roots` or beside their recording. `batch` is none."""
        self._roots = roots
        self._batch = batch

    def find(self, path: Path) -> str:
        """The transcript of the recording, or the codes, at `path`. Raises `BadReference`."""
        beside = [path.with_suffix(ending) for ending in ENDINGS]
        found = next((file for file in beside if _exists(file) and file != self._batch), None)
        if found is None:
            names = " nor ".join(file.name for file in beside)
            raise BadReference(f"{str(path)!r} has no transcript: neither {names} is beside it")
        if flaw := outside(found, (*self._roots, path.parent)):
            raise BadReference(flaw)
        return read_transcript(found)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name may be longer than the recording's, and too long
        return False
