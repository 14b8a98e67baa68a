"""The reference of each speaker of a batch file: the one that its rows name, or that of its folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from os import scandir
from os.path import isdir, islink, normpath, realpath
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from cloner.batch import Reference, ReferenceKind
from cloner.errors import BadReference, Problem
from cloner.input import ffmpeg
from cloner.input.output_names import UserFiles, names_folder
from cloner.input.parallel import parallel
from cloner.input.problems import Problems
from cloner.input.reference_files import outside
from cloner.input.reference_quality import Quality
from cloner.input.references import RECORDING_ENDINGS, find_reference, judged, measure_file
from cloner.input.rows import REFERENCE_OPTION, NamedReference, Row
from cloner.input.transcripts import Transcripts
from cloner.output.written import WrittenFiles
from cloner.recogniser.whisper import Recogniser
from cloner.validation import shown

Wanted = tuple[Row, str]
"""A row that names a speaker's reference, and all places of that speaker."""

Transcript = Callable[[ReferenceKind, Path], str | None]
"""Finds the transcript of a file; None if it is not written yet."""


_ADDRESS = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)

_NO_FOLDER = "no folder of references"
"""A cause that is no speaker's: its place is the option."""


class _Flaw(NamedTuple):
    """Why a speaker's reference cannot be used."""

    problem: Problem
    cause: str = ""
    """What many speakers may have the same problem of, which is then named once; empty for a problem of one alone."""
    is_known: bool = False
    """Whether a row of the speaker has the problem, too."""


@dataclass
class _Shared:
    """A problem of one or more speakers, as the first of them has it."""

    first: Problem
    others: int = 0
    """How many more speakers have it."""

    def problem(self) -> Problem:
        if not self.others:
            return self.first
        more = f" (and {self.others} more speaker{'s' if self.others > 1 else ''})"
        return replace(self.first, where=self.first.where + more)


class _Measurements:
    """What `measure_file` measures of files, or why it cannot. Each is read once, whatever threads ask for it."""

    def __init__(self) -> None:
        self._locks = [Lock() for _ in range(256)]
        """A lock has all files of one hash: one for each would take the memory of a million."""
        self._of = cache(_measured)

    def of(self, kind: ReferenceKind, path: Path) -> Quality | BadReference:
        """Of the file at `path`."""
        with self._locks[hash(path) % len(self._locks)]:
            return self._of(kind, path)


class SpeakerReferences:
    """Finds and checks references. Each file is read once, whatever speakers have it."""

    def __init__(  # noqa: PLR0913, PLR0917 - where references may be, and what is said of them
        self,
        batch: Path,
        folder: Path | None,
        roots: tuple[Path, ...],
        problems: Problems,
        recogniser: Recogniser | None = None,
        option: str = "references",
    ) -> None:
        """`batch` is the absolute path of the file, in whose folder relative names start.

        `folder` has the references of speakers whose rows name none, `option` is the user's name for that folder, and
        the `recogniser` writes missing transcripts.
        """
        self._batch = batch
        self._base = batch.parent
        self._folder = folder
        self._option = option
        self._roots = roots
        self._transcripts = Transcripts(roots, batch, recogniser)
        self._hint = "" if recogniser else "; CLONER_RECOGNISER may name a model that writes missing transcripts"
        self._problems = problems
        self._measurements = _Measurements()
        self._is_folder = cache(isdir)
        self._written_lock = Lock()
        self._written: WrittenFiles | None = None
        self._left_out: set[Path] = set()
        """Files in the folder of references that batches have written."""

    def difference(self, here: NamedReference | None, there: NamedReference | None) -> str | None:
        """How a row's reference differs from that of an earlier row; what follows is that row's place.

        A transcript that one of them leaves out is that of the other.
        """
        if here == there:
            return None
        if here is None or there is None:
            return "no reference here, but one at" if there else "a reference here, but none at"
        if here.kind != there.kind or normpath(self._base / here.file) != normpath(self._base / there.file):
            return f"the reference {shown(here.file)} here, but {shown(there.file)} at"
        same = here.text == there.text or None in (here.text, there.text)
        return None if same else "another transcript of its reference here than at"

    def user_files(self, wanted: Iterable[Wanted]) -> UserFiles:
        """The batch file, and where the references of these speakers are, whether there is anything or not: those that
        rows name, folders of recordings, and what links in these lead to."""
        user = UserFiles({realpath(self._batch): "the batch file"})
        real_folder = cache(realpath)
        for row, _ in wanted:
            if row.reference:
                path = self._base / row.reference.file
                real = f"{real_folder(path.parent)}/{path.name}"
                what = f"the reference of speaker {shown(row.speaker_id)}"
                user.files.setdefault(real, what)
                if islink(real):  # noqa: PTH114 - false of a name that is too long
                    user.files.setdefault(realpath(real), what)
            elif self._folder and names_folder(row.speaker_id):
                folder = realpath(self._folder / str(row.speaker_id))
                user.folders.setdefault(folder, str(row.speaker_id))
                for file in _ends_of_links(folder):
                    user.files.setdefault(file, f"a recording of speaker {shown(row.speaker_id)}")
        return user

    def find(self, wanted: Iterable[Wanted]) -> list[Reference]:
        """The references of all speakers, in their order, checked and judged by a thread for each core.

        One whose transcript is still to be recognised has an empty one. Raises `BadBatch` if the batch has any problem.
        """
        look = partial(self._look, self._transcripts.find)
        try:
            return self._without_problems(parallel(look, wanted))
        finally:
            if self._left_out:
                more = f" and {len(self._left_out) - 1} more" if len(self._left_out) > 1 else ""
                some = f"{shown(str(min(self._left_out)))}{more}"
                what = f"left out, as batches have written it without a transcript: {some}"
                self._problems.warn(Problem(self._option, what, "keep recordings and outputs in folders of their own"))

    def recognise(self, wanted: Iterable[Wanted], references: Iterable[Reference]) -> list[Reference]:
        """The `references` of these speakers, with the transcripts that they lack.

        Raises `BadBatch`, and what `Recogniser.hear` raises.
        """
        return self._without_problems(
            reference if reference.text else self._look(self._transcripts.recognise, speaker)
            for speaker, reference in zip(wanted, references, strict=True)
        )

    def _without_problems(self, found: Iterable[Reference | _Flaw]) -> list[Reference]:
        """The references, if the batch has no problem; one that several speakers have is added once, at the end."""
        references: list[Reference] = []
        shared: dict[str, _Shared] = {}
        for one in found:
            if isinstance(one, Reference):
                references.append(one)
            elif one.is_known and self._problems.count:
                continue
            elif not one.cause:
                self._problems.add(one.problem)
            elif one.cause in shared:
                shared[one.cause].others += one.cause != _NO_FOLDER
            else:
                shared[one.cause] = _Shared(one.problem)
        self._problems.extend(each.problem() for each in shared.values())
        if self._problems.count:
            self._problems.raise_any()
        return references

    def _look(self, transcript: Transcript, wanted: Wanted) -> Reference | _Flaw:
        row, where = wanted
        if row.reference:
            return self._named(row.reference, where, transcript)
        return self._in_folder(row, where, transcript)

    def _named(self, named: NamedReference, where: str, transcript: Transcript) -> Reference | _Flaw:
        path = self._base / named.file
        if misplaced := self._misplaced(named, path, where):
            return misplaced
        quality = self._measurements.of(named.kind, path)
        if isinstance(quality, BadReference):
            return _Flaw(Problem(where, quality.message, _right_file(named.kind, path)))
        try:
            text = named.text or transcript(named.kind, path)
        except BadReference as error:
            elsewhere = "with --reference-text" if where == REFERENCE_OPTION else "in the batch"
            right = f"write what is said in it into {path.with_suffix('.lab').name}, or give it {elsewhere}"
            if named.kind is ReferenceKind.AUDIO:
                right += self._hint
            return _Flaw(Problem(where, error.message, right))
        return judged(named.kind, (path,), (quality,), text or "")

    def _misplaced(self, named: NamedReference, path: Path, where: str) -> _Flaw | None:
        """What is wrong with the place of a reference, before the file is looked at, or None."""
        if _ADDRESS.match(named.file):
            what = f"{shown(named.file)} is an address, and nothing is fetched"
            return _Flaw(Problem(where, what, "download it, and name the file"))
        if flaw := outside(path, self._roots):
            right = "copy it there, or set CLONER_REFERENCES_DIR to a folder that holds it"
            return _Flaw(Problem(where, flaw, right), f"outside: {path.parent}")
        if not self._is_folder(path.parent):
            right = "put the reference there, or name it as it is from the folder of the batch file"
            what = f"there is no folder {shown(str(path.parent))}"
            return _Flaw(Problem(where, what, right), f"folder: {path.parent}")
        if flaw := ffmpeg.missing(path):
            right = f"install it, or {ffmpeg.conversion(path)}"
            return _Flaw(Problem(where, flaw, right), f"ffmpeg: {path.suffix}")
        return None

    def _in_folder(self, row: Row, where: str, transcript: Transcript) -> Reference | _Flaw:
        """The reference in the speaker's folder of the folder of references."""
        if not self._folder:
            right = f"name one for it, or give a folder of references with {self._option}"
            return _Flaw(Problem(where, f"speaker {shown(row.speaker_id)} has no reference", right), "none")
        if not self._is_folder(self._folder):
            what = f"there is no folder {shown(str(self._folder))}"
            return _Flaw(Problem(self._option, what, "name the folder of the speakers' references"), _NO_FOLDER)
        if not names_folder(row.speaker_id):
            what = f"speaker {shown(row.speaker_id)} cannot name a folder of references"
            return _Flaw(Problem(where, what, "give it another id"), is_known=row.output_file is None)
        try:
            return find_reference(self._folder / str(row.speaker_id), self._roots, transcript, self._is_recording)
        except BadReference as error:
            right = "put its recordings there, each with a .lab or .txt of the same stem, its transcript"
            return _Flaw(Problem(where, error.message, right + self._hint))

    def _is_recording(self, path: Path) -> bool:
        """Whether a file in the folder of references is one, and not what a batch has written there."""
        if self._folder is None or not self._transcripts.is_missing(path):
            return True
        with self._written_lock:
            self._written = self._written or WrittenFiles(self._folder)
        if path in self._written:
            self._left_out.add(path)
        return path not in self._left_out


def _ends_of_links(folder: str) -> list[str]:
    """Where the links in a folder lead, in the end; none if it cannot be read, which `find_reference` reports."""
    try:
        with scandir(folder) as entries:
            return [realpath(entry.path) for entry in entries if entry.is_symlink()]
    except OSError:
        return []


def _measured(kind: ReferenceKind, path: Path) -> Quality | BadReference:
    try:
        return measure_file(kind, path)
    except BadReference as error:
        return error


def _right_file(kind: ReferenceKind, path: Path) -> str:
    if kind is ReferenceKind.AUDIO:
        return "give a recording such as a .wav or .flac"
    if path.suffix.lower() in RECORDING_ENDINGS:
        return "give the .npy of its codes, which `cloner encode` makes of a recording"
    return "give the .npy that fish-speech's codec wrote"
