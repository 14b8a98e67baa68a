"""The folder of compiled kernels. Whoever can write there can have a worker run any program, so it must be the
worker's user's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cloner.errors import LoadFailed

WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class KernelCache:
    """`folder` as the setting has it. `outputs` is the output folder, which other users may be allowed to write to.
    `trial_s`: seconds that trying new kernels may take at a worker's start."""

    folder: Path
    outputs: Path
    trial_s: float = 300.0

    def open(self) -> Path:
        """Make the folder if it is missing, and have Triton keep compiled kernels in it; called before Triton is
        imported. Raises `LoadFailed` if others could write there, or nothing can be run from there."""
        try:
            folder = self.folder.expanduser().resolve()
            if folder.is_relative_to(self.outputs.resolve()):
                raise _refused(folder, f"is under the output folder {self.outputs}")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status, mount = folder.stat(), os.statvfs(folder)
            may_write = os.access(folder, os.W_OK)
        except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home, or links form a circle
            reason = error.strerror if isinstance(error, OSError) else error
            raise _refused(self.folder, f"cannot be used ({reason})") from error
        if status.st_uid != os.geteuid():
            raise _refused(folder, f"belongs to user {status.st_uid}, and this worker is user {os.geteuid()}")
        if status.st_mode & WRITABLE_BY_OTHERS:
            raise _refused(folder, f"can be written by other users: `chmod 700 {folder}` after a look at what is in it")
        if not may_write:
            raise _refused(folder, "cannot be written by this worker")
        if mount.f_flag & os.ST_NOEXEC:
            raise _refused(folder, "is on a file system that is mounted noexec")
        os.environ["TRITON_CACHE_DIR"] = str(folder / "compiled")
        return folder


def _refused(folder: Path, why: str) -> LoadFailed:
    return LoadFailed(
        f"the folder of compiled kernels {folder} {why}; a worker runs what is there, so set CLONER_KERNEL_CACHE to a"
        " folder that this user alone can write to"
    )
