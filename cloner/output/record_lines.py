"""The lines of all batches' records under an output root."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cloner.events import Event
from cloner.logs import log_event
from cloner.output.origin import Origin, read_origin
from cloner.output.own_folder import OwnFolder
from cloner.output.record import RESULT, record_files
from cloner.protocol.results import SegmentResult

if TYPE_CHECKING:
    from cloner.output.line_index import Files, LineIndex

_OUTPUT, _KEY, _GENERATED = b'"output":"', b'","key":"', b'"code":""'
"""Parts of a line of a record, a `SegmentResult` as JSON. They cannot occur in a string: its quotes are escaped."""

_KEY_LENGTH = 64


class Records:
    """The records' files, in the order of their last change, by the file system's clock."""

    def __init__(self, root: Path, origin: Origin | None, batch_id: str = "") -> None:
        """With an origin, the indexes of closed batches are written, where they are missing."""
        self.folders = OwnFolder(root).inner_folders()
        self.own = {
            folder.path
            for folder in self.folders
            if folder.path.name == batch_id or (origin and origin.path and read_origin(folder) == origin)
        }
        self._keeps_indexes = origin is not None
        self._stamps: dict[Path, Files] = {}
        times = []
        for folder in self.folders:
            try:
                found = record_files(folder)
            except OSError as error:
                log_skipped(folder.path, error)
                continue
            times += [(status.st_mtime_ns, folder, name) for name, status in found.items()]
            if found:
                self._stamps[folder.path] = {name: (one.st_size, one.st_mtime_ns) for name, one in found.items()}
        times.sort(key=lambda file: (file[0], file[1].path, file[2]))
        self.files = [(folder, name) for _, folder, name in times]

    def lines(
        self, among: Container[Path] | None = None, *, failed: bool = False
    ) -> Iterator[tuple[OwnFolder, bytes, str, bytes]]:
        """The lines about generated files, and with `failed` about segments that failed, too, in all folders or `among`
        those with some paths: (folder, output as the line has it, content key, line)."""
        for folder, name in self.files:
            if among is not None and folder.path not in among:
                continue
            try:
                for output, key, line in read_lines(folder, name, failed=failed):
                    yield folder, output, key, line
            except OSError as error:
                log_skipped(folder.path / name, error)

    def about(self, outputs: Iterable[bytes] = (), keys: Iterable[str] = ()) -> set[Path]:
        """The folders that may have lines about any of these outputs, as lines have them, or content keys: all but
        those whose index has none of them."""
        from cloner.output.line_index import (
            hashes_of,
            have_any,
        )  # loads numpy, which a record's other readers do not need

        wanted_outputs, wanted_keys = hashes_of(outputs), hashes_of(key.encode() for key in keys)
        return {
            folder.path
            for folder in self.folders
            if folder.path in self._stamps
            and (
                (index := self._index(folder)) is None
                or have_any(index.outputs, wanted_outputs)
                or have_any(index.keys, wanted_keys)
            )
        }

    def _index(self, folder: OwnFolder) -> LineIndex | None:
        """The index of a closed batch's record; None if there is none."""
        from cloner.output.line_index import make_index, read_index

        stamps = self._stamps[folder.path]
        if (index := read_index(folder, stamps)) or not self._keeps_indexes:
            return index
        try:
            if not folder.files(RESULT):
                return None  # its record grows, and would be read each time for its index alone
            index = make_index(
                (output, key) for name in stamps for output, key, _ in read_lines(folder, name, failed=True)
            )
        except OSError:
            return None  # the same error is logged when the lines are read
        index.write(folder, stamps)
        return index


def read_lines(folder: OwnFolder, name: str, *, failed: bool = False) -> Iterator[tuple[bytes, str, bytes]]:
    """The same of one file: (output, content key, line). Raises `OSError`."""
    with os.fdopen(folder.open_file(name, os.O_RDONLY), "rb") as file:
        for line in file:
            output, _, rest = line.partition(_OUTPUT)[2].partition(_KEY)
            # A crash may have left a line without its end.
            if (failed or _GENERATED in rest) and line.endswith(b"\n"):
                yield output, rest[:_KEY_LENGTH].decode(errors="replace"), line


def log_skipped(path: Path, error: OSError) -> None:
    """Log that a record, or a part of it, cannot be read, and is left out."""
    log_event(Event.RECORD_UNREADABLE, path=path, error=error)


def parse_line(line: bytes) -> SegmentResult | None:
    """The result in a line of a record; None if it is not whole."""
    try:
        return SegmentResult.from_json(line)
    except ValidationError:
        return None
