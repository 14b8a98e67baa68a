"""Writing audio where it belongs: under the output root, whole or not at all."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os.path import realpath
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cloner.errors import SegmentFailed
from cloner.filenames import HOUSEKEEPING
from cloner.results import SegmentResult


class OutputRoot:
    """The folder that outputs are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / HOUSEKEEPING
        self._part = f"part-{uuid.uuid4().hex}"

    def write_audio(self, output: str, audio: NDArray[np.float32], sample_rate: int) -> int:
        """Write mono samples ``[samples]`` in -1..1 as 16-bit audio; returns the file's size in bytes.

        Raises `SegmentFailed` (code "output") where the file cannot be written. The file appears under its name only
        when it is whole: it is written beside, under a name that no output has, and renamed.
        """
        path = self.root / output
        try:
            # Encoded first: where a disk is full, libsndfile says so by an assertion of its own.
            data = io.BytesIO()
            soundfile.write(data, audio, sample_rate, format=path.suffix[1:].upper())
            with self._opened(path.parent) as folder, self._opened(self._parts) as parts:
                size = _write(self._part, data.getbuffer(), parts)
                os.replace(self._part, path.name, src_dir_fd=parts, dst_dir_fd=folder)
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

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[int]:
        """A descriptor of the folder, made if needed. Where links lead out of the root, it is refused.

        Links are followed once, before. From the root on, each folder is then opened by its name within the one
        before and may not be a link, so one that is put there meanwhile leads nowhere.
        """
        real = Path(realpath(folder))
        if not real.is_relative_to(self.root):
            raise SegmentFailed(f"{folder} leads out of the output folder {self.root}", code="output")
        self.root.mkdir(parents=True, exist_ok=True)
        opened = os.open(self.root, os.O_DIRECTORY)
        try:
            for name in real.relative_to(self.root).parts:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=opened)
                inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
                os.close(opened)
                opened = inner
            yield opened
        finally:
            os.close(opened)


def _write(name: str, data: memoryview, folder: int) -> int:
    """Write a new file in an open folder; returns its size in bytes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(os.open(name, flags, 0o666, dir_fd=folder), "wb") as file:  # noqa: PTH123 - relative to a descriptor
        return file.write(data)
