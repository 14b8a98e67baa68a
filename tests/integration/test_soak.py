"""A short run of ``make soak``: no leaks. The batched engine's caches need 150 segments to fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.soak.scenario import batched_engine, fake_engine, soak

pytestmark = pytest.mark.slow

TTL_S = 600
"""Longer than the tests take on a slow machine: no batch may expire while it runs."""


def test_a_thousand_segments_leak_nothing(valkey_url: str, tmp_path: Path) -> None:
    result = soak(fake_engine(valkey_url, 1000, TTL_S), tmp_path)
    assert result.problems == []
    assert result.segments == 1000


@pytest.mark.timeout(900)
def test_the_batched_engine_leaks_nothing(valkey_url: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = soak(batched_engine(valkey_url, 800, TTL_S, tiny_checkpoint), tmp_path)
    assert result.problems == []
    assert result.segments == 800
