"""The short form of ``make soak``: nothing grows, nothing is left. The batched engine needs 150 segments to be warm."""

from __future__ import annotations

from pathlib import Path

from ops.soak.course import batched_engine, fake_engine, soak

TTL_S = 600
"""Nothing is seen to expire here, and no batch may expire on a slow machine while it runs."""


def test_a_thousand_segments_leave_nothing_behind(valkey_url: str, tmp_path: Path) -> None:
    soaked = soak(fake_engine(valkey_url, 1000, TTL_S), tmp_path)
    assert soaked.faults == []
    assert soaked.segments == 1000


def test_the_batched_engine_keeps_nothing_of_what_it_has_spoken(
    valkey_url: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    soaked = soak(batched_engine(valkey_url, 800, TTL_S, tiny_checkpoint), tmp_path)
    assert soaked.faults == []
    assert soaked.segments == 800
