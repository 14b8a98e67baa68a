"""Waiting for a condition that nothing announces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TIMEOUT_S = 120.0
"""Seconds until a wait fails its test."""


def eventually(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Poll until the condition holds; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {timeout_s:g} s"
        threading.Event().wait(0.05)
