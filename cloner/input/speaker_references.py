"""The reference of each speaker of a batch file: the one that its rows name, or that of its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from os.path import isdir, normpath
from pathlib import Path

from cloner.batch import Reference, ReferenceKind
from cloner.errors import BadReference, Problem
from cloner.input import ffmpeg
from cloner.input.output_names import names_folder
from cloner.input.problems import Problems
from cloner.input.reference_files import outside
from cloner.input.reference_quality import Quality
from cloner.input.references import RECORDING_ENDINGS, find_reference, judged, measure_file
from cloner.input.rows import REFERENCE_OPTION, NamedReference, Row
from cloner.input.transcripts import Transcripts
from cloner.recogniser.whisper import Recogniser
from cloner.validation import shown


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


class SpeakerReferences:
    """Finds and checks references. Each file is read once, whatever speakers have it. All methods may raise
    `BadBatch`, where there are too many problems."""

    def __init__(
        self,
        batch: Path,
        folder: Path | None,
        roots: tuple[Path, ...],
        problems: Problems,
        recogniser: Recogniser | None = None,
    ) -> None:
        """`batch` is the absolute path of the file, in whose folder relative names start.

        `folder` has the references of speakers whose rows name none, and the `recogniser` writes missing transcripts.
        """
        self._base = batch.parent
        self._folder = folder
        self._roots = roots
        self._transcripts = Transcripts(roots, batch, recogniser)
        self._hint = "" if recogniser else "; CLONER_RECOGNISER may name a model that writes missing transcripts"
        self._problems = problems
        self._measured = cache(_measured)
        self._is_folder = cache(isdir)
        self._shared: dict[str, _Shared] = {}
        """Problems that many speakers may have, by their causes."""

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

    def find(self, row: Row, where: str) -> Reference | None:
        """The reference of the speaker of a row, its files checked and judged.

        None if it has none, or one that cannot be used: that is a problem of the places `where`. Raises also what
        `Recogniser.hear` raises.
        """
        return self._named(row.reference, where) if row.reference else self._in_folder(row, where)

    def report_shared(self) -> None:
        """Add the problems that several speakers have. Call it once, after the last speaker."""
        self._problems.extend(shared.problem() for shared in self._shared.values())

    def _share(self, cause: str, where: str, what: str, right: str) -> None:
        """Note a speaker's problem, as one for all speakers that have it of the same cause."""
        if shared := self._shared.get(cause):
            shared.others += 1
        else:
            self._shared[cause] = _Shared(Problem(where, what, right))

    def _named(self, named: NamedReference, where: str) -> Reference | None:
        path = self._base / named.file
        if flaw := outside(path, self._roots):
            right = "copy it there, or set CLONER_REFERENCES_DIR to a folder that holds it"
            self._share(f"outside: {path.parent}", where, flaw, right)
        elif not self._is_folder(path.parent):
            right = "put the reference there, or name it as it is from the folder of the batch file"
            self._share(f"folder: {path.parent}", where, f"there is no folder {shown(str(path.parent))}", right)
        elif flaw := ffmpeg.missing(path):
            self._share(f"ffmpeg: {path.suffix}", where, flaw, f"install it, or {ffmpeg.conversion(path)}")
        else:
            quality = self._measured(named.kind, path)
            if isinstance(quality, BadReference):
                self._problems.add(Problem(where, quality.message, _right_file(named.kind, path)))
            elif text := named.text or self._transcript(named.kind, path, where):
                return judged(named.kind, (path,), (quality,), text)
        return None

    def _transcript(self, kind: ReferenceKind, path: Path, where: str) -> str | None:
        """The transcript beside a file; None, and a problem, if there is none that can be used."""
        try:
            return self._transcripts.find(kind, path)
        except BadReference as error:
            elsewhere = "with --reference-text" if where == REFERENCE_OPTION else "in the batch"
            right = f"write what is said in it into {path.with_suffix('.lab').name}, or give it {elsewhere}"
            if kind is ReferenceKind.AUDIO:
                right += self._hint
            self._problems.add(Problem(where, error.message, right))
            return None

    def _in_folder(self, row: Row, where: str) -> Reference | None:
        """The reference in the speaker's folder of the folder of references."""
        if not self._folder:
            right = "name one for it, or give a folder of references with --references"
            self._share("none", where, f"speaker {shown(row.speaker_id)} has no reference", right)
        elif not self._is_folder(self._folder):
            what = f"there is no folder {shown(str(self._folder))}"
            self._share("references", where, what, "name the folder of the speakers' references")
        elif not names_folder(row.speaker_id):
            what = f"speaker {shown(row.speaker_id)} cannot name a folder of references"
            self._problems.add(Problem(where, what, "give it another id"))
        else:
            try:
                return find_reference(self._folder / str(row.speaker_id), self._roots, self._transcripts)
            except BadReference as error:
                right = "put its recordings there, each with a .lab or .txt of the same stem, its transcript"
                right += self._hint
                self._problems.add(Problem(where, error.message, right))
        return None


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
