"""Integration tests run real processes on a real Valkey."""

from __future__ import annotations

from tests.support.bad_inputs import batch_folder, command_line, idle_fleet, refuse, run_command  # noqa: F401
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
from tests.support.hostile_scene import scene  # noqa: F401
