"""Names of a batch's audio files: each is inside the output root, and used once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from os.path import realpath
from pathlib import Path
from posixpath import normpath

from cloner.audio import format_of
from cloner.batch import AudioOptions, rate_flaw
from cloner.errors import Problem
from cloner.input.rows import Row
from cloner.validation import output_flaw, shown


def names_folder(speaker_id: int | str) -> bool:
    """Whether a speaker's id can be the name of a folder."""
    return "/" not in str(speaker_id) and speaker_id not in {".", ".."}


@dataclass(frozen=True)
class UserFiles:
    """What a user has made for a batch, and no output may replace; paths are real, all links followed."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> what it is, such as "the batch file"."""
    folders: dict[str, str] = field(default_factory=dict)
    """Path of a folder of which all recordings are a speaker's reference -> the speaker's id."""


class Outputs:
    """The audio files of a batch, as its rows name them. `root` is the output root where it is known; else a fleet will
    write them into the folder `of_fleet`, where this machine sees that, and the user's name for it is `prefix`."""

    def __init__(
        self, root: Path | None, audio: AudioOptions, of_fleet: Path | None = None, prefix: str = "prefix"
    ) -> None:
        self._audio = audio
        self._root = root and realpath(root)
        self._folder = self._root or (of_fleet and realpath(of_fleet))
        self._option = "--out" if root else prefix
        self._places: dict[str, str] = {}
        self._realpath = cache(realpath)

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

    def among(self, user: UserFiles) -> Iterator[Problem]:
        """A problem for each output that is one of the user's files, and one for all in folders of recordings:
        the next time, they would be recordings of the speaker. None where their folder is not known."""
        right = f"give another output folder than {shown(self._folder)} ({self._option})"
        in_folders: list[tuple[str, str, str]] = []
        for output, place in self._places.items() if self._folder else ():
            folder, _, name = output.rpartition("/")
            real = self._real_folder(folder)
            if what := user.files.get(f"{real}/{name}"):
                yield Problem(
                    place,
                    f"output_file {shown(output)} is {what}, which it would replace",
                    f"{right}, or name another file",
                )
            elif real in user.folders:
                in_folders.append((output, place, user.folders[real]))
        if in_folders:
            output, place, speaker = in_folders[0]
            more = f", as would {len(in_folders) - 1} more outputs" if len(in_folders) > 1 else ""
            what = f"output_file {shown(output)} would lie among the recordings of speaker {shown(speaker)}{more}"
            yield Problem(place, f"{what}, and be taken for one of them the next time", right)

    def _real_folder(self, folder: str) -> str:
        """The real path of a folder of outputs."""
        real: str = self._realpath(f"{self._folder}/{folder}")
        return real

    def _relative(self, name: str) -> str:
        """`name` normalised; outside the output root, it begins with ``/`` or ``..``."""
        name = normpath(name)
        if not self._root or not name.startswith("/"):
            return name
        # `self._root` is resolved, so the name's folder is resolved, too.
        folder, _, file = name.rpartition("/")
        return f"{self._realpath(folder or '/')}/{file}".removeprefix(f"{self._root}/")

    def _flaw(self, output: str) -> tuple[str, str] | None:
        """The flaw of an output and what would be right, or None."""
        inside = f"name a file inside {self._root}"
        if self._root and output.partition("/")[0] in {"", ".."}:
            return "is not inside the output root", inside
        if flaw := output_flaw(output):
            return flaw
        if not self._root:
            return None
        real = self._real_folder(output.rpartition("/")[0])
        if real == self._root or real.startswith(f"{self._root.rstrip('/')}/"):
            return None
        return f"leads out of the output root by a link, to {shown(real)}", inside
