"""Texts of one speaker, whose reference the command names: ``.txt``, a sentence a line, and ``.srt``, subtitles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cloner.batch import ReferenceKind
from cloner.errors import Problem
from cloner.input.parsers import Unreadable
from cloner.input.rows import REFERENCE_OPTION, Document, NamedReference, Row, Rows, TextFile
from cloner.input.schema import GroupText, checked_text
from cloner.validation import prose_flaw, shown

_TIMES = re.compile(r"\s*\d+:\d+:\d+[,.]\d+\s*-->\s*\d+:\d+:\d+[,.]\d+")

_MARKUP = re.compile(r"</?(?:b|i|u|s|font)\b[^<>]*>|\{\\[^{}]*\}", re.IGNORECASE)
"""What subtitles have beside their words: ``<i>``, ``<font color=...>``, ``{\\an8}``."""


def read_sentences(file: TextFile) -> Document:
    """A sentence a line; blank lines are left out. Raises `Unreadable`."""
    reference = _reference(file)
    texts = ((f"line {line}", content.strip(), None) for line, content in file.lines())
    return Document(_rows(texts, reference))


def read_subtitles(file: TextFile) -> Document:
    """A cue of a ``.srt`` a segment; its output is named by its number. Raises `Unreadable`."""
    reference = _reference(file)
    return Document(_rows(_cues(file, Path(reference.file).stem), reference))


def _rows(texts: Iterator[tuple[str, str, str | None] | Problem], reference: NamedReference) -> Rows:
    """The rows of texts, each with its place and its output."""
    number = 0
    for found in texts:
        if isinstance(found, Problem):
            yield found
            continue
        place, content, output = found
        text = checked_text(content, place)
        if isinstance(text, GroupText):
            yield Row(
                place=place,
                reference_place=REFERENCE_OPTION,
                number=number,
                speaker_id=Path(reference.file).stem,
                text=text.text,
                output_file=output,
                reference=reference,
            )
        else:
            yield from text
        number += 1


def _cues(file: TextFile, speaker: str) -> Iterator[tuple[str, str, str | None] | Problem]:
    for line, block in _blocks(file.text):
        head, *rest = block
        place = f"line {line}"
        if not re.fullmatch(r"\d{1,9}", head.strip()) or not rest or not _TIMES.match(rest[0]):
            right = "give its number, a line of its times, and its text without blank lines"
            yield Problem(place, f"this is no cue: {shown(head)}", right)
            continue
        cue = int(head)
        text = " ".join(" ".join(_MARKUP.sub("", content) for content in rest[1:]).split())
        if text:
            yield f"{place} (cue {cue})", text, file.options.name_of(f"{speaker}/{cue:04}")
        else:
            file.warn(Problem(place, f"cue {cue} has no text, and is left out", "give it one if it should be spoken"))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The blocks of lines between blank lines, each with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _reference(file: TextFile) -> NamedReference:
    """The reference that the command names. Raises `Unreadable`."""
    named = file.options.reference
    if named is None:
        right = f"name the recording of the one who speaks, {REFERENCE_OPTION} FILE, or another form, such as --as tsv"
        raise Unreadable("the file", f"a {file.options.form or file.path.suffix} names no speaker", right)
    path = named.absolute()
    text = file.options.reference_text
    if text is not None and (flaw := prose_flaw(text)):
        raise Unreadable("--reference-text", f"it {flaw}", "give what is said in it")
    kind = ReferenceKind.CODES if path.suffix.lower() == ".npy" else ReferenceKind.AUDIO
    return NamedReference(kind, str(path), text)
