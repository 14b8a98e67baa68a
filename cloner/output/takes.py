"""Audio files of a batch that are not among its outputs: on their way to another name, or replaced.

``OUT/.cloner/BATCH_ID/takes/<content key>.<format>``. A batch finds what it wants among the takes of all batches, but
not a take that `cloner redo` has replaced: ``<content key>.<digest>.<format>``, unless the newer take has no line.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

from cloner.output.atomic_file import BUFFER_BYTES, NO_LINKS, FileAt, rename_unless_taken, write_and_rename, write_new
from cloner.output.audio_files import OutputRoot, is_empty
from cloner.output.record import batch_folder
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

TAKES = "takes"


class Takes:
    """The takes of one batch. Methods raise `OSError`, and `SegmentFailed` if links lead out of the output root.

    No method lists the folder: it may have a million files.
    """

    def __init__(self, outputs: OutputRoot, batch_id: str) -> None:
        self._outputs = outputs
        self._folder = batch_folder(outputs.root, batch_id).inner(TAKES)

    def keep(self, line: SegmentResult, *, shared: bool) -> None:
        """Add the file of a line. If it is `shared`, its name stays another output's, so it is copied; else it is
        linked where the file system has links."""
        name = _name(line)
        if shared or not self._link(line.output, name):
            self._copy(line.output, name, line.mtime_ns)

    def keep_replaced(self, output: str, key: str, digest: str) -> None:
        """Add the file of an output, which has that digest and is about to be replaced by another take with the same
        content key."""
        name = _replaced_name(output, key, digest)
        if not self._link(output, name):
            self._copy(output, name)

    def end_replacing(self, output: str, key: str, digest: str) -> None:
        """The other take has failed: give the replaced file its name again if nothing is there; if it is there still,
        it is no take."""
        name, final = _replaced_name(output, key, digest), PurePosixPath(output).name
        with (
            suppress(FileExistsError, FileNotFoundError),
            self._folder.opened() as takes,
            self._outputs.opened_parent(output) as parent,
        ):
            if self._outputs.digest_of(output) == digest:
                os.unlink(name, dir_fd=takes)
            else:
                rename_unless_taken(FileAt(name, takes), FileAt(final, parent), partial(is_empty, final, parent))

    def restore(self, output: str, key: str, digest: str, present: str) -> None:
        """Give a replaced file its name again, and keep the one that is there, whose digest is `present`, among the
        takes. Does nothing if there is no such file."""
        name = _replaced_name(output, key, digest)
        with suppress(FileNotFoundError), self._folder.opened() as takes, self._outputs.opened_parent(output) as parent:
            os.stat(name, dir_fd=takes, follow_symlinks=False)
            self.keep_replaced(output, key, present)
            os.replace(name, PurePosixPath(output).name, src_dir_fd=takes, dst_dir_fd=parent)

    def _link(self, output: str, name: str) -> bool:
        """Link the file of an output, if there is no such take; returns whether the file system has links."""
        with self._folder.opened(make=True) as takes:
            try:
                with self._outputs.opened_parent(output) as parent, suppress(FileExistsError):
                    source = PurePosixPath(output).name
                    os.link(source, name, src_dir_fd=parent, dst_dir_fd=takes, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return False
        return True

    def _copy(self, output: str, name: str, mtime_ns: int | None = None) -> None:
        """Copy the file of an output, if there is no such take; with that modification time, if one is given."""
        with self._folder.opened(make=True) as takes:
            if _is_there(name, takes):
                return
            blocks = self._outputs.blocks(output, BUFFER_BYTES)
            write_and_rename(blocks, FileAt(f"{name}.part", takes), FileAt(name, takes))
            if mtime_ns is not None:
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=takes)

    def place(self, line: SegmentResult, output: str, *, again: bool) -> None:
        """Give the take of a line the name of an output; if it is needed `again`, it also stays. A file that is there
        is left, unless it is empty, and so is an output whose take is gone."""
        name, final = _name(line), PurePosixPath(output).name
        with (
            suppress(FileExistsError, FileNotFoundError),
            self._folder.opened() as takes,
            self._outputs.opened_parent(output) as parent,
        ):
            to, may_replace = FileAt(final, parent), partial(is_empty, final, parent)
            if again:
                blocks = self._folder.blocks(name, BUFFER_BYTES)
                write_new(blocks, FileAt(f"{name}.part", takes), to, may_replace)
                os.utime(final, ns=(line.mtime_ns, line.mtime_ns), dir_fd=parent)
            else:
                rename_unless_taken(FileAt(name, takes), to, may_replace)

    def path(self, line: SegmentResult) -> str:
        """Where the take of a line is, relative to the output root."""
        return f"{self._folder.path.relative_to(self._outputs.root).as_posix()}/{_name(line)}"


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _name(line: SegmentResult) -> str:
    return line.key + PurePosixPath(line.output).suffix


def replaced_path(batch_id: str, output: str, key: str, digest: str) -> str:
    """Where a batch has the file of an output that a take of its own has replaced, relative to the output root."""
    return f"{HOUSEKEEPING}/{batch_id}/{TAKES}/{_replaced_name(output, key, digest)}"


def _replaced_name(output: str, key: str, digest: str) -> str:
    return f"{key}.{digest}{PurePosixPath(output).suffix}"
