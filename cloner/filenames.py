"""Names of files that a batch or a message brings: what an output may be called, and where a name leads."""

from __future__ import annotations

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


def output_flaw(output: str) -> tuple[str, str] | None:  # noqa: PLR0911 - one line a flaw
    """What is wrong with an output, if anything, and what would be right.

    It is relative to the output root, with ``/`` and without detours. Held where a batch is read, and again wherever a
    message names an output: it is all that a message can say about where a worker writes.
    """
    parts = output.split("/")
    if parts[0] in {"", ".."}:
        return "is not inside the output root", "name it relative to the output root"
    if parts[0] == HOUSEKEEPING:
        return f"lies in {HOUSEKEEPING}, which is not for outputs", "name another folder"
    if splitext(output)[1].lower() not in OUTPUT_ENDINGS:
        return "is no audio file that can be written", f"let it end in {' or '.join(OUTPUT_ENDINGS)}"
    if normpath(output) != output:
        return "takes a detour", "write it without . and .."
    if "\\" in output:
        return "has a backslash", "write / between folders"
    if _size(output) > MAX_OUTPUT_BYTES:
        return f"is longer than {MAX_OUTPUT_BYTES} bytes", "shorten it"
    if max(map(_size, parts)) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes", "shorten it"
    return None


def leads_out(path: Path, roots: Sequence[Path]) -> str | None:
    """Where `path` leads, all links followed, if that is in none of the `roots`."""
    real = realpath(path)
    inside = any(Path(real).is_relative_to(realpath(root)) for root in roots)
    return None if inside else real


def _size(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))
