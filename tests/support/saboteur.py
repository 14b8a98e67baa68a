"""A fake engine that is broken on purpose, inside real workers: Python runs a `sitecustomize` before anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

WORKER_1_CANNOT_LOAD = """
import os
from cloner.engine.fake import FakeEngine
from cloner.errors import LoadFailed

load = FakeEngine.load

def fail(self, log):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        raise LoadFailed("the GPU has fallen off the bus")
    load(self, log)

FakeEngine.load = fail
"""

WORKER_1_DIES_LOADING = """
import os
from cloner.engine.fake import FakeEngine

load = FakeEngine.load

def die(self, log):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        os.kill(os.getpid(), 9)
    load(self, log)

FakeEngine.load = die
"""

NO_MEMORY_TWICE = """
import pathlib
from cloner.engine.fake import FakeEngine
from cloner.errors import LoadFailed

load = FakeEngine.load

def fail_twice(self, log):
    for number in range(4):
        try:
            pathlib.Path(__file__).with_name(f"load-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        if number in (1, 2):
            raise LoadFailed("CUDA out of memory")
        break
    load(self, log)

FakeEngine.load = fail_twice
"""
"""The second and the third load, as where the driver still holds a killed process's memory."""


def sabotage(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Have all processes that are started from now on do that to their engine."""
    (folder / "sabotage").mkdir()
    (folder / "sabotage/sitecustomize.py").write_text(what)
    paths = [str(folder / "sabotage"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
