"""The takes that a segment is generated with if its file is missing, according to the records of all batches.

Who has a segment redone rejects the takes before: they must not come back with the segment's own seed, as after its
file is lost, or its output gets another format.
"""

from __future__ import annotations

from cloner.output.audio_files import OutputRoot
from cloner.output.record import batch_folder, translate_disk_errors
from cloner.output.search import Records, parse_line
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import Manifest, TakeRow

_TAKE, _FIRST = b'"take":', b'"take":1,"seed":0'
"""Parts of a line of a record, as in `search.py`; the second is a first take's."""


def chosen_takes(outputs: OutputRoot, manifest: Manifest) -> dict[int, TakeRow]:
    """Segment index -> its take, of a batch's segments that have another one than the first: of those that were
    generated with the segment's content key, the one with the highest number.

    Content keys are computed only if any batch has such takes; lines without are read as fast as `find_outputs` does.
    Raises `RecordFailed`.
    """
    with translate_disk_errors(batch_folder(outputs.root, manifest.batch_id).path):
        records = Records(outputs.root, None)
    last: dict[str, tuple[int, int]] = {}
    for _, _, key, line in records.lines():
        # Most lines are skipped without parsing; those of version 0.1 have no take.
        if _FIRST in line or _TAKE not in line:
            continue
        if (result := parse_line(line)) and result.take > 1:
            last[key] = max(last.get(key, (1, 0)), (result.take, result.seed))
    if not last:
        return {}
    keys = ContentKeys(manifest.speech)
    return {
        row[0]: (row[0], *take, "")
        for speaker in manifest.speakers
        for row in speaker.segments
        if (take := last.get(keys.of(speaker, row)))
    }
