"""Sending a batch: first its references, then its manifest, then one message to the collector that names it.

All batches of a fleet share its output folder, so two open batches must not write the same files.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from os.path import abspath

from pydantic import ValidationError
from redis import RedisError

from cloner.batch import STANDARD_INPUT, Batch, Review, Speaker, segment_seeds
from cloner.client.assignment import AssignmentSummary, Strategy, assign
from cloner.client.connection import FleetConnection
from cloner.errors import Damaged, OutputsTaken, UsageError, printable, some_of
from cloner.events import Event
from cloner.input.parallel import parallel
from cloner.input.references import load_reference
from cloner.logs import log_event
from cloner.names import OPEN_BATCH
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.protocol.rows import SegmentRow
from cloner.state.batches import BatchStore
from cloner.state.connection import server_time
from cloner.state.registry import Assigned, WorkerInfo
from cloner.validation import first_error, shown

SHOWN = 3
"""Most outputs that an error message names."""


def pack_speakers(batch: Batch) -> Iterator[tuple[SpeakerRow, bytes]]:
    """What `pack_speaker` makes of the batch's speakers, in their order, by a thread for each core.

    Raises `BadReference`, `UsageError`.
    """
    return parallel(partial(pack_speaker, seed=batch.generation.seed), batch.speakers)


def pack_speaker(speaker: Speaker, seed: int) -> tuple[SpeakerRow, bytes]:
    """The speaker's row of the manifest of a batch with that seed, and its reference's bytes. Raises `BadReference`,
    and `UsageError` where a program has made a batch of what no batch file may have."""
    data = load_reference(speaker.reference)
    counts = Counter(segment.language for segment in speaker.segments)
    language = max(counts, key=counts.__getitem__, default="")
    try:
        row = SpeakerRow(
            id=speaker.id,
            reference=ReferenceRow(kind=data.kind, digest=data.key, text=data.text),
            segments=[
                SegmentRow(segment.index, segment.text, segment.output, own)
                for segment, own in zip(speaker.segments, segment_seeds(speaker, seed), strict=True)
            ],
            language=language,
            other_languages=[(s.index, s.language) for s in speaker.segments if s.language != language],
        )
    except ValidationError as error:
        raise UsageError(f"speaker {shown(speaker.id)} cannot be sent: {first_error(error)}") from None
    return row, data.data


def send(  # noqa: PLR0913 - all that a batch is made of
    connection: FleetConnection,
    batch: Batch,
    rows: Sequence[SpeakerRow],
    workers: Sequence[WorkerInfo],
    strategy: Strategy,
    *,
    check: Callable[[Manifest], None] | None = None,
) -> tuple[str, list[AssignmentSummary]]:
    """Assign a batch whose references are in Redis to workers, and send it; returns its id and what each worker gets.

    `rows` are the batch's speakers as in the manifest. `check` may raise what refuses the batch. Raises `OutputsTaken`,
    `BrokerUnreachable`, `RedisError`.
    """
    chunks, summaries = assign(batch, workers, strategy, connection.queues)
    manifest = Manifest(
        batch_id=_new_id(),
        source=printable(batch.source.name),
        # Links are kept: they are how people name the file.
        path="" if batch.source == STANDARD_INPUT else printable(abspath(batch.source)),  # noqa: PTH100
        prefix=batch.prefix,
        overwrite=batch.overwrite,
        prune=batch.prune,
        partial=batch.partial,
        redo=batch.redo,
        review=_review(connection, batch),
        checkpoint_dir=batch.checkpoint_dir or "",
        submitted_at=server_time(connection.redis),
        generation=batch.generation,
        audio=batch.audio,
        engine=workers[0].engine,
        fingerprint=workers[0].fingerprint,
        speakers=list(rows),
        chunks=chunks,
        ids=[(s.index, s.id) for speaker in batch.speakers for s in speaker.segments if s.id is not None],
    )
    if check:
        check(manifest)
    batch_id = manifest.batch_id
    connection.batches.add(manifest, strategy, check=lambda: check_outputs(manifest, connection.batches))
    try:
        connection.registry.assign(
            {
                summary.worker.name: Assigned(f"{batch_id}/{number}", len(summary.speakers), summary.texts)
                for number, summary in enumerate(summaries)
            }
        )
        connection.tell_collector(OPEN_BATCH, batch_id)
    except Exception:
        with suppress(RedisError):  # where Redis is away, the batch stays, and expires
            connection.batches.remove(batch_id)
        raise
    except BaseException:
        # A signal stopped this process; the message may be in the queue already.
        with suppress(RedisError):
            connection.batches.cancel(batch_id)
        raise
    return batch_id, summaries


def _review(connection: FleetConnection, batch: Batch) -> Review:
    """Which of the batch's takes are reviewed: what it says, else suspects where a reviewer is there to hear them."""
    if batch.review is not None:
        return batch.review
    return "suspects" if connection.registry.reviewers() else "none"


def _new_id() -> str:
    """A short id that sorts by time."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


def check_outputs(manifest: Manifest, batches: BatchStore) -> None:
    """Raise `OutputsTaken` if a batch that is neither closed nor cancelled writes a file of this one's.

    Of the open batches, only those are read whose outputs may be in the same folder: less than half a second for
    100,000 segments.
    """
    wanted = set(manifest.outputs())
    for batch_id in batches.open_beside(manifest.prefix):
        if batch_id == manifest.batch_id:
            continue  # an earlier attempt of this client has added it, but the reply was lost
        try:
            other = batches.manifest(batch_id)
        except Damaged:
            log_event(Event.OUTPUTS_NOT_COMPARED, batch=batch_id)
            continue
        if other is None:
            continue  # it has expired
        taken = sorted(wanted.intersection(other.outputs()))
        if taken:
            some = some_of(taken, SHOWN)
            raise OutputsTaken(
                f"{len(taken)} outputs are also those of batch {batch_id} ({other.source}), which is not finished: "
                f"{some}; wait for it, cancel it (`cloner cancel {batch_id}`), or give the outputs other names"
            )
