"""Reading a batch file: every row is checked, and the first bad ones are listed at once.

`document.py` turns each form (`forms/`) into rows; this module checks the rows against each other and
against the files that they name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cloner.batch import MAX_SEGMENTS, Batch, Generation, Segment, Speaker
from cloner.batch import STANDARD_INPUT as FROM_STANDARD_INPUT
from cloner.errors import Problem
from cloner.input.audio_options import read_audio_options
from cloner.input.document import read_document
from cloner.input.markup import unknown_tags
from cloner.input.output_names import Outputs
from cloner.input.problems import Problems
from cloner.input.review import read_review
from cloner.input.rows import ReadOptions, Row
from cloner.input.schema import checked
from cloner.input.speaker_references import SpeakerReferences, Wanted
from cloner.input.text_file import STANDARD_INPUT
from cloner.recogniser.whisper import recogniser_of
from cloner.settings import Settings
from cloner.text.pauses import MOST_PAUSE_S, MOST_PAUSES_S, misspelt_pause, pauses_s
from cloner.validation import name_flaw, shown

Key = TypeVar("Key", int, str)

_PLACES_SHOWN = 20
"""Most rows that one problem names."""


def load_batch(  # noqa: PLR0913 - as `read_batch`
    batch: Batch | Path | str,
    settings: Settings,
    *,
    references: Path | None = None,
    out_root: Path | None = None,
    prefix: str | None = None,
    options: ReadOptions | None = None,
) -> Batch:
    """`batch` itself, or the batch file at that path. Client and command line both use it.

    The parameters are those of `read_batch`. Raises what it raises.
    """
    if isinstance(batch, Batch):
        return batch
    return read_batch(
        Path(batch),
        out_root=out_root,
        references=references,
        settings=settings,
        prefix=prefix,
        options=options,
    )


def read_batch(  # noqa: PLR0913 - what a file does not say itself
    path: Path,
    *,
    out_root: Path | None,
    references: Path | None,
    settings: Settings | None = None,
    prefix: str | None = None,
    options: ReadOptions | None = None,
) -> Batch:
    """Read and check the batch file at `path`; ``-`` is standard input. Warnings are logged.

    `out_root` is the output root where it is known; only then may outputs be absolute, inside it. Else, by the
    `settings`, a fleet will write them into their `out_dir`, into the folder `prefix`, by default one with the file's
    name without its ending. No output may be a reference of the batch there, nor lie among recordings of a speaker.

    `references` is a folder of references, ``<speaker_id>/*.wav`` with ``.lab``, for speakers whose rows name none.
    Relative paths in the file are relative to its folder, and on standard input to the current folder. References must
    lie, all links followed, in that folder, in `references` or in the folder that the `settings` name, or be that of
    the `options`. Where the settings name a recogniser, a recording without a transcript gets one: see `Transcripts`.

    Raises `BadBatch`, which lists the first `MOST_KEPT` things that are wrong, and, if the recogniser cannot be used,
    `BadSetting` or `MissingPackage`.
    """
    options = options or ReadOptions()
    source = FROM_STANDARD_INPUT if path == STANDARD_INPUT else path
    problems = Problems(str(source))
    absolute = source.absolute()
    base = absolute.parent
    document = read_document(path, base, options, problems.warn)
    named = options.reference and options.reference.absolute()
    roots = tuple(root for root in (base, references, settings and settings.references_dir, named) if root)
    recogniser = recogniser_of(settings) if settings else None
    audio = read_audio_options(document.audio, options.audio, problems)
    dashes = "--" if options.from_command_line else ""
    speaker_references = SpeakerReferences(absolute, references, roots, problems, recogniser, f"{dashes}references")
    outputs = Outputs(out_root, audio, _folder_of_fleet(settings, source, prefix), f"{dashes}prefix")
    checker = _Checker(outputs, speaker_references, problems, options.language or "")
    generation = checker.generation(document.generation)
    checkpoint_dir = checker.checkpoint_dir(document.checkpoint_dir)
    review = read_review(document.review, problems)
    for row in document.rows:
        if isinstance(row, Problem):
            problems.add(row)
        elif row.number < MAX_SEGMENTS:
            checker.add(row)
        else:
            problems.add(Problem("the file", f"it has more than {MAX_SEGMENTS} segments", "split it into several"))
            break
    speakers = checker.speakers()
    problems.raise_any()
    return Batch(source, speakers, generation, audio, checkpoint_dir, review=review)


def _folder_of_fleet(settings: Settings | None, source: Path, prefix: str | None) -> Path | None:
    """Where a fleet will write the outputs, as this machine sees it; None if that is not known, or the prefix is no
    name, which `Client` refuses."""
    if settings is None or (prefix and name_flaw(prefix)):
        return None
    return settings.out_dir / (source.stem if prefix is None else prefix)


@dataclass
class _SpeakerRows:
    """What the rows so far hold of a speaker."""

    first: Row
    naming: Row
    """The first row that names the reference with its transcript; the first of all if none does."""
    segments: list[Segment] = field(default_factory=list)
    texts: int = 0
    """Rows so far, also those that have a problem."""
    places: list[str] = field(default_factory=list)
    """The first `_PLACES_SHOWN` rows, or groups, that name the speaker's reference."""
    place_count: int = 0
    last_place: str = ""


class _Checker:
    """Turns rows into speakers. All methods may raise `BadBatch`, where there are too many problems."""

    def __init__(self, outputs: Outputs, references: SpeakerReferences, problems: Problems, language: str) -> None:
        """`language` is that of the texts for which their rows name none; empty if it is not known."""
        self._problems = problems
        self._outputs = outputs
        self._references = references
        self._language = language
        self._speakers: dict[str, _SpeakerRows] = {}
        self._places: dict[int, str] = {}
        """Segment index -> the place of its row."""
        self._ids: dict[str, str] = {}
        """The same for the segments' ids."""
        self._tags: set[str] = set()

    def generation(self, values: object) -> Generation:
        """The batch's generation parameters, or the defaults."""
        found = checked(Generation, {} if values is None else values, "generation")
        if isinstance(found, Generation):
            return found
        self._problems.extend(found)
        return Generation()

    def checkpoint_dir(self, value: object) -> str | None:
        """The checkpoint's folder as the batch spells it."""
        if value is None or (isinstance(value, str) and not name_flaw(value)):
            return value
        self._problems.add(Problem("checkpoint_dir", f"it is {shown(value)}", "give the name of a folder"))
        return None

    def add(self, row: Row) -> None:
        """Add a row, and check it against those before it."""
        self._check_tags(row)
        key = str(row.speaker_id)
        speaker = self._speakers.get(key)
        if speaker is None:
            speaker = self._speakers[key] = _SpeakerRows(row, row)
        self._check_speaker(row, speaker)
        index = row.number if row.segment_index is None else row.segment_index
        self._check_unique(self._places, "segment_index", index, row, "number every segment once")
        if row.id is not None:
            self._check_unique(self._ids, "id", row.id, row, "give every segment an id of its own")
        speaker.texts += 1
        output = self._outputs.claim(row, speaker.texts)
        if isinstance(output, Problem):
            self._problems.add(output)
        else:
            speaker.segments.append(Segment(index, row.text, output, row.id, row.seed, row.language or self._language))

    def speakers(self) -> tuple[Speaker, ...]:
        """All speakers, in the order in which they appear. Call it once, after the last row.

        Missing transcripts are recognised when nothing else is wrong, as that takes minutes. Raises `BadBatch`, and
        what `Recogniser.hear` raises.
        """
        if not self._speakers and not self._problems.count:
            self._problem("the file", "it has no segments", "give at least one")
        self._problems.extend(self._outputs.nested())
        self._problems.extend(self._outputs.among(self._references.user_files(self._wanted())))
        references = self._references.find(self._wanted())
        references = self._references.recognise(self._wanted(), references)
        return tuple(
            Speaker(key, reference, tuple(speaker.segments))
            for (key, speaker), reference in zip(self._speakers.items(), references, strict=True)
        )

    def _wanted(self) -> Iterator[Wanted]:
        for speaker in self._speakers.values():
            where = ", ".join(speaker.places)
            if speaker.place_count > _PLACES_SHOWN:
                where += f" and {speaker.place_count - _PLACES_SHOWN} more rows"
            yield speaker.naming, where

    def _problem(self, where: str, what: str, right: str) -> None:
        self._problems.add(Problem(where, what, right))

    def _check_unique(self, places: dict[Key, str], name: str, key: Key, row: Row, right: str) -> None:
        """Note the place of a row's key, and check that no row before has it."""
        place = places.setdefault(key, row.place)
        if place != row.place:
            self._problem(row.place, f"{name} {shown(key)} is also that of {place}", right)

    def _check_tags(self, row: Row) -> None:
        """Check the text's pauses, and warn of each tag that the model does not know, where it appears first."""
        if pause := misspelt_pause(row.text):
            right = f"write [pause:SECONDS], {MOST_PAUSE_S:.0f} s at most, such as [pause:0.8]"
            self._problem(row.place, f"{shown(pause)} is no pause", right)
            return
        if (pauses := pauses_s(row.text)) > MOST_PAUSES_S:
            what = f"the text has pauses of {pauses:.0f} s, and {MOST_PAUSES_S:.0f} is the most"
            self._problem(row.place, what, "shorten them, or split the text")
        for name, tag in unknown_tags(row.text).items():
            if name not in self._tags:
                self._tags.add(name)
                right = "leave it out; the model's own tags are words in brackets, such as (whispering)"
                self._problems.warn(Problem(row.place, f"the tag {shown(tag)} is not obeyed, and may be spoken", right))

    def _check_speaker(self, row: Row, speaker: _SpeakerRows) -> None:
        """Check that the speaker's id is spelt as before, and that it has one reference."""
        first = speaker.first
        if type(row.speaker_id) is not type(first.speaker_id):
            what = f"speaker {shown(row.speaker_id)} is {shown(first.speaker_id)} at {first.place}"
            self._problem(row.place, what, "write the id as a number or as a text, everywhere the same")
        if row.reference_place == speaker.last_place:  # another text of the same group
            return
        speaker.last_place = row.reference_place
        speaker.place_count += 1
        if speaker.place_count <= _PLACES_SHOWN:
            speaker.places.append(row.reference_place)
        naming = speaker.naming
        if different := self._references.difference(row.reference, naming.reference):
            what = f"speaker {shown(row.speaker_id)} has {different} {naming.reference_place}"
            self._problem(row.reference_place, what, "give a speaker one reference, everywhere the same")
        elif row.reference and naming.reference and row.reference.text and naming.reference.text is None:
            speaker.naming = row
