"""People's texts: what may be in them, and how values are quoted in messages.

Names of files that a batch or a message brings: what an output may be called, and where a name leads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import realpath
from pathlib import Path
from posixpath import normpath, splitext

MAX_TEXT = 32_768
"""Characters of a text: more than a model's 8,192 positions hold, at four to a token, with the speech after it."""

MAX_NAME = 4096
"""Characters of an id or a file name: the longest path that Linux takes."""

# Half a surrogate pair (JSON can spell it) is no character either: it cannot be written as UTF-8.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNUSABLE_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def prose_flaw(text: str) -> str | None:
    """What is wrong with a text that is to be spoken ("is blank"), if anything; line feeds and tabs are fine."""
    return _flaw(text, _UNUSABLE_IN_PROSE, MAX_TEXT)


def name_flaw(text: str) -> str | None:
    """What is wrong with an id or a file name ("is blank"), if anything."""
    return _flaw(text, _UNUSABLE, MAX_NAME)


def _flaw(text: str, unusable: re.Pattern[str], most: int) -> str | None:
    if not text or text.isspace():
        return "is blank"
    if len(text) > most:
        return f"has {len(text)} characters, and {most} is the most"
    found = None if text.isprintable() else unusable.search(text)  # the first is quick, and nearly always enough
    if found:
        return f"has an unusable character (U+{ord(found[0]):04X}) at position {found.start() + 1}"
    return None


def shown(value: object) -> str:
    """`value` as its file spells it, more or less; short, on one line and fit for any terminal."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case None:
            return "null"
        case bool():
            return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


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
