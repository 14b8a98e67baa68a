"""What every form of a batch file becomes: a stream of rows with their places.

A bad row becomes a `Problem` in the stream, so that all of them can be listed. `forms/` has the forms; `batch_file.py`
checks the rows against each other and against the files that they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from cloner.batch import AudioFormat, ReferenceKind
from cloner.errors import Problem

REFERENCE_OPTION = "--reference"
"""The option that names the reference of the one speaker of a ``.txt`` or ``.srt``: the place of its problems."""


class Form(StrEnum):
    """The forms of a batch file, as ``--as`` spells them."""

    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    CSV = "csv"
    TSV = "tsv"
    TXT = "txt"
    SRT = "srt"
    GPT_SOVITS = "gpt-sovits"
    LJSPEECH = "ljspeech"
    SEED_TTS_EVAL = "seed-tts-eval"
    NEMO = "nemo"


@dataclass(frozen=True)
class ReadOptions:
    """What a user says of a batch file that is not in it; None stands for what is not said."""

    form: Form | None = None
    """By default that of the file's ending."""
    encoding: str | None = None
    """By default UTF-8, UTF-16 if a byte order mark says so, or a guess."""
    reference: Path | None = None
    """The recording, or the codes, of the one speaker of a ``.txt`` or ``.srt``."""
    reference_text: str | None = None
    """Its transcript; by default that of the ``.lab`` or ``.txt`` beside it."""
    language: str | None = None
    """That of the texts for which the file names none, as `canonical_language` writes it."""
    audio: Mapping[str, object] = field(default_factory=dict)
    """Fields of `AudioOptions` that are put in the place of those of the file."""
    from_command_line: bool = False
    """Whether problems name options as the command line spells them, not as Python does."""

    def name_of(self, stem: str) -> str:
        """The name of an output that the form of a file gives, and not its user: with the format asked for."""
        return f"{stem}.{self.audio.get('format', AudioFormat.WAV)}"


@dataclass(frozen=True)
class TextFile:
    """A batch file, read and decoded."""

    text: str
    path: Path
    base: Path
    """The folder that relative paths start from."""
    warn: Callable[[Problem], None]
    """Called with what is left out, or may be wrong, and is no error."""
    options: ReadOptions = field(default_factory=ReadOptions)

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank, each with its number. One at a time, because ten million of them as a list take
        a gigabyte. Only a line feed ends a line, as a JSON text may contain U+2028 and the like."""
        start = number = 0
        while start <= len(self.text):
            end = self.text.find("\n", start)
            end = len(self.text) if end < 0 else end
            number += 1
            line = self.text[start:end]
            if line and not line.isspace():
                yield number, line
            start = end + 1


class NamedReference(NamedTuple):
    """A speaker's reference as the batch file names it."""

    kind: ReferenceKind
    file: str
    text: str | None
    """Its transcript; None if it lies beside the file."""


class Row(NamedTuple):
    """One text of a batch file; None stands for a value that the file leaves out."""

    place: str
    reference_place: str
    number: int
    """The row's number in the file, from 0."""
    speaker_id: int | str
    text: str
    segment_index: int | None = None
    output_file: str | None = None
    reference: NamedReference | None = None
    id: str | None = None
    seed: int | None = None
    language: str | None = None


Rows = Iterator[Row | Problem]


@dataclass(frozen=True)
class Document:
    """The content of a batch file; all but the rows is not checked yet."""

    rows: Iterable[Row | Problem]
    generation: object = None
    audio: object = None
    checkpoint_dir: object = None
    review: object = None
