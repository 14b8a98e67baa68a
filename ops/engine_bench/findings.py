"""What a check or a measurement on a GPU finds, written down as it is found: its process may not live to the end."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path


class Findings:
    """Lines of JSON, printed and added to a file as they are made."""

    def __init__(self, path: Path | None, part: str) -> None:
        self._path = path
        self._part = part
        self.failed = False

    def attempt(self, what: str, check: Callable[..., None], *args: object) -> None:
        """Go on to the next check where one fails."""
        try:
            check(*args, self)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is written down
            self.failed = True
            self.add(what, failed=f"{type(error).__name__}: {error}"[:600], where=traceback.format_exc()[-800:])

    def add(self, what: str, **values: object) -> None:
        line = json.dumps({"part": self._part, "what": what, **values})
        print(line, flush=True)
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
