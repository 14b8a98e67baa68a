"""Sending a batch: its references first, then the whole of it in one piece, then the one message that names it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import RedisError, WatchError

from cloner import queues
from cloner.batch import Batch, Speaker
from cloner.dealing import Assignment, deal
from cloner.errors import ClonerError, printable
from cloner.fleet import WorkerInfo
from cloner.link import Link
from cloner.overlap import check_outputs
from cloner.plan import Strategy
from cloner.redisconn import server_time
from cloner.references import load_reference
from cloner.wire import Manifest, ReferenceRow, SpeakerRow

TRIES = 50
"""Tries to write a batch down; each that fails was in the way of another client, whose batch was taken."""


def upload(link: Link, speaker: Speaker) -> SpeakerRow:
    """Put the speaker's reference into Redis under its content hash. Raises `BadReference`, `RedisError`."""
    row, data = packed(speaker)
    link.blobs.set(link.names.reference(row.reference.digest), data, ex=keep_reference_s(link))
    return row


def keep_reference_s(link: Link) -> int:
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
    link: Link, batch: Batch, rows: Sequence[SpeakerRow], workers: Sequence[WorkerInfo], strategy: Strategy
) -> tuple[str, list[Assignment]]:
    """Deal a batch whose references are in Redis over the workers, and send it; returns its id, and who was dealt what.

    `rows` are the batch's speakers. Raises `OutputsTaken`, `BrokerUnreachable`, `RedisError`.
    """
    chunks, assignments = deal(batch, workers, strategy, link.names)
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
        link.tell_collector(queues.OPEN_BATCH, [batch_id])
    except BaseException:
        _withdraw(link, batch_id)
        raise
    return batch_id, assignments


def _write_down(link: Link, manifest: Manifest, strategy: Strategy) -> None:
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


def _put(pipe: Any, link: Link, manifest: Manifest, data: bytes, strategy: Strategy) -> None:
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


def _withdraw(link: Link, batch_id: str) -> None:
    """Take back a batch that could not be sent: nobody would ever close it."""
    names = link.names
    with suppress(RedisError), link.blobs.pipeline() as pipe:  # away with Redis, it is no worse
        pipe.delete(names.batch(batch_id), names.manifest(batch_id), names.progress(batch_id))
        pipe.zrem(names.batches, batch_id)
        pipe.execute()


def _new_id() -> str:
    """A name that sorts by time and can be said aloud."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
