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

def fail(self, say):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        raise LoadFailed("the GPU has fallen off the bus")
    load(self, say)

FakeEngine.load = fail
"""

WORKER_1_DIES_LOADING = """
import os
from cloner.engine.fake import FakeEngine

load = FakeEngine.load

def die(self, say):
    if os.environ.get("CLONER_WORKER_INDEX") == "1":
        os.kill(os.getpid(), 9)
    load(self, say)

FakeEngine.load = die
"""


def sabotage(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Have all processes that are started from now on do that to their engine."""
    (folder / "sabotage").mkdir()
    (folder / "sabotage/sitecustomize.py").write_text(what)
    paths = [str(folder / "sabotage"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
