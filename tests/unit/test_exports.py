"""What `cloner` exports: no more, no less, and nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cloner


def test_every_name_that_is_exported_is_there() -> None:
    assert set(cloner.__all__) == set(cloner._HOMES)
    for name in cloner.__all__:
        assert getattr(cloner, name).__module__.startswith("cloner.")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = cloner.Nonsense


def test_importing_loads_nothing_that_is_not_asked_for() -> None:
    script = "import sys, cloner; print(sorted({'celery', 'numpy', 'redis', 'torch'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
