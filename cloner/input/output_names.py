"""Names of a batch's audio files: each is inside the output root, and used once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from os.path import realpath
from pathlib import Path
from posixpath import normpath

from cloner.audio import format_of
from cloner.batch import AudioOptions, rate_flaw
from cloner.errors import Problem
from cloner.input.rows import Row
from cloner.validation import leads_out, output_flaw, shown

_realpath = cache(realpath)
_leads_out = cache(leads_out)


def names_folder(speaker_id: int | str) -> bool:
    """Whether a speaker's id can be the name of a folder."""
    return "/" not in str(speaker_id) and speaker_id not in {".", ".."}


class Outputs:
    """The audio files of a batch, as its rows name them. `root` is the output root where it is known."""

    def __init__(self, root: Path | None, audio: AudioOptions) -> None:
        self._audio = audio
        self._root = root and realpath(root)
        self._places: dict[str, str] = {}

    def claim(self, row: Row, number: int) -> str | Problem:
        """The output of a speaker's `number`-th row, from 1, relative to the output root with ``/``.

        By default it is ``<speaker_id>/<number, 4 digits>.<format>``.
        """
        name = row.output_file
        if name is None:
            if not names_folder(row.speaker_id):
                what = f"speaker {shown(row.speaker_id)} cannot name the folder of its outputs"
                return Problem(row.place, what, "give an output_file, or the speaker another id")
            name = f"{row.speaker_id}/{number:04}.{self._audio.format}"
        output = self._relative(name)
        if flaw := self._flaw(output):
            what, right = flaw
            return Problem(row.place, f"output_file {shown(name)} {what}", right)
        rate = self._audio.rate
        if rate and (rates := rate_flaw(rate, format_of(output))):
            what = f"output_file {shown(name)} cannot have the rate {rate}"
            return Problem(row.place, what, f"let the rate be {rates}, or name another format")
        place = self._places.setdefault(output, row.place)
        if place != row.place:
            what = f"output_file {shown(name)} is also the output of {place}"
            return Problem(row.place, what, "give every row a file of its own")
        return output

    def nested(self) -> Iterator[Problem]:
        """A problem for each output that lies in a folder which is itself an output."""
        for output, place in self._places.items():
            folder = output
            while folder := folder.rpartition("/")[0]:
                if folder in self._places:
                    what = f"output_file {shown(output)} lies in a folder which is the output of {self._places[folder]}"
                    yield Problem(place, what, "rename one of them")

    def _relative(self, name: str) -> str:
        """`name` normalised; outside the output root, it begins with ``/`` or ``..``."""
        name = normpath(name)
        if not self._root or not name.startswith("/"):
            return name
        # `self._root` is resolved, so the name's folder is resolved, too.
        folder, _, file = name.rpartition("/")
        return f"{_realpath(folder or '/')}/{file}".removeprefix(f"{self._root}/")

    def _flaw(self, output: str) -> tuple[str, str] | None:
        """The flaw of an output and what would be right, or None."""
        inside = f"name a file inside {self._root}"
        if self._root and output.partition("/")[0] in {"", ".."}:
            return "is not inside the output root", inside
        if flaw := output_flaw(output):
            return flaw
        real = self._root and _leads_out(Path(self._root, output).parent, (Path(self._root),))
        return (f"leads out of the output root by a link, to {shown(real)}", inside) if real else None
