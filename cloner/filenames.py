"""Names of files that a batch or a message brings: what an output may be called, and where a name leads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os.path import realpath
from pathlib import Path
from posixpath import normpath, splitext

HOUSEKEEPING = ".cloner"
"""The folder under an output root that is ours."""

OUTPUT_ENDINGS = (".wav", ".flac", ".ogg")

MAX_NAME_BYTES = 255
"""The longest name of a file or folder that the usual file systems take."""

MAX_OUTPUT_BYTES = 1024
"""The longest output with its folders: Linux takes 4,096 bytes, with those of the output root."""


_ENDING = f"let it end in {' or '.join(OUTPUT_ENDINGS)}"


def output_flaw(output: str) -> tuple[str, str] | None:
    """What is wrong with an output, if anything, and what would be right.

    It is relative to the output root, with ``/`` and without detours. Held where a batch is read, and again wherever a
    message names an output: it is all that a message can say about where a worker writes.
    """
    parts = output.split("/")
    flaws = (
        (parts[0] in {"", ".."}, "is not inside the output root", "name it relative to the output root"),
        (parts[0] == HOUSEKEEPING, f"lies in {HOUSEKEEPING}, which is not for outputs", "name another folder"),
        (splitext(output)[1].lower() not in OUTPUT_ENDINGS, "is no audio file that can be written", _ENDING),
        (normpath(output) != output, "takes a detour", "write it without . and .."),
        ("\\" in output, "has a backslash", "write / between folders"),
        (_bytes(output) > MAX_OUTPUT_BYTES, f"is longer than {MAX_OUTPUT_BYTES} bytes", "shorten it"),
        (max(map(_bytes, parts)) > MAX_NAME_BYTES, f"has a name of more than {MAX_NAME_BYTES} bytes", "shorten it"),
    )
    return next(((what, right) for wrong, what, right in flaws if wrong), None)


def leads_out(path: Path, roots: Sequence[Path]) -> str | None:
    """Where `path` leads, all links followed, if that is in none of the `roots`."""
    real = realpath(path)
    inside = any(Path(real).is_relative_to(realpath(root)) for root in roots)
    return None if inside else real


def _bytes(name: str) -> int:
    return len(os.fsencode(name))
