"""Batch voice cloning on people's own GPU boxes.

from cloner import Client

result = Client("redis://:password@gpu-box:6379/0").submit("batch.yaml").wait()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloner.batch import Batch, Generation, Reference, ReferenceKind, Segment, Speaker
    from cloner.batchfile import read_batch
    from cloner.client import Client
    from cloner.errors import BadBatch, ClonerError
    from cloner.forecast import Forecast
    from cloner.handle import BatchHandle
    from cloner.plan import Strategy
    from cloner.progress import Progress
    from cloner.results import BatchResult, SegmentError
    from cloner.settings import Settings

# Imported when first asked for: `import cloner` costs nothing, and no more than what is used is loaded.
_HOMES = {
    "BadBatch": "errors",
    "Batch": "batch",
    "BatchHandle": "handle",
    "BatchResult": "results",
    "Client": "client",
    "ClonerError": "errors",
    "Forecast": "forecast",
    "Generation": "batch",
    "Progress": "progress",
    "Reference": "batch",
    "ReferenceKind": "batch",
    "Segment": "batch",
    "SegmentError": "results",
    "Settings": "settings",
    "Speaker": "batch",
    "Strategy": "plan",
    "read_batch": "batchfile",
}

__all__ = [
    "BadBatch",
    "Batch",
    "BatchHandle",
    "BatchResult",
    "Client",
    "ClonerError",
    "Forecast",
    "Generation",
    "Progress",
    "Reference",
    "ReferenceKind",
    "Segment",
    "SegmentError",
    "Settings",
    "Speaker",
    "Strategy",
    "read_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
