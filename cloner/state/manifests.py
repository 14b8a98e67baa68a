"""Manifests in Redis: a string each, which is written in pieces."""

from __future__ import annotations

from redis import Redis

PIECE_BYTES = 1024**2
"""Bytes that are written at once: a manifest of 23 MB, of a million segments, kept Redis from answering for a quarter
of a second."""


def write_manifest(redis: Redis, key: str, data: bytes, ttl_s: int) -> None:
    """Write a manifest, which expires unless it is renewed. Redis answers nobody while it writes a command to its
    append-only file.

    Should this process die meanwhile, what it has written expires: a batch that the list of all does not have is none.
    """
    redis.set(key, data[:PIECE_BYTES], ex=ttl_s)
    for start in range(PIECE_BYTES, len(data), PIECE_BYTES):
        redis.append(key, data[start : start + PIECE_BYTES])
