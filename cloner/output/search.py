"""Finding, by the records of all batches under an output root, what they have generated that another batch wants.

This does not depend on what Redis still holds.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from pydantic_core import to_json

from cloner.events import Event
from cloner.logs import log_event
from cloner.output.audio_files import OutputRoot
from cloner.output.journal import published_digests
from cloner.output.origin import Origin, read_origin
from cloner.output.own_folder import OwnFolder
from cloner.output.takes import TAKES
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING

_OUTPUT, _KEY, _GENERATED = b'"output":"', b'","key":"', b'"code":""'
"""Parts of a line of a record, a `SegmentResult` as JSON. They cannot occur in a string: its quotes are escaped."""

_KEY_LENGTH = 64


@dataclass(frozen=True)
class Source:
    """A file that another output wants."""

    line: SegmentResult
    """Its line; `output` is where the file is, relative to the output root."""
    is_own: bool
    """Whether a version of the same batch has written it."""

    @property
    def is_take(self) -> bool:
        """Whether it lies among a batch's takes, and not among the outputs."""
        return self.line.output.startswith(f"{HOUSEKEEPING}/")


@dataclass(frozen=True)
class Found:
    """The state of wanted outputs, according to the records."""

    finished: Mapping[str, SegmentResult]
    """Output -> its line: generated with the wanted content key, and its file is as it was written."""
    elsewhere: Mapping[str, Source]
    """Output -> a file with the wanted content key that has another name."""
    changed: frozenset[str]
    """Outputs that were last generated with another key, and are not among `elsewhere`."""
    replaced: Mapping[str, SegmentResult | None] = field(default_factory=dict)
    """Output -> the line of the file there, which a version of the same batch wrote with another key; None if that
    version died before it could write the line."""
    foreign: Sequence[str] = ()
    """Outputs whose names have files that no version of the same batch has written."""

    def done(self) -> Iterator[str]:
        """Outputs that need not be generated."""
        yield from self.finished
        yield from self.elsewhere


def find_outputs(outputs: OutputRoot, wanted: Mapping[str, str], origin: Origin | None) -> Found:
    """Search the records of all batches for the `wanted` outputs (output -> content key).

    `origin` is that of the batch that wants them; without it, `replaced` and `foreign` are empty. A million lines about
    other outputs take about half a second, or a second if content keys are looked for, and no memory: a line is kept
    for each of `wanted`. Records that cannot be read are logged and skipped.
    """
    records = Records(outputs.root, origin)
    finished, changed, last_own = _by_name(records, outputs, wanted)
    missing = {output: key for output, key in wanted.items() if output not in finished}
    sources = _by_key(records, outputs, set(missing.values())) if missing else {}
    elsewhere = {output: sources[key] for output, key in missing.items() if key in sources}
    changed -= elsewhere.keys()
    if origin is None:
        return Found(finished, elsewhere, frozenset(changed))
    replaced, foreign = _files_there(records, outputs, missing, last_own)
    return Found(finished, elsewhere, frozenset(changed), replaced, foreign)


class Records:
    """The records' files, in the order of their last change, by the file system's clock."""

    def __init__(self, root: Path, origin: Origin | None) -> None:
        self.folders = OwnFolder(root).inner_folders()
        self.own = {folder.path for folder in self.folders if origin and origin.path and read_origin(folder) == origin}
        times = []
        for folder in self.folders:
            try:
                times += [(status.st_mtime_ns, folder, name) for name, status in folder.files("*.jsonl").items()]
            except OSError as error:
                _log_skipped(folder.path, error)
        times.sort(key=lambda file: (file[0], file[1].path, file[2]))
        self.files = [(folder, name) for _, folder, name in times]

    def lines(self) -> Iterator[tuple[OwnFolder, bytes, bytes, bytes]]:
        """The lines about generated files: (folder, output as the line has it, content key, line)."""
        for folder, name in self.files:
            try:
                with os.fdopen(folder.open_file(name, os.O_RDONLY), "rb") as file:
                    for line in file:
                        output, _, rest = line.partition(_OUTPUT)[2].partition(_KEY)
                        # A crash may have left a line without its end.
                        if _GENERATED in rest and line.endswith(b"\n"):
                            yield folder, output, rest[:_KEY_LENGTH], line
            except OSError as error:
                _log_skipped(folder.path / name, error)


def leftover_files(outputs: OutputRoot, manifest: Manifest) -> list[str]:
    """The files that earlier versions of a batch have written and that it does not name, as they were written."""
    origin = Origin.of(manifest)
    records = Records(outputs.root, origin)
    named = {to_json(output)[1:-1] for output in manifest.outputs()}
    last = {
        output: line
        for folder, output, _, line in records.lines()
        if folder.path in records.own and output not in named
    }
    found = (result.output for line in last.values() if (result := _parse(line)) and outputs.has_result(result))
    return sorted(found)


def _by_name(
    records: Records, outputs: OutputRoot, wanted: Mapping[str, str]
) -> tuple[dict[str, SegmentResult], set[str], dict[str, bytes]]:
    """What is there under its name, what was last generated with another key, and the lines of that if they are of the
    same batch."""
    # Names as a line has them, so that lines about other outputs are skipped without parsing.
    written = {to_json(output)[1:-1]: output for output in wanted}
    last: dict[str, bytes] = {}
    own: set[str] = set()
    for folder, output, _, line in records.lines():
        if name := written.get(output):
            last[name] = line
            if folder.path in records.own:
                own.add(name)
            else:
                own.discard(name)
    finished: dict[str, SegmentResult] = {}
    changed: set[str] = set()
    for name, line in last.items():
        if not line.partition(_KEY)[2].startswith(wanted[name].encode()):
            changed.add(name)
        elif (result := _parse(line)) and outputs.has_result(result):
            finished[name] = result
    return finished, changed, {name: last[name] for name in own if name not in finished}


def _by_key(records: Records, outputs: OutputRoot, keys: Collection[str]) -> dict[str, Source]:
    """The files with these content keys, wherever they are."""
    wanted = {key.encode() for key in keys}
    last: dict[bytes, tuple[bytes, bool]] = {}
    for folder, _, key, line in records.lines():
        if key in wanted:
            last[key] = line, folder.path in records.own
    takes = _takes(records.folders) if last else {}
    found = {}
    for line, is_own in last.values():
        result = _parse(line)
        for place in _places(result, takes) if result else ():
            if outputs.has_result(place):
                found[place.key] = Source(place, is_own)
                break
    return found


def _places(line: SegmentResult, takes: Mapping[str, str]) -> Iterator[SegmentResult]:
    """Where the line's file may be: under its name, or among the takes."""
    yield line
    if line.key in takes:
        yield replace(line, output=takes[line.key])


def _takes(folders: Iterable[OwnFolder]) -> dict[str, str]:
    """Content key -> a take, relative to the output root."""
    found = {}
    for folder in folders:
        takes = folder.inner(TAKES)
        try:
            names = takes.files("*")
        except OSError as error:
            _log_skipped(takes.path, error)
            continue
        for name in names:
            found[PurePosixPath(name).stem] = f"{HOUSEKEEPING}/{folder.path.name}/{TAKES}/{name}"
    return found


def _files_there(
    records: Records, outputs: OutputRoot, missing: Iterable[str], last_own: Mapping[str, bytes]
) -> tuple[dict[str, SegmentResult | None], list[str]]:
    """The files at the names of missing outputs: those of the same batch, and the others."""
    replaced: dict[str, SegmentResult | None] = {}
    unknown = []
    for output in missing:
        if not outputs.is_taken(output):
            continue
        line = _parse(last_own.get(output, b""))
        if line and outputs.has_result(line):
            replaced[output] = line
        else:
            unknown.append(output)
    if unknown:
        known = _own_digests(records, unknown)
        replaced |= {output: None for output in unknown if outputs.digest_of(output) in known}
    return replaced, [output for output in unknown if output not in replaced]


def _own_digests(records: Records, names: Iterable[str]) -> set[str]:
    """The digests of all files that versions of the same batch have written under these names, or were about to."""
    written = {to_json(output)[1:-1] for output in names}
    lines = (line for folder, output, _, line in records.lines() if output in written and folder.path in records.own)
    digests = {line.digest for line in map(_parse, lines) if line}
    for folder in records.folders:
        if folder.path in records.own:
            digests |= published_digests(folder)
    return digests - {""}


def _log_skipped(path: Path, error: OSError) -> None:
    log_event(Event.RECORD_UNREADABLE, path=path, error=error)


def _parse(line: bytes) -> SegmentResult | None:
    try:
        return SegmentResult.from_json(line)
    except ValidationError:
        return None
