"""Audio files of a batch that are not among its outputs: on their way to another name, or replaced.

``OUT/.cloner/BATCH_ID/takes/<content key>.<format>``. A batch finds what it wants among the takes of all batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from cloner.output.atomic_file import NO_LINKS, FileAt, rename_to_new
from cloner.output.audio_files import OutputRoot
from cloner.output.record import batch_folder
from cloner.protocol.results import SegmentResult

TAKES = "takes"

BLOCK_BYTES = 1024**2


class Takes:
    """The takes of one batch. Methods raise `OSError`, and `SegmentFailed` if links lead out of the output root."""

    def __init__(self, outputs: OutputRoot, batch_id: str) -> None:
        self._outputs = outputs
        self._folder = batch_folder(outputs.root, batch_id).inner(TAKES)

    def keep(self, line: SegmentResult, *, shared: bool) -> None:
        """Add the file of a line. If it is `shared`, its name stays another output's, so it is copied; else it is
        linked where the file system has links."""
        name = _name(line)
        if name in self._folder.files(name):
            return
        if not shared:
            try:
                self._link(line, name)
                return
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
        self._folder.write(name, self._blocks(line.output))
        with self._folder.opened() as folder:
            os.utime(name, ns=(line.mtime_ns, line.mtime_ns), dir_fd=folder)

    def place(self, line: SegmentResult, output: str, *, again: bool) -> None:
        """Give the take of a line the name of an output; if it is needed `again`, it also stays. A file that is there
        is left, and so is an output whose take is gone."""
        name = _name(line)
        if again:
            self._place_copy(name, line, output)
            return
        with (
            suppress(FileExistsError, FileNotFoundError),
            self._folder.opened() as takes,
            self._outputs.opened_parent(output) as parent,
        ):
            rename_to_new(FileAt(name, takes), FileAt(PurePosixPath(output).name, parent))

    def _place_copy(self, name: str, line: SegmentResult, output: str) -> None:
        copy = f"{line.key}-copy{PurePosixPath(name).suffix}"
        self._folder.write(copy, self._folder.blocks(name, BLOCK_BYTES))
        with self._folder.opened() as takes:
            os.utime(copy, ns=(line.mtime_ns, line.mtime_ns), dir_fd=takes)
            with suppress(FileExistsError), self._outputs.opened_parent(output) as parent:
                rename_to_new(FileAt(copy, takes), FileAt(PurePosixPath(output).name, parent))
        self._folder.remove(copy)

    def _link(self, line: SegmentResult, name: str) -> None:
        with self._outputs.opened_parent(line.output) as parent, self._folder.opened(make=True) as takes:
            source = PurePosixPath(line.output).name
            os.link(source, name, src_dir_fd=parent, dst_dir_fd=takes, follow_symlinks=False)

    def _blocks(self, output: str) -> Iterator[bytes]:
        return self._outputs.blocks(output, BLOCK_BYTES)


def _name(line: SegmentResult) -> str:
    return line.key + Path(line.output).suffix
