"""The names that `cloner` exports, and that none of their modules is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cloner

EXPORTS = [
    "AudioFormat",
    "AudioOptions",
    "BadBatch",
    "BadReference",
    "BadSetting",
    "Batch",
    "BatchBroken",
    "BatchHandle",
    "BatchResult",
    "BrokerUnreachable",
    "Client",
    "ClonerError",
    "Damaged",
    "Estimate",
    "Generation",
    "NoWorkers",
    "OutputsTaken",
    "Progress",
    "Reference",
    "ReferenceKind",
    "Segment",
    "SegmentError",
    "Settings",
    "Speaker",
    "Strategy",
    "Suspect",
    "UnknownBatch",
    "UsageError",
    "WrongCheckpoint",
    "read_batch",
]
"""The public API. A name that is removed or renamed here breaks its users' programs."""


def test_the_exports_are_those_of_the_public_api() -> None:
    assert cloner.__all__ == EXPORTS


def test_every_exported_name_exists() -> None:
    assert set(cloner.__all__) == set(cloner._MODULES)
    for name in cloner.__all__:
        assert getattr(cloner, name).__module__.startswith("cloner.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = cloner.Nonsense


def test_importing_the_package_loads_nothing_else() -> None:
    script = "import sys, cloner; print(sorted({'celery', 'numpy', 'redis', 'torch'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
