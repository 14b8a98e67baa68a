"""The audio files under the output root."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path, PurePosixPath
from typing import Protocol

import soundfile

from cloner.audio import Audio, Samples16, format_of
from cloner.audio_bytes import encode_audio
from cloner.errors import NoRoom, OutputUnavailable, RecordUnavailable, SegmentFailed
from cloner.output.atomic_file import NO_ROOM, FileAt, open_part, write_and_rename, write_new
from cloner.output.own_folder import OwnFolder, blocks_of, open_file, opened_folder
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

UNAVAILABLE = frozenset(
    {
        errno.EIO,
        errno.EROFS,
        errno.ESTALE,
        # Of CIFS, FUSE and soft NFS mounts whose server or network is away:
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
        errno.ENODEV,
        errno.EREMOTEIO,
    }
)
"""Errors of a disk that fails, is remounted, or whose server is restarted: they may pass soon, or not at all."""

DISK_INTERVAL_S = 1.0
"""Seconds between two tries to use a disk that is full or fails."""


FOREIGN = "is there, and not as this batch has written it: move it, or submit the batch with --overwrite"
"""Why an output is not written."""


@dataclass(frozen=True)
class Written:
    """What a line of the record holds of a file, to identify it later."""

    size: int
    mtime_ns: int
    digest: str


class Ownership(Protocol):
    """What a batch knows of the file that it is about to write."""

    def publishes(self, digest: str) -> None:
        """Note that a file with this digest is about to get its final name."""
        ...

    def owns(self, digest: str) -> bool:
        """Whether the file with this digest, which has that name, is the batch's own, and may be replaced.

        The digest is empty where the name is a link's.
        """
        ...


def codes_part(part: str) -> str:
    """Name of the temporary file for codes of the process whose `OutputRoot.part` is `part`, in the same folder."""
    return f"{part}-codes"


class OutputRoot:
    """The folder that outputs are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / HOUSEKEEPING
        self.part = f"part-{uuid.uuid4().hex}"
        """Name of this process's temporary file, in our own folder. Other processes remove it after a crash."""

    def write_audio(
        self, output: str, audio: Audio | Samples16, sample_rate: int, ownership: Ownership | None = None
    ) -> Written:
        """Write mono samples ``[samples]`` in -1..1, or of 16 bits, as a file of the format that its ending names. As
        `write`."""
        return self.write(output, lambda: encode_audio(audio, sample_rate, format_of(output)), ownership)

    def write(self, output: str, encoded: Callable[[], bytes], ownership: Ownership | None = None) -> Written:
        """Write the bytes that `encoded` returns, as a whole or not at all.

        A file that is there already is replaced if it is the batch's own; or if it is empty, as a loss of power leaves
        it. Raises `SegmentFailed` (code "output") where the file cannot be written, `NoRoom` where the disk is full,
        `OutputUnavailable` where it fails for a while.
        """
        path = self.root / output
        try:
            # Encoded in memory: on a full disk, soundfile fails by an assertion of its own.
            data = encoded()
            digest = content_digest(data)
            if ownership:
                ownership.publishes(digest)
            with self._opened(path.parent) as folder, self._opened(self._parts) as parts:

                def is_own() -> bool:
                    found = _digest_at(folder, path.name)
                    return found in {NOTHING, digest} or (ownership is not None and ownership.owns(found))

                try:
                    status = write_new([data], FileAt(self.part, parts), FileAt(path.name, folder), is_own)
                except FileExistsError as error:
                    raise SegmentFailed(f"{output} {FOREIGN}", code="output") from error
        except (OSError, soundfile.SoundFileError) as error:
            message = f"{output} cannot be written under {self.root}: {error}"
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoom(message) from error
            if isinstance(error, OSError) and error.errno in UNAVAILABLE:
                raise OutputUnavailable(message) from error
            raise SegmentFailed(message, code="output") from error
        return Written(status.st_size, status.st_mtime_ns, digest)

    def write_codes(self, folder: OwnFolder, name: str, data: bytes) -> None:
        """Write the codes of a reference to a file of our own; its folder is made if needed. Raises `OSError`."""
        with folder.opened(make=True) as opened, OwnFolder(self.root).opened() as parts:
            write_and_rename([data], FileAt(codes_part(self.part), parts), FileAt(name, opened))

    def has_result(self, result: SegmentResult) -> bool:
        """Whether the file of a line of the record exists, with the same content.

        Its bytes are read only if its time differs, as after a copy: another batch may have written a file of the same
        size there, and crashed before it could record it. Raises `RecordUnavailable` where the disk fails for a while.
        """
        try:
            # Without `Path`, which takes longer than the call itself: a batch may have a million files.
            found = os.stat(f"{self.root}/{result.output}", follow_symlinks=False)  # noqa: PTH116
            if not stat.S_ISREG(found.st_mode) or found.st_size != result.size:
                return False
            if not result.digest or found.st_mtime_ns == result.mtime_ns:
                return True
            return content_digest(self._read(result.output)) == result.digest
        except OSError as error:
            if error.errno in UNAVAILABLE:
                raise RecordUnavailable(f"{result.output} under {self.root} cannot be read: {error}") from error
            return False
        except SegmentFailed:
            return False

    def is_taken(self, output: str) -> bool:
        """Whether there is a file at the output's name that is not empty, or a link."""
        try:
            found = os.stat(f"{self.root}/{output}", follow_symlinks=False)  # noqa: PTH116 - see `has_result`
        except OSError:
            return False  # or it cannot be looked at: its segment fails when it is written
        return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size > 0)

    def digest_of(self, output: str) -> str:
        """The digest of an audio file; empty if it cannot be read."""
        try:
            return content_digest(self._read(output))
        except (OSError, SegmentFailed):
            return ""

    def blocks(self, output: str, size: int) -> Iterator[bytes]:
        """The bytes of an audio file, in blocks of at most `size` bytes. Raises `OSError`, `SegmentFailed`."""
        yield from blocks_of(self.open(output), size)

    def open(self, output: str) -> int:
        """A descriptor of an audio file, to read it. Raises `OSError`, `SegmentFailed`."""
        with self.opened_parent(output) as folder:
            return open_file(folder, PurePosixPath(output).name, os.O_RDONLY)

    def remove(self, output: str) -> None:
        """Remove an audio file, if it is there. Raises `OSError`, `SegmentFailed`."""
        with self.opened_parent(output) as folder, suppress(FileNotFoundError):
            os.unlink(PurePosixPath(output).name, dir_fd=folder)

    def opened_parent(self, output: str) -> AbstractContextManager[int]:
        """A descriptor of the folder of an output, which is made if needed. Raises `OSError`, `SegmentFailed`."""
        return self._opened((self.root / output).parent)

    def _read(self, output: str) -> bytes:
        """The bytes of an audio file, which may not be a link. Raises `OSError`, `SegmentFailed`."""
        path = self.root / output
        with self.opened_parent(output) as folder:
            return _read_at(folder, path.name)

    def has_room(self, size: int) -> bool:
        """Whether a file of `size` bytes fits on the disk. True, too, if it cannot be written for another reason."""
        try:
            with self._opened(self._parts) as parts, open_part(FileAt(self.part, parts)) as file:
                os.posix_fallocate(file, 0, max(size, 1))
        except OSError as error:
            return error.errno not in NO_ROOM
        finally:
            self.discard(self.part)
        return True

    def discard(self, part: str) -> None:
        """Remove the temporary file of a process, this one or a crashed one."""
        with suppress(OSError):
            OwnFolder(self.root).remove(part)

    def _opened(self, folder: Path) -> AbstractContextManager[int]:
        """A descriptor of the folder, which is made if needed. Raises `SegmentFailed` if links lead out of the root.

        Links are resolved first. Then each folder below the root is opened by its name within its parent, and may not
        be a link, so a link that is put there meanwhile is not followed.
        """
        real = Path(realpath(folder))
        if not real.is_relative_to(self.root):
            raise SegmentFailed(f"{folder} leads out of the output folder {self.root}", code="output")
        return opened_folder(self.root, real.relative_to(self.root).parts, make=True)


def is_empty(name: str, folder: int) -> bool:
    """Whether a file in an open folder is empty, as a loss of power leaves it. Raises `OSError`."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and not found.st_size


def _digest_at(folder: int, name: str) -> str:
    """The digest of a file; empty if it is a link. Raises `OSError`."""
    try:
        return content_digest(_read_at(folder, name))
    except OSError as error:
        if error.errno == errno.ELOOP:
            return ""
        raise


def _read_at(folder: int, name: str) -> bytes:
    with os.fdopen(open_file(folder, name, os.O_RDONLY), "rb") as opened:
        return opened.read()


def content_digest(data: bytes) -> str:
    """The digest of a file's bytes, as lines of the record have it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


NOTHING = content_digest(b"")
"""The digest of an empty file."""
