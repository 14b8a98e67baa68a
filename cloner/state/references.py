"""References on their way to the workers: their bytes, under their content hash."""

from __future__ import annotations

from collections.abc import Iterable

from redis import Redis

from cloner.state.keys import RedisKeys

MOST_TOGETHER = 1000
TOGETHER_BYTES = 1024**2
"""The most references, and bytes of them, that are sent without waiting for Redis. One may be longer."""


class ReferenceStore:
    """`redis` must not decode responses. Every method raises `RedisError` where Redis cannot be used."""

    def __init__(self, redis: Redis, keys: RedisKeys, batch_ttl_s: int) -> None:
        """A reference is kept for twice `batch_ttl_s`: it must outlast the batch, however long that waits in its
        queue."""
        self._redis = redis
        self._keys = keys
        self._ttl_s = 2 * batch_ttl_s

    def put(self, digest: str, data: bytes) -> None:
        """Keep a reference, or keep it for longer."""
        self._redis.set(self._keys.reference(digest), data, ex=self._ttl_s)

    def put_all(self, references: Iterable[tuple[str, bytes]]) -> None:
        """Keep references, each by its digest, or keep them for longer: `MOST_TOGETHER` or `TOGETHER_BYTES` of them in
        one round trip, since a batch may have 100,000, and its client may be far from Redis."""
        with self._redis.pipeline(transaction=False) as pipe:
            size = 0
            for digest, data in references:
                pipe.set(self._keys.reference(digest), data, ex=self._ttl_s)
                size += len(data)
                if len(pipe) >= MOST_TOGETHER or size >= TOGETHER_BYTES:
                    pipe.execute()
                    size = 0
            pipe.execute()

    def get(self, digest: str) -> bytes | None:
        """A reference's bytes; None if they have expired."""
        data = self._redis.get(self._keys.reference(digest))
        return data if isinstance(data, bytes) else None

    def get_all(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Those of some references that are there, in one round trip."""
        wanted = list(digests)
        if not wanted:
            return {}
        found = self._redis.mget([self._keys.reference(digest) for digest in wanted])
        return {digest: data for digest, data in zip(wanted, found, strict=True) if isinstance(data, bytes)}

    def renew(self, digests: Iterable[str]) -> list[str]:
        """Keep references for one more batch; returns those that have expired."""
        wanted = list(digests)
        with self._redis.pipeline(transaction=False) as pipe:
            for digest in wanted:
                pipe.expire(self._keys.reference(digest), self._ttl_s)
            kept = pipe.execute()
        return [digest for digest, is_there in zip(wanted, kept, strict=True) if not is_there]
