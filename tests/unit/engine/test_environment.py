"""What is noted of a worker's device."""

from __future__ import annotations

import os

import pytest

from cloner.engine.environment import environment_of
from cloner.engine.fake import FakeEngine
from cloner.settings import EngineName, Settings


@pytest.mark.parametrize(
    ("variable", "threads"), [("4,2", 4), ("3", 3), (" 2 ", 2), ("", 0), ("many", 0), ("0", 0), ("-1,2", 0)]
)
def test_threads_are_those_of_the_outer_level_of_openmp(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    settings = Settings(engine=EngineName.BATCHED)
    noted = environment_of(settings, FakeEngine(), fingerprint="f", codec="c", gpu="")
    assert noted.threads == (threads or os.cpu_count())
