"""Faults done to real processes: the fixtures of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import client, launch, settings, tiny_checkpoint  # noqa: F401
