"""What several tests of the worker share."""

from __future__ import annotations

from tests.support.workers import chunk, disk_tried_often, worker, workers  # noqa: F401
