"""Changes to the product's modules inside the processes that a test starts; the product needs no hooks for tests.

Python imports ``sitecustomize`` in every process that it starts; the one written here installs an import hook, which
changes a module as soon as a process imports it.
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
import time


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
    """True at the first call with this name in all processes."""
    try:
        os.close(os.open(os.path.join({folder!r}, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def wait_until(name):
    """Wait until the test has called `allow` with this name."""
    while not os.path.exists(os.path.join({folder!r}, name)):
        time.sleep(0.05)


def change(module):
{change}

sys.meta_path.insert(0, Faults())
'''


class ModulePatcher:
    """Changes one module in every process that is started until the test ends."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def __call__(self, module: str, change: str) -> None:
        """Run the Python code `change` after `module` is imported; it may use `module`, `die()`, `once(name)` and
        `wait_until(name)`."""
        self._folder.mkdir(exist_ok=True)
        body = "".join(f"    {line}\n" for line in dedent(change).splitlines())
        text = _SITECUSTOMIZE.format(module=module, folder=str(self._folder), change=body)
        (self._folder / "sitecustomize.py").write_text(text)
        paths = [str(self._folder), os.environ.get("PYTHONPATH", "")]
        self._monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))

    def allow(self, name: str) -> None:
        """Let processes that wait until this go on."""
        (self._folder / name).touch()
