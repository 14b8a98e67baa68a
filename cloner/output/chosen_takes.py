"""The takes that a segment is generated with if its file is missing, according to the records of all batches.

Who has a segment redone rejects the takes before: they must not come back with the segment's own seed, as after its
file is lost, or its output gets another format.

A record has a line for each segment, and few of them are about takes after the first. Those are kept beside the record,
in `INDEX`, so that the record of a closed batch is read once. It is a cache: without it, the record is read again.
"""

from __future__ import annotations

from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from cloner.output.audio_files import OutputRoot
from cloner.output.own_folder import OwnFolder
from cloner.output.record import batch_folder, record_files, translate_disk_errors
from cloner.output.record_lines import log_skipped, parse_line, read_lines
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest
from cloner.protocol.rows import TakeRow

INDEX = "takes-index.json"
"""The file with a batch's takes after the first, beside its record."""

_TAKE, _FIRST = b'"take":', b'"take":1,"seed":0'
"""Parts of a line of a record, as in `search.py`; the second is a first take's."""


class _Index(BaseModel):
    """The takes after the first of a batch's record, as its files were."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, tuple[int, int]]
    """Name -> size, and time of the last change, nanoseconds."""
    takes: dict[str, tuple[int, int]]
    """Content key -> number and seed of its last take."""


def chosen_takes(outputs: OutputRoot, manifest: Manifest) -> dict[int, TakeRow]:
    """Segment index -> its take, of a batch's segments that have another one than the first: of those that were
    generated with the segment's content key, the one with the highest number.

    Content keys are computed only if any batch has such takes. A thousand batches of ten thousand segments take 16 s of
    CPU the first time, and 0.1 s when their records have not changed since. Raises `RecordFailed`.
    """
    with translate_disk_errors(batch_folder(outputs.root, manifest.batch_id).path):
        folders = OwnFolder(outputs.root).inner_folders()
    last: dict[str, tuple[int, int]] = {}
    for folder in folders:
        for key, found in _takes(folder).items():
            last[key] = max(last.get(key, found), found)
    if not last:
        return {}
    keys = ContentKeys(manifest.speech)
    return {
        row.segment: TakeRow(row.segment, *take, "")
        for speaker in manifest.speakers
        for row in speaker.segments
        if (take := last.get(keys.of(speaker, row)))
    }


def _takes(folder: OwnFolder) -> dict[str, tuple[int, int]]:
    """The takes after the first in a batch's record: content key -> number and seed of the last."""
    try:
        # Before its lines are read: one that is added meanwhile makes the index that of other files.
        files = {name: (status.st_size, status.st_mtime_ns) for name, status in record_files(folder).items()}
    except OSError as error:
        log_skipped(folder.path, error)
        return {}
    if not files:
        return {}
    if (index := _read_index(folder)) and index.files == files:
        return index.takes
    takes: dict[str, tuple[int, int]] = {}
    try:
        for name in files:
            for _, key, line in read_lines(folder, name):
                # Most lines are skipped without parsing; those of version 0.1 have no take.
                if _TAKE in line and _FIRST not in line and (result := parse_line(line)) and result.take > 1:
                    takes[key] = max(takes.get(key, (1, 0)), (result.take, result.seed))
    except OSError as error:
        log_skipped(folder.path, error)
        return takes  # and no index: the rest may be read the next time
    # Where it cannot be written, as on a full disk, the record is read again the next time.
    with suppress(OSError):
        folder.write(INDEX, [_Index(files=files, takes=takes).model_dump_json().encode()])
    return takes


def _read_index(folder: OwnFolder) -> _Index | None:
    """The index of a batch's record; None if there is none that can be read."""
    try:
        return _Index.model_validate_json(folder.read(INDEX))
    except (OSError, ValidationError):
        return None
