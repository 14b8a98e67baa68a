"""Manifests in Redis: a string each, which is written and read in pieces."""

from __future__ import annotations

from typing import cast

from redis import Redis

PIECE_BYTES = 1024**2
"""Bytes that are written or read at once: a manifest of 23 MB, of a million segments, kept Redis from answering for a
quarter of a second when it was written, and for 20 to 70 ms each time it was read."""


def write_manifest(redis: Redis, key: str, data: bytes, ttl_s: int) -> None:
    """Write a manifest, which expires unless it is renewed. Redis serves no client while it writes a command to its
    append-only file.

    Should this process die meanwhile, what it has written expires: a batch that the list of all does not have is none.
    """
    redis.set(key, data[:PIECE_BYTES], ex=ttl_s)
    for start in range(PIECE_BYTES, len(data), PIECE_BYTES):
        redis.append(key, data[start : start + PIECE_BYTES])


def read_manifest(redis: Redis, key: str) -> bytes:
    """A manifest; empty if it has expired. `redis` must not decode responses."""
    pieces: list[bytes] = []
    while not pieces or len(pieces[-1]) == PIECE_BYTES:
        start = len(pieces) * PIECE_BYTES
        pieces.append(cast("bytes", redis.getrange(key, start, start + PIECE_BYTES - 1)))
    return b"".join(pieces)
