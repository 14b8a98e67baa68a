"""What Redis holds of a batch: its state, its manifest, the progress of its chunks, its result.

No other module reads or writes these keys. Progress is kept in absolute counts, one hash field for each chunk, so a
chunk that runs twice counts once. The record beside the outputs, not this, says what is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from redis import Redis, WatchError

from cloner.errors import ClonerError, Damaged, UnknownBatch
from cloner.protocol.messages import Manifest
from cloner.protocol.results import BatchResult
from cloner.settings import Settings
from cloner.state.batch_list import BatchList, is_open, text_of
from cloner.state.cleanup import celery_results, chord_id
from cloner.state.damage import finite, integer, pass_over, unpacking
from cloner.state.keys import RedisKeys
from cloner.state.manifests import read_manifest, write_manifest
from cloner.state.progress import (
    BatchState,
    ChunkProgress,
    Progress,
    Round,
    Submission,
    closing_fields,
    read_progress,
)

SUBMIT_ATTEMPTS = 50
"""Attempts to add a batch; each one fails because another client has added a batch meanwhile."""

SET_FIELD = "if redis.call('EXPIRE', KEYS[1], ARGV[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end"
"""Sets a field of a batch, if that is there, and renews it. Redis without memory refuses HSET alone, but not behind a
write that needs none; and to cancel frees memory."""


class BatchStore:
    """The batches of a fleet. `redis` must not decode responses; a batch is kept for `ttl_s` seconds, from its
    submission, or the last call of `renew`, `begin_round` or `close`.

    A launcher's `redis` decodes them: it calls `progress_of` and `give_up_chunk` alone.

    Every method raises `RedisError` where Redis cannot be used.
    """

    def __init__(self, redis: Redis, keys: RedisKeys, ttl_s: int) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_s = ttl_s
        self._list = BatchList(redis, keys)

    @classmethod
    def of(cls, settings: Settings, redis: Redis) -> BatchStore:
        """The batches of the settings' fleet."""
        return cls(redis, RedisKeys(settings.fleet), settings.batch_ttl_s)

    def add(self, manifest: Manifest, strategy: str, check: Callable[[], None]) -> None:
        """Add a batch as a whole. `check` is called before, on a state that no other client changes meanwhile; what it
        raises is raised. Raises `ClonerError` where other clients are always faster."""
        data, key = manifest.pack(), self._keys.manifest(manifest.batch_id)
        for attempt in range(SUBMIT_ATTEMPTS):
            with self._redis.pipeline() as pipe:
                pipe.watch(self._keys.batches)  # type: ignore[no-untyped-call]
                try:
                    check()
                except ClonerError:
                    self._redis.delete(key)
                    raise
                if attempt == 0:
                    write_manifest(self._redis, key, data, self._ttl_s)
                expired = self._list.expired(pipe, manifest.submitted_at - self._ttl_s)
                pipe.multi()
                self._put(pipe, manifest, strategy)
                if expired:
                    pipe.zrem(self._keys.batches, *expired)
                with suppress(WatchError):
                    pipe.execute()
                    return
        self._redis.delete(key)
        raise ClonerError("too many clients submit batches at this moment: try again")

    def _put(self, pipe: Any, manifest: Manifest, strategy: str) -> None:
        keys, batch_id = self._keys, manifest.batch_id
        values: dict[Any, Any] = {
            "state": BatchState.SUBMITTING,
            "source": manifest.title,
            "prefix": manifest.prefix,
            "strategy": strategy,
            "submitted_at": manifest.submitted_at,
            "total": manifest.total,
            "speakers": len(manifest.speakers),
            "chunks": len(manifest.chunks),
        }
        pipe.hset(keys.batch(batch_id), mapping=values)
        # An empty field, so that the hash exists and can be given its expiry.
        pipe.hset(keys.progress(batch_id), "", ChunkProgress().pack())
        self._renew(pipe, batch_id)
        pipe.zadd(keys.batches, {batch_id: manifest.submitted_at})

    def renew(self, batch_ids: Iterable[str]) -> None:
        """Keep each of some batches for `ttl_s` seconds more, if it is there."""
        with self._redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                self._renew(pipe, batch_id)
            pipe.execute()

    def _renew(self, pipe: Any, batch_id: str) -> None:
        for key in self._lasting(batch_id):
            pipe.expire(key, self._ttl_s)

    def _lasting(self, batch_id: str) -> tuple[str, str, str]:
        """The keys of a batch that is not closed."""
        return self._keys.batch(batch_id), self._keys.manifest(batch_id), self._keys.progress(batch_id)

    def remove(self, batch_id: str) -> None:
        """Remove a batch that could not be sent: no collector would ever close it."""
        with self._redis.pipeline() as pipe:
            pipe.delete(*self._lasting(batch_id))
            pipe.zrem(self._keys.batches, batch_id)
            pipe.execute()

    def newest(self, count: int) -> list[str]:
        """As `BatchList.newest`."""
        return self._list.newest(count)

    def open_ids(self, *, cancelled: bool) -> list[str]:
        """As `BatchList.open_ids`."""
        return self._list.open_ids(cancelled=cancelled)

    def open_beside(self, prefix: str) -> list[str]:
        """As `BatchList.open_beside`."""
        return self._list.open_beside(prefix)

    def is_open(self, batch_id: str) -> bool:
        """Whether chunks of the batch may still run: it is neither done nor broken nor cancelled, and known."""
        state, cancelled = self._redis.hmget(self._keys.batch(batch_id), "state", "cancelled")
        return is_open(state) and not cancelled

    def is_done(self, batch_id: str) -> bool:
        """Whether the batch's result is there."""
        return self._redis.hget(self._keys.batch(batch_id), "state") == BatchState.DONE.encode()

    def is_cancelled(self, batch_id: str) -> bool:
        """Whether the user has cancelled the batch."""
        return bool(self._redis.hexists(self._keys.batch(batch_id), "cancelled"))

    def is_ended(self, batch_id: str) -> bool:
        """Whether nothing is generated for the batch any more: it is cancelled, done or broken. False for an unknown
        one: Redis may have lost its data."""
        state, cancelled = self._redis.hmget(self._keys.batch(batch_id), "state", "cancelled")
        return bool(cancelled) or (state is not None and not is_open(state))

    def cancel(self, batch_id: str) -> None:
        """Mark the batch as cancelled, if it is there; its workers stop within a step."""
        self._set_field(batch_id, "cancelled", "1")

    def set_running(self, batch_id: str) -> None:
        """The collector opens the batch, if it is there."""
        self._set_field(batch_id, "state", BatchState.RUNNING)

    def is_running(self, batch_id: str) -> bool:
        """Whether a collector has opened the batch, and it is open."""
        return self._redis.hget(self._keys.batch(batch_id), "state") == BatchState.RUNNING.encode()

    def set_sent(self, batch_id: str, number: int) -> None:
        """All messages of the batch's round of that number have been sent."""
        self._set_field(batch_id, "sent", str(number))

    def is_sent(self, batch_id: str, number: int) -> bool:
        """Whether all messages of the batch's round of that number have been sent."""
        return self._redis.hget(self._keys.batch(batch_id), "sent") == str(number).encode()

    def _set_field(self, batch_id: str, field: str, value: str) -> None:
        self._redis.eval(SET_FIELD, 1, self._keys.batch(batch_id), self._ttl_s, field, value)

    def set_broken(self, batch_id: str, error: str) -> None:
        """The batch could not be opened or closed; does nothing if it is closed, or has expired."""
        key = self._keys.batch(batch_id)
        while True:
            with self._redis.pipeline() as pipe, suppress(WatchError):
                pipe.watch(key)  # type: ignore[no-untyped-call]
                if is_open(pipe.hget(key, "state")):
                    pipe.multi()
                    pipe.hset(key, mapping={"state": BatchState.BROKEN, "error": error})
                    pipe.execute()
                return

    def begin_round(self, batch_id: str, following: Round, progress: Mapping[int, ChunkProgress], chunks: int) -> bool:
        """Begin a round: note it and the progress of its chunks, remove what Celery keeps of the round before, and
        renew the batch, since a review may take longer than a batch is kept.

        Returns whether the batch is in the round before `following` and still open. `chunks` is how many the batch has.
        """
        key = self._keys.batch(batch_id)
        while True:
            with self._redis.pipeline() as pipe:
                pipe.watch(key)  # type: ignore[no-untyped-call]
                state, packed = cast("list[bytes | None]", pipe.hmget(key, "state", "round"))
                if not is_open(state) or _round(packed).number != following.number - 1:
                    return False
                pipe.multi()
                pipe.hset(key, "round", following.pack())
                for number, counts in progress.items():
                    pipe.hset(self._keys.progress(batch_id), str(number), counts.pack())
                pipe.delete(*celery_results(chord_id(batch_id, following.number - 1), chunks))
                self._renew(pipe, batch_id)
                with suppress(WatchError):
                    pipe.execute()
                    return True

    def close(self, result: BatchResult, last: Round, chunks: int) -> None:
        """Keep the batch's result, and remove what Celery keeps of its `chunks` and its `last` round: a chunk that is
        delivered again after this is not generated."""
        with self._redis.pipeline() as pipe:
            pipe.set(self._keys.result(result.batch_id), result.pack(), ex=self._ttl_s)
            pipe.hset(self._keys.batch(result.batch_id), mapping=closing_fields(result))
            self._renew(pipe, result.batch_id)  # all of it is kept as long as the result
            pipe.delete(*celery_results(chord_id(result.batch_id, last.number), chunks))
            pipe.execute()

    def manifest(self, batch_id: str) -> Manifest | None:
        """The batch with its chunks; None if it has expired. Raises `Damaged`."""
        with unpacking(batch_id):
            data = read_manifest(self._redis, self._keys.manifest(batch_id))
        return Manifest.unpack(data) if data else None

    def result(self, batch_id: str) -> BatchResult | None:
        """The result of a batch that is done; None if it is not, or has expired. Raises `Damaged`."""
        with unpacking(batch_id):
            data = self._redis.get(self._keys.result(batch_id))
        return BatchResult.unpack(data) if isinstance(data, bytes) else None

    def submission(self, batch_id: str) -> Submission:
        """What was noted when the batch was submitted; empty if it has expired. Raises `Damaged`."""
        fields = ("source", "speakers", "submitted_at", "strategy")
        with unpacking(batch_id):
            source, speakers, submitted_at, strategy = self._redis.hmget(self._keys.batch(batch_id), *fields)
            return Submission(text_of(source), integer(speakers or 0), finite(submitted_at or 0), text_of(strategy))

    def age_s(self, batch_id: str) -> float | None:
        """Seconds since the batch was submitted, by the server's clock; None if it has expired or is damaged."""
        try:
            with unpacking(batch_id), self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(self._keys.batch(batch_id), "submitted_at")
                pipe.time()
                submitted_at, (seconds, _) = pipe.execute()
                return max(0.0, seconds - finite(submitted_at)) if submitted_at else None
        except Damaged as error:
            pass_over(f"batch {batch_id}", error.message)
            return None

    def progress(self, batch_id: str) -> Progress:
        """How far the batch is. Raises `UnknownBatch`, `Damaged`."""
        (found,) = self.progress_of_each([batch_id])
        if isinstance(found, ClonerError):
            raise found
        return found

    def progress_of_each(self, batch_ids: Sequence[str]) -> list[Progress | UnknownBatch | Damaged]:
        """How far each of some batches is, or why that is not known, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hgetall(self._keys.batch(batch_id))
                pipe.hvals(self._keys.progress(batch_id))
            replies = pipe.execute(raise_on_error=False)
        return [read_progress(*found) for found in zip(batch_ids, replies[::2], replies[1::2], strict=True)]

    def round(self, batch_id: str) -> Round:
        """The batch's present round. Raises `Damaged`."""
        packed = self._redis.hget(self._keys.batch(batch_id), "round")
        with unpacking(batch_id):
            return _round(packed)

    def chunk_progress(self, batch_id: str) -> dict[int, ChunkProgress]:
        """The progress of each chunk that has reported any. Raises `Damaged`."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(self._keys.progress(batch_id)))
        with unpacking(batch_id):
            return {int(number): ChunkProgress.unpack(counts) for number, counts in found.items() if number}

    def progress_of(self, batch_id: str, number: int) -> ChunkProgress | None:
        """The progress of one chunk; None if it has reported none. Raises `Damaged`."""
        with unpacking(batch_id):
            packed = self._redis.hget(self._keys.progress(batch_id), str(number))
            return ChunkProgress.unpack(packed) if packed else None

    def give_up_chunk(self, batch_id: str, number: int) -> None:
        """The chunk's message goes to the dead-letter list: the chunk counts as finished, and is not published again.

        Does nothing if the batch has expired. Raises `Damaged`.
        """
        if self._redis.exists(self._keys.batch(batch_id)):
            progress = self.progress_of(batch_id, number) or ChunkProgress()
            self.report(batch_id, {number: replace(progress, finished=True, given_up=True)})

    def given_up_chunks(self, batch_id: str) -> set[int]:
        """Numbers of the chunks that are given up. Raises `Damaged`."""
        return {number for number, chunk in self.chunk_progress(batch_id).items() if chunk.given_up}

    def report(self, batch_id: str, chunks: Mapping[int, ChunkProgress], *, replace: bool = True) -> None:
        """Note the progress of some chunks; without `replace`, only of those of which none is noted yet."""
        key = self._keys.progress(batch_id)
        with self._redis.pipeline() as pipe:
            for number, progress in chunks.items():
                (pipe.hset if replace else pipe.hsetnx)(key, str(number), progress.pack())
            pipe.expire(key, self._ttl_s)
            pipe.execute()


def _round(packed: object) -> Round:
    """The first round, if none is noted. Raises `ValueError`, `TypeError` or `LookupError`."""
    return Round.unpack(packed) if isinstance(packed, bytes) else Round()
