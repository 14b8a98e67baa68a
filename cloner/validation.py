"""What texts, ids and output names may hold, where a path leads, and how values are quoted in error messages.

A "flaw" is what is wrong with a value, as the predicate of an error message such as "target_text is blank".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from os.path import realpath
from pathlib import Path
from posixpath import normpath, splitext

from pydantic import ValidationError

MAX_TEXT = 131_072
"""Most characters of a text: more than two hours of speech in Latin script, more than seven in Chinese, which is joined
in memory."""

MAX_NAME = 4096
"""Most characters of an id or a file name: the longest path that Linux takes."""

MAX_NAME_BYTES = 255
"""The longest name of a file or folder in the usual file systems."""

MAX_OUTPUT_BYTES = 1024
"""The longest output with its folders. Linux takes 4,096 bytes, those of the output root included."""

MAX_LANGUAGE = 35
"""Most characters of a language's tag: those for which RFC 5646, 4.4.1, asks for room."""

HOUSEKEEPING = ".cloner"
"""The folder under an output root that holds the records of batches."""

OUTPUT_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3")

# Half a surrogate pair, which JSON can spell, cannot be written as UTF-8.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_UNUSABLE_IN_PROSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def prose_flaw(text: str) -> str | None:
    """The flaw of a text to be spoken or of a transcript, or None; line feeds and tabs are allowed."""
    found = find_flaw(text, prose=True)
    return found and found[0]


def name_flaw(text: str) -> str | None:
    """The flaw of an id or a file name, or None."""
    found = find_flaw(text, prose=False)
    return found and found[0]


def find_flaw(text: str, *, prose: bool) -> tuple[str, str | None] | None:
    """The flaw of a text, or of a name, and what would be right, which for a blank one depends on what it is; or
    None."""
    if not text or text.isspace():
        return "is blank", None
    most = MAX_TEXT if prose else MAX_NAME
    if len(text) > most:
        return f"has {len(text)} characters, and {most} is the most", "shorten it"
    if text.isprintable():  # it is fast, and true of most texts
        return None
    if found := (_UNUSABLE_IN_PROSE if prose else _UNUSABLE).search(text):
        return f"has an unusable character (U+{ord(found[0]):04X}) at position {found.start() + 1}", "remove it"
    return None


@lru_cache(maxsize=256)  # a batch has few languages, and may have a million texts
def canonical_language(tag: str) -> str | None:
    """A language's tag (BCP 47) as RFC 5646, 2.1.1, recommends to write it, such as "en", "pt-BR" or "zh-Hant"; None if
    it is none. Whether there is such a language is not known."""
    if len(tag) > MAX_LANGUAGE or not _LANGUAGE.fullmatch(tag):
        return None
    language, *others = tag.lower().split("-")
    written = [part.upper() if len(part) == 2 else part.title() if len(part) == 4 else part for part in others]
    return "-".join((language, *written))


def primary_language(tag: str) -> str:
    """The language of a tag without what is said of it besides: "pt" of "pt-BR"."""
    return tag.partition("-")[0].lower()


def shown(value: object) -> str:
    """`value` for an error message, about as its file spells it: short, on one line, without control characters."""
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


def first_error(error: ValidationError) -> str:
    """Place and message of the first thing that is wrong with a value, as in "slices.0.id: it is blank"."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    # pydantic's own message of a validator's ValueError begins with "Value error, ".
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{place}: {message}" if place else message


def output_flaw(output: str) -> tuple[str, str] | None:  # noqa: PLR0911 - one line a flaw
    """The flaw of an output and what would be right, or None.

    A right one is relative to the output root, with ``/`` and without ``.`` and ``..``. Checked where a batch is read,
    and again where a message names an output: nothing else in a message decides where a worker writes.
    """
    parts = output.split("/")
    if parts[0] in {"", ".."}:
        return "is not inside the output root", "name it relative to the output root"
    if parts[0] == HOUSEKEEPING:
        return f"lies in {HOUSEKEEPING}, which is not for outputs", "name another folder"
    if splitext(output)[1].lower() not in OUTPUT_ENDINGS:
        return (
            "is no audio file that can be written",
            f"let it end in {', '.join(OUTPUT_ENDINGS[:-1])} or {OUTPUT_ENDINGS[-1]}",
        )
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
    """Where `path` leads, all links followed, if that is in none of the `roots`; else None."""
    real = realpath(path)
    inside = any(Path(real).is_relative_to(realpath(root)) for root in roots)
    return None if inside else real


def _size(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))
