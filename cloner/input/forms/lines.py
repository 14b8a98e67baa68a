"""Texts of one speaker, whose reference the command names: ``.txt``, a sentence a line, and ``.srt``, subtitles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cloner.batch import ReferenceKind
from cloner.errors import BadReference, Problem
from cloner.input.parsers import Unreadable
from cloner.input.references import codes_file_problem, read_transcript, recording_file_problem
from cloner.input.rows import Document, NamedReference, Row, Rows, TextFile
from cloner.input.schema import GroupText, checked_text
from cloner.validation import prose_flaw, shown

_OPTION = "--reference"

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
                reference_place=_OPTION,
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
            yield f"{place} (cue {cue})", text, f"{speaker}/{cue:04}.wav"
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
        right = f"name the recording of the one who speaks, {_OPTION} FILE, or another form, such as --as tsv"
        raise Unreadable("the file", f"a {file.options.form or file.path.suffix} names no speaker", right)
    path = named.absolute()
    kind = ReferenceKind.CODES if path.suffix.lower() == ".npy" else ReferenceKind.AUDIO
    check = codes_file_problem if kind is ReferenceKind.CODES else recording_file_problem
    if flaw := check(path):
        raise Unreadable(_OPTION, flaw, "give a recording such as a .wav or .flac, or the .npy of its codes")
    return NamedReference(kind, str(path), _transcript(path, file))


def _transcript(recording: Path, file: TextFile) -> str:
    """What is said in the reference: as the command says, or as in the ``.lab`` or ``.txt`` beside it."""
    text = file.options.reference_text
    right = "give what is said in it, with --reference-text"
    if text is not None:
        if flaw := prose_flaw(text):
            raise Unreadable("--reference-text", f"it {flaw}", right)
        return text
    beside = [recording.with_suffix(ending) for ending in (".lab", ".txt")]
    found = next((path for path in beside if path.is_file() and path != file.path.absolute()), None)
    if found is None:
        what = f"{shown(str(recording))} has no transcript: neither {beside[0].name} nor {beside[1].name} is beside it"
        raise Unreadable(_OPTION, what, right)
    try:
        return read_transcript(found)
    except BadReference as error:
        raise Unreadable(_OPTION, error.message, right) from error
