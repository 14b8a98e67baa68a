"""Finding, by the records of all batches under an output root, what they have generated that another batch wants.

This does not depend on what Redis still holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from posixpath import splitext
from typing import NamedTuple

from pydantic_core import to_json

from cloner.output.audio_files import OutputRoot
from cloner.output.journal import published_digests
from cloner.output.origin import Origin
from cloner.output.own_folder import OwnFolder
from cloner.output.record import batch_folder, record_files
from cloner.output.record_lines import Records, log_skipped, parse_line, read_lines
from cloner.output.takes import TAKES
from cloner.protocol.messages import Manifest
from cloner.protocol.results import SegmentResult
from cloner.validation import HOUSEKEEPING


class _Take(NamedTuple):
    """What a segment's audio file is, whatever its name."""

    key: str
    """Its content key; of a file among the takes, its name there without the ending."""
    suffix: str


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
    altered: frozenset[str] = frozenset()
    """Those of `foreign` whose names a version of the same batch has written last: something else has changed, cut or
    replaced its file since."""

    def done(self) -> Iterator[str]:
        """Outputs that need not be generated."""
        yield from self.finished
        yield from self.elsewhere


def find_outputs(outputs: OutputRoot, wanted: Mapping[str, str], origin: Origin | None, batch_id: str = "") -> Found:
    """Search the records of all batches for the `wanted` outputs (output -> content key).

    `origin` is that of the batch that wants them, and `batch_id` its id; without an origin, `replaced` and `foreign`
    are empty. A million lines
    of open batches about other outputs take about half a second, or a second if content keys are looked for, and no
    memory: a line is kept for each of `wanted`. Of closed batches, only the indexes are read. Records that cannot be
    read are logged and skipped.
    """
    records = Records(outputs.root, origin, batch_id)
    finished, changed, last_own = _by_name(records, outputs, wanted)
    missing = {output: key for output, key in wanted.items() if output not in finished} if finished else wanted
    sources = _by_key(records, outputs, missing.values()) if missing and records.files else {}
    elsewhere = {
        output: source
        for output, key in (missing.items() if sources else ())
        if (source := sources.get(_Take(key, splitext(output)[1])))
    }
    changed -= elsewhere.keys()
    if origin is None:
        return Found(finished, elsewhere, frozenset(changed))
    replaced, foreign = _files_there(records, outputs, missing, last_own)
    return Found(finished, elsewhere, frozenset(changed), replaced, foreign, frozenset(last_own.keys() & foreign))


def leftover_files(outputs: OutputRoot, manifest: Manifest, open_batches: Collection[str] = ()) -> list[str]:
    """The files that earlier versions of a batch have written and that it does not name, as they were written; but for
    those of the `open_batches`. Raises `OSError` where a record of these cannot be read."""
    origin = Origin.of(manifest)
    records = Records(outputs.root, origin)
    named = {to_json(output)[1:-1] for output in manifest.outputs()}
    last = {output: line for _, output, _, line in records.lines(records.own) if output not in named}
    found = {result.output for line in last.values() if (result := parse_line(line)) and outputs.has_result(result)}
    return sorted(found - held_outputs(outputs, open_batches, found))


def held_outputs(outputs: OutputRoot, batch_ids: Collection[str], among: Collection[str]) -> set[str]:
    """Those of the outputs `among` which the records of these batches name, or which lie among their takes. Raises
    `OSError`."""
    if not among:
        return set()
    written = {to_json(output)[1:-1]: output for output in among}
    takes = tuple(f"{HOUSEKEEPING}/{batch_id}/" for batch_id in batch_ids)
    held = {output for output in among if output.startswith(takes)}
    for folder in (batch_folder(outputs.root, batch_id) for batch_id in batch_ids):
        for name in record_files(folder):
            held.update(written[output] for output, _, _ in read_lines(folder, name) if output in written)
    return held


def last_takes(outputs: OutputRoot, keys: Collection[str], *, failed: bool) -> dict[str, int]:
    """The highest number of a take of each content key, with `failed` also of those that failed; a key without a line
    is left out."""
    last: dict[str, int] = {}
    records = Records(outputs.root, None)
    for _, _, key, line in records.lines(records.about(keys=keys), failed=failed):
        if key in keys and (result := parse_line(line)):
            last[key] = max(last.get(key, 0), result.take)
    return last


def _by_name(
    records: Records, outputs: OutputRoot, wanted: Mapping[str, str]
) -> tuple[dict[str, SegmentResult], set[str], dict[str, bytes]]:
    """What is there under its name, what was last generated with another key, and the lines of that if they are of the
    same batch."""
    if not records.files:  # a batch of a million segments needs no table for that
        return {}, set(), {}
    # Names as a line has them, so that lines about other outputs are skipped without parsing.
    written = {to_json(output)[1:-1]: output for output in wanted}
    last: dict[str, bytes] = {}
    own: set[str] = set()
    right: dict[str, bytes] = {}
    others: defaultdict[str, list[bytes]] = defaultdict(list)
    for folder, output, key, line in records.lines(records.about(outputs=written)):
        if name := written.get(output):
            if key == wanted[name]:
                if name in right:  # as of two workers that have generated the segment
                    others[name].append(right[name])
                right[name] = line
            last[name] = line
            if folder.path in records.own:
                own.add(name)
            else:
                own.discard(name)
    finished: dict[str, SegmentResult] = {}
    changed: set[str] = set()
    for name, line in last.items():
        for known in (right[name], *reversed(others.get(name, ()))) if name in right else ():
            if (result := parse_line(known)) and outputs.has_result(result):
                finished[name] = result
                break
        else:
            if line is not right.get(name):
                changed.add(name)
    return finished, changed, {name: last[name] for name in own if name not in finished}


def _by_key(records: Records, outputs: OutputRoot, wanted: Iterable[str]) -> dict[_Take, Source]:
    """The files with these content keys, wherever they are."""
    keys = set(wanted)
    last: dict[tuple[str, bytes], tuple[bytes, bool]] = {}
    for folder, output, key, line in records.lines(records.about(keys=keys)):
        if key in keys:
            last[key, splitext(output)[1]] = line, folder.path in records.own
    takes = _takes(records.folders) if last else {}
    found = {}
    for line, is_own in last.values():
        result = parse_line(line)
        for place in _places(result, takes) if result else ():
            if outputs.has_result(place):
                found[_Take(place.key, splitext(place.output)[1])] = Source(place, is_own)
                break
    return found


def _places(line: SegmentResult, takes: Mapping[_Take, str]) -> Iterator[SegmentResult]:
    """Where the line's file may be: under its name, or among the takes; there also as replaced by a take that has no
    line, as its process died before it could write it."""
    yield line
    suffix = splitext(line.output)[1]
    for name in (line.key, f"{line.key}.{line.digest}"):
        if place := takes.get(_Take(name, suffix)):
            yield replace(line, output=place)


def _takes(folders: Iterable[OwnFolder]) -> dict[_Take, str]:
    """The takes of all batches, relative to the output root."""
    found = {}
    for folder in folders:
        takes = folder.inner(TAKES)
        try:
            names = takes.files("*")
        except OSError as error:
            log_skipped(takes.path, error)
            continue
        for name in names:
            found[_Take(*splitext(name))] = f"{HOUSEKEEPING}/{folder.path.name}/{TAKES}/{name}"
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
        line = parse_line(last_own.get(output, b""))
        if line and outputs.has_result(line):
            replaced[output] = line
        else:
            unknown.append(output)
    if unknown:
        known = _own_files(records, unknown)
        there = {output: outputs.digest_of(output) for output in unknown}
        replaced |= {output: known[digest] for output, digest in there.items() if digest in known}
    return replaced, [output for output in unknown if output not in replaced]


def _own_files(records: Records, names: Iterable[str]) -> dict[str, SegmentResult | None]:
    """The digests of all files that versions of the same batch have written under these names, or were about to, each
    with its line if it has one."""
    written = {to_json(output)[1:-1] for output in names}
    lines = (line for _, output, _, line in records.lines(records.own) if output in written)
    known: dict[str, SegmentResult | None] = {}
    for folder in records.folders:
        if folder.path in records.own:
            known |= dict.fromkeys(published_digests(folder))
    known |= {line.digest: line for line in map(parse_line, lines) if line}
    known.pop("", None)
    return known
