"""Batches of a fleet share its output folder: two that are under way must not write the same files."""

from __future__ import annotations

import math

from redis import Redis

from cloner.errors import Damaged, OutputsTaken
from cloner.logs import get_logger
from cloner.queues import Names
from cloner.wire import Manifest

SENDING_S = 60.0
"""Seconds that a client may take from writing a batch down to sending it."""

SHOWN = 3
"""Outputs that a refusal names."""


def check_outputs(manifest: Manifest, blobs: Redis, names: Names) -> None:
    """Raise `OutputsTaken` if a batch that is neither closed nor cancelled writes a file of this one's.

    Only batches under way are read, less than half a second for 100,000 segments. Who writes the batch down must
    watch `names.batches` from before this look: two may be submitted at the very same moment.
    """
    wanted = set(manifest.outputs())
    for batch_id in _open_batches(blobs, names, manifest.submitted_at):
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


def _open_batches(blobs: Redis, names: Names, now: float) -> list[str]:
    ids = [
        batch_id.decode(errors="replace")
        for batch_id in blobs.zrange(names.batches, 0, -1)
        if isinstance(batch_id, bytes)
    ]
    with blobs.pipeline(transaction=False) as pipe:
        for batch_id in ids:
            pipe.hmget(names.batch(batch_id), "state", "cancelled", "submitted_at")
        pipe.llen(names.collector_queue)
        *found, unopened = pipe.execute()
    states = zip(ids, found, strict=True)
    return [
        one
        for one, (state, cancelled, submitted_at) in states
        if not cancelled
        # Where no message waits to be opened, its client died before it sent it.
        and (state == b"running" or (state == b"submitting" and (unopened or _age(now, submitted_at) < SENDING_S)))
    ]


def _age(now: float, submitted_at: bytes | None) -> float:
    try:
        return now - float(submitted_at or "")
    except ValueError:  # no batch of ours
        return math.inf
