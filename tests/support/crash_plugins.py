"""Faults from within: what a test puts into real worker processes, so that no hook for tests is in the product.

Python imports ``sitecustomize`` in every process that it starts; the one made here waits until a worker imports a
module, and then changes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

_SITECUSTOMIZE = '''\
import importlib.abc
import importlib.machinery
import os
import signal
import sys


class Faults(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = and_change
        return spec


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def once(name):
    """Whether nobody has asked for this name before, in any process."""
    try:
        os.close(os.open(os.path.join({folder!r}, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def change(module):
{change}

sys.meta_path.insert(0, Faults())
'''


class Plugin:
    """Changes a module in every process that is started from now on, until the test ends."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def __call__(self, module: str, change: str) -> None:
        """`change` is Python, in which `module` is the imported module; `die()` and `once(name)` are at hand."""
        self._folder.mkdir(exist_ok=True)
        body = "".join(f"    {line}\n" for line in dedent(change).splitlines())
        text = _SITECUSTOMIZE.format(module=module, folder=str(self._folder), change=body)
        (self._folder / "sitecustomize.py").write_text(text)
        paths = [str(self._folder), os.environ.get("PYTHONPATH", "")]
        self._monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
