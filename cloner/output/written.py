"""Which files under a folder batches have written, by their records."""

from __future__ import annotations

import os
from pathlib import Path

from cloner.output.record_lines import Records, parse_line


class WrittenFiles:
    """The audio files that batches have written under an output root, none if it is no such root.

    All records are read at once: about 200 bytes of memory for each file.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._stamps: dict[str, set[tuple[int, int]]] = {}
        for _, _, _, line in Records(self._root, None).lines():
            if result := parse_line(line):
                self._stamps.setdefault(result.output, set()).add((result.size, result.mtime_ns))

    def __contains__(self, path: Path) -> bool:
        """Whether the file at the path is as a batch has written it."""
        real = f"{os.path.realpath(path.parent)}/{path.name}"
        stamps = self._stamps.get(real.removeprefix(f"{self._root}/"))
        if stamps is None:
            return False
        try:
            found = path.lstat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) in stamps
