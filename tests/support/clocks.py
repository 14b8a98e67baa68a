"""Wall clocks of a test's own, to put forward and back under processes that run: Debian's libfaketime.

Monotonic clocks, and the times of files, stay as they are, as where somebody sets a machine's clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOUR_S = 3600

# Python sleeps until a moment of the monotonic clock (`clock_nanosleep`), which libfaketime 0.9.10 refuses.
_SITECUSTOMIZE = """
import select
import time


def sleep(seconds):
    select.select([], [], [], seconds)


time.sleep = sleep
"""


def _library() -> Path:
    """Skips where it is not installed; fails in CI."""
    for found in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return found
    message = "no libfaketime, to put clocks forward and back: apt-get install libfaketime"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Clock:
    """The wall clock of all processes that are started while it is `shown`. At first it is right."""

    def __init__(self, folder: Path) -> None:
        self._library = _library()
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.put(0)

    def put(self, ahead_s: int) -> None:
        """Have it jump: from now on it is so many seconds ahead of the machine's."""
        new = self._folder / "new"
        new.write_text(f"{ahead_s:+d}")
        new.replace(self._folder / "offset")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Processes that are started inside go by this clock, for as long as they live."""
        paths = [str(self._folder), os.environ.get("PYTHONPATH", "")]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(self._library))
            environment.setenv("FAKETIME_TIMESTAMP_FILE", str(self._folder / "offset"))
            environment.setenv("FAKETIME_NO_CACHE", "1")
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            environment.setenv("NO_FAKE_STAT", "1")
            environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
            yield
