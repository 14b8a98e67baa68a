"""Writing audio where it belongs: under the output root, whole or not at all."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cloner.errors import SegmentFailed
from cloner.record import HOUSEKEEPING
from cloner.results import SegmentResult


class OutputRoot:
    """The folder that outputs are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._known: set[Path] = set()
        self._part = self.root / HOUSEKEEPING / f"part-{uuid.uuid4().hex}"

    def write_audio(self, output: str, audio: NDArray[np.float32], sample_rate: int) -> int:
        """Write mono samples ``[samples]`` in -1..1 as 16-bit audio; returns the file's size in bytes.

        Raises `SegmentFailed` (code "output") where the file cannot be written. The file appears under its name only
        when it is whole: it is written beside, under a name that no output has, and renamed.
        """
        path = self.root / output
        try:
            folder = self._folder(path)
            whole = folder / path.name
            # Encoded first: where a disk is full, libsndfile says so by an assertion of its own.
            data = io.BytesIO()
            soundfile.write(data, audio, sample_rate, format=path.suffix[1:].upper())
            size = self._part.write_bytes(data.getbuffer())
            self._part.replace(whole)
        except (OSError, soundfile.LibsndfileError) as error:
            raise SegmentFailed(f"{output} cannot be written under {self.root}: {error}", code="output") from error
        return size

    def has(self, output: str, size: int) -> bool:
        """Whether the file is there, as long as it was when it was written."""
        try:
            return (self.root / output).stat().st_size == size
        except OSError:
            return False

    def has_result(self, result: SegmentResult) -> bool:
        """Whether the file that a line of the record tells of is there, unchanged."""
        return self.has(result.output, result.size)

    def _folder(self, path: Path) -> Path:
        """The real folder of `path`, made if needed. Outside the root it is refused: links are followed first."""
        folder = path.parent
        if folder not in self._known:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._known:
                self._part.parent.mkdir(exist_ok=True)
            if not folder.resolve().is_relative_to(self.root):
                raise SegmentFailed(f"{path} leads out of the output folder {self.root}", code="output")
            self._known.add(folder)
        return folder
