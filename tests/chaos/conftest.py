"""Chaos tests inject faults into real processes."""

from __future__ import annotations

from tests.support.fixtures import (  # noqa: F401
    alone,
    client,
    launch,
    launch_loaded,
    launch_reviewers,
    patch_module,
    server,
    settings,
    tiny_checkpoint,
)
