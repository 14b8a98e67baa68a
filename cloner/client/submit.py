"""Sending a batch: its references first, then the whole of it in one piece, then the one message that names it.

Batches of a fleet share its output folder: two that are under way must not write the same files.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import Redis, RedisError, WatchError

from cloner.batch import Batch, Speaker
from cloner.client.assignment import AssignmentSummary, Strategy, assign
from cloner.client.connection import FleetConnection
from cloner.errors import ClonerError, Damaged, OutputsTaken, printable
from cloner.input.references import load_reference
from cloner.logs import get_logger
from cloner.names import OPEN_BATCH, Names
from cloner.protocol.messages import Manifest, ReferenceRow, SpeakerRow
from cloner.state.connection import server_time
from cloner.state.registry import WorkerInfo

TRIES = 50
"""Tries to write a batch down; each that fails was in the way of another client, whose batch was taken."""


def upload(link: FleetConnection, speaker: Speaker) -> SpeakerRow:
    """Put the speaker's reference into Redis under its content hash. Raises `BadReference`, `RedisError`."""
    row, data = packed(speaker)
    link.blobs.set(link.names.reference(row.reference.digest), data, ex=keep_reference_s(link))
    return row


def keep_reference_s(link: FleetConnection) -> int:
    """Twice the batch's time: a reference must outlast the batch, however long that waits in its queue."""
    return 2 * link.settings.batch_ttl_s


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
    chunks, assignments = assign(batch, workers, strategy, link.names)
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
    _write_down(link, manifest, strategy)
    try:
        for number, assignment in enumerate(assignments):
            worker, speakers = assignment.worker.name, len(assignment.speakers)
            link.registry.assign(worker, f"{batch_id}/{number}", speakers, assignment.texts)
        link.tell_collector(OPEN_BATCH, [batch_id])
    except Exception:
        _withdraw(link, batch_id)
        raise
    except BaseException:
        # Stopped by a signal, when the message may be there already.
        with suppress(RedisError):
            link.blobs.hset(link.names.batch(batch_id), "cancelled", "1")
        raise
    return batch_id, assignments


def _write_down(link: FleetConnection, manifest: Manifest, strategy: Strategy) -> None:
    """Put the batch into Redis whole, unless another one that is under way writes the same files."""
    data = manifest.pack()
    for _ in range(TRIES):
        with link.blobs.pipeline() as pipe:
            pipe.watch(link.names.batches)  # type: ignore[no-untyped-call]
            check_outputs(manifest, link.blobs, link.names)
            pipe.multi()
            _put(pipe, link, manifest, data, strategy)
            with suppress(WatchError):
                pipe.execute()
                return
    raise ClonerError("too many clients submit batches at this moment: try again")


def _put(pipe: Any, link: FleetConnection, manifest: Manifest, data: bytes, strategy: Strategy) -> None:
    names, batch_id, keep = link.names, manifest.batch_id, link.settings.batch_ttl_s
    state: dict[Any, Any] = {
        "state": "submitting",
        "source": manifest.source,
        "strategy": strategy,
        "submitted_at": manifest.submitted_at,
        "total": manifest.total,
        "speakers": len(manifest.speakers),
        "chunks": len(manifest.chunks),
    }
    pipe.set(names.manifest(batch_id), data, ex=keep)
    pipe.hset(names.batch(batch_id), mapping=state)
    pipe.expire(names.batch(batch_id), keep)
    # An empty field, so that the hash is there to be given its expiry.
    pipe.hset(names.progress(batch_id), "", "[0, 0, 0, 0.0, false]")
    pipe.expire(names.progress(batch_id), keep)
    pipe.zadd(names.batches, {batch_id: manifest.submitted_at})
    pipe.zremrangebyscore(names.batches, "-inf", manifest.submitted_at - keep)


def _withdraw(link: FleetConnection, batch_id: str) -> None:
    """Take back a batch that could not be sent: nobody would ever close it."""
    names = link.names
    with suppress(RedisError), link.blobs.pipeline() as pipe:  # away with Redis, it is no worse
        pipe.delete(names.batch(batch_id), names.manifest(batch_id), names.progress(batch_id))
        pipe.zrem(names.batches, batch_id)
        pipe.execute()


def _new_id() -> str:
    """A name that sorts by time and can be said aloud."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


SHOWN = 3
"""Outputs that a refusal names."""


def check_outputs(manifest: Manifest, blobs: Redis, names: Names) -> None:
    """Raise `OutputsTaken` if a batch that is neither closed nor cancelled writes a file of this one's.

    Only batches under way are read, less than half a second for 100,000 segments. Who writes the batch down must
    watch `names.batches` from before this look: two may be submitted at the very same moment.
    """
    wanted = set(manifest.outputs())
    for batch_id in _open_batches(blobs, names):
        if batch_id == manifest.batch_id:
            continue  # its client did not hear that it was written down, and tries again
        data = blobs.get(names.manifest(batch_id))
        if not isinstance(data, bytes):
            continue  # it has expired
        try:
            other = Manifest.unpack(data)
        except Damaged:
            get_logger().warning(f"batch {batch_id} cannot be read here: its outputs were not compared with this one's")
            continue
        taken = sorted(wanted.intersection(other.outputs()))
        if taken:
            some = ", ".join(taken[:SHOWN]) + (", ..." if len(taken) > SHOWN else "")
            raise OutputsTaken(
                f"{len(taken)} outputs are also those of batch {batch_id} ({other.source}), which is not finished: "
                f"{some}; wait for it, cancel it (`cloner cancel {batch_id}`), or give the outputs other names"
            )


def _open_batches(blobs: Redis, names: Names) -> list[str]:
    ids = [
        batch_id.decode(errors="replace")
        for batch_id in blobs.zrange(names.batches, 0, -1)
        if isinstance(batch_id, bytes)
    ]
    with blobs.pipeline(transaction=False) as pipe:
        for batch_id in ids:
            pipe.hmget(names.batch(batch_id), "state", "cancelled")
        found = pipe.execute()
    return [
        batch_id
        for batch_id, (state, cancelled) in zip(ids, found, strict=True)
        # One whose client died before it sent it is opened by the collector soon.
        if state in {b"submitting", b"running"} and not cancelled
    ]
