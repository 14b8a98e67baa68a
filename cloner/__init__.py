"""Batch voice cloning on your own GPU boxes.

from cloner import Client

result = Client("redis://:password@gpu-box:6379/0").submit("batch.yaml").wait()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloner.batch import AudioFormat, AudioOptions, Batch, Generation, Reference, ReferenceKind, Segment, Speaker
    from cloner.client.assignment import Strategy
    from cloner.client.batch_handle import BatchHandle
    from cloner.client.client import Client
    from cloner.client.estimate import Estimate
    from cloner.errors import (
        BadBatch,
        BadReference,
        BadSetting,
        BatchBroken,
        BrokerUnreachable,
        ClonerError,
        Damaged,
        NoWorkers,
        OutputsTaken,
        UnknownBatch,
        UsageError,
        WrongCheckpoint,
    )
    from cloner.input.batch_file import read_batch
    from cloner.protocol.results import BatchResult, SegmentError, Suspect
    from cloner.settings import Settings
    from cloner.state.progress import Progress

# Modules are imported at the first use of a name, so that `import cloner` is fast and loads nothing else.
_MODULES = {
    "AudioFormat": "batch",
    "AudioOptions": "batch",
    "BadBatch": "errors",
    "BadReference": "errors",
    "BadSetting": "errors",
    "Batch": "batch",
    "BatchBroken": "errors",
    "BatchHandle": "client.batch_handle",
    "BatchResult": "protocol.results",
    "BrokerUnreachable": "errors",
    "Client": "client.client",
    "ClonerError": "errors",
    "Damaged": "errors",
    "Estimate": "client.estimate",
    "Generation": "batch",
    "NoWorkers": "errors",
    "OutputsTaken": "errors",
    "Progress": "state.progress",
    "Reference": "batch",
    "ReferenceKind": "batch",
    "Segment": "batch",
    "SegmentError": "protocol.results",
    "Settings": "settings",
    "Speaker": "batch",
    "Strategy": "client.assignment",
    "Suspect": "protocol.results",
    "UnknownBatch": "errors",
    "UsageError": "errors",
    "WrongCheckpoint": "errors",
    "read_batch": "input.batch_file",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
