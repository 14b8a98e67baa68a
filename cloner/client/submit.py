"""Sending a batch: its references first, then the whole of it in one piece, then the one message that names it.

Batches of a fleet share its output folder: two that are under way must not write the same files.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress

from redis import RedisError

from cloner.batch import Batch, Speaker
from cloner.client.assignment import AssignmentSummary, Strategy, assign
from cloner.client.connection import FleetConnection
from cloner.errors import Damaged, OutputsTaken, printable
from cloner.events import Event
from cloner.input.references import load_reference
from cloner.logs import log_event
from cloner.names import OPEN_BATCH
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.state.batches import BatchStore
from cloner.state.connection import server_time
from cloner.state.registry import WorkerInfo


def upload(link: FleetConnection, speaker: Speaker) -> SpeakerRow:
    """Put the speaker's reference into Redis under its content hash. Raises `BadReference`, `RedisError`."""
    row, data = packed(speaker)
    link.references.put(row.reference.digest, data)
    return row


def packed(speaker: Speaker) -> tuple[SpeakerRow, bytes]:
    """The speaker as it travels, and its reference's bytes. Raises `BadReference`."""
    data = load_reference(speaker.reference)
    row = SpeakerRow(
        id=speaker.id,
        reference=ReferenceRow(kind=data.kind, digest=data.key, text=data.text),
        segments=[(segment.index, segment.text, segment.output) for segment in speaker.segments],
    )
    return row, data.data


def send(
    link: FleetConnection, batch: Batch, rows: Sequence[SpeakerRow], workers: Sequence[WorkerInfo], strategy: Strategy
) -> tuple[str, list[AssignmentSummary]]:
    """Deal a batch whose references are in Redis over the workers, and send it; returns its id, and who was dealt what.

    `rows` are the batch's speakers. Raises `OutputsTaken`, `BrokerUnreachable`, `RedisError`.
    """
    chunks, assignments = assign(batch, workers, strategy, link.queues)
    manifest = Manifest(
        batch_id=_new_id(),
        source=printable(batch.source.name),
        submitted_at=server_time(link.redis),
        generation=batch.generation,
        engine=workers[0].engine,
        fingerprint=workers[0].fingerprint,
        speakers=list(rows),
        chunks=chunks,
    )
    batch_id = manifest.batch_id
    link.batches.add(manifest, strategy, check=lambda: check_outputs(manifest, link.batches))
    try:
        for number, assignment in enumerate(assignments):
            worker, speakers = assignment.worker.name, len(assignment.speakers)
            link.registry.assign(worker, f"{batch_id}/{number}", speakers, assignment.texts)
        link.tell_collector(OPEN_BATCH, [batch_id])
    except Exception:
        with suppress(RedisError):  # where Redis is away, the batch stays, and expires
            link.batches.remove(batch_id)
        raise
    except BaseException:
        # Stopped by a signal, when the message may be there already.
        with suppress(RedisError):
            link.batches.cancel(batch_id)
        raise
    return batch_id, assignments


def _new_id() -> str:
    """A name that sorts by time and can be said aloud."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


SHOWN = 3
"""Outputs that a refusal names."""


def check_outputs(manifest: Manifest, batches: BatchStore) -> None:
    """Raise `OutputsTaken` if a batch that is neither closed nor cancelled writes a file of this one's.

    Only open batches are read, less than half a second for 100,000 segments.
    """
    wanted = set(manifest.outputs())
    for batch_id in batches.open_ids(cancelled=False):
        if batch_id == manifest.batch_id:
            continue  # an earlier attempt has added it, and its client did not hear so
        try:
            other = batches.manifest(batch_id)
        except Damaged:
            log_event(Event.OUTPUTS_NOT_COMPARED, batch=batch_id)
            continue
        if other is None:
            continue  # it has expired
        taken = sorted(wanted.intersection(other.outputs()))
        if taken:
            some = ", ".join(taken[:SHOWN]) + (", ..." if len(taken) > SHOWN else "")
            raise OutputsTaken(
                f"{len(taken)} outputs are also those of batch {batch_id} ({other.source}), which is not finished: "
                f"{some}; wait for it, cancel it (`cloner cancel {batch_id}`), or give the outputs other names"
            )
